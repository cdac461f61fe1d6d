"""Intervals and tests over sessions: by hand, against SciPy, and by how often they are right in simulations."""

from __future__ import annotations

import tracemalloc
from itertools import product
from statistics import mean

import numpy as np
import pytest
from scipy import stats

from gru4rec.errors import ConfigError, ShapeError
from gru4rec.evaluate.metrics import recall_at_k
from gru4rec.evaluate.statistics import Interval, Paired, bootstrap_intervals, compare_paired, holm, over_seeds


def simulated_columns(rng: np.random.Generator, n_sessions: int, n_columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Hits (T, columns) in sessions of 1 to 9 targets, and the sessions.

    Columns are drawn independently. Hits of a session are alike, and longer sessions are easier.
    """
    lengths = rng.integers(1, 10, size=n_sessions)
    ease_S1 = (0.2 + 0.05 * lengths)[:, np.newaxis]
    chance = rng.beta(ease_S1, 1 - ease_S1, size=(n_sessions, n_columns))  # mean ``ease``, and far from it
    session_T = np.repeat(np.arange(n_sessions), lengths)
    return (rng.random((len(session_T), n_columns)) < chance[session_T]).astype(float), session_T


def simulated(rng: np.random.Generator, n_sessions: int) -> tuple[np.ndarray, np.ndarray]:
    """One column of :func:`simulated_columns`."""
    values_T1, session_T = simulated_columns(rng, n_sessions, 1)
    return values_T1[:, 0], session_T


TRUE_RECALL = sum((0.2 + 0.05 * n) * n for n in range(1, 10)) / sum(range(1, 10))
"""Of :func:`simulated_columns`: expected hits by expected targets."""


def test_bootstrap_of_two_sessions_equals_all_resamples_by_hand() -> None:
    # Sessions with 1 of 1 and 1 of 3: the four resamples are worth 1, 2/4, 2/4 and 2/6.
    interval = bootstrap_intervals(np.array([[1.0], [1.0], [0.0], [0.0]]), np.array([4, 9, 9, 9]), level=0.9)[0]
    assert interval == Interval(value=2 / 4, low=2 / 6, high=1.0)
    middle = bootstrap_intervals(np.array([[1.0], [1.0], [0.0], [0.0]]), np.array([4, 9, 9, 9]), level=0.4)[0]
    assert middle == Interval(value=2 / 4, low=2 / 4, high=2 / 4)  # half of the resamples


def test_interval_value_is_the_metric_itself() -> None:
    ranks = np.random.default_rng(1).integers(1, 40, size=1001).astype(float)
    values_TM = np.column_stack([np.zeros(1001), ranks <= 20])
    assert bootstrap_intervals(values_TM, np.arange(1001) // 4, n_resamples=2)[1].value == recall_at_k(ranks, 20)


def test_columns_see_the_same_resamples_and_a_seed_decides_them() -> None:
    values_T, session_T = simulated(np.random.default_rng(2), 50)
    values_TM = np.column_stack([values_T, values_T, 1 - values_T])
    first, same, other = bootstrap_intervals(values_TM, session_T, n_resamples=100, seed=5)
    assert first == same
    assert (other.low, other.high) == pytest.approx((1 - first.high, 1 - first.low))
    assert bootstrap_intervals(values_TM, session_T, n_resamples=100, seed=5)[0] == first
    assert bootstrap_intervals(values_TM, session_T, n_resamples=100, seed=6)[0] != first


def test_only_which_events_share_a_session_matters() -> None:
    values_T, session_T = simulated(np.random.default_rng(3), 40)
    expected = compare_paired(values_T, 1 - values_T, session_T, n_resamples=50, n_permutations=50)
    apart = compare_paired(values_T, 1 - values_T, session_T * 1000 + 7, n_resamples=50, n_permutations=50)
    assert apart == expected
    order = np.argsort(np.arange(len(values_T)) % 3, kind="stable")
    mixed = compare_paired(values_T[order], 1 - values_T[order], session_T[order], n_resamples=50, n_permutations=50)
    assert mixed.low == pytest.approx(expected.low)
    assert mixed.p_value == expected.p_value


def test_interval_agrees_with_scipy() -> None:
    values_T, session_T = simulated(np.random.default_rng(4), 150)
    hits_S, n_targets_S = np.bincount(session_T, weights=values_T), np.bincount(session_T)
    theirs = stats.bootstrap(
        (hits_S, n_targets_S),
        lambda hits, n_targets, axis: hits.sum(axis) / n_targets.sum(axis),
        paired=True, vectorized=True, method="percentile", n_resamples=20_000, rng=np.random.default_rng(4),
    ).confidence_interval  # fmt: skip
    ours = bootstrap_intervals(values_T[:, np.newaxis], session_T, n_resamples=20_000)[0]
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.04 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.04 * width)


def test_95_percent_intervals_hold_the_truth_95_percent_of_the_time_and_event_intervals_do_not() -> None:
    rng = np.random.default_rng(11)
    held, held_by_events = [], []
    for repeat in range(1500):
        values_TM, session_T = simulated_columns(rng, 200, 4)
        intervals = bootstrap_intervals(values_TM, session_T, n_resamples=500, seed=repeat)
        held += [interval.low <= TRUE_RECALL <= interval.high for interval in intervals]
        if repeat < 200:
            narrow = bootstrap_intervals(values_TM, np.arange(len(values_TM)), n_resamples=200, seed=repeat)
            held_by_events += [interval.low <= TRUE_RECALL <= interval.high for interval in narrow]
    assert 0.93 < mean(held) < 0.97
    assert mean(held_by_events) < 0.85


def null_differences(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values of two models that are equally good, though each session suits one of them better; and the sessions."""
    lengths = rng.integers(1, 10, size=60)
    session_T = np.repeat(np.arange(60), lengths)
    suits_S2 = rng.normal(size=(60, 2))
    values_T2 = suits_S2[session_T] + 0.5 * rng.normal(size=(len(session_T), 2))
    return values_T2[:, 0], values_T2[:, 1], session_T


def test_p_values_of_equally_good_models_are_uniform_and_those_of_swapped_events_are_not() -> None:
    rng = np.random.default_rng(12)
    by_session, by_event = [], []
    for repeat in range(1200):
        a_T, b_T, session_T = null_differences(rng)
        draws = {"n_resamples": 1, "n_permutations": 400, "seed": repeat}
        by_session.append(compare_paired(a_T, b_T, session_T, **draws).p_value)
        by_event.append(compare_paired(a_T, b_T, np.arange(len(a_T)), **draws).p_value)
    assert 0.03 < np.mean(np.array(by_session) <= 0.05) < 0.07
    assert stats.kstest(by_session, "uniform").pvalue > 0.05
    assert np.mean(np.array(by_event) <= 0.05) > 0.2


def test_better_model_is_found() -> None:
    a_T, session_T = simulated(np.random.default_rng(13), 300)
    missed = np.random.default_rng(14).random(len(a_T)) < 0.1  # the second model misses a tenth of the first one's hits
    found = compare_paired(a_T, np.where(missed, 0.0, a_T), session_T, n_permutations=2000)
    assert found.difference == pytest.approx(np.sum(a_T[missed]) / len(a_T))
    assert 0.02 < found.low < found.difference < found.high < 0.1
    assert found.p_value == 1 / 2001
    turned = compare_paired(np.where(missed, 0.0, a_T), a_T, session_T, n_permutations=2000)
    assert turned.p_value == found.p_value
    assert (turned.difference, turned.low, turned.high) == pytest.approx((-found.difference, -found.high, -found.low))


def test_p_value_is_the_share_of_all_swaps_also_where_sums_tie() -> None:
    # Thirds and sixths: equal sums of them differ in the last bit, depending on which are summed.
    in_sixths = [2, 2, 2, 2, 2, -2, -2, 1, 1, 1]
    sums = [
        sum(sign * part for sign, part in zip(signs, in_sixths, strict=True)) for signs in product([1, -1], repeat=10)
    ]
    exact = mean(abs(total) >= sum(in_sixths) for total in sums)
    n_ties = sum(abs(total) == sum(in_sixths) for total in sums)
    assert n_ties > 0.05 * len(sums)
    difference_S = np.array(in_sixths) / 6
    found = compare_paired(difference_S, np.zeros(10), np.arange(10), n_resamples=1, n_permutations=200_000)
    assert found.p_value == pytest.approx(exact, abs=0.0032)  # 4 standard errors


def test_p_value_agrees_with_scipy() -> None:
    rng = np.random.default_rng(15)
    a_T, b_T = rng.random(30) + 0.05, rng.random(30)
    session_T = np.repeat(np.arange(10), [1, 5, 2, 4, 3, 3, 6, 1, 2, 3])
    a_S, b_S = np.bincount(session_T, weights=a_T), np.bincount(session_T, weights=b_T)
    exact = stats.permutation_test(
        (a_S, b_S),
        lambda a, b, axis: np.sum(a - b, axis),
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=True,
    ).pvalue
    ours = compare_paired(a_T, b_T, session_T, n_resamples=1, n_permutations=100_000).p_value
    assert ours == pytest.approx(exact, abs=0.006)  # 4 standard errors at most
    assert 0.02 < exact < 0.9


def test_equal_models_have_no_difference() -> None:
    values_T, session_T = simulated(np.random.default_rng(16), 20)
    assert compare_paired(values_T, values_T, session_T) == Paired(difference=0, low=0, high=0, p_value=1)


def test_comparison_is_decided_by_the_seed_and_bounded_like_a_column() -> None:
    a_T, session_T = simulated(np.random.default_rng(17), 60)
    b_T = np.where(np.arange(len(a_T)) % 9 == 0, 0.0, np.roll(a_T, 3))
    found = compare_paired(a_T, b_T, session_T, n_resamples=100, n_permutations=100, level=0.8, seed=1)
    again = compare_paired(a_T, b_T, session_T, n_resamples=100, n_permutations=100, level=0.8, seed=1)
    other = compare_paired(a_T, b_T, session_T, n_resamples=100, n_permutations=100, level=0.8, seed=2)
    assert found == again
    assert found.p_value != other.p_value
    column = bootstrap_intervals((a_T - b_T)[:, np.newaxis], session_T, n_resamples=100, level=0.8, seed=1)[0]
    assert (found.low, found.high) == (column.low, column.high)


def test_memory_does_not_grow_with_resamples_and_permutations() -> None:
    values_T, session_T = np.random.default_rng(18).random(20_000), np.arange(20_000)
    tracemalloc.start()
    try:
        compare_paired(values_T, values_T[::-1], session_T, n_resamples=1000, n_permutations=1000)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 100e6  # all weights at once would be 160 MB, and their draws as much


def test_holm_equals_hand_numbers() -> None:
    # Sorted .005, .01, .03, .04: times 4, 3, 2, 1 = .02, .03, .06, .04; the last may not be below .06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([0.2, 0.2, 0.9]) == pytest.approx([0.6, 0.6, 0.9])
    assert holm([0.04]) == [0.04]
    assert holm([]) == []


@pytest.mark.parametrize("p_value", [-0.1, 1.1, float("nan")])
def test_holm_refuses_what_is_no_p_value(p_value: float) -> None:
    with pytest.raises(ConfigError, match="is no p-value"):
        holm([0.5, p_value])


def test_mean_and_deviation_over_seeds() -> None:
    assert over_seeds([0.3, 0.5, 0.7]) == pytest.approx((0.5, 0.2))  # squares .04 + 0 + .04, by 2
    assert over_seeds([0.25]) == (0.25, None)
    with pytest.raises(ConfigError, match="no seed's value"):
        over_seeds([])


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"session_T": np.arange(3)}, ShapeError, r"values of shape \(4, 1\) with sessions of shape \(3,\)"),
        ({"b_T": np.zeros(3)}, ShapeError, r"values of shapes \(4,\) and \(3,\)"),
        ({"a_T": np.zeros(0), "b_T": np.zeros(0), "session_T": np.arange(0)}, ConfigError, "no sessions to resample"),
        ({"a_T": np.array([0, 0, np.nan, 0])}, ConfigError, "a value is not a finite number"),
        ({"level": 0.0}, ConfigError, r"level=0\.0 is no probability to trust in"),
        ({"level": 1.0}, ConfigError, r"level=1\.0"),
        ({"level": 95}, ConfigError, "level=95"),
        ({"n_resamples": 0}, ConfigError, "n_resamples=0 draws nothing"),
        ({"n_permutations": 0}, ConfigError, "n_permutations=0 draws nothing"),
    ],
)
def test_wrong_input_is_refused(changed: dict[str, object], error: type[Exception], message: str) -> None:
    arguments = {"a_T": np.ones(4), "b_T": np.zeros(4), "session_T": np.arange(4), **changed}
    with pytest.raises(error, match=message):
        compare_paired(**arguments)  # type: ignore[arg-type]


def test_values_that_are_no_matrix_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"values of shape \(4,\)"):
        bootstrap_intervals(np.ones(4), np.arange(4))
