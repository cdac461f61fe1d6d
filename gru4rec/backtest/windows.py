"""One log cut into consecutive parts, by sessions or by time. Knows sessions only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from gru4rec.data.sessions import Sessions
from gru4rec.data.vocabulary import Vocabulary
from gru4rec.doctor.units import timing_of
from gru4rec.errors import ConfigError, DataError

MIN_PARTS = 3
"""One to begin with, one to follow, one to measure on."""

DAY_S = 86_400


@dataclass(frozen=True)
class Parts:
    """A log in consecutive parts. A session belongs to the part in which it starts.

    Attributes:
        log: The whole log, sessions in the order of their first events.
        cuts: Int64 (n_parts + 1,): part p holds the sessions cuts[p] up to cuts[p + 1].
        rule: How it was cut, in words.
    """

    log: Sessions
    cuts: np.ndarray
    rule: str

    def __len__(self) -> int:
        return len(self.cuts) - 1

    def part(self, place: int) -> Sessions:
        """Return one part, in a vocabulary of its own."""
        return self._named(place, place + 1, f"part {place + 1} of {self.log.source}")

    def up_to(self, place: int) -> Sessions:
        """Return the parts before ``place`` as one log, in a vocabulary of its own."""
        return self._named(
            0, place, f"parts 1 to {place} of {self.log.source}" if place > 1 else f"part 1 of {self.log.source}"
        )

    def _named(self, first: int, stop: int, source: str) -> Sessions:
        return with_own_items(self.log.part(int(self.cuts[first]), int(self.cuts[stop])), source)


def cut_by_sessions(log: Sessions, n_parts: int) -> Parts:
    """Cut a log into parts of as many sessions each, to within one.

    Raises:
        ConfigError: Fewer than MIN_PARTS parts.
        DataError: A part has nothing to predict.
    """
    if n_parts < MIN_PARTS:
        raise ConfigError(
            f"--parts {n_parts}: a backtest needs {MIN_PARTS} parts at least: one to begin with, one to follow, one to "
            "measure on"
        )
    cuts = np.linspace(0, log.n_sessions, n_parts + 1).astype(np.int64)
    return _checked(Parts(log, cuts, f"{n_parts} parts of as many sessions"))


def cut_by_days(log: Sessions, days: float, *, first_days: float) -> Parts:
    """Cut a log into parts of so many days each, from its first session on.

    What is left at the end is a part of its own where sessions start in half of it or more, and is left out otherwise.

    Args:
        log: Its times are seconds, milliseconds, microseconds or nanoseconds since 1970.
        days: Length of a part, above 0.
        first_days: Length of the first part.

    Raises:
        ConfigError: A length is not above 0.
        DataError: Times are a mere order, the log is too short, or a part has nothing to predict.
    """
    for flag, value in (("--days", days), ("--first-days", first_days)):
        if not 0 < value < float("inf"):
            raise ConfigError(f"{flag} {value:g} is no length of time. Give days above 0, such as 1")
    ticks_per_s = timing_of(log.start_time).ticks_per_s
    if ticks_per_s is None:
        raise DataError(
            f"the times of {log.source} are a mere order, so it has no days. Cut it by sessions with --parts"
        )
    since = (log.start_time - log.start_time[0]) / (ticks_per_s * DAY_S)
    n_more = int((since[-1] - first_days) / days + 0.5) if since[-1] > first_days else 0
    if n_more + 1 < MIN_PARTS:
        raise DataError(
            f"{log.source} spans {since[-1]:.3g} days, which gives fewer than {MIN_PARTS} parts: "
            f"{_days(first_days)} to begin with, then {_days(days)} each. Make them shorter"
        )
    edges = np.r_[-np.inf, first_days + days * np.arange(n_more + 1)]
    cuts = np.asarray(np.searchsorted(since, edges), dtype=np.int64)
    rule = f"{n_more + 1} parts of {_days(days)}"
    if first_days != days:
        rule = f"a first part of {_days(first_days)}, then {n_more} of {_days(days)}"
    n_left, rest = log.n_sessions - int(cuts[-1]), since[-1] - edges[-1]
    if n_left:
        sessions = f"{n_left:,} sessions are" if n_left > 1 else "session is"
        rule += f"; the last {sessions} left out: {_days(rest)} is less than half of a part"
    elif rest < 0:
        rule += f"; sessions of the last part start in {_days(days + rest)}"
    return _checked(Parts(log, cuts, rule))


def _days(days: float) -> str:
    """Write a length of time.

    Example:
        >>> _days(1), _days(0.25), _days(2.456)
        ('1 day', '0.25 days', '2.46 days')
    """
    return f"{days:.3g} {'day' if days == 1 else 'days'}"


def _checked(parts: Parts) -> Parts:
    for place in range(len(parts)):
        if np.diff(parts.log.offsets[parts.cuts[place] : parts.cuts[place + 1] + 1]).max(initial=0) < 2:
            raise DataError(
                f"part {place + 1} of {len(parts)} of {parts.log.source} has no session of two events "
                f"({parts.rule}). Cut it into fewer or longer parts"
            )
    return parts


def with_own_items(sessions: Sessions, source: str) -> Sessions:
    """Return sessions in a vocabulary of their own, ids in the order of their first appearance."""
    item_idx = sessions.items_at(slice(None))
    used, first = np.unique(item_idx, return_index=True)
    used = used[np.argsort(first)]
    own_idx_N = np.full(sessions.items.n_items, -1, dtype=np.int32)
    own_idx_N[used] = np.arange(len(used), dtype=np.int32)
    items = Vocabulary(sessions.items.item_ids.take(pa.array(used)))
    return Sessions(own_idx_N[item_idx], np.asarray(sessions.offsets), sessions.start_time, items, source)


def new_items_of(parts: Parts, place: int) -> Vocabulary | None:
    """Return the items that stand in a part and in none before it; None where there is none."""
    item_ids = parts.part(place).items.item_ids
    is_new = parts.up_to(place).items.encode(item_ids) < 0 if place else np.ones(len(item_ids), dtype=bool)
    return Vocabulary(item_ids.filter(pa.array(is_new))) if is_new.any() else None
