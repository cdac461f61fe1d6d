"""What recommended lists are worth beyond the rank of the next item. Knows lists, sessions and supports; no models.

T targets (every event but a session's first, in the order of the sessions' events), K places of a list, N items. Row t
of ``lists_TK`` was made when the session had been read up to the event before target t: item indices, best first, -1
where fewer than K items could be recommended. Measures look at the first k places, and such a gap counts as no item.
"""

from __future__ import annotations

import numpy as np

from gru4rec.data.sessions import Sessions
from gru4rec.errors import ConfigError, DataError, ShapeError
from gru4rec.evaluate.metrics import METRICS


def remaining_values(lists_TK: np.ndarray, sessions: Sessions, k: int) -> dict[str, np.ndarray]:
    """Measure each list against all that its session clicked later, not the next item alone.

    Relevant are the R >= 1 distinct items from the target to the end of the session, those clicked before included. An
    item listed twice is found once, at its better place. Each value is 0 where nothing relevant is listed, else

    - ``recall``: the relevant items that are listed, by R. A list shorter than R cannot reach 1.
    - ``mrr``: 1 / the place of the first relevant item.
    - ``ndcg``: the sum of 1 / log2(place + 1) over relevant items, by the same sum over the first min(R, k) places.
    - ``map``: the sum over relevant items of the share of relevant items up to their place, by min(R, k).

    Args:
        lists_TK: Int32 (T, K).
        sessions: The sessions the lists were made for, T targets.
        k: List length, 1 to K.

    Returns:
        Float64 (T,) for each of ``METRICS``; a metric is the mean of its values.

    Raises:
        DataError: The sessions have no target, or their file is damaged.
        ShapeError: Not one list for each target.
        ConfigError: k is below 1 or above K, or a list holds an index that is no item's.

    References:
        Järvelin and Kekäläinen, TOIS 2002, doi:10.1145/582415.582418, for the discounted gain.
    """
    from gru4rec.evaluate.lists_numba import measure_remaining

    lists_Tk = _lists_of(lists_TK, sessions, k)
    n_items = sessions.items.n_items
    discount_K = 1.0 / np.log2(np.arange(2.0, k + 2.0))
    values = np.zeros((len(METRICS), len(lists_Tk)))
    measure_remaining(
        lists_Tk, _items_of(sessions), sessions.offsets, discount_K, np.cumsum(discount_K), *_never(n_items, 2), values
    )
    return dict(zip(METRICS, values, strict=True))


def repeat_rate(lists_TK: np.ndarray, sessions: Sessions, k: int) -> float:
    """Return the share of listed items that their session had already clicked when the list was made.

    Args:
        lists_TK: Int32 (T, K).
        sessions: The sessions the lists were made for, T targets.
        k: List length, 1 to K.

    Raises:
        DataError: The sessions have no target, their file is damaged, or no list holds an item.
        ShapeError: Not one list for each target.
        ConfigError: k is below 1 or above K, or a list holds an index that is no item's.
    """
    from gru4rec.evaluate.lists_numba import count_clicked

    lists_Tk = _lists_of(lists_TK, sessions, k)
    n_listed = np.count_nonzero(lists_Tk >= 0)
    if not n_listed:
        raise _nothing_listed()
    n_items = sessions.items.n_items
    return float(count_clicked(lists_Tk, _items_of(sessions), sessions.offsets, *_never(n_items, 1)) / n_listed)


def coverage(lists_TK: np.ndarray, n_items: int, k: int) -> float:
    """Return the share of the catalogue that is in one list at least.

    Args:
        lists_TK: Int32 (T, K).
        n_items: Items N of the catalogue.
        k: List length, 1 to K.

    Raises:
        ShapeError: ``lists_TK`` is not a matrix.
        ConfigError: k is below 1 or above K, or a list holds an index that is no item's.

    Example:
        >>> coverage(np.array([[0, 1], [0, 2]]), 4, 2)
        0.75
    """
    return float(np.count_nonzero(_exposure(lists_TK, n_items, k)) / n_items)


def gini(lists_TK: np.ndarray, n_items: int, k: int) -> float:
    """Return how unevenly lists show the catalogue: 0 when all items are equally often listed, 1 when one item only.

    With the exposures x_1 <= ... <= x_N of all items, those never listed included, the coefficient is
    sum_i (2 i - N - 1) x_i / (N sum_i x_i). Its largest value is (N - 1) / N, so it is multiplied by N / (N - 1), which
    makes catalogues of different sizes comparable. Lists of k different items cannot show one item only: at best, they
    reach (N - k) / (N - 1).

    Args:
        lists_TK: Int32 (T, K).
        n_items: Items N of the catalogue. A single item is shown evenly.
        k: List length, 1 to K.

    Raises:
        DataError: No list holds an item.
        ShapeError: ``lists_TK`` is not a matrix.
        ConfigError: k is below 1 or above K, or a list holds an index that is no item's.

    Example:
        >>> gini(np.array([[0], [1], [1], [1]]), 2, 1)  # (-1 * 1 + 1 * 3) / (1 * 4)
        0.5
    """
    exposure_N = np.sort(_some_exposure(lists_TK, n_items, k))
    weight_N = 2 * np.arange(1, n_items + 1) - n_items - 1
    return float(weight_N @ exposure_N / (max(n_items - 1, 1) * exposure_N.sum()))


