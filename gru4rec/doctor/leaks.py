"""What a test log must not share with its training log: sessions, times, clicks. And what it should share: items."""

from __future__ import annotations

from typing import Any

import numpy as np

from gru4rec.doctor.drift import COLD_WARN_FRAC
from gru4rec.doctor.findings import Checked, Finding, count, percent
from gru4rec.doctor.ordered import OrderedLog
from gru4rec.doctor.units import Timing, spoken

END_QUANTILE = 0.999
"""Training ends where this share of its events has happened, so that one wrong clock does not move the end."""

EARLY_WARN_FRAC = 0.05
"""Share of test events before the end of training from which on the split is not one by time. Sessions that were open
at the cut put some events on the wrong side: below 1 % in a log of days."""

OPEN_S = 86_400.0
"""Sessions that were open at the cut began at most so long before it; no visit is longer."""

OPEN_QUANTILE = 0.999
"""Where times are a mere order, what this share of training sessions stays below stands for that."""

LONG_PATH_EVENTS = 6
"""Sessions of fewer events take the same path as another by chance; on public shop logs 0.3 % of longer ones do."""

SAME_PATH_FRAC = 0.1
"""Share of long test sessions that repeat a training session click by click from which on copies are likely."""


def check_leaks(
    train: OrderedLog, test: OrderedLog, timing: Timing, test_timing: Timing, *, sane: OrderedLog, sane_test: OrderedLog
) -> Checked:
    """Compare a test log with the log that is trained on.

    Args:
        train: The training log, every row of it.
        test: The test log.
        timing: Clock of the training log.
        test_timing: Clock of the test log.
        sane: The training log without what is at impossible times; it says when training ends.
        sane_test: The same of the test log; it says when the test begins.
    """
    test_ids = test.session_ids().item_ids
    shared_S = train.session_ids().encode(test_ids) >= 0
    same_S, same_path_S = _same_content(train, test)
    n_shared, n_copies, n_test = int(shared_S.sum()), int(np.count_nonzero(same_S)), test.n_sessions
    is_long_S = test.lengths >= LONG_PATH_EVENTS
    path_frac = float(same_path_S[is_long_S & ~same_S].sum() / max(np.count_nonzero(is_long_S), 1))
    new_items_N = train.log.items.encode(test.log.items.item_ids) < 0
    cold_frac = float(new_items_N[test.item_E].mean())
    numbers = {
        "n_test_events": test.n_events, "n_test_sessions": n_test, "n_shared_session_ids": n_shared,
        "n_copied_sessions": n_copies, "same_path_of_long_sessions_frac": path_frac, "cold_test_events_frac": cold_frac,
    }  # fmt: skip
    findings = []
    if n_shared:
        findings.append(_shared(n_shared, n_copies, n_test, test_ids[int(shared_S.argmax())]))
    if n_copies:
        findings.append(_copied(n_copies, n_test, n_shared, test.session_id(int(same_S.argmax()))))
    findings += _paths(path_frac)
    findings += _cold(cold_frac, int(np.count_nonzero(new_items_N)))
    if timing.clock.unit != test_timing.clock.unit:
        return Checked(numbers, [*findings, _other_unit(timing, test_timing)])
    end = np.quantile(sane.time_E, END_QUANTILE)
    told_E = ~np.isin(test.row_E, sane_test.row_E) & (test.time_E < sane.time_E.min())  # impossible times are told
    timed = test.only(~told_E) if told_E.any() else test
    early_frac = float((timed.time_E < end).mean())
    numbers["test_events_before_end_frac"] = early_frac
    return Checked(numbers, [*findings, *_early(early_frac, end, sane, timed, timing)])


def _shared(n_shared: int, n_copies: int, n_test: int, example: Any) -> Finding:
    numbered = "" if n_copies else ", unless both logs merely number their sessions alike"
    have, their = ("has an id that stands", "Its") if n_shared == 1 else ("have ids that stand", "Their")
    return Finding(
        "shared-sessions", "error",
        f"{count(n_shared, 'session')} of {n_test:,} in the test log {have} in the training log, such as {example}. "
        f"{their} clicks are known before they are predicted{numbered}. Split whole sessions, by time (gru4rec prepare "
        "does)",
    )  # fmt: skip


def _copied(n_copies: int, n_test: int, n_shared: int, example: Any) -> Finding:
    stand, them = ("stands", "it") if n_copies == 1 else ("stand", "them")
    under = "" if n_shared else " under another id" if n_copies == 1 else " under other ids"
    return Finding(
        "copied-sessions", "error",
        f"{count(n_copies, 'session')} of {n_test:,} in the test log {stand} in the training log{under}, with the same "
        f"items at the same times, such as the test log's session {example}. The test is then a test of memory: take "
        f"{them} out of one of the two",
    )  # fmt: skip


