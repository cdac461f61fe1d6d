"""Metrics of the next item: by arithmetic, and against trec_eval's code on rankings with ties."""

from __future__ import annotations

from math import log2

import ir_measures
import numpy as np
import pytest

from gru4rec.errors import ConfigError
from gru4rec.evaluate.metrics import METRICS, event_values, map_at_k, mrr_at_k, ndcg_at_k, recall_at_k
from gru4rec.evaluate.ranks import RankCounts

OF_LIBRARY = {"recall": ir_measures.R, "mrr": ir_measures.RR, "ndcg": ir_measures.nDCG, "map": ir_measures.AP}


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("recall", [1, 1, 1, 1, 0]),
        ("mrr", [1, 1 / 2, 1 / 2.5, 1 / 20, 0]),
        ("map", [1, 1 / 2, 1 / 2.5, 1 / 20, 0]),
        ("ndcg", [1, 1 / log2(3), 1 / log2(3.5), 1 / log2(21), 0]),
    ],
)
def test_event_values_equal_arithmetic_by_hand(metric: str, expected: list[float]) -> None:
    values = event_values(np.array([1.0, 2.0, 2.5, 20.0, 20.5]), metric, 20)
    assert values.dtype == np.float64
    assert values.tolist() == pytest.approx(expected, abs=1e-15)


def test_metrics_are_means_of_event_values() -> None:
    ranks = np.array([1.0, 3.0, 7.0, 8.0])
    assert recall_at_k(ranks, 7) == 3 / 4
    assert mrr_at_k(ranks, 7) == map_at_k(ranks, 7) == pytest.approx((1 + 1 / 3 + 1 / 7) / 4)
    assert ndcg_at_k(ranks, 7) == pytest.approx((1 + 1 / 2 + 1 / 3) / 4)  # log2 of 2, 4 and 8


def test_whole_ranks_measure_like_float_ones() -> None:
    ranks = np.array([1, 2, 30])
    for metric in METRICS:
        assert event_values(ranks, metric, 20).tolist() == event_values(ranks.astype(float), metric, 20).tolist()


@pytest.mark.parametrize("k", [1, 5, 10, 20])
@pytest.mark.parametrize("metric", METRICS)
def test_event_values_agree_with_trec_eval_where_scores_tie(metric: str, k: int) -> None:
    rng = np.random.default_rng(k)
    scores_TN = rng.integers(0, 12, size=(120, 60))  # 60 items at 12 levels: every target has equals
    target_T = rng.integers(0, 60, size=120)
    scores_TN[np.arange(120), target_T] += 4  # up to 3 more than any other, so that some lead
    own_T = scores_TN[np.arange(120), target_T][:, np.newaxis]
    equal = scores_TN == own_T
    before = np.arange(60) < target_T[:, np.newaxis]
    counts = RankCounts((scores_TN > own_T).sum(1), equal.sum(1), (equal & before).sum(1))
    order_TN = np.argsort(-scores_TN, axis=1, kind="stable")  # equal scores in item-index order, as no_dedupe has them
    run = {str(t): {str(item): float(-place) for place, item in enumerate(order_TN[t])} for t in range(120)}
    wanted = {str(t): {str(target_T[t]): 1} for t in range(120)}
    found = {row.query_id: row.value for row in ir_measures.iter_calc([OF_LIBRARY[metric] @ k], wanted, run)}
    expected = [found[str(t)] for t in range(120)]
    assert event_values(counts.ranks("no_dedupe"), metric, k).tolist() == pytest.approx(expected, abs=1e-12)
    assert 0 < sum(expected) < 120


def test_unknown_metric_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"unknown metric 'hits'\. Choose from recall, mrr, ndcg, map"):
        event_values(np.array([1.0]), "hits", 20)
