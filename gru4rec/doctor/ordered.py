"""The log as the checks see it: events of a session adjacent and in time order, each with its time and its row.

Sessions are ordered by the rules of :class:`gru4rec.data.sessions.Sessions`, which keeps no times; training never
needs them, a diagnosis does. Dimensions: E events, S sessions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from gru4rec.data.events import EventLog, load_events
from gru4rec.data.files import Columns
from gru4rec.data.sessions import Sessions
from gru4rec.data.vocabulary import Vocabulary
from gru4rec.errors import DataError

TIED_FRAC = 0.5
"""Share of neighbours in a session with equal times above which times do not order clicks. On public shop logs with
times in seconds it is below 0.5 %."""


@dataclass(frozen=True)
class OrderedLog:
    """A log's events in session order.

    Attributes:
        log: The events as they were read.
        session_E: Int64 (E,), index of the event's session, ascending; sessions are in the order of their first events.
        item_E: Int32 (E,), item index.
        time_E: (E,), in the log's unit.
        row_E: Int64 (E,), the event's row in the file, from 0.
        offsets: Int64 (S + 1,). Session s holds the events offsets[s] up to offsets[s + 1].
        read_ids: Reads the session ids, when they are asked for.
    """

    log: EventLog
    session_E: np.ndarray
    item_E: np.ndarray
    time_E: np.ndarray
    row_E: np.ndarray
    offsets: np.ndarray
    read_ids: Callable[[], tuple[np.ndarray, Vocabulary]]

    @classmethod
    def read(cls, data: Any, *, columns: Columns | None = None, trust_pickle: bool = False) -> OrderedLog:
        """Read a log.

        Args:
            data: A path, or a pandas, polars or Arrow table.
            columns: Names of its columns.
            trust_pickle: See :func:`gru4rec.data.events.load_events`.

        Raises:
            DataError: It cannot be read, or no session has two events.
        """
        columns = columns or Columns()
        log = load_events(data, columns=columns, trust_pickle=trust_pickle)
        rows = np.arange(log.n_events, dtype=np.int32)
        sessions = Sessions.from_log(replace(log, item_code=rows))  # rows in the place of items: its order of events
        sessions.check_predictable()
        row_E = sessions.item_idx.astype(np.int64)
        session_E = np.repeat(np.arange(sessions.n_sessions), sessions.lengths)
        read_ids = cache(lambda: _session_ids(data, columns, trust_pickle))
        return cls(log, session_E, log.item_code[row_E], log.time[row_E], row_E, sessions.offsets, read_ids)

    @property
    def n_events(self) -> int:
        """Number of events."""
        return len(self.item_E)

    @property
    def n_sessions(self) -> int:
        """Number of sessions."""
        return len(self.offsets) - 1

    @property
    def n_items(self) -> int:
        """Number of items."""
        return self.log.items.n_items

    @property
    def lengths(self) -> np.ndarray:
        """Int64 (S,), events of each session."""
        return np.diff(self.offsets)

    @property
    def pairs(self) -> np.ndarray:
        """Int64 (P,), the places of events that another event of their session follows."""
        return np.flatnonzero(self.session_E[1:] == self.session_E[:-1])

    @property
    def tied_frac(self) -> float:
        """Share of neighbours in a session whose times are equal."""
        return float((np.diff(self.time_E)[self.pairs] == 0).mean()) if len(self.pairs) else 0.0

    @property
    def sessions(self) -> Sessions:
        """The same events as training sees them."""
        start_time = self.time_E[self.offsets[:-1]]
        return Sessions(self.item_E, self.offsets, start_time, self.log.items, self.log.source)

    def session_id(self, session: int) -> Any:
        """Return the id of a session, as it stands in the log; reads the log once more at the first call."""
        code_E, ids = self.read_ids()
        return ids.ids_of([code_E[self.row_E[self.offsets[session]]]])[0]

    def session_ids(self) -> Vocabulary:
        """Return all session ids; reads the log once more at the first call."""
        return self.read_ids()[1]

    def only(self, keep_E: np.ndarray) -> OrderedLog:
        """Return the log without some events; sessions that lose all of theirs are gone.

        Args:
            keep_E: Bool (E,), some of them True.
        """
        old_E, item_E, time_E, row_E = (
            column[keep_E] for column in (self.session_E, self.item_E, self.time_E, self.row_E)
        )
        session_E = np.cumsum(np.r_[False, np.diff(old_E) != 0])
        offsets = np.r_[np.flatnonzero(np.r_[True, np.diff(old_E) != 0]), len(old_E)]
        return OrderedLog(self.log, session_E, item_E, time_E, row_E, offsets, self.read_ids)


def _session_ids(data: Any, columns: Columns, trust_pickle: bool) -> tuple[np.ndarray, Vocabulary]:
    """Read the log again with sessions in the place of items, since only items keep their ids.

    Returns:
        code: Int32 (E,) in row order, index of the session's id.
        ids: The session ids.
    """
    if isinstance(data, EventLog):
        raise DataError("an EventLog has forgotten its session ids. Give the path or table that it was made from")
    swapped = replace(columns, session_key=columns.item_key, item_key=columns.session_key)
    log = load_events(data, columns=swapped, trust_pickle=trust_pickle)
    return log.item_code, log.items
