"""A prepared part as the sessions that training reads, so that they need not be made of the written file again."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from gru4rec.data.sessions import Sessions
from gru4rec.data.vocabulary import Vocabulary, integers_where_possible
from gru4rec.prepare.steps import SessionEvents
from gru4rec.prepare.write import Ids

_BLOCK = 1 << 20


def as_sessions(events: SessionEvents, ids: Ids, source: str) -> Sessions:
    """Turn a part into what reading its file gives, bit by bit.

    Args:
        events: The part.
        ids: What its codes stand for.
        source: The file's path.

    Returns:
        Sessions by start time (ties by session id), items numbered by their first appearance in the file.
    """
    order = np.lexsort((_session_rank(events, ids), events.start))
    lengths = events.lengths[order]
    offsets = np.zeros(len(order) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    items = _by_first_appearance(events.item, len(ids.item_ids))
    item_idx_of_code = np.full(len(ids.item_ids), -1, dtype=np.int32)
    item_idx_of_code[items] = np.arange(len(items), dtype=np.int32)
    item_idx = np.empty(events.n_events, dtype=np.int32)
    first_row = events.offsets[order]
    for start in range(0, len(order), _BLOCK):
        block = slice(start, start + _BLOCK)
        of_block = slice(offsets[start], offsets[min(start + _BLOCK, len(order))])
        place = np.arange(of_block.start, of_block.stop)
        rows = np.repeat(first_row[block] - offsets[:-1][block], lengths[block]) + place
        item_idx[of_block] = item_idx_of_code[events.item[rows]]
    return Sessions(
        item_idx=item_idx,
        offsets=offsets,
        start_time=_as_times(ids.written(events.start[order]), ids.written(events.time), source),
        items=Vocabulary(_as_ids(ids.item_ids.take(pa.array(items)))),
        source=source,
    )


def _by_first_appearance(item: np.ndarray, n_codes: int) -> np.ndarray:
    """Return the codes that occur, in the order in which they first do."""
    first = np.full(n_codes, len(item), dtype=np.int64)
    for start in range((len(item) - 1) // _BLOCK * _BLOCK, -1, -_BLOCK):
        block = item[start : start + _BLOCK]
        first[block[::-1]] = np.arange(start + len(block) - 1, start - 1, -1)  # of equal codes the last written stays
    order = np.argsort(first, kind="stable")
    return order[: int(np.count_nonzero(first < len(item)))]


def _as_times(start_time: np.ndarray, all_times: np.ndarray, source: str) -> np.ndarray:
    """Return times in the type that a reader finds: a text file says of whole numbers only that they are whole."""
    if source.endswith(".tsv") and all_times.dtype.kind == "f" and not np.any(all_times % 1):
        return start_time.astype(np.int64)
    return start_time


def _session_rank(events: SessionEvents, ids: Ids) -> np.ndarray:
    """Return (n_sessions,), what the part's session ids are ordered by: numbers, if those of this part all are."""
    if ids.session_ids is None:
        return events.session
    own = _as_ids(ids.session_ids.take(pa.array(events.session)))
    return own.to_numpy() if pa.types.is_integer(own.type) else events.session


def _as_ids(ids: pa.Array) -> pa.Array:
    """Return ids in the type that a reader finds: a part's may all be integers where the log's are not."""
    if pa.types.is_integer(ids.type):
        return ids
    return integers_where_possible(ids.cast(pa.string()))
