"""The k best of a row of scores, in an order that never depends on how they were found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Wanted:
    """What a session's list is to hold.

    Attributes:
        k: List length, >= 1.
        excluded_idx: Items that may not stand in it: int32, ascending, distinct.
        allowed_idx: The only items that may: likewise; None: all.
    """

    k: int
    excluded_idx: np.ndarray
    allowed_idx: np.ndarray | None = None


def top_k(scores_N: np.ndarray, k: int, *, excluded_idx: np.ndarray | None = None) -> np.ndarray:
    """Return the indices of the k highest scores, best first; equal scores in index order.

    Args:
        scores_N: Float (N,), finite.
        k: List length, >= 1.
        excluded_idx: Indices that may not be returned; may repeat.

    Returns:
        Int64, k indices, or fewer where fewer are left.

    Example:
        >>> top_k(np.array([1.0, 3.0, 3.0, 2.0]), 3).tolist()
        [1, 2, 3]
    """
    allowed = np.arange(len(scores_N))
    if excluded_idx is not None and len(excluded_idx):
        allowed = np.setdiff1d(allowed, excluded_idx)
        scores_N = scores_N[allowed]
    if k < len(scores_N):
        kth_highest = np.partition(scores_N, len(scores_N) - k)[len(scores_N) - k]
        above = np.flatnonzero(scores_N > kth_highest)
        level = np.flatnonzero(scores_N == kth_highest)[: k - len(above)]
        best = np.concatenate([above, level])
        best.sort()
    else:
        best = np.arange(len(scores_N))
    in_order = best[np.argsort(-scores_N[best], kind="stable")]
    return np.asarray(allowed[in_order], dtype=np.int64)
