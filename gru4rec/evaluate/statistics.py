"""How far metrics can be trusted: intervals, paired comparisons, corrections. Knows values of events; no models.

Events of one session are alike, so a session is what is drawn, swapped and counted here, never an event. T targets, S
sessions with a target, M metrics (columns).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gru4rec.errors import ConfigError, ShapeError

_CHUNK = 1 << 21
"""Draws held at once, 16 MB of numbers, however many sessions and resamples there are."""
_BOOTSTRAP_STREAM, _PERMUTATION_STREAM = 3, 4
_ROUNDING = 1e-11
"""Sums over sessions that are closer than this, as a share of the sum of their sizes, count as equal."""


@dataclass(frozen=True)
class Interval:
    """A metric's value and the bounds that contain its true value with the level's probability."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Paired:
    """How much one model is better than another on the same targets.

    Attributes:
        difference: Mean of the first model's values minus the mean of the second's.
        low: Lower bound of the difference.
        high: Upper bound of the difference.
        p_value: How often a difference as large, in either direction, comes about by chance if both are equally good.
    """

    difference: float
    low: float
    high: float
    p_value: float


def bootstrap_intervals(
    values_TM: np.ndarray, session_T: np.ndarray, *, n_resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> list[Interval]:
    """Estimate how far means over events would move with other sessions of the same kind.

    A resample draws S of the S sessions, with replacement; its value is the sum over its events, by their number. The
    bounds are percentiles of these values. All columns see the same resamples. Few sessions tell little: below some
    dozens, intervals are too narrow, and one session gives no width at all.

    Args:
        values_TM: Float (T, M), what each target adds to each metric, as ``event_values`` and ``remaining_values`` have
            it.
        session_T: Int (T,), which session each target is of. Sessions without a target do not occur in it.
        n_resamples: Resamples; 2000 place the bounds within a few percent of the interval's width.
        level: Probability, above 0 and below 1.
        seed: Decides the resamples.

    Returns:
        An interval for each column; its value is the mean of the column.

    Raises:
        ShapeError: ``values_TM`` is not a matrix, or ``session_T`` has another length.
        ConfigError: No target, a value that is not finite, a level outside (0, 1), or no resample.

    References:
        Efron, Annals of Statistics 1979, doi:10.1214/aos/1176344552. The sessions are the clusters of Field and Welsh,
        JRSS B 2007, doi:10.1111/j.1467-9868.2007.00593.x.
    """
    _check_at_least_one("n_resamples", n_resamples)
    if not 0 < level < 1:
        raise ConfigError(f"level={level} is no probability to trust in. Give one above 0 and below 1, such as 0.95")
    sums_SM, n_events_S = _session_sums(values_TM, session_T)
    sums_SX = np.column_stack([sums_SM, n_events_S])
    totals_RX = np.concatenate([weights @ sums_SX for weights in _resample_weights(len(sums_SX), n_resamples, seed)])
    estimates_RM = totals_RX[:, :-1] / totals_RX[:, -1:]
    low_M, high_M = np.quantile(estimates_RM, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return [
        Interval(float(np.mean(values_T)), float(low), float(high))
        for values_T, low, high in zip(values_TM.T, low_M, high_M, strict=True)
    ]


def compare_paired(
    a_T: np.ndarray,
    b_T: np.ndarray,
    session_T: np.ndarray,
    *,
    n_resamples: int = 2000,
    n_permutations: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Paired:
    """Compare two models by their values at the same targets.

    The bounds are those of :func:`bootstrap_intervals` for the differences a - b. The p-value is that of the two-sided
    permutation test that swaps the two models in random sessions: if both are equally good, a swap is as likely as
    none. It is (1 + permutations at least as far from 0) / (1 + permutations), so it is never 0.

    Args:
        a_T: Float (T,), the first model's values.
        b_T: Float (T,), the second model's.
        session_T: Int (T,), which session each target is of.
        n_resamples: Resamples for the bounds.
        n_permutations: Permutations for the p-value.
        level: Probability of the bounds, above 0 and below 1.
        seed: Decides resamples and permutations.

    Raises:
        ShapeError: The lengths differ.
        ConfigError: No target, a value that is not finite, a level outside (0, 1), no resample or no permutation.

    References:
        Phipson and Smyth, SAGMB 2010, arXiv:1603.05766, for the 1 that is added.
    """
    if a_T.shape != b_T.shape:
        raise ShapeError(f"values of shapes {a_T.shape} and {b_T.shape}. Give two models' values at the same targets")
    _check_at_least_one("n_permutations", n_permutations)
    difference_T1 = (a_T - b_T)[:, np.newaxis]
    bounds = bootstrap_intervals(difference_T1, session_T, n_resamples=n_resamples, level=level, seed=seed)[0]
    p_value = _p_value_of_swaps(_session_sums(difference_T1, session_T)[0][:, 0], n_permutations, seed)
    return Paired(float(np.mean(a_T) - np.mean(b_T)), bounds.low, bounds.high, p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the p-values of several comparisons, so that the chance of any false alarm stays at the level.

    The smallest of m is multiplied by m, the next by m - 1, and so on; none falls below the one before or exceeds 1.

    Args:
        p_values: Any number of them, in any order.

    Returns:
        The adjusted ones, in the same order.

    Raises:
        ConfigError: A p-value outside 0 to 1.

    References:
        Holm, Scandinavian Journal of Statistics 1979, 6(2), 65-70.

    Example:
        >>> holm([0.5, 0.125, 0.25])
        [0.5, 0.375, 0.5]
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for n_before, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        if not 0 <= p_values[place] <= 1:
            raise ConfigError(f"{p_values[place]} is no p-value. Give numbers from 0 to 1")
        highest = max(highest, min(1.0, (len(p_values) - n_before) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def over_seeds(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean over seeds and their standard deviation, with n - 1 below the line; None for one seed.

    Args:
        values: A metric of the same model, trained with other seeds; at least one.

    Raises:
        ConfigError: No value.

    Example:
        >>> over_seeds([0.25, 0.75, 0.5])
        (0.5, 0.25)
    """
    if not len(values):
        raise ConfigError("no seed's value to take the mean of. Give one at least")
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def _check_at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ConfigError(f"{name}={value} draws nothing. Give 1 or more")


def _session_sums(values_TM: np.ndarray, session_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum of each session's values, float64 (S, M), and its number of targets, int64 (S,)."""
    if values_TM.ndim != 2 or session_T.shape != values_TM.shape[:1]:
        raise ShapeError(
            f"values of shape {values_TM.shape} with sessions of shape {session_T.shape}. "
            "Give (targets, metrics) and (targets,)"
        )
    if not len(session_T):
        raise ConfigError("no sessions to resample: there is no target. Give the values of one at least")
    if not np.isfinite(values_TM).all():
        raise ConfigError("a value is not a finite number, so no mean can be trusted. Give finite values")
    _, place_T, n_events_S = np.unique(session_T, return_inverse=True, return_counts=True)
    return np.column_stack([np.bincount(place_T, weights=values_T) for values_T in values_TM.T]), n_events_S


def _chunks(n_sessions: int, n_draws: int) -> Iterator[int]:
    """Split draws over all sessions into parts that fit into memory."""
    at_once = max(1, _CHUNK // n_sessions)
    for start in range(0, n_draws, at_once):
        yield min(at_once, n_draws - start)


def _resample_weights(n_sessions: int, n_resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield, for some resamples at a time, how often each contains each session: float64 (resamples, S)."""
    rng = np.random.default_rng([seed, _BOOTSTRAP_STREAM])
    for n_rows in _chunks(n_sessions, n_resamples):
        drawn = rng.integers(n_sessions, size=(n_rows, n_sessions))
        drawn += np.arange(n_rows)[:, np.newaxis] * n_sessions
        counted = np.bincount(drawn.ravel(), minlength=n_rows * n_sessions)
        yield counted.reshape(n_rows, n_sessions).astype(np.float64)


def _p_value_of_swaps(difference_S: np.ndarray, n_permutations: int, seed: int) -> float:
    """Flip the signs of random sessions' differences, and count how often the sum is as far from 0 as it is."""
    rng = np.random.default_rng([seed, _PERMUTATION_STREAM])
    total = difference_S.sum()
    furthest = abs(total) - _ROUNDING * np.abs(difference_S).sum()
    n_as_far = 0
    for n_rows in _chunks(len(difference_S), n_permutations):
        kept = rng.integers(2, size=(n_rows, len(difference_S)), dtype=np.int8).astype(np.float64)
        n_as_far += int(np.count_nonzero(np.abs(2 * (kept @ difference_S) - total) >= furthest))
    return (1 + n_as_far) / (1 + n_permutations)