def average_popularity(lists_TK: np.ndarray, support_N: np.ndarray, k: int) -> float:
    """Return the mean, over listed items, of an item's share of the training events; more is more mainstream.

    Args:
        lists_TK: Int32 (T, K).
        support_N: Training events of each item.
        k: List length, 1 to K.

    Raises:
        DataError: No list holds an item, or no item has an event.
        ShapeError: ``lists_TK`` is not a matrix.
        ConfigError: k is below 1 or above K, or a list holds an index that is no item's.

    Example:
        >>> average_popularity(np.array([[0], [1]]), np.array([3, 1]), 1)  # (3/4 + 1/4) / 2
        0.5
    """
    return _mean_over_listed(lists_TK, support_N / _n_events(support_N), k)


def novelty(lists_TK: np.ndarray, support_N: np.ndarray, k: int) -> float:
    """Return the mean, over listed items, of -log2 of an item's share of the training events, in bits.

    An item without a training event counts as one with a single event, since the logarithm of 0 has no mean; the sum
    that shares are of stays the number of events.

    Args:
        lists_TK: Int32 (T, K).
        support_N: Training events of each item.
        k: List length, 1 to K.

    Raises:
        DataError: No list holds an item, or no item has an event.
        ShapeError: ``lists_TK`` is not a matrix.
        ConfigError: k is below 1 or above K, or a list holds an index that is no item's.

    Example:
        >>> novelty(np.array([[0, 1]]), np.array([2, 6]), 1)  # -log2(2/8)
        2.0
    """
    return _mean_over_listed(lists_TK, np.log2(_n_events(support_N)) - np.log2(np.maximum(support_N, 1)), k)


def _mean_over_listed(lists_TK: np.ndarray, value_N: np.ndarray, k: int) -> float:
    exposure_N = _some_exposure(lists_TK, len(value_N), k)
    return float(exposure_N @ value_N / exposure_N.sum())


def _n_events(support_N: np.ndarray) -> int:
    n_events = int(np.sum(support_N))
    if n_events < 1:
        raise DataError("no item has a training event, so none is popular. Give the support of a training log")
    return n_events


def _some_exposure(lists_TK: np.ndarray, n_items: int, k: int) -> np.ndarray:
    exposure_N = _exposure(lists_TK, n_items, k)
    if not exposure_N.any():
        raise _nothing_listed()
    return exposure_N


def _nothing_listed() -> DataError:
    return DataError("no list holds an item, so there is nothing to measure. Give lists with an item at least")


def _exposure(lists_TK: np.ndarray, n_items: int, k: int) -> np.ndarray:
    """Return int64 (N,), how often each item is listed."""
    return np.bincount(_first_places(lists_TK, n_items, k).ravel() + 1, minlength=n_items + 1)[1:]


def _first_places(lists_TK: np.ndarray, n_items: int, k: int) -> np.ndarray:
    """Return the first k places of the lists, their indices checked."""
    if lists_TK.ndim != 2:
        raise ShapeError(f"lists of shape {lists_TK.shape}. Give (targets, places), one row for each target")
    if not 1 <= k <= lists_TK.shape[1]:
        raise ConfigError(f"cannot measure at k={k}: the lists have {lists_TK.shape[1]} places. Make longer lists")
    first = lists_TK[:, :k]
    if first.size and not -1 <= first.min() <= first.max() < n_items:
        raise ConfigError(
            f"the lists hold item indices {first.min()} to {first.max()}, but the catalogue has {n_items} items. "
            f"Give lists of the same catalogue: 0 to {n_items - 1}, and -1 where a list ends early"
        )
    return first


def _lists_of(lists_TK: np.ndarray, sessions: Sessions, k: int) -> np.ndarray:
    """Return the first k places of the lists of all targets of the sessions, both checked."""
    sessions.check_offsets()
    sessions.check_predictable()
    first = _first_places(lists_TK, sessions.items.n_items, k)
    if len(first) != sessions.n_targets:
        raise ShapeError(
            f"{len(first):,} lists for the {sessions.n_targets:,} targets of {sessions.source}. "
            "Give one for each event but a session's first"
        )
    return first


def _items_of(sessions: Sessions) -> np.ndarray:
    return sessions.items_at(slice(None))


def _never(n_items: int, n_marks: int) -> np.ndarray:
    """Return marks that no session and no row has set yet."""
    return np.full((n_marks, n_items), -1, dtype=np.int64)
