"""Does the log change over time: popularity, volume, items that were not there before.

Popularity of the first quarter of sessions is set against the last quarter's as the share of clicks that would have to
move to other items (total variation). Small samples differ by chance, so the two quarters are also mixed and split at
random, whole sessions at a time; what that gives is taken off: drift = (moved - by chance) / (1 - by chance). So 0 is
a log that does not change, whatever its size, and 1 one whose items are all replaced.
"""

from __future__ import annotations

import numpy as np

from gru4rec.doctor.findings import Checked, Finding, percent
from gru4rec.doctor.ordered import OrderedLog
from gru4rec.doctor.units import Timing

SEED = 42

PART_FRAC = 0.25
"""Share of sessions in the first part, and in the last."""

N_SPLITS = 5
"""Random splits for the share that moves by chance; their spread is small beside their mean."""

DRIFT_NOTE, DRIFT_WARN = 0.2, 0.5
"""Drift from which on it is worth a note, a warning. Four public shop logs of a week to six months have 0.29 to 0.44;
beyond 0.5 the early part of a log mostly teaches what is no longer so."""

N_SPREADS = 5.0
"""Drift must exceed chance by so many spreads of the random splits."""

JUMP_RATIO = 3.0
"""Ratio of median daily events, the week after against the week before. Weekdays and sales move them by less."""

JUMP_DAYS, MIN_JUMP_DAYS = 7, 3
"""Days before and after that are compared: a week, so that weekends stand on both sides; on short logs fewer."""

MIN_DAILY_EVENTS = 30
"""Fewer events a day than this jump by chance."""

MEDIAN_VARIANCE = np.pi / 2
"""Variance of a median over that of a mean, for many values of a normal distribution."""

LAST_FRAC = 0.1
"""The last tenth of sessions stands for the time after training."""

COLD_WARN_FRAC = 0.1
"""Share of later events on new items from which on a model that knows only old ones misses what matters."""


def check_drift(ordered: OrderedLog, timing: Timing) -> Checked:
    """Compare the first part of the log with the last."""
    if ordered.time_E.min() == ordered.time_E.max():
        return Checked({})
    numbers, curves, findings = _popularity(ordered)
    cold, cold_chance = _cold_in_last_part(ordered)
    numbers |= {"cold_last_tenth_frac": cold, "cold_by_chance_frac": cold_chance}
    if cold - cold_chance >= COLD_WARN_FRAC:
        findings.append(_cold_finding(cold, cold_chance))
    jump = _volume_jump(ordered, timing)
    if jump is not None:
        numbers["volume_jump"] = jump[0]
        findings += _volume_finding(*jump, timing)
    return Checked(numbers, findings, curves)


def _popularity(ordered: OrderedLog) -> tuple[dict[str, float], dict[str, np.ndarray], list[Finding]]:
    n_part = max(int(ordered.n_sessions * PART_FRAC), 1)
    early = slice(0, ordered.offsets[n_part])
    late = slice(ordered.offsets[ordered.n_sessions - n_part], ordered.n_events)
    first_N, last_N = (np.bincount(ordered.item_E[part], minlength=ordered.n_items) for part in (early, late))
    item = np.r_[ordered.item_E[early], ordered.item_E[late]]
    session = np.r_[ordered.session_E[early], ordered.session_E[late] - (ordered.n_sessions - 2 * n_part)]
    rng = np.random.default_rng(SEED)
    by_chance = [_moved_at_random(item, session, 2 * n_part, ordered.n_items, rng) for _ in range(N_SPLITS)]
    chance, spread, moved = float(np.mean(by_chance)), float(np.std(by_chance, ddof=1)), _moved(first_N, last_N)
    drift = (moved - chance) / max(1 - chance, 1e-9)
    numbers = {"popularity_drift": drift, "moved_frac": moved, "moved_by_chance_frac": chance}
    findings = []
    if drift >= DRIFT_NOTE and moved - chance > N_SPREADS * spread:
        findings.append(_drift_finding(drift, moved, chance))
    return numbers, {"first_N": first_N, "last_N": last_N}, findings


def _moved(first_N: np.ndarray, last_N: np.ndarray) -> float:
    """Return the total variation between two counts of items."""
    return float(0.5 * np.abs(first_N / max(first_N.sum(), 1) - last_N / max(last_N.sum(), 1)).sum())


