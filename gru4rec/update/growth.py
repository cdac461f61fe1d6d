"""A vocabulary that grows: new items get indices behind the old ones, and rows from those of the items around them.

Knows sessions and arrays; how they are trained is not decided here.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from gru4rec.bundle import ACCUMULATOR, STATE_EVENTS, VELOCITY
from gru4rec.data.sessions import Sessions
from gru4rec.data.vocabulary import Vocabulary, integers_where_possible
from gru4rec.errors import DataError

ITEM_TABLES = ("Wy.weight", "By.weight", "E.weight", "GE.Wx0.weight")
"""Weights with a row for each item, by name as in ``state_dict``. A model has some of them."""

_SESSIONS_AT_ONCE = 1 << 12
"""Sessions whose sums of rows are held at once."""


def grown_vocabulary(items: Vocabulary, sessions: Sessions) -> Vocabulary:
    """Return the vocabulary with the log's unknown items behind its own, in the log's order.

    Args:
        items: Of the model.
        sessions: A log in a vocabulary of its own.

    Raises:
        DataError: Events were left out of the log already, none of its items is known, or it has ids of text where the
            model's are integers.
    """
    if sessions.n_unknown_events:
        raise DataError(
            f"{sessions.source} was made for another model's items, and {sessions.n_unknown_events:,} events were left "
            "out then. Give the log that it was made from"
        )
    is_used = sessions.support() > 0
    is_new = is_used & (items.encode(sessions.items.item_ids) < 0)
    if is_new.sum() == is_used.sum():
        raise DataError(
            f"none of the {is_used.sum():,} items of {sessions.source} is known to the model. "
            "Use a log of the shop that the model was trained on, and the same item column"
        )
    if not is_new.any():
        return items
    new_ids = sessions.items.item_ids.filter(pa.array(is_new))
    if items.is_integer:
        new_ids = _integers(new_ids, sessions.source)
    return Vocabulary(pa.concat_arrays([items.item_ids, new_ids.cast(items.item_ids.type)]))


def _integers(item_ids: pa.Array, source: str) -> pa.Array:
    found = item_ids if pa.types.is_integer(item_ids.type) else integers_where_possible(item_ids)
    if pa.types.is_integer(found.type):
        return found
    odd = next(
        one for one in item_ids.to_pylist() if not pa.types.is_integer(integers_where_possible(pa.array([one])).type)
    )
    raise DataError(
        f"{source} has the item {odd!r}, and the model's item ids are integers. Correct the log, or train anew to go "
        "over to text"
    )


def support_after(support_N: np.ndarray, sessions: Sessions, *, decay: float) -> np.ndarray:
    """Return what the support of all items is after an update: the old one times ``decay``, plus the new events.

    Args:
        support_N: (N,), of the known items.
        sessions: The new log, in the grown vocabulary.
        decay: Share of the old support that is left, above 0 up to 1.

    Returns:
        Int64 (items of the grown vocabulary,), rounded half to even; at least 1, so that nothing becomes impossible to
        draw as a negative.
    """
    decayed = np.zeros(sessions.items.n_items)
    decayed[: len(support_N)] = support_N * decay
    support: np.ndarray = np.maximum(np.rint(decayed).astype(np.int64) + sessions.support(), 1)
    return support


def rows_around(table_ND: np.ndarray, sessions: Sessions, support_N: np.ndarray) -> tuple[np.ndarray, int]:
    """Return rows for the items behind a table's own: means of the rows that are clicked in the same sessions.

    A new item's row is the mean over the events of known items in all sessions that hold the new item; an item that
    stands there twice counts twice. Where there is no such event, it is the mean over all known items, each weighing
    as much as its support.

    Args:
        table_ND: (N, D), rows of the known items.
        sessions: The new log, in the grown vocabulary.
        support_N: (N,), training events of the known items.

    Returns:
        The rows (number of new items, D), of the table's number type, sums taken in float64; and how many of the new
        items stand beside no known one.
    """
    n_known, n_new = len(table_ND), sessions.items.n_items - len(table_ND)
    sums_D, counts = np.zeros((n_new, table_ND.shape[1])), np.zeros(n_new)
    for first in range(0, sessions.n_sessions, _SESSIONS_AT_ONCE):
        part = sessions.part(first, min(first + _SESSIONS_AT_ONCE, sessions.n_sessions))
        item_idx, session = part.items_at(slice(None)), np.repeat(np.arange(part.n_sessions), part.lengths)
        is_known = item_idx < n_known
        if is_known.all():
            continue
        session_of, new_item = np.unique(np.stack([session[~is_known], item_idx[~is_known] - n_known]), axis=1)
        rows = np.where(is_known[:, np.newaxis], table_ND[np.minimum(item_idx, n_known - 1)], 0.0)
        np.add.at(sums_D, new_item, np.add.reduceat(rows, part.offsets[:-1], dtype=np.float64)[session_of])
        np.add.at(counts, new_item, np.add.reduceat(is_known, part.offsets[:-1], dtype=np.float64)[session_of])
    is_alone = counts == 0
    sums_D[is_alone] = _mean_row(table_ND, support_N)
    return (sums_D / np.maximum(counts, 1)[:, np.newaxis]).astype(table_ND.dtype), int(is_alone.sum())


def _mean_row(table_ND: np.ndarray, support_N: np.ndarray) -> np.ndarray:
    weights_N = support_N / support_N.sum()
    return np.asarray(weights_N @ table_ND.astype(np.float64))


def grown_weights(
    weights: Mapping[str, np.ndarray], sessions: Sessions, support_N: np.ndarray
) -> tuple[dict[str, np.ndarray], int]:
    """Return the weights with rows for the new items, see :func:`rows_around`, and how many of these stand alone."""
    grown, n_alone = dict(weights), 0
    for name in ITEM_TABLES:
        if name in weights:
            rows, n_alone = rows_around(weights[name], sessions, support_N)
            grown[name] = np.concatenate([weights[name], rows])
    return grown, n_alone


def grown_state(state: Mapping[str, np.ndarray], n_new: int, support_N: np.ndarray) -> dict[str, np.ndarray]:
    """Return accumulators and velocities with rows for the new items.

    A new item's accumulator is what one training event has added on average: the sum of the known items' accumulators
    over the number of events that added to them, those that no longer count in the support included. Its velocity is 0.
    """
    grown, n_events = dict(state), state_events(state, support_N)
    for name in ITEM_TABLES:
        for kind in (ACCUMULATOR, VELOCITY):
            table_ND = state.get(kind + name)
            if table_ND is not None:
                row = table_ND.sum(axis=0, dtype=np.float64) / n_events * (kind == ACCUMULATOR)
                rows = np.repeat(row[np.newaxis], n_new, axis=0).astype(table_ND.dtype)
                grown[kind + name] = np.concatenate([table_ND, rows])
    return grown


def state_events(state: Mapping[str, np.ndarray], support_N: np.ndarray) -> float:
    """Return how many training events added to the accumulators: as many as the support, unless that was decayed."""
    return float(state[STATE_EVENTS][0] if STATE_EVENTS in state else support_N.sum())
