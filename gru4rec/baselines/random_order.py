"""The floor: items in an order that a hash decides, another for every click of every session."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

State = tuple[Tensor, ...]

_ODD = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)  # splitmix64


class RandomScorer:
    """Scores items by a hash of the session's clicks, the item and the seed: the same alone and in any batch.

    Args:
        n_items: Items N that are scored.
        seed: Decides all orders.
    """

    def __init__(self, n_items: int, *, seed: int = 0) -> None:
        self.n_items, self.seed = n_items, seed

    def start(self, n_sessions: int) -> State:
        """Return the state of sessions without events: the hash of what they clicked, 0."""
        return (torch.zeros(n_sessions, 1, dtype=torch.int64),)

    def advance(self, state: State, item_idx: Sequence[int] | np.ndarray) -> State:
        """Return the hashes after one more click each."""
        clicked_R1 = np.asarray(item_idx, dtype=np.uint64)[:, None] + np.uint64(1)
        return (torch.from_numpy(_mixed(state[0].numpy().view(np.uint64) + clicked_R1).view(np.int64)),)

    def ready(self, state: State) -> State:
        """Return the hashes with the seed in them."""
        seed = _mixed(np.array([self.seed], dtype=np.uint64))
        return (torch.from_numpy(_mixed(state[0].numpy().view(np.uint64) ^ seed).view(np.int64)),)

    def score_block(self, ready: State, start: int, stop: int) -> Tensor:
        """Return scores (R, stop - start) in [0, 1) of items start..stop-1, float64."""
        return self.score_items(ready, np.arange(start, stop))

    def score_items(self, ready: State, item_idx: Sequence[int] | np.ndarray) -> Tensor:
        """Return scores (R, C) in [0, 1) of the given C items, float64."""
        item_C = _mixed(np.asarray(item_idx, dtype=np.uint64))
        bits_RC = _mixed(ready[0].numpy().view(np.uint64) ^ item_C)
        return torch.from_numpy((bits_RC >> np.uint64(11)) * 2.0**-53)


def _mixed(bits: np.ndarray) -> np.ndarray:
    """Return numbers that look random and are the same for the same input (splitmix64)."""
    bits = bits + np.uint64(_ODD[0])
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(_ODD[1])
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(_ODD[2])
    return np.asarray(bits ^ (bits >> np.uint64(31)))
