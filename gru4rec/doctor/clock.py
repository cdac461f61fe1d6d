"""Clock trouble: mixed units, impossible times, holes, a clock that runs backwards, times that order nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from gru4rec.doctor.findings import Checked, Finding, count, percent
from gru4rec.doctor.ordered import TIED_FRAC, OrderedLog
from gru4rec.doctor.units import Timing, spoken
from gru4rec.prepare.times import fits

FAR_SPANS = 1.0
"""Events farther from the middle 98 % of the log than this many times its own span are far away. A shop that grew
slowly has early events, but not from before a second lifetime."""

HOLE_DAYS = 2.0
"""A shorter pause can be a night, a closed Sunday or a day of maintenance."""

HOLE_FRAC = 0.1
"""A pause is a hole if it is this share of the time between the first event and the last: in a log of three months a
week is none, in one of two weeks it is."""

BACKWARDS_FRAC = 0.01
"""A file in which time runs backwards at fewer rows than this is meant to be in time order."""

BACKWARDS_S = 600.0
"""Servers write their events some minutes late; a larger step backwards is a clock that was set, or a joined file."""


def check_clock(ordered: OrderedLog, timing: Timing) -> tuple[Checked, OrderedLog]:
    """Look at the times of a log, in its own order and in the file's.

    Returns:
        What was found, and the log without events at impossible times, so that one fault is told once.
    """
    time_E = ordered.time_E
    if time_E.min() == time_E.max():
        none_E = np.zeros(len(time_E), dtype=bool)
        return Checked(_numbers(ordered, timing, none_E, none_E), [_all_equal(timing, time_E)]), ordered
    other_E = _of_another_unit(ordered, timing)
    far_E = _far(time_E, ~other_E)
    findings = [*_mixed(ordered, timing, other_E), *_far_away(ordered, timing, far_E, other_E)]
    wrong_E = other_E | far_E
    sane = ordered.only(~wrong_E) if wrong_E.any() else ordered
    findings += [*_hole(sane, timing), *_tied(sane.tied_frac), *_backwards(sane, timing)]
    if timing.clock.unit is None:
        findings.append(_order_only(time_E))
    return Checked(_numbers(sane, timing, other_E, far_E), findings), sane


def _numbers(sane: OrderedLog, timing: Timing, other_E: np.ndarray, far_E: np.ndarray) -> dict[str, Any]:
    return {
        "unit": timing.clock.unit or "order only", "n_rows_by_unit": timing.n_rows,
        "first": timing.clock.moment(sane.time_E.min()), "last": timing.clock.moment(sane.time_E.max()),
        "equal_neighbour_times_frac": sane.tied_frac,
        "n_left_out": {"another_unit": int(np.count_nonzero(other_E)), "far_away": int(np.count_nonzero(far_E))},
    }  # fmt: skip


def _all_equal(timing: Timing, time_E: np.ndarray) -> Finding:
    return Finding(
        "all-times-equal", "warning",
        f"all times are {timing.clock.moment(time_E[0])}. Events are trained on in the order of the file, and a split "
        "by time is impossible; give the column that holds when events happened (-tk)",
    )  # fmt: skip


def _order_only(time_E: np.ndarray) -> Finding:
    return Finding(
        "order-only-times", "note",
        f"times run from {time_E.min():,.10g} to {time_E.max():,.10g}: no seconds, ms, us or ns since 1970, so they "
        "are taken as a mere order. Gaps, speeds and days are unknown; training needs none of them",
    )  # fmt: skip


def _of_another_unit(ordered: OrderedLog, timing: Timing) -> np.ndarray:
    """Return bool (E,): times whose size says another unit than most of them."""
    others = [fits(ordered.time_E, unit) for unit in timing.n_rows if unit != timing.clock.unit]
    return np.any(others, axis=0) if others else np.zeros(ordered.n_events, dtype=bool)


def _mixed(ordered: OrderedLog, timing: Timing, other_E: np.ndarray) -> list[Finding]:
    odd = {unit: n for unit, n in timing.n_rows.items() if unit != timing.clock.unit}
    if not odd:
        return []
    n_most = timing.n_rows[str(timing.clock.unit)]
    parts = " and ".join(f"{n:,} like {unit}" for unit, n in odd.items())
    return [Finding(
        "mixed-time-units", "error",
        f"{count(n_most, 'time')} {'looks' if n_most == 1 else 'look'} like {timing.clock.unit} since 1970, "
        f"{parts} (first in row {int(ordered.row_E[other_E].min()) + 1:,}). Bring all to one unit: sessions "
        "are sorted by them",
    )]  # fmt: skip


def _far(time_E: np.ndarray, plausible_E: np.ndarray) -> np.ndarray:
    """Return bool (E,): events at a time that most of the log is far from, such as 1970."""
    low, high = np.quantile(time_E[plausible_E], [0.01, 0.99])
    margin = FAR_SPANS * max(high - low, 1)
    far: np.ndarray = plausible_E & ((time_E < low - margin) | (time_E > high + margin))
    return far


def _far_away(ordered: OrderedLog, timing: Timing, far_E: np.ndarray, other_E: np.ndarray) -> list[Finding]:
    if not far_E.any():
        return []
    far, near = ordered.time_E[far_E], ordered.time_E[~(far_E | other_E)]
    first, last, low, high = (timing.clock.moment(time) for time in (far.min(), far.max(), near.min(), near.max()))
    when = f"at {first}" if first == last else f"between {first} and {last}"
    return [Finding(
        "far-away-times", "warning",
        f"{count(len(far), 'event')} ({percent(len(far) / ordered.n_events)}), first in row "
        f"{int(ordered.row_E[far_E].min()) + 1:,}, lie {when}, far from all others, which lie between {low} and "
        f"{high}. A clock that was not set, or a wrong date: mend or drop them, since sessions are trained on, and "
        "split, by time",
    )]  # fmt: skip


def _hole(sane: OrderedLog, timing: Timing) -> list[Finding]:
    """Report the longest time without any event."""
    time = np.sort(sane.time_E)
    pause = np.diff(time)
    seconds = timing.seconds(pause)
    if seconds is None:
        return []
    at = int(pause.argmax())
    if seconds[at] < HOLE_DAYS * 86_400 or pause[at] < HOLE_FRAC * (time[-1] - time[0]):
        return []
    moments = [timing.clock.moment(value) for value in time[at : at + 2]]
    return [Finding(
        "hole-in-time", "warning",
        f"no event for {spoken(float(seconds[at]))}, from {moments[0]} to {moments[1]}; {count(at + 1, 'event')} "
        f"before it and {len(time) - at - 1:,} after. A clock that jumped, a file that is missing, or logs of two "
        "periods in one",
    )]  # fmt: skip


def _tied(tied_frac: float) -> list[Finding]:
    if tied_frac <= TIED_FRAC:
        return []
    return [Finding(
        "tied-times", "warning",
        f"{percent(tied_frac)} of neighbours in a session have the same time, so the order of the file decides which "
        "came first. Give times in seconds or finer, or a column that numbers the events",
    )]  # fmt: skip


def _backwards(ordered: OrderedLog, timing: Timing) -> list[Finding]:
    """Report where time runs backwards in a file that is otherwise in time order.

    In a file that lists its sessions one after the other only steps within a session count.
    """
    by_row = np.argsort(ordered.row_E)
    time, session = ordered.time_E[by_row], ordered.session_E[by_row]
    step, same = np.diff(time), np.diff(session) == 0
    is_grouped = np.count_nonzero(~same) + 1 == ordered.n_sessions
    back = (step < 0) & same if is_grouped else step < 0
    n_back = int(np.count_nonzero(back))
    if not n_back or n_back > BACKWARDS_FRAC * len(step):
        return []
    largest = int(np.where(back, step, 0).argmin())
    seconds = timing.seconds(step[largest : largest + 1])
    size = f"{-step[largest]:,.10g} ticks" if seconds is None else spoken(float(-seconds[0]))
    is_small = seconds is not None and -seconds[0] <= BACKWARDS_S
    place = "within a session " if is_grouped else ""
    return [Finding(
        "time-runs-backwards", "note" if is_small or is_grouped else "warning",
        f"the file is in time order, but for {count(n_back, 'row')} where time runs backwards {place}by up to {size} "
        f"(row {int(ordered.row_E[by_row][largest + 1]) + 1:,}). Events are sorted by time: make sure that the clock "
        "is right and not the file",
    )]  # fmt: skip
