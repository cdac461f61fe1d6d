"""Sessions: the events of a log grouped, ordered and encoded; the only form in which data reaches training.

Knows the ordering rules; knows nothing of files, batches or models.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gru4rec.data.events import EventLog
from gru4rec.data.vocabulary import Vocabulary
from gru4rec.errors import DataError

_AGAIN = "Make the session map again; in a cache, delete it"


@dataclass(frozen=True)
class Sessions:
    """All sessions of a log, one after the other, in the order of their first events.

    Attributes:
        item_idx: Int32 (n_events,). Events of one session are adjacent and in time order; equal times keep input order.
        offsets: Int64 (n_sessions + 1,). Session s holds the events offsets[s] up to offsets[s + 1].
        start_time: (n_sessions,) time of each session's first event, in the log's unit, ascending.
        items: The vocabulary that ``item_idx`` points into.
        source: What messages call the log.
        n_unknown_events: Events left out because their item is not in the vocabulary.
        n_unknown_items: Distinct items among those.
        n_lost_sessions: Sessions left out because none of their items is in the vocabulary.
        item_support: Int64 (n_items,), events of each item, where that is known without counting.
    """

    item_idx: np.ndarray
    offsets: np.ndarray
    start_time: np.ndarray
    items: Vocabulary
    source: str
    n_unknown_events: int = 0
    n_unknown_items: int = 0
    n_lost_sessions: int = 0
    item_support: np.ndarray | None = None

    @classmethod
    def from_log(cls, log: EventLog, vocabulary: Vocabulary | None = None) -> Sessions:
        """Order a log's events by (session, time), and its sessions by (time of first event, session id).

        Args:
            log: The events.
            vocabulary: Items known to a model. Events of other items are dropped before sessions are formed, and
                counted. Left out, the log's own items are the vocabulary.

        Raises:
            DataError: No event has an item of the vocabulary.
        """
        if vocabulary is None:
            vocabulary, item_idx = log.items, log.item_code
        else:
            item_idx = vocabulary.encode(log.items.item_ids)[log.item_code]
        known = item_idx >= 0
        if not known.any():
            raise _nothing_known(log.items, log.source)
        session_code, time, item_idx = (column[known] for column in (log.session_code, log.time, item_idx))
        item_idx, offsets, start_time = _order(session_code, time, item_idx)
        return cls(
            item_idx=item_idx,
            offsets=offsets,
            start_time=start_time,
            items=vocabulary,
            source=log.source,
            n_unknown_events=int(np.count_nonzero(~known)),
            n_unknown_items=len(np.unique(log.item_code[~known])),
            n_lost_sessions=log.n_sessions - len(start_time),
        )

    def with_vocabulary(self, vocabulary: Vocabulary) -> Sessions:
        """Encode these sessions with another vocabulary, such as a model's; they stay in their order.

        Events of items that it does not know are left out and counted, and so are sessions that have no others. A
        session keeps the start time of its first event, left out or not: times of the others are not kept. So the
        sessions are those that :meth:`from_log` makes of the log, in another order where a session's first event is
        left out.

        Args:
            vocabulary: Items known to a model.

        Returns:
            New sessions; where the ids are numbered alike, ones that share their arrays with these.

        Raises:
            DataError: These sessions lack events that ``vocabulary`` may know, or none of their items is in it.
        """
        if self.items.same_as(vocabulary):
            return replace(self, items=vocabulary)
        if self.n_unknown_events:
            raise DataError(
                f"{self.source} was made for another model's items, and {self.n_unknown_events:,} events were left "
                "out then. Give the log that it was made from"
            )
        new_idx_N = vocabulary.encode(self.items.item_ids)
        self.check_offsets()
        item_idx = new_idx_N[self.items_at(slice(None))]
        known = item_idx >= 0
        if not known.any():
            raise _nothing_known(self.items, self.source)
        lengths = np.diff(np.r_[0, np.cumsum(known)][self.offsets])
        left = lengths > 0
        return Sessions(
            item_idx=item_idx[known],
            offsets=np.r_[0, np.cumsum(lengths[left])],
            start_time=self.start_time[left],
            items=vocabulary,
            source=self.source,
            n_unknown_events=int(np.count_nonzero(~known)),
            n_unknown_items=int(np.count_nonzero((new_idx_N < 0) & (self.support() > 0))),
            n_lost_sessions=int(np.count_nonzero(~left)),
        )

    def part(self, first: int, stop: int) -> Sessions:
        """Return the sessions first..stop-1, as views of these: the sessions of a stretch of time."""
        events = slice(self.offsets[first], self.offsets[stop])
        return Sessions(
            item_idx=self.item_idx[events],
            offsets=self.offsets[first : stop + 1] - self.offsets[first],
            start_time=self.start_time[first:stop],
            items=self.items,
            source=self.source,
        )

    @property
    def n_events(self) -> int:
        """Number of events."""
        return len(self.item_idx)

    @property
    def n_sessions(self) -> int:
        """Number of sessions, those of one event included."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Int64 (n_sessions,), events of each session."""
        return np.diff(self.offsets)

    @property
    def n_targets(self) -> int:
        """Number of events that are predicted: every event but a session's first."""
        return self.n_events - self.n_sessions

    @property
    def n_single_event_sessions(self) -> int:
        """Number of sessions that give nothing to predict."""
        return int(np.count_nonzero(self.lengths == 1))

    def support(self) -> np.ndarray:
        """Return int64 (n_items,), the number of events of each item; not to be written to where it was known."""
        if self.item_support is not None:
            known = self.item_support.view()
            known.flags.writeable = False
            return known
        return np.bincount(self.item_idx, minlength=self.items.n_items)

    def check_offsets(self) -> None:
        """Make sure that each session has an event.

        Raises:
            DataError: The offsets do not rise, as in a session map whose file was damaged.
        """
        if self.n_sessions and self.lengths.min() < 1:
            raise DataError(f"{self.source} holds sessions that end before they begin: its file is damaged. {_AGAIN}")

    def items_at(self, position: np.ndarray | slice) -> np.ndarray:
        """Return the item index of events, int32 of the shape of ``position``; a look-up that is safe to index with.

        Raises:
            DataError: An index is outside the vocabulary, as in a session map whose file was damaged: kernels that
                used it would write beyond their arrays.
        """
        found: np.ndarray = self.item_idx[position]
        if found.size and not 0 <= found.min() <= found.max() < self.items.n_items:
            raise DataError(
                f"{self.source} holds an item index outside its {self.items.n_items:,} items: its file is damaged. "
                f"{_AGAIN}"
            )
        return found

    def check_predictable(self) -> None:
        """Make sure that there is something to predict.

        Raises:
            DataError: No session has two events.
        """
        if not self.n_targets:
            raise DataError(
                f"no session of {self.source} has two events, so there is nothing to predict. Use a longer log"
            )

    def report(self) -> str:
        """Say in one line what is here and what was left out; nothing is dropped silently."""
        parts = [f"{self.source}: {self.n_events:,} events in {self.n_sessions:,} sessions"]
        if self.n_unknown_events:
            parts.append(f"{self.n_unknown_events:,} events of {self.n_unknown_items:,} unknown items left out")
        if self.n_lost_sessions:
            parts.append(f"{self.n_lost_sessions:,} sessions left out with them")
        if self.n_single_event_sessions:
            parts.append(f"{self.n_single_event_sessions:,} sessions of one event give no prediction")
        return "; ".join(parts)


def _nothing_known(items: Vocabulary, source: str) -> DataError:
    return DataError(
        f"none of the {items.n_items} items of {source} is in the training log. "
        "Use a log of the same shop, and the same item column"
    )


def _order(
    session_code: np.ndarray, time: np.ndarray, item_idx: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Group events into sessions.

    Returns:
        item_idx: (n_events,) in session order.
        offsets: Int64 (n_sessions + 1,).
        start_time: (n_sessions,), ascending.
    """
    by_session = np.lexsort((time, session_code))
    session_code, time, item_idx = session_code[by_session], time[by_session], item_idx[by_session]
    first = np.flatnonzero(np.r_[True, session_code[1:] != session_code[:-1]])
    lengths = np.diff(np.r_[first, len(item_idx)])
    by_start = np.argsort(time[first], kind="stable")
    offsets = np.r_[0, np.cumsum(lengths[by_start])]
    place_in_session = np.arange(len(item_idx)) - np.repeat(offsets[:-1], lengths[by_start])
    source_row = np.repeat(first[by_start], lengths[by_start]) + place_in_session
    return np.ascontiguousarray(item_idx[source_row], dtype=np.int32), offsets, time[first][by_start]
