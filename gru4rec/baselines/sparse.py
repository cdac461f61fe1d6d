"""Scorers that say something about a few items of each session, and leave the others to popularity.

What is said about R sessions is a pair of tensors with one row each: items (R, K), ascending, and their scores (R, K);
rows that have less to say are filled up with an item beyond the catalogue. Everything else about scores is here.

Counts are often equal, and an order by chance would make a baseline look worse or better than it is: of items that are
said the same of, the more popular one scores higher, by a share of a billionth.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gru4rec.baselines.clicks import State, no_clicks, with_click
from gru4rec.baselines.sparse_loops import look_up, write_block

BELOW_ALL = -2.0
"""Score of items that are not to be recommended; that of items without a score is above -1 and at most 0."""


class SparseScorer(ABC):
    """Scores few items of the whole catalogue; all others follow below, by popularity.

    Args:
        support: Int (N,), training events of each item.
        n_kept: Clicks of a session that are remembered.

    Attributes:
        n_items: Items N that are scored.
    """

    def __init__(self, support: np.ndarray, *, n_kept: int) -> None:
        self.n_items = len(support)
        self._n_kept = n_kept
        self._behind_N = popularity_behind(support)
        self._nudge_N = 1 + 1e-9 * np.append(1 + self._behind_N, 0)  # the last is for what fills rows up

    @abstractmethod
    def said_about(self, clicks_RL: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return items int32 (R, K) and scores float (R, K), >= 0 or :data:`BELOW_ALL`, of R sessions.

        Items of a row ascend, each at most once; ``n_items`` fills rows up.

        Args:
            clicks_RL: Int32 (R, L), item indices + 1, newest first; 0 is none.
        """

    def start(self, n_sessions: int) -> State:
        """Return the state of sessions without events."""
        return no_clicks(n_sessions, self._n_kept)

    def advance(self, state: State, item_idx: Sequence[int] | np.ndarray) -> State:
        """Return the sessions' states after one more event each."""
        return with_click(state, item_idx)

    def said(self, state: State) -> tuple[Tensor, Tensor]:
        """Return what :meth:`said_about` says, the scores float64 and those of more popular items nudged up."""
        item_RK, score_RK = self.said_about(state[0].numpy())
        return torch.from_numpy(item_RK), torch.from_numpy(score_RK * self._nudge_N[item_RK])

    def ready(self, state: State) -> State:
        """Compute once what all blocks of scores come from: items (R, K) and scores (R, K)."""
        return self.said(state)

    def score_block(self, ready: State, start: int, stop: int) -> Tensor:
        """Return scores (R, stop - start) of items start..stop-1, float64."""
        scores_RC = np.empty((len(ready[0]), stop - start), dtype=np.float64)
        scores_RC[:] = self._behind_N[start:stop]
        write_block(ready[0].numpy(), ready[1].numpy(), start, scores_RC)
        return torch.from_numpy(scores_RC)

    def score_items(self, ready: State, item_idx: Sequence[int] | np.ndarray) -> Tensor:
        """Return scores (R, C) of the given C items, float64."""
        wanted = np.asarray(item_idx, dtype=np.int32)
        scores_RC = np.empty((len(ready[0]), len(wanted)), dtype=np.float64)
        scores_RC[:] = self._behind_N[wanted]
        look_up(ready[0].numpy(), ready[1].numpy(), wanted, scores_RC)
        return torch.from_numpy(scores_RC)


def popularity_behind(support: np.ndarray) -> np.ndarray:
    """Return float64 (N,), scores in (-1, 0] that order items by support and that items of equal support share.

    Example:
        >>> popularity_behind(np.array([7, 1, 7, 3])).tolist()
        [0.0, -0.75, 0.0, -0.5]
    """
    ascending = np.sort(np.asarray(support))
    n_more_popular = len(ascending) - np.searchsorted(ascending, support, side="right")
    return -n_more_popular / len(ascending)


def padded(items: np.ndarray, scores: np.ndarray, offsets: np.ndarray, n_items: int) -> tuple[np.ndarray, np.ndarray]:
    """Turn rows that lie one after the other into a pair (R, K), filled up with ``n_items``.

    Args:
        items: Int32 (n,), row r's from offsets[r] up to offsets[r + 1].
        scores: Float (n,).
        offsets: Int64 (R + 1,).
        n_items: What fills rows up.
    """
    lengths = np.diff(offsets)
    width = int(lengths.max(initial=0))
    item_RK = np.full((len(lengths), width), n_items, dtype=np.int32)
    score_RK = np.zeros((len(lengths), width), dtype=scores.dtype)
    is_used = np.arange(width) < lengths[:, None]
    item_RK[is_used], score_RK[is_used] = items, scores
    return item_RK, score_RK
