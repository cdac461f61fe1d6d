"""Recall and mean reciprocal rank from ranks. Knows nothing of scores or models."""

from __future__ import annotations

import numpy as np


def recall_at_k(ranks: np.ndarray, k: int) -> float:
    """Return the share of targets among the first k.

    Args:
        ranks: (n_targets,), 1 is best; at least one.
        k: List length, >= 1.

    Example:
        >>> recall_at_k(np.array([1, 3, 30]), 20)  # two of three
        0.6666666666666666
    """
    return float(np.mean(ranks <= k))


def mrr_at_k(ranks: np.ndarray, k: int) -> float:
    """Return the mean of 1 / rank, counting 0 for targets that are not among the first k.

    Args:
        ranks: (n_targets,), 1 is best; at least one.
        k: List length, >= 1.

    Example:
        >>> mrr_at_k(np.array([1, 4, 30]), 20)  # (1 + 1/4 + 0) / 3
        0.4166666666666667
    """
    return float(np.mean(np.where(ranks <= k, 1.0 / ranks, 0.0)))
