"""Training and test by time, without leaks; the same once more inside training, for tuning.

The test period of a split is the time from its cut on. A session belongs to the side its first event is on (or, by the
older rule, its last event); what a training session did after the cut is in neither part.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from gru4rec.errors import ConfigError, DataError
from gru4rec.prepare.steps import SessionEvents
from gru4rec.prepare.times import Clock

PARTS = ("train_full", "test", "train_tr", "train_valid")


@dataclass(frozen=True, kw_only=True)
class SplitRule:
    """Where the test period begins, and what becomes of sessions that lie across.

    Attributes:
        period_s: Length of the test period, in seconds, counted back from ``end_s`` or from the log's last event.
        end_s: Seconds since 1970 that periods are counted from; None takes the log's last event.
        from_s: Seconds since 1970 at which the test period begins, instead of ``period_s``.
        fraction: Share of sessions that are tested, the last to start, instead of ``period_s``.
        by: ``start``: sessions that start in the test period are tested, earlier ones end at the cut. ``end``:
            sessions that end in the test period are tested whole.
        cold_items: Events of the test whose items are not in training: ``drop`` them, or ``keep`` them.
        n_windows: Test periods, back to back, the last first.
        train_period_s: Train on sessions that start at most so many seconds before the cut; None takes all.
    """

    period_s: float | None = None
    end_s: float | None = None
    from_s: float | None = None
    fraction: float | None = None
    by: Literal["start", "end"] = "start"
    cold_items: Literal["drop", "keep"] = "drop"
    n_windows: int = 1
    train_period_s: float | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("period_s", "from_s", "fraction") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ConfigError("give one of --test_days, --test_from and --test_fraction")
        if self.fraction is not None and not 0 < self.fraction < 0.5:
            raise ConfigError(
                f"test_fraction={self.fraction} leaves no room for training. Give one above 0 and below 0.5"
            )
        for flag, period_s in (("test_days", self.period_s), ("train_days", self.train_period_s)):
            if period_s is not None and not 0 < period_s < math.inf:
                raise ConfigError(f"{flag} must be above 0, and finite")
        if self.n_windows < 1:
            raise ConfigError(f"windows={self.n_windows} is below 1")
        if self.n_windows > 1 and self.period_s is None:
            raise ConfigError("--windows needs test periods of one length: give --test_days")


@dataclass(frozen=True)
class Split:
    """One split of a log.

    Attributes:
        parts: Events by name: train_full, test, train_tr, train_valid.
        cut: Tick at which the test period begins.
        valid_cut: Tick at which the validation period begins.
        dropped: Events in none of train_full and test, by reason.
        dropped_inside: Events of train_full in none of train_tr and train_valid, by reason.
    """

    parts: dict[str, SessionEvents]
    cut: float
    valid_cut: float
    dropped: dict[str, int] = field(default_factory=dict)
    dropped_inside: dict[str, int] = field(default_factory=dict)


def split_windows(events: SessionEvents, clock: Clock, rule: SplitRule) -> Iterator[Split]:
    """Split a log, once for each window, the latest first.

    Raises:
        ConfigError: The rule needs the unit of the times, and it is unknown.
        DataError: A part of a split is empty.
    """
    for window in range(rule.n_windows):
        cut, valid_cut = _cuts(events, clock, rule, window)
        until = None if window == 0 else _cuts(events, clock, rule, window - 1)[0]
        train_from = None
        if rule.train_period_s is not None:
            train_from = cut - clock.ticks(rule.train_period_s, "--train_days")
        dropped: dict[str, int] = {}
        within = _within(events, rule, dropped, until=until, train_from=train_from)
        train, test, lost = _split_at(within, cut, rule)
        inner_train, valid, lost_inside = _split_at(train, valid_cut, rule)
        parts = dict(zip(PARTS, (train, test, inner_train, valid), strict=True))
        _check_filled(parts, events, clock, cut, valid_cut)
        yield Split(parts, cut, valid_cut, dropped | lost, lost_inside)


def _cuts(events: SessionEvents, clock: Clock, rule: SplitRule, window: int) -> tuple[float, float]:
    """Return the ticks at which the test and the validation period begin."""
    moment = _moment(events, rule)
    if rule.fraction is not None:
        ordered = np.sort(moment)
        n_late = max(1, round(rule.fraction * len(ordered)))
        cut = ordered[-n_late]
        n_early = int(np.searchsorted(ordered, cut))
        valid = ordered[max(0, n_early - max(1, round(rule.fraction * n_early)))]
        return cut.item(), valid.item()
    end = events.time.max().item() if rule.end_s is None else clock.ticks(rule.end_s, "--test_end")
    if rule.from_s is not None:
        cut = clock.ticks(rule.from_s, "--test_from")
        return cut, 2 * cut - end
    assert rule.period_s is not None
    period = clock.ticks(rule.period_s, "--test_days")
    return end - (window + 1) * period, end - (window + 2) * period


def _moment(events: SessionEvents, rule: SplitRule) -> np.ndarray:
    """Return (n_sessions,), the time that decides on which side of a cut each session is."""
    return events.start if rule.by == "start" else events.end


def _within(
    events: SessionEvents, rule: SplitRule, dropped: dict[str, int], *, until: float | None, train_from: float | None
) -> SessionEvents:
    """Drop sessions of later windows, and those too old to train on."""
    for reason, limit in (("later_window", until), ("before_train_days", train_from)):
        if limit is None:
            continue
        kept = _moment(events, rule) < limit if reason == "later_window" else events.start >= limit
        left = events.keep_sessions(kept)
        dropped[reason] = events.n_events - left.n_events
        events = left
    return events


def _split_at(
    events: SessionEvents, cut: float, rule: SplitRule
) -> tuple[SessionEvents, SessionEvents, dict[str, int]]:
    """Return the sessions before and after a cut, and the events in neither, by reason."""
    is_late = _moment(events, rule) >= cut
    late = events.keep_sessions(is_late)
    begun_early = np.repeat(~is_late, events.lengths)
    before_cut = begun_early & (events.time < cut)
    early = events.keep_events(before_cut, min_length=2)
    n_begun, n_before = int(np.count_nonzero(begun_early)), int(np.count_nonzero(before_cut))
    dropped = {"train_session_after_cut": n_begun - n_before, "train_session_of_one": n_before - early.n_events}
    if rule.cold_items == "drop":
        known = np.zeros(int(events.item.max(initial=-1)) + 1, dtype=np.bool_)
        known[early.item] = True
        is_warm = known[late.item]
        n_late, n_warm = late.n_events, int(np.count_nonzero(is_warm))
        late = late.keep_events(is_warm, min_length=2)
        dropped |= {"test_cold_item": n_late - n_warm, "test_session_of_one": n_warm - late.n_events}
    return early, late, dropped


def _check_filled(
    parts: dict[str, SessionEvents], events: SessionEvents, clock: Clock, cut: float, valid_cut: float
) -> None:
    empty = [name for name, part in parts.items() if not part.n_events]
    if not empty:
        return
    first, last = (clock.moment(tick) for tick in (events.time.min().item(), events.time.max().item()))
    if cut > events.time.max():
        raise DataError(
            f"the test begins at {clock.moment(cut)}, after the last event of the filtered log ({last}). "
            "Choose an earlier --test_from"
        )
    raise DataError(
        f"the split leaves no events for {', '.join(empty)}: the filtered log goes from {first} to {last}, the test "
        f"begins at {clock.moment(cut)} and validation at {clock.moment(valid_cut)}. "
        "Choose other --test_days, --test_from, --train_days or --windows, or give --test_fraction"
    )
