"""Scorers that look at the last click alone: what follows it, or stands beside it, in the training sessions.

Markov (sequential rules) counts what came after, nearer items more; association rules count what stands in the same
sessions; item kNN divides those counts by the popularity of both items. All of it is one sparse matrix.

References:
    Ludewig, Jannach, UMUAI 2018, arXiv:1803.09587, for sequential and association rules; Sarwar et al., WWW 2001, for
    item-based collaborative filtering with the cosine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gru4rec.baselines.clicks import State
from gru4rec.baselines.item_loops import look_up_in_rows, nearby_items, places_by_item, write_block_of_rows
from gru4rec.baselines.settings import AssociationSettings, ItemKNNSettings, MarkovSettings
from gru4rec.baselines.sparse import SparseScorer, padded
from gru4rec.data.sessions import Sessions

LONGEST = 1_000
"""Events on either side of an item that can stand beside it; longer sessions are seldom people."""


@dataclass(frozen=True)
class ItemMatrix:
    """What each item says about others: a sparse matrix of N rows.

    Attributes:
        row_offsets: Int64 (N + 1,), where each item's row begins.
        item_idx: Int32, the items of a row, ascending.
        score: Float32, > 0.
    """

    row_offsets: np.ndarray
    item_idx: np.ndarray
    score: np.ndarray


class ItemToItemScorer(SparseScorer):
    """Scores items by the row of the item that was clicked last.

    Rows of popular items can be as long as the catalogue, so scores are read from the matrix: no row is copied.

    Args:
        matrix: The rows.
        support: Int (N,), training events of each item.
    """

    def __init__(self, matrix: ItemMatrix, support: np.ndarray) -> None:
        super().__init__(support, n_kept=1)
        self.matrix = matrix

    def said_about(self, clicks_RL: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of the newest items; see :meth:`SparseScorer.said_about`."""
        newest_R = clicks_RL[:, 0].astype(np.int64) - 1
        first_R = self.matrix.row_offsets[np.maximum(newest_R, 0)]
        length_R = np.where(newest_R < 0, 0, self.matrix.row_offsets[newest_R + 1] - first_R)
        offsets = np.r_[0, np.cumsum(length_R)]
        places = np.arange(offsets[-1]) + np.repeat(first_R - offsets[:-1], length_R)
        return padded(self.matrix.item_idx[places], self.matrix.score[places], offsets, self.n_items)

    def ready(self, state: State) -> State:
        """Return int64 (R,), the rows to read; -1 where nothing was clicked."""
        return (state[0][:, 0].long() - 1,)

    def score_block(self, ready: State, start: int, stop: int) -> Tensor:
        """Return scores (R, stop - start) of items start..stop-1, float64."""
        scores_RC = np.empty((len(ready[0]), stop - start), dtype=np.float64)
        scores_RC[:] = self._behind_N[start:stop]
        write_block_of_rows(*self._rows, self._nudge_N, ready[0].numpy(), start, scores_RC)
        return torch.from_numpy(scores_RC)

    def score_items(self, ready: State, item_idx: Sequence[int] | np.ndarray) -> Tensor:
        """Return scores (R, C) of the given C items, float64."""
        wanted = np.asarray(item_idx, dtype=np.int32)
        scores_RC = np.empty((len(ready[0]), len(wanted)), dtype=np.float64)
        scores_RC[:] = self._behind_N[wanted]
        look_up_in_rows(*self._rows, self._nudge_N, ready[0].numpy(), wanted, scores_RC)
        return torch.from_numpy(scores_RC)

    @property
    def _rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.matrix.row_offsets, self.matrix.item_idx, self.matrix.score


def markov(sessions: Sessions, settings: MarkovSettings) -> ItemToItemScorer:
    """Count what came up to ``steps`` events after each item, by 1 / distance."""
    weight_D = 1.0 / np.arange(1, settings.steps + 1)
    return _fitted(sessions, weight_D, settings.n_neighbours)


def association_rules(sessions: Sessions, settings: AssociationSettings) -> ItemToItemScorer:
    """Count what stands in the same sessions as each item, each pair of events once."""
    return _fitted(sessions, np.ones(_reach(sessions)), settings.n_neighbours, both_ways=True)


def item_knn(sessions: Sessions, settings: ItemKNNSettings) -> ItemToItemScorer:
    """Take the cosine of items as sets of sessions, x being ``regularisation``.

    That is: sessions that hold both / root of (sessions that hold one + x) (sessions that hold the other + x).
    """
    held_by = np.bincount(_distinct_items(sessions), minlength=sessions.items.n_items)
    factor_N = 1.0 / np.sqrt(np.maximum(held_by + settings.regularisation, 1.0))
    return _fitted(
        sessions, np.ones(_reach(sessions)), settings.n_neighbours, both_ways=True, once=True, factor_N=factor_N
    )


def _reach(sessions: Sessions) -> int:
    return int(min(sessions.lengths.max(initial=1), LONGEST))


def _distinct_items(sessions: Sessions) -> np.ndarray:
    """Return the items of all sessions, each once a session."""
    session = np.repeat(np.arange(sessions.n_sessions, dtype=np.int64), sessions.lengths)
    n_items = sessions.items.n_items
    pairs: np.ndarray = np.unique(session * n_items + sessions.items_at(slice(None)))
    return pairs % n_items


def _fitted(
    sessions: Sessions,
    weight_D: np.ndarray,
    n_neighbours: int,
    *,
    both_ways: bool = False,
    once: bool = False,
    factor_N: np.ndarray | None = None,
) -> ItemToItemScorer:
    """Sum what stands near each item; see :func:`nearby_items`."""
    item_idx, support = np.ascontiguousarray(sessions.items_at(slice(None))), sessions.support()
    offsets, lengths = sessions.offsets, sessions.lengths
    place_offsets = np.r_[0, np.cumsum(support)]
    places = np.empty(len(item_idx), dtype=np.int64)
    places_by_item(item_idx, place_offsets, places)
    row_offsets = np.zeros(len(support) + 1, dtype=np.int64)
    items, sums = nearby_items(
        item_idx, np.repeat(offsets[:-1], lengths), np.repeat(offsets[1:], lengths), place_offsets, places, weight_D,
        both_ways, once, np.ones(len(support)) if factor_N is None else factor_N, n_neighbours, row_offsets,
    )  # fmt: skip
    return ItemToItemScorer(ItemMatrix(row_offsets, items, sums), support)
