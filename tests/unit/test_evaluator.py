"""Metrics by arithmetic, list lengths, and blocks that do not grow with the catalogue."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import make_sessions
from torch import Tensor

from gru4rec.baselines.pop import PopularityScorer
from gru4rec.errors import ConfigError, DataError, DivergedError
from gru4rec.evaluate.evaluator import BLOCK_ITEMS, ROWS, evaluate
from gru4rec.evaluate.metrics import mrr_at_k, recall_at_k
from gru4rec.evaluate.ranks import RankCounts


def test_metrics_equal_arithmetic_by_hand() -> None:
    ranks = np.array([1.0, 2.0, 2.5, 20.0, 21.0])
    assert recall_at_k(ranks, 20) == 4 / 5
    assert recall_at_k(ranks, 2) == 2 / 5
    assert mrr_at_k(ranks, 20) == pytest.approx((1 + 1 / 2 + 1 / 2.5 + 1 / 20) / 5)
    assert mrr_at_k(ranks, 1) == 1 / 5


def test_popularity_ranks_by_support_with_ties() -> None:
    # supports 5, 5, 1, 9: targets 1, 0 tie with each other, target 2 is last, target 3 first
    evaluation = evaluate(PopularityScorer(np.array([5, 5, 1, 9])), make_sessions([[3, 1, 0], [0, 2, 3]], 4))
    assert evaluation.counts.n_higher.tolist() == [1, 1, 3, 0]
    assert evaluation.counts.n_equal.tolist() == [2, 2, 1, 1]
    assert evaluation.counts.n_equal_before.tolist() == [1, 0, 0, 0]
    recall, mrr = evaluation.metrics([1, 2], "conservative")
    assert recall == {1: 1 / 4, 2: 1 / 4}
    assert evaluation.metrics([2], "no_dedupe")[0] == {2: 2 / 4}
    assert mrr[2] == 1 / 4


class WatchedScorer(PopularityScorer):
    widest = 0

    def __init__(self, support: np.ndarray) -> None:
        super().__init__(support)
        self.rows: list[int] = []

    def score_block(self, state: tuple[Tensor, ...], start: int, stop: int) -> Tensor:
        self.widest = max(self.widest, stop - start)
        self.rows.append(len(state[0]))
        return super().score_block(state, start, stop)


def test_blocks_do_not_grow_with_the_catalogue() -> None:
    scorer = WatchedScorer(np.arange(50_000))
    evaluation = evaluate(scorer, make_sessions([[3, 49_000, 7]], 50_000))
    assert scorer.widest == BLOCK_ITEMS
    assert evaluation.counts.n_higher.tolist() == [999, 49_992]


@pytest.mark.parametrize("batch_size", [3, 2400])
def test_products_are_full_of_rows_also_when_few_sessions_are_left(batch_size: int) -> None:
    scorer, ranked = WatchedScorer(np.arange(9)), []
    sessions = make_sessions([[session % 9] * (2 + session % 3) for session in range(2400)], 9)
    evaluation = evaluate(scorer, sessions, batch_size=batch_size, on_step=ranked.append)
    assert ranked == scorer.rows == [ROWS, ROWS, ROWS, ROWS, 4800 - 4 * ROWS]  # 800 x (1 + 2 + 3) targets
    expected = [8 - session % 9 for session in range(2400) for _ in range(1 + session % 3)]
    assert evaluation.counts.n_higher.tolist() == expected


def test_scorer_that_tracks_gradients_is_evaluated_without() -> None:
    class Trainable(PopularityScorer):
        def score_block(self, state: tuple[Tensor, ...], start: int, stop: int) -> Tensor:
            return super().score_block(state, start, stop) * torch.ones(1, requires_grad=True)

    assert evaluate(Trainable(np.array([1, 2])), make_sessions([[0, 1]], 2)).counts.n_higher.tolist() == [0]


@pytest.mark.parametrize(
    ("cutoff", "message"),
    [
        ([], "no list length k"),
        ([0], "cannot measure at k=0: the model has 4 items. Give k from 1 to 4"),
        ([2, 5], "cannot measure at k=5: the model has 4 items"),
        ([-3], "k=-3"),
    ],
)
def test_impossible_list_lengths_are_refused(cutoff: list[int], message: str) -> None:
    evaluation = evaluate(PopularityScorer(np.ones(4)), make_sessions([[0, 1]], 4))
    with pytest.raises(ConfigError) as error:
        evaluation.metrics(cutoff)
    assert message in str(error.value)


def test_unknown_tie_mode_is_refused() -> None:
    counts = RankCounts(np.zeros(1), np.ones(1), np.zeros(1))
    with pytest.raises(ConfigError, match=r"unknown tie mode 'best'\. Choose from standard, conservative, median"):
        counts.ranks("best")  # type: ignore[arg-type]


@pytest.mark.parametrize("arguments", [{"batch_size": 0}, {"block_items": 0}])
def test_sizes_below_one_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(arguments))}=0"):
        evaluate(PopularityScorer(np.ones(4)), make_sessions([[0, 1]], 4), **arguments)


def test_sessions_without_a_target_are_refused() -> None:
    with pytest.raises(DataError, match="nothing to predict"):
        evaluate(PopularityScorer(np.ones(4)), make_sessions([[0], [1]], 4))


def test_target_score_that_is_not_a_number_is_refused() -> None:
    scorer = PopularityScorer(np.array([1.0, float("nan")]))
    with pytest.raises(DivergedError, match="not finite"):
        evaluate(scorer, make_sessions([[0, 1]], 2))
    assert torch.isnan(scorer.score_block(scorer.start(1), 0, 2)).any()