def _paths(frac: float) -> list[Finding]:
    if frac < SAME_PATH_FRAC:
        return []
    return [Finding(
        "repeated-paths", "warning",
        f"{percent(frac)} of test sessions with {LONG_PATH_EVENTS} events or more repeat a training session click by "
        "click, at other times. Copies with a new date, or programs that always go the same way?",
    )]  # fmt: skip


def _cold(frac: float, n_items: int) -> list[Finding]:
    if not frac:
        return []
    return [Finding(
        "cold-test-items", "warning" if frac >= COLD_WARN_FRAC else "note",
        f"{percent(frac)} of test events are on {count(n_items, 'item')} that the training log lacks. They cannot be "
        "recommended, and evaluation leaves them out, so its figures are on the rest",
    )]  # fmt: skip


def _other_unit(timing: Timing, test_timing: Timing) -> Finding:
    units = [clock.unit or "a mere order" for clock in (timing.clock, test_timing.clock)]
    return Finding(
        "other-time-unit", "warning",
        f"times are {units[0]} in the training log and {units[1]} in the test log, so which came first cannot be told. "
        "Write both in one unit",
    )  # fmt: skip


def _open_ticks(train: OrderedLog, timing: Timing) -> float:
    """Return how long before the end of training a session may begin that was merely open then."""
    if timing.ticks_per_s is not None:
        return OPEN_S * timing.ticks_per_s
    durations = train.time_E[train.offsets[1:] - 1] - train.time_E[train.offsets[:-1]]
    return float(np.quantile(durations, OPEN_QUANTILE))


def _early(frac: float, end: float, train: OrderedLog, test: OrderedLog, timing: Timing) -> list[Finding]:
    if not frac:
        return []
    first = int(test.time_E.argmin())
    ahead = float(end - test.time_E[first])
    is_split_by_time = frac < EARLY_WARN_FRAC and ahead <= _open_ticks(train, timing)
    how_early = f"{ahead:,.10g} ticks" if timing.ticks_per_s is None else spoken(ahead / timing.ticks_per_s)
    advice = "Sessions that were open at the cut; no harm" if is_split_by_time else (
        "The model is trained on the future of what it is tested on: split by time (gru4rec prepare does)"
    )  # fmt: skip
    return [Finding(
        "test-before-train-end", "note" if is_split_by_time else "error" if frac > 0.5 else "warning",
        f"{percent(frac)} of test events are earlier than the end of training ({timing.clock.moment(end)}), by up to "
        f"{how_early}: session {test.session_id(int(test.session_E[first]))} has one at "
        f"{timing.clock.moment(test.time_E[first])}. {advice}",
    )]  # fmt: skip


def _same_content(train: OrderedLog, test: OrderedLog) -> tuple[np.ndarray, np.ndarray]:
    """Tell which test sessions of two or more events stand in the training log.

    Returns:
        same: Bool (S,), a training session has the same items at the same times.
        same_path: Bool (S,), a training session has the same items in the same order.
    """
    code_N = train.log.items.encode(test.log.items.item_ids)  # -1, which no training event has, where it is unknown
    several_S = test.lengths >= 2
    return tuple(  # type: ignore[return-value]
        several_S & np.isin(_hash(test, code_N[test.item_E], with_time), _hash(train, train.item_E, with_time))
        for with_time in (True, False)
    )


def _hash(ordered: OrderedLog, item_E: np.ndarray, with_time: bool) -> np.ndarray:
    """Return uint64 (S,), a number for the content of each session: equal ones have equal numbers, others not."""
    place_E = np.arange(ordered.n_events) - ordered.offsets[ordered.session_E]
    mixed_E = _mix(_mix(item_E.astype(np.int64).view(np.uint64)) + place_E.astype(np.uint64))
    if with_time:
        mixed_E = _mix(mixed_E ^ ordered.time_E.astype(np.float64).view(np.uint64))
    return np.add.reduceat(mixed_E, ordered.offsets[:-1])


def _mix(value_E: np.ndarray) -> np.ndarray:
    """Scramble uint64 values one to one: multiply by odd numbers (primes near 2^64 / golden ratio), fold, repeat."""
    for factor in (0x9E3779B97F4A7C55, 0xC2B2AE3D27D4EB4F):
        value_E = value_E * np.uint64(factor)
        value_E = value_E ^ (value_E >> np.uint64(29))
    return value_E
