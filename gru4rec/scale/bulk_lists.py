"""The lists of a stretch of sessions, after the last click of each or after every click, as columns of a table.

Sessions are read side by side, those of like length together; each list is that of its session alone, to the last bit.
Every number stays in arrays: a Python object for each list would cost more than finding it.

Dimensions: R lists that are found at once, K their length, J different lists of a stretch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from gru4rec.evaluate.evaluator import Scorer, State, score_blocks
from gru4rec.serve.recommender import Filters, Recommender
from gru4rec.serve.search import Search, SearchKind, make_search

_AT_ONCE = 1024
"""Sessions that are read, and lists that are found, at once: products of fewer rows are slower."""
_LONGEST_KEPT = 256
"""Longer lists are not kept in order while scores go by, but sorted once: to insert an item costs what lies below."""


class Finder:
    """Finds lists with a model. Threads may share it.

    Args:
        recommender: Of the same model; knows ids, and what sessions without a known click get.
        scorer: The model.
        kind: How lists are found, which are always the same.
        filters: What they are to hold.

    Attributes:
        recommender: As given.
        filters: As given.
    """

    def __init__(self, recommender: Recommender, scorer: Scorer, kind: SearchKind, filters: Filters) -> None:
        from gru4rec.jit import HAVE_NUMBA

        self.recommender, self.filters, self._scorer = recommender, filters, scorer
        is_kept = kind == "dense" and HAVE_NUMBA and filters.k <= _LONGEST_KEPT
        self._search: Search | None = None if is_kept else make_search(scorer, kind)
        self._barred_N = _barred(filters, scorer.n_items)

    def popular(self) -> tuple[np.ndarray, np.ndarray]:
        """Return items (k,) and scores (k,) of a session without a known click; -1 after the end of a short list."""
        found = self.recommender.lists(self._scorer.start(1), [[]], [0], [self.filters])[0]
        item_K, score_K = _room(1, self.filters.k)
        item_K[0, : len(found.scores)] = self.recommender.known(found.item_ids)
        score_K[0, : len(found.scores)] = found.scores
        return item_K[0], score_K[0]

    def states(self, known: np.ndarray, offsets: np.ndarray, wanted: np.ndarray) -> Iterator[tuple[State, np.ndarray]]:
        """Read sessions side by side, one GRU step a click.

        Args:
            known: Int32 (n,), item indices.
            offsets: Int64 (S + 1,), where sessions begin; one may be empty.
            wanted: Bool (n,), the clicks after which states are wanted.

        Yields:
            States of R sessions, and the places (R,) in ``known`` of the clicks that they come after.
        """
        lengths = np.diff(offsets)
        longest_first = np.argsort(-lengths, kind="stable")[: np.count_nonzero(lengths)]
        for start in range(0, len(longest_first), _AT_ONCE):
            part = longest_first[start : start + _AT_ONCE]
            state = self._scorer.start(len(part))
            for step in range(int(lengths[part[0]])):
                n_going = np.count_nonzero(lengths[part] > step)
                place = offsets[part[:n_going]] + step
                state = self._scorer.advance(tuple(tensor[:n_going] for tensor in state), known[place])
                rows = np.flatnonzero(wanted[place])
                if len(rows):
                    index = torch.from_numpy(rows)
                    yield tuple(tensor[index] for tensor in state), place[rows]

    def best(
        self, state: State, clicked: np.ndarray, first: np.ndarray, stop: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find lists.

        Args:
            state: Of R sessions.
            clicked: Item indices.
            first: Int64 (R,), where a session's clicks begin in ``clicked``.
            stop: Int64 (R,), after its newest one.

        Returns:
            Int32 (R, K) item indices, -1 after the end of a short list; float64 (R, K) scores.
        """
        if self._search is None:
            return self._kept_best(state, clicked, first, stop)
        wanted = [self.filters.wanted(clicked[a:b]) for a, b in zip(first, stop, strict=True)]
        item_RK, score_RK = _room(len(first), self.filters.k)
        for row, best in enumerate(self._search.best(state, wanted)):
            item_RK[row, : len(best.item_idx)], score_RK[row, : len(best.scores)] = best.item_idx, best.scores
        return item_RK, score_RK

    def _kept_best(
        self, state: State, clicked: np.ndarray, first: np.ndarray, stop: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Score everything in blocks that stay in the cache, as the evaluation does."""
        from gru4rec.scale.bulk_loops import keep_best

        if not self.filters.exclude_seen:
            first = stop - 1 if self.filters.exclude_current else stop
        item_RK, score_RK = _room(len(first), self.filters.k)
        for start, scores in score_blocks(self._scorer, self._scorer.ready(state)):
            scores_RC = np.ascontiguousarray(scores.numpy())
            if not start:
                score_RK = score_RK.astype(scores_RC.dtype)
            keep_best(scores_RC, start, self._barred_N, clicked, first, stop, score_RK, item_RK)
        return item_RK, score_RK.astype(np.float64)


@dataclass(frozen=True)
class Stretch:
    """Sessions one after the other.

    Attributes:
        ids: Id of each session.
        item_idx: Int32 (n_clicks,), their clicks in the model's item indices, -1 for unknown items.
        offsets: Int64 (n_sessions + 1,), session s has the clicks offsets[s] up to offsets[s + 1], at least one.
    """

    ids: pa.Array
    item_idx: np.ndarray
    offsets: np.ndarray


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
    finder: Finder, stretch: Stretch, schema: pa.Schema, *, before_batch: Callable[[], None] = lambda: None
) -> pa.Table:
    """Return the lists of some sessions.

    Args:
        finder: Finds them.
        stretch: The sessions.
        schema: Of the table; with a ``position``, there is a row for every click.
        before_batch: Called before each batch; may raise.
    """
    lengths, n_sessions = np.diff(stretch.offsets), len(stretch.ids)
    every_click = "position" in schema.names
    session = np.repeat(np.arange(n_sessions), lengths) if every_click else np.arange(n_sessions)
    stop = np.arange(1, len(stretch.item_idx) + 1) if every_click else stretch.offsets[1:]
    n_clicks = stop - stretch.offsets[session]
    n_known_before = np.r_[0, np.cumsum(stretch.item_idx >= 0)]
    offsets = n_known_before[stretch.offsets]
    n_known = n_known_before[stop] - offsets[session]
    has_list = n_known > 0
    newest = n_known_before[stop] - 1  # of the known clicks, where there is one
    wanted = np.zeros(offsets[-1], dtype=bool)
    wanted[newest[has_list]] = True
    item_JK, score_JK = _found(finder, stretch.item_idx[stretch.item_idx >= 0], offsets, wanted, before_batch)
    number = np.where(has_list, np.cumsum(wanted)[newest] - 1 if len(wanted) else 0, len(item_JK) - 1)
    item_ids, scores = _columns(finder, item_JK[number], score_JK[number])
    columns = {
        "session_id": stretch.ids.take(pa.array(session)),
        "position": pa.array(n_clicks, pa.int32()),
        "n_clicks": pa.array(n_clicks, pa.int32()),
        "n_unknown": pa.array(n_clicks - n_known, pa.int32()),
        "popular": pa.array(~has_list),
        "item_ids": item_ids,
        "scores": scores,
    }
    return pa.table([columns[field.name] for field in schema], schema=schema)


def _found(
    finder: Finder, known: np.ndarray, offsets: np.ndarray, wanted: np.ndarray, before_batch: Callable[[], None]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the lists (J, K) after the wanted clicks, in their order, and the popular one after them."""
    item_JK, score_JK = _room(int(np.count_nonzero(wanted)) + 1, finder.filters.k)
    item_JK[-1], score_JK[-1] = finder.popular()
    number, first = np.cumsum(wanted) - 1, np.repeat(offsets[:-1], np.diff(offsets))
    for state, place in _gathered(finder.states(known, offsets, wanted), before_batch):
        found = finder.best(state, known, first[place], place + 1)
        item_JK[number[place]], score_JK[number[place]] = found
    return item_JK, score_JK


def _gathered(
    states: Iterator[tuple[State, np.ndarray]], before_batch: Callable[[], None]
) -> Iterator[tuple[State, np.ndarray]]:
    """Put states together until there are enough for a product; yield at most so many at a time."""
    waiting, n_waiting = list[tuple[State, np.ndarray]](), 0
    before_batch()
    for each in states:
        waiting.append(each)
        n_waiting += len(each[1])
        while n_waiting >= _AT_ONCE:
            before_batch()
            state, place = _joined(waiting)
            yield tuple(part[:_AT_ONCE] for part in state), place[:_AT_ONCE]
            waiting = [(tuple(part[_AT_ONCE:] for part in state), place[_AT_ONCE:])]
            n_waiting -= _AT_ONCE
    if n_waiting:
        yield _joined(waiting)


def _joined(waiting: list[tuple[State, np.ndarray]]) -> tuple[State, np.ndarray]:
    states, places = zip(*waiting, strict=True)
    return tuple(torch.cat(parts) for parts in zip(*states, strict=True)), np.concatenate(places)


def _columns(finder: Finder, item_RK: np.ndarray, score_RK: np.ndarray) -> tuple[pa.Array, pa.Array]:
    """Return lists of ids and of scores, without what is after the end of short ones."""
    is_there = item_RK >= 0
    offsets = pa.array(np.r_[0, np.cumsum(is_there.sum(axis=1))], pa.int32())
    ids = finder.recommender.items.item_ids.take(pa.array(item_RK[is_there]))
    return pa.ListArray.from_arrays(offsets, ids), pa.ListArray.from_arrays(offsets, pa.array(score_RK[is_there]))


def _room(n_lists: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return empty lists: items -1, scores -inf."""
    return np.full((n_lists, k), -1, dtype=np.int32), np.full((n_lists, k), -np.inf)


def _barred(filters: Filters, n_items: int) -> np.ndarray:
    """Return whether an item may stand in no list (n_items,); empty where all may."""
    if filters.allowed_idx is None and not len(filters.excluded_idx):
        return np.empty(0, dtype=bool)
    barred_N = np.full(n_items, filters.allowed_idx is not None)
    if filters.allowed_idx is not None:
        barred_N[filters.allowed_idx] = False
    barred_N[filters.excluded_idx] = True
    return barred_N
