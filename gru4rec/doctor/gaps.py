"""Time between the clicks of a session: where one visit ends and another begins.

The suggested cut comes from the histogram of the logarithm of the gaps, ten bins a decade, smoothed. Gaps of one visit
make one hill, with its top at seconds or minutes. Where the session column is really a user, the nights and weeks
between visits make a second hill beyond three hours, and the cut is the valley between the two tops. Without such a
second hill somebody has cut the sessions already, and no cut is needed.
"""

from __future__ import annotations

import numpy as np

from gru4rec.doctor.findings import Checked, Finding, percent, quantiles
from gru4rec.doctor.ordered import OrderedLog
from gru4rec.doctor.units import Timing, plain_duration, spoken

BINS_PER_DECADE = 10

VISIT_S = 3 * 3_600.0
"""Nobody pauses so long within a visit; sites end one after half an hour, and the longest gap on public click logs of
sessions is 2.6 hours."""

USER_FRAC = 0.01
"""Share of gaps beyond that from which on sessions are many visits: one visit in a hundred pauses at most."""

LEAST_CUT_S = 1_800.0
"""The convention of web analytics; no suggestion is shorter."""


NO_GAP_FRAC = 0.9
"""Where more of the gaps than this are 0, times are too coarse for the others to say anything about gaps."""


def check_gaps(ordered: OrderedLog, timing: Timing, raw: str) -> Checked:
    """Describe the gaps, say whether sessions need a cut, and suggest where.

    Args:
        ordered: The log.
        timing: Its clock.
        raw: The words by which ``gru4rec prepare`` reads the log, its sessions taken for users.
    """
    gap = timing.seconds(np.diff(ordered.time_E)[ordered.pairs])
    if gap is None:
        return Checked({"gap_s": {}})
    n_gaps, gap = len(gap), gap[gap > 0]  # a logarithm has no place for none; they do count as short
    if not len(gap):
        return Checked({"gap_s": {}})
    long_frac = float(np.count_nonzero(gap > VISIT_S) / n_gaps)
    is_user_like = long_frac >= USER_FRAC
    if not is_user_like and n_gaps - len(gap) > NO_GAP_FRAC * n_gaps:
        return Checked({"gap_s": {}})
    edges, histogram = _histogram(gap)
    numbers = {"gap_s": quantiles(gap), "beyond_3h_frac": long_frac, "suggested_cut": None, "suggested_cut_s": None}
    curves = {"gap_edges": edges, "gap_histogram": histogram}
    if not is_user_like:
        return Checked(numbers, [], curves)
    cut_s = valley(edges, histogram)
    numbers |= {"suggested_cut": plain_duration(cut_s), "suggested_cut_s": cut_s}
    finding = _user_column(gap, long_frac, f"gru4rec prepare {raw} --gap {plain_duration(cut_s)}")
    return Checked(numbers, [finding], curves | {"gap_cut": np.array([cut_s])})


def _histogram(gap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count gaps in seconds by their logarithm; returns (n + 1,) edges in seconds and (n,) counts."""
    log_gap = np.log10(gap)
    low = np.floor(log_gap.min() * BINS_PER_DECADE)
    n_bins = int(np.floor(log_gap.max() * BINS_PER_DECADE) - low) + 1
    place = (np.floor(log_gap * BINS_PER_DECADE) - low).astype(np.int64).clip(0, n_bins - 1)
    return 10 ** ((low + np.arange(n_bins + 1)) / BINS_PER_DECADE), np.bincount(place, minlength=n_bins)


def valley(edges: np.ndarray, histogram: np.ndarray) -> float:
    """Return the gap in seconds between the tops of the hills below and beyond three hours where gaps are rarest.

    Args:
        edges: Float (n + 1,), seconds.
        histogram: Int (n,), with counts beyond three hours.
    """
    smooth = np.convolve(histogram, np.array([1, 2, 3, 2, 1]) / 9, mode="same")
    middle = np.sqrt(edges[1:] * edges[:-1])
    beyond = middle > VISIT_S
    if not beyond.any() or beyond.all():
        return LEAST_CUT_S
    top = int(np.where(beyond, -1, smooth).argmax())
    second = int(np.where(beyond, smooth, -1).argmax())
    lowest = np.flatnonzero(smooth[top : second + 1] == smooth[top : second + 1].min())
    return float(max(middle[top + lowest[len(lowest) // 2]], LEAST_CUT_S))


def _user_column(gap: np.ndarray, long_frac: float, command: str) -> Finding:
    return Finding(
        "sessions-span-visits", "warning",
        f"{percent(long_frac)} of the gaps within sessions are longer than {spoken(VISIT_S)} (median "
        f"{spoken(float(np.median(gap)))}, longest {spoken(float(gap.max()))}): the session column looks like a user "
        f"or a cookie. `{command}` cuts its visits apart",
    )  # fmt: skip
