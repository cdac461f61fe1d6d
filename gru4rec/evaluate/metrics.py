"""Recall, mean reciprocal rank, NDCG and MAP from ranks. Knows nothing of scores or models.

One event has one relevant item, its target. Measures with more relevant items are in :mod:`gru4rec.evaluate.lists`.
"""

from __future__ import annotations

import numpy as np

from gru4rec.errors import ConfigError

METRICS: tuple[str, ...] = ("recall", "mrr", "ndcg", "map")
"""Names of the metrics, each 0 (worst) to 1 (best)."""


def event_values(ranks: np.ndarray, metric: str, k: int) -> np.ndarray:
    """Return float64 (n_targets,), what each target adds to a metric; the metric is their mean.

    A target that is not among the first k adds 0. One that is adds 1 to ``recall``, 1 / rank to ``mrr`` and to ``map``
    (the same where one item is relevant), and 1 / log2(rank + 1) to ``ndcg``.

    Args:
        ranks: (n_targets,), 1 is best; need not be whole, as those of ties are in the middle.
        metric: One of ``METRICS``.
        k: List length, >= 1.

    Raises:
        ConfigError: An unknown metric.

    Example:
        >>> event_values(np.array([1, 3, 30]), "ndcg", 20).tolist()
        [1.0, 0.5, 0.0]
    """
    if metric == "recall":
        gain = np.ones(len(ranks))
    elif metric in ("mrr", "map"):
        gain = 1.0 / ranks
    elif metric == "ndcg":
        gain = 1.0 / np.log2(ranks + 1.0)
    else:
        raise ConfigError(f"unknown metric {metric!r}. Choose from {', '.join(METRICS)}")
    return np.where(ranks <= k, gain, 0.0)


def recall_at_k(ranks: np.ndarray, k: int) -> float:
    """Return the share of targets among the first k.

    Args:
        ranks: (n_targets,), 1 is best; at least one.
        k: List length, >= 1.

    Example:
        >>> recall_at_k(np.array([1, 3, 30]), 20)  # two of three
        0.6666666666666666
    """
    return float(np.mean(event_values(ranks, "recall", k)))


def mrr_at_k(ranks: np.ndarray, k: int) -> float:
    """Return the mean of 1 / rank, counting 0 for targets that are not among the first k.

    Args:
        ranks: (n_targets,), 1 is best; at least one.
        k: List length, >= 1.

    Example:
        >>> mrr_at_k(np.array([1, 4, 30]), 20)  # (1 + 1/4 + 0) / 3
        0.4166666666666667
    """
    return float(np.mean(event_values(ranks, "mrr", k)))


def ndcg_at_k(ranks: np.ndarray, k: int) -> float:
    """Return the mean of 1 / log2(rank + 1), counting 0 for targets that are not among the first k.

    This is the normalized discounted cumulative gain of one relevant item, whose best possible value is 1.

    Args:
        ranks: (n_targets,), 1 is best; at least one.
        k: List length, >= 1.

    Example:
        >>> ndcg_at_k(np.array([1, 3, 30]), 20)  # (1 + 1/2 + 0) / 3
        0.5
    """
    return float(np.mean(event_values(ranks, "ndcg", k)))


def map_at_k(ranks: np.ndarray, k: int) -> float:
    """Return the mean average precision; with one relevant item a target the same number as :func:`mrr_at_k`.

    The precision at the place of the only hit is 1 / rank, and there is nothing to average it with.

    Args:
        ranks: (n_targets,), 1 is best; at least one.
        k: List length, >= 1.

    Example:
        >>> map_at_k(np.array([1, 4, 30]), 20)
        0.4166666666666667
    """
    return float(np.mean(event_values(ranks, "map", k)))
