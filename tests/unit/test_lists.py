"""Measures of lists: by arithmetic, by slow loops, and against trec_eval's code on rankings with ties."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import log2

import ir_measures
import numpy as np
import pytest
from conftest import make_sessions

from gru4rec.data.sessions import Sessions
from gru4rec.errors import ConfigError, DataError, GRU4RecError, ShapeError
from gru4rec.evaluate.lists import average_popularity, coverage, gini, novelty, remaining_values, repeat_rate
from gru4rec.evaluate.metrics import METRICS

Lists = list[list[int]]


def lists_of(rows: Lists) -> np.ndarray:
    return np.array(rows, dtype=np.int32)


def values_of(rows: Lists, sessions: Lists, k: int) -> dict[str, list[float]]:
    values = remaining_values(lists_of(rows), make_sessions(sessions, 50), k)
    assert all(values_T.dtype == np.float64 for values_T in values.values())
    return {metric: values_T.tolist() for metric, values_T in values.items()}


def test_remaining_items_are_the_distinct_ones_after_the_event_read() -> None:
    # After 1: {2, 3, 1} remain; after 2: {3, 1, 2}; after 3: {1, 2}; after 1: {2}.
    sessions = [[1, 2, 3, 1, 2], [4], [5, 6]]
    found = values_of([[1, 2, 3]] * 4 + [[1, 5, 6]], sessions, 3)
    assert found["recall"] == [1, 1, 1, 1, 1]
    assert found["mrr"] == [1, 1, 1, 1 / 2, 1 / 3]
    assert found["map"] == pytest.approx([1, 1, 1, 1 / 2, 1 / 3])
    assert found["ndcg"] == pytest.approx([1, 1, 1, 1 / log2(3), 1 / log2(4)])


def test_remaining_values_equal_arithmetic_by_hand() -> None:
    # 5 items remain, of which places 2 and 4 of the list hold one each.
    found = values_of([[9, 3, 8, 1, 2], *[[0] * 5] * 4], [[7, 1, 2, 3, 4, 5]], 4)
    assert found["recall"][0] == 2 / 5
    assert found["mrr"][0] == 1 / 2
    assert found["map"][0] == pytest.approx((1 / 2 + 2 / 4) / 4)
    ideal = 1 + 1 / log2(3) + 1 / log2(4) + 1 / log2(5)
    assert found["ndcg"][0] == pytest.approx((1 / log2(3) + 1 / log2(5)) / ideal)
    assert all(found[metric][1:] == [0, 0, 0, 0] for metric in METRICS)


def test_best_possible_list_has_ndcg_and_map_of_one_though_it_is_shorter_than_the_rest() -> None:
    found = values_of([[1, 2, 3], *[[4, 0, 0]] * 3], [[0, 1, 2, 3, 4]], 3)
    assert [found[metric][0] for metric in METRICS] == pytest.approx([3 / 4, 1, 1, 1])


def test_gaps_and_items_listed_twice_count_once_and_nothing() -> None:
    found = values_of([[1, 1, -1, 49], [-1, -1, -1, -1]], [[0, 1, 49]], 4)  # 49 is the last item: no gap's index
    assert found["recall"] == [1, 0]
    assert found["mrr"] == [1, 0]
    assert found["map"] == [pytest.approx((1 + 2 / 4) / 2), 0]
    assert found["ndcg"] == [pytest.approx((1 + 1 / log2(5)) / (1 + 1 / log2(3))), 0]


def random_case(seed: int) -> tuple[np.ndarray, Sessions, Lists]:
    """Lists from scores that tie, sessions with repeats and single events, and the items that remain at each target."""
    rng = np.random.default_rng(seed)
    events = [rng.integers(0, 40, size=rng.integers(1, 12)).tolist() for _ in range(30)]
    sessions = make_sessions(events, 40)
    scores_TN = rng.integers(0, 8, size=(sessions.n_targets, 40))
    lists_TN = np.argsort(-scores_TN, axis=1, kind="stable").astype(np.int32)
    return lists_TN, sessions, [session[place + 1 :] for session in events for place in range(len(session) - 1)]


@pytest.mark.parametrize("k", [1, 5, 10, 20])
def test_remaining_values_agree_with_trec_eval(k: int) -> None:
    lists_TN, sessions, remaining = random_case(k)
    run = {str(t): {str(item): float(-place) for place, item in enumerate(row)} for t, row in enumerate(lists_TN)}
    wanted = {str(t): {str(item): 1 for item in items} for t, items in enumerate(remaining)}
    of_library = {"recall": ir_measures.R @ k, "mrr": ir_measures.RR @ k, "ndcg": ir_measures.nDCG @ k}
    of_library["map"] = ir_measures.AP @ k
    found = remaining_values(lists_TN[:, :25], sessions, k)
    assert found.keys() == of_library.keys() == set(METRICS)
    for metric, measure in of_library.items():
        rows = {row.query_id: row.value for row in ir_measures.iter_calc([measure], wanted, run)}
        expected = np.array([rows[str(t)] for t in range(len(remaining))])
        if metric == "map":  # trec_eval divides by all relevant items, also where the list has no room for them
            n_relevant = np.array([len(set(items)) for items in remaining])
            expected *= n_relevant / np.minimum(n_relevant, k)
        assert found[metric].tolist() == pytest.approx(expected.tolist(), abs=1e-12), metric
        assert 0 < expected.mean() < 1


def test_only_the_first_k_places_are_measured() -> None:
    lists_TN, sessions, _ = random_case(0)
    long, short = (remaining_values(lists, sessions, 5) for lists in (lists_TN, lists_TN[:, :5]))
    assert all(np.array_equal(long[metric], short[metric]) for metric in METRICS)
    assert repeat_rate(lists_TN, sessions, 5) == repeat_rate(lists_TN[:, :5], sessions, 5)
    assert coverage(lists_TN, 40, 1) == len(set(lists_TN[:, 0].tolist())) / 40


def test_measures_of_all_lists_equal_slow_loops() -> None:
    lists_TN, sessions, _ = random_case(7)
    lists = lists_TN[:, :10].copy()
    lists[::3, 7:] = -1
    support = np.random.default_rng(7).integers(0, 5, size=40)
    listed = [item for row in lists.tolist() for item in row[:9] if item >= 0]
    assert coverage(lists, 40, 9) == len(set(listed)) / 40
    shares = [support[item] / support.sum() for item in listed]
    assert average_popularity(lists, support, 9) == pytest.approx(sum(shares) / len(listed))
    bits = [-log2(max(support[item], 1) / support.sum()) for item in listed]
    assert (support == 0).any()
    assert novelty(lists, support, 9) == pytest.approx(sum(bits) / len(listed))
    exposure = [listed.count(item) for item in range(40)]
    apart = sum(abs(one - other) for one in exposure for other in exposure)  # Gini as the mean difference of two items
    assert gini(lists, 40, 9) == pytest.approx(apart / (2 * 40**2 * np.mean(exposure)) * 40 / 39)
    row = n_clicked = 0
    for session in range(sessions.n_sessions):
        events = sessions.item_idx[sessions.offsets[session] : sessions.offsets[session + 1]].tolist()
        for n_read in range(1, len(events)):
            n_clicked += sum(item in events[:n_read] for item in lists[row, :9].tolist())
            row += 1
    assert repeat_rate(lists, sessions, 9) == n_clicked / len(listed)
    assert 0 < n_clicked < len(listed)


def test_gini_is_zero_for_even_and_one_for_one_item() -> None:
    assert gini(lists_of([[0, 1], [2, 3]]), 4, 2) == 0
    assert gini(lists_of([[2], [2], [2]]), 1000, 1) == 1
    assert gini(lists_of([[0, 1, 2]] * 5), 11, 3) == pytest.approx((11 - 3) / (11 - 1))  # the most for lists of three
    assert gini(lists_of([[0]]), 1, 1) == 0


def test_repeat_rate_counts_the_event_read_and_those_before() -> None:
    # Read [0]: 0 was clicked; read [0, 1]: 0 and 1. The second session does not know the first one's clicks.
    assert repeat_rate(lists_of([[0, 1], [0, 1], [0, 1]]), make_sessions([[0, 1, 2], [3, 0]], 4), 2) == 3 / 6


def test_item_without_training_events_is_as_novel_as_one_with_one() -> None:
    assert novelty(lists_of([[0], [1]]), np.array([0, 8]), 1) == 3 / 2  # log2(8) = 3 bits and 0 bits


MEASURES: list[Callable[[np.ndarray, int], object]] = [
    lambda lists, k: remaining_values(lists, make_sessions([[0, 1, 2]], 4), k),
    lambda lists, k: repeat_rate(lists, make_sessions([[0, 1, 2]], 4), k),
    lambda lists, k: coverage(lists, 4, k),
    lambda lists, k: gini(lists, 4, k),
    lambda lists, k: average_popularity(lists, np.ones(4), k),
    lambda lists, k: novelty(lists, np.ones(4), k),
]


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(
    ("lists", "k", "error", "message"),
    [
        ([[0], [1]], 0, ConfigError, "cannot measure at k=0: the lists have 1 places"),
        ([[0], [1]], 2, ConfigError, "cannot measure at k=2: the lists have 1 places"),
        ([[0], [4]], 1, ConfigError, "item indices 0 to 4, but the catalogue has 4 items"),
        ([[0], [-2]], 1, ConfigError, "item indices -2 to 0"),
        ([0, 1], 1, ShapeError, r"lists of shape \(2,\)"),
    ],
)
def test_lists_that_do_not_fit_are_refused(
    measure: Callable[[np.ndarray, int], object], lists: Lists, k: int, error: type[GRU4RecError], message: str
) -> None:
    with pytest.raises(error, match=message):
        measure(lists_of(lists), k)


@pytest.mark.parametrize("measure", MEASURES[:2])
@pytest.mark.parametrize("n_lists", [1, 3])
def test_lists_of_other_targets_are_refused(measure: Callable[[np.ndarray, int], object], n_lists: int) -> None:
    with pytest.raises(ShapeError, match=f"{n_lists} lists for the 2 targets of made-up sessions"):
        measure(lists_of([[0]] * n_lists), 1)


@pytest.mark.parametrize("measure", [repeat_rate, remaining_values])
def test_sessions_that_cannot_be_measured_are_refused(measure: Callable[..., object]) -> None:
    with pytest.raises(DataError, match="nothing to predict"):
        measure(lists_of([[0]]), make_sessions([[0], [1]]), 1)
    sessions = make_sessions([[0, 1], [1, 0]])
    with pytest.raises(DataError, match="end before they begin"):
        measure(lists_of([[0], [0]]), replace(sessions, offsets=np.array([0, 5, 4])), 1)
    with pytest.raises(DataError, match="outside its 2 items"):
        measure(lists_of([[0], [0]]), replace(sessions, item_idx=np.array([0, 1, 2, 0], dtype=np.int32)), 1)


@pytest.mark.parametrize("measure", [MEASURES[1], *MEASURES[3:]])
def test_lists_without_an_item_are_refused_where_a_mean_would_be_undefined(
    measure: Callable[[np.ndarray, int], object],
) -> None:
    with pytest.raises(DataError, match="no list holds an item"):
        measure(lists_of([[-1], [-1]]), 1)
    assert coverage(lists_of([[-1], [-1]]), 4, 1) == 0


@pytest.mark.parametrize("measure", [average_popularity, novelty])
def test_supports_without_an_event_are_refused(measure: Callable[..., object]) -> None:
    with pytest.raises(DataError, match="no item has a training event"):
        measure(lists_of([[0]]), np.zeros(4, dtype=np.int64), 1)