def _moved_at_random(
    item: np.ndarray, session: np.ndarray, n_sessions: int, n_items: int, rng: np.random.Generator
) -> float:
    is_first = (rng.permutation(n_sessions) < n_sessions // 2)[session]
    return _moved(np.bincount(item[is_first], minlength=n_items), np.bincount(item[~is_first], minlength=n_items))


def _drift_finding(drift: float, moved: float, chance: float) -> Finding:
    is_much = drift >= DRIFT_WARN
    advice = "Train on the recent part, or see what was replaced" if is_much else "Usual in a shop; train often"
    return Finding(
        "popularity-drift", "warning" if is_much else "note",
        f"between the first quarter of sessions and the last, {percent(moved)} of clicks moved to other items, where "
        f"chance moves {percent(chance)}: a drift of {drift:.2f} (0 none, 1 all new). {advice}",
    )  # fmt: skip


def _cold_in_last_part(ordered: OrderedLog) -> tuple[float, float]:
    """Return the share of events in the last sessions whose items were not seen before, and in as many random ones."""
    n_last = max(int(ordered.n_sessions * LAST_FRAC), 1)
    is_last_S = np.arange(ordered.n_sessions) >= ordered.n_sessions - n_last
    random_S = np.random.default_rng(SEED).permutation(is_last_S)
    late, at_random = (_cold_frac(ordered, is_late_S[ordered.session_E]) for is_late_S in (is_last_S, random_S))
    return late, at_random


def _cold_frac(ordered: OrderedLog, late_E: np.ndarray) -> float:
    support_N = np.bincount(ordered.item_E[~late_E], minlength=ordered.n_items)
    return float((support_N[ordered.item_E[late_E]] == 0).mean())


def _cold_finding(cold: float, chance: float) -> Finding:
    return Finding(
        "cold-items", "warning",
        f"{percent(cold)} of events in the last tenth of sessions are on items not seen before it ({percent(chance)} "
        "in a random tenth). A model cannot recommend what it was not trained on: train often, and show new items by "
        "other means",
    )  # fmt: skip


def _volume_jump(ordered: OrderedLog, timing: Timing) -> tuple[float, int, float, float] | None:
    """Return the greatest jump of daily volume: ratio (at least 1), day, medians before and after; None if unknown."""
    seconds = timing.seconds(ordered.time_E)
    if seconds is None:
        return None
    day = (seconds // 86_400).astype(np.int64)
    if np.ptp(day) > 100_000:
        return None
    counts = np.bincount(day - day.min())
    date = np.flatnonzero(counts)[1:-1]  # the first and the last are parts of days; one without events is a hole
    width = min(JUMP_DAYS, len(date) // 2)
    if width < MIN_JUMP_DAYS:
        return None
    medians = np.median(np.lib.stride_tricks.sliding_window_view(counts[date], width), axis=1)
    before, after = medians[:-width], medians[width:]
    ratio = np.maximum(before, after) / np.maximum(np.minimum(before, after), 1)
    by_chance = np.sqrt((before + after) * _dispersion(ordered) * MEDIAN_VARIANCE / width)
    is_chance = np.abs(after - before) <= N_SPREADS * by_chance
    ratio[is_chance | (np.maximum(before, after) < MIN_DAILY_EVENTS)] = 1.0
    at = int(ratio.argmax())
    return float(ratio[at]), int(day.min() + date[at + width]), float(before[at]), float(after[at])


def _dispersion(ordered: OrderedLog) -> float:
    """Return variance over mean of daily events where sessions come at random: E[length^2] / E[length].

    The longest sessions, which may be programs, count as the 99th percentile.
    """
    lengths = np.minimum(ordered.lengths, np.quantile(ordered.lengths, 0.99))
    return float(np.square(lengths).mean() / lengths.mean())


def _volume_finding(ratio: float, day: int, before: float, after: float, timing: Timing) -> list[Finding]:
    if ratio < JUMP_RATIO:
        return []
    assert timing.ticks_per_s is not None
    date = timing.clock.moment(day * 86_400 * timing.ticks_per_s)[:10]
    return [Finding(
        "volume-jump", "warning",
        f"events per day go from {before:,.0f} to {after:,.0f} around {date} (medians of the days before and after). "
        "Something was switched on or off, such as a source of events; see whether both sides mean the same",
    )]  # fmt: skip
