"""The lists of a stretch of sessions, after the last click of each or after every click.

Sessions are read side by side, the short ones together; each list is that of its session alone, to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import torch

from gru4rec.evaluate.evaluator import State
from gru4rec.serve.recommender import Filters, Recommendations, Recommender

_AT_ONCE = 512
"""Sessions that are read, and lists that are found, at once."""


def schema_of(session_id: pa.DataType, item_id: pa.DataType, *, every_click: bool) -> pa.Schema:
    """Return the columns of the output.

    Args:
        session_id: Type of session ids.
        item_id: Type of item ids.
        every_click: Whether rows have a position.
    """
    return pa.schema(
        [
            ("session_id", session_id),
            *([("position", pa.int32())] if every_click else []),
            ("n_clicks", pa.int32()),
            ("n_unknown", pa.int32()),
            ("popular", pa.bool_()),
            ("item_ids", pa.list_(item_id)),
            ("scores", pa.list_(pa.float64())),
        ]
    )


def lists_of(
    recommender: Recommender,
    ids: pa.Array,
    clicked: Sequence[np.ndarray],
    filters: Filters,
    schema: pa.Schema,
    *,
    before_batch: Callable[[], None] = lambda: None,
) -> pa.Table:
    """Return the lists of some sessions.

    Args:
        recommender: Finds them.
        ids: Id of each session.
        clicked: Clicks of each, as item indices, -1 for unknown items.
        filters: What lists are to hold.
        schema: Of the table; with a ``position``, there is a row for every click.
        before_batch: Called before each batch; may raise.
    """
    every_click = "position" in schema.names
    found: list[list[Recommendations]] = [[] for _ in clicked]
    by_length = np.argsort([len(item_idx) for item_idx in clicked], kind="stable")
    for first in range(0, len(clicked), _AT_ONCE):
        part = by_length[first : first + _AT_ONCE].tolist()
        lists = _lists(recommender, [clicked[place] for place in part], filters, every_click, before_batch)
        for place, of_session in zip(part, lists, strict=True):
            found[place] = of_session
    return _table(ids, clicked, found, schema)


def _lists(
    recommender: Recommender,
    clicked: Sequence[np.ndarray],
    filters: Filters,
    every_click: bool,
    before_batch: Callable[[], None],
) -> list[list[Recommendations]]:
    """Return the lists of sessions that are read side by side."""
    before_batch()
    known = [item_idx[item_idx >= 0] for item_idx in clicked]
    positions = [range(1, len(item_idx) + 1) if every_click else [len(item_idx)] for item_idx in clicked]
    n_known = [np.cumsum(item_idx >= 0)[np.array(at) - 1] for item_idx, at in zip(clicked, positions, strict=True)]
    state, first_row = _states(recommender, known, every_click)
    rows = np.concatenate([start + n for start, n in zip(first_row, n_known, strict=True)])
    before = [clicks[:n] for clicks, counts in zip(known, n_known, strict=True) for n in counts]
    unknown = [
        int(at - n) for ats, counts in zip(positions, n_known, strict=True) for at, n in zip(ats, counts, strict=True)
    ]
    lists: list[Recommendations] = []
    for first in range(0, len(rows), _AT_ONCE):
        before_batch()
        part = slice(first, first + _AT_ONCE)
        index = torch.from_numpy(rows[part])
        of_rows = tuple(tensor[index] for tensor in state)
        lists += recommender.lists(of_rows, before[part], unknown[part], [filters] * len(index))
    stops = np.cumsum([len(at) for at in positions])
    return [lists[stop - len(at) : stop] for stop, at in zip(stops, positions, strict=True)]


def _states(recommender: Recommender, known: Sequence[np.ndarray], every_click: bool) -> tuple[State, np.ndarray]:
    """Return states, and which row would be that of each session before its first click.

    With ``every_click`` there is a row for each number of known clicks, else one a session, after all of them.
    """
    n_known = np.array([len(clicks) for clicks in known])
    if not every_click:
        return recommender.states_of(known), np.arange(len(known)) - n_known
    first_row = np.cumsum(n_known + 1) - (n_known + 1)
    state = recommender.start(len(known))
    along = recommender.start(int((n_known + 1).sum()))
    for step in range(int(n_known.max(initial=0))):
        going = np.flatnonzero(n_known > step)
        index, rows = torch.from_numpy(going), torch.from_numpy(first_row[going] + step + 1)
        after = recommender.states_of(
            [known[place][step : step + 1] for place in going.tolist()], tuple(p[index] for p in state)
        )
        for part, part_along, new in zip(state, along, after, strict=True):
            part[index] = new
            part_along[rows] = new
    return along, first_row


def _table(
    ids: pa.Array, clicked: Sequence[np.ndarray], found: Sequence[Sequence[Recommendations]], schema: pa.Schema
) -> pa.Table:
    n_rows = np.array([len(lists) for lists in found])
    n_clicks = [
        position
        for item_idx, lists in zip(clicked, found, strict=True)
        for position in range(len(item_idx) - len(lists) + 1, len(item_idx) + 1)
    ]
    lists = [each for of_session in found for each in of_session]
    columns = {
        "session_id": ids.take(pa.array(np.repeat(np.arange(len(found)), n_rows))),
        "position": n_clicks,
        "n_clicks": n_clicks,
        "n_unknown": [each.n_unknown for each in lists],
        "popular": [each.n_unknown == n for each, n in zip(lists, n_clicks, strict=True)],
        "item_ids": [each.item_ids for each in lists],
        "scores": [each.scores for each in lists],
    }
    return pa.table([pa.array(columns[field.name], field.type) for field in schema], schema=schema)
