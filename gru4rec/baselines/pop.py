"""The popularity baseline: every session is offered the items clicked most in training."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

State = tuple[Tensor, ...]


class PopularityScorer:
    """Scores each item by its support; the session does not matter.

    Args:
        support: (n_items,), training events of each item.
    """

    def __init__(self, support: np.ndarray) -> None:
        self._support = torch.as_tensor(np.asarray(support, dtype=np.float64))
        self.n_items = len(support)

    def start(self, n_sessions: int) -> State:
        """Return the state of sessions without events."""
        return (torch.zeros(n_sessions, 1),)

    def advance(self, state: State, item_idx: np.ndarray) -> State:
        """Return the state unchanged: nothing is learned from a click."""
        return state

    def ready(self, state: State) -> State:
        """Return the state: there is nothing to compute."""
        return state

    def score_block(self, ready: State, start: int, stop: int) -> Tensor:
        """Return the supports of items start..stop-1 for each of R sessions, (R, stop - start)."""
        return self._support[start:stop].expand(len(ready[0]), -1)

    def score_items(self, ready: State, item_idx: np.ndarray) -> Tensor:
        """Return the supports of the given items for each of R sessions."""
        return self._support[torch.as_tensor(item_idx.astype(np.int64))].expand(len(ready[0]), -1)
