"""Sessions in the making, and the steps that change them: cut, drop repeats, filter. Each returns new sessions.

What the steps do is the field's usual preparation of click logs (docs/prepare.md); every event they drop is counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import cast

import numpy as np

from gru4rec.prepare.raw import RawEvents

_BLOCK = 1 << 20
"""Events whose pauses are looked at in one go."""


@dataclass(frozen=True)
class SessionEvents:
    """Events grouped by session, in order of time (then item) within each. No session is empty.

    Attributes:
        item: Int32 (n,), item codes.
        time: (n,) ticks.
        offsets: Int64 (n_sessions + 1,). Session s holds the events offsets[s] up to offsets[s + 1].
        session: Int32 or int64 (n_sessions,): a code of the log's own session ids, or a session's number, from 1,
            where sessions were cut.
    """

    item: np.ndarray
    time: np.ndarray
    offsets: np.ndarray
    session: np.ndarray

    @property
    def n_events(self) -> int:
        """Number of events."""
        return len(self.item)

    @property
    def n_sessions(self) -> int:
        """Number of sessions."""
        return len(self.session)

    @property
    def n_items(self) -> int:
        """Number of items that have an event."""
        is_used = np.zeros(int(self.item.max(initial=-1)) + 1, dtype=np.bool_)
        is_used[self.item] = True
        return int(np.count_nonzero(is_used))

    @property
    def lengths(self) -> np.ndarray:
        """Int64 (n_sessions,), events of each session."""
        return np.diff(self.offsets)

    @property
    def start(self) -> np.ndarray:
        """(n_sessions,) time of each session's first event."""
        return cast(np.ndarray, self.time[self.offsets[:-1]])

    @property
    def end(self) -> np.ndarray:
        """(n_sessions,) time of each session's last event."""
        return cast(np.ndarray, self.time[self.offsets[1:] - 1])

    def keep_events(self, kept: np.ndarray, *, min_length: int = 1) -> SessionEvents:
        """Return the events that a bool mask (n,) holds, less sessions that have fewer than ``min_length`` left."""
        if self.n_sessions and not (kept.all() and (min_length == 1 or self.lengths.min() >= min_length)):
            lengths = np.add.reduceat(kept.view(np.uint8), self.offsets[:-1], dtype=np.int32)
            left = lengths >= min_length
            if min_length > 1 and not left.all():
                kept = kept & np.repeat(left, self.lengths)
            with ThreadPoolExecutor(1) as beside:  # a copy is mostly waiting for memory
                item = beside.submit(self.item.__getitem__, kept)
                time = self.time[kept]
                return SessionEvents(item.result(), time, _offsets(lengths[left]), self.session[left])
        return self

    def keep_sessions(self, kept: np.ndarray) -> SessionEvents:
        """Return the sessions that a bool mask (n_sessions,) holds."""
        return self if kept.all() else self.keep_events(np.repeat(kept, self.lengths))

    def without_short(self, min_length: int) -> SessionEvents:
        """Return the sessions of ``min_length`` events or more."""
        return self.keep_sessions(self.lengths >= min_length)


def _offsets(lengths: np.ndarray) -> np.ndarray:
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def sessions_of(raw: RawEvents, *, gap: float | None) -> SessionEvents:
    """Order events and cut sessions.

    Args:
        raw: The log; its sessions or users are the groups.
        gap: Ticks; a longer pause ends a session. None leaves the groups as they are.

    Returns:
        The events, without those that count for the cut alone.
    """
    from gru4rec.prepare.order import in_order  # loads Numba

    time, item, marks, offsets = in_order(
        raw.group, raw.time, raw.item, raw.counts_after_cut, n_groups=len(raw.group_ids)
    )
    used = np.diff(offsets) > 0
    session: np.ndarray = np.flatnonzero(used).astype(np.int32)
    offsets = _offsets(np.diff(offsets)[used])
    if gap is not None:
        starts = np.empty(len(time), dtype=np.bool_)
        starts[:1] = True
        for block in range(0, len(time) - 1, _BLOCK):
            pauses = np.diff(time[block : block + _BLOCK + 1])
            np.greater(pauses, gap, out=starts[block + 1 : block + 1 + len(pauses)])
        starts[offsets[:-1]] = True
        offsets = np.append(np.flatnonzero(starts), len(time))
        session = np.arange(1, len(offsets))
    events = SessionEvents(item, time, offsets, session)
    return events if marks is None else events.keep_events(marks)


def repeats(events: SessionEvents) -> np.ndarray:
    """Return bool (n,), whether an event's item is that of the event just before in the session."""
    repeated = np.empty(events.n_events, dtype=np.bool_)
    np.equal(events.item[1:], events.item[:-1], out=repeated[1:])
    repeated[events.offsets[:-1]] = False
    return repeated


def filtered(
    events: SessionEvents, *, keep_repeats: bool, min_length: int, min_support: int, to_fixpoint: bool
) -> tuple[SessionEvents, Mapping[str, int]]:
    """Drop repeats, once; then short sessions and rare items.

    Args:
        events: The sessions.
        keep_repeats: Drop no repeats.
        min_length: Events a session must have.
        min_support: Events an item must have.
        to_fixpoint: Repeat until nothing changes; else one pass: sessions, items, sessions once more.

    Returns:
        What is left, and the events dropped as ``repeat``, ``short_session`` and ``rare_item``.
    """
    dropped = {"repeat": 0, "short_session": 0, "rare_item": 0}

    def keep(kept: np.ndarray, reason: str) -> None:
        """Drop events for a reason, and with them the sessions that become too short: one copy for both."""
        nonlocal events
        n_before, n_kept = events.n_events, int(np.count_nonzero(kept))
        events = events.keep_events(kept, min_length=min_length)
        dropped[reason] += n_before - n_kept
        dropped["short_session"] += n_kept - events.n_events

    keep(np.ones(events.n_events, dtype=np.bool_) if keep_repeats else ~repeats(events), "repeat")
    while True:
        n_before = events.n_events
        keep((np.bincount(events.item) >= min_support)[events.item], "rare_item")
        if events.n_events == n_before or not to_fixpoint:
            return events, dropped
