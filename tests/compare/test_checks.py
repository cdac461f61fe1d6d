"""Sanity checks: what is an accusation, and what is chance."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import make_sessions

from gru4rec.baselines.pop import PopularityScorer
from gru4rec.baselines.random_order import RandomScorer
from gru4rec.compare.checks import MIN_UNSEEN, check_model, unseen_targets
from gru4rec.compare.plan_file import EvaluationPlan
from gru4rec.evaluate.evaluator import Evaluation, Scorer, evaluate
from gru4rec.evaluate.ranks import RankCounts

PLAN = EvaluationPlan.model_validate({})
KNOWS = "knows targets that it cannot have learned"


def titles_of(scorer: Scorer | None, evaluation: Evaluation, unseen_T: np.ndarray, k: int) -> list[str]:
    return [one["title"] for one in check_model("it", scorer, evaluation, unseen_T, k, PLAN)]


@pytest.mark.parametrize("n_items", [20, 25, 40, 200])
@pytest.mark.parametrize("seed", range(5))
def test_chance_is_not_accused_of_knowing_the_test_log(n_items: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    test = make_sessions(rng.integers(0, n_items, size=(60, 3)).tolist(), n_items)
    scorers = (RandomScorer(n_items, seed=seed), PopularityScorer(rng.integers(1, 9, n_items)))
    for scorer in scorers:
        evaluation = evaluate(scorer, test, list_length=20)
        for n_unseen in (MIN_UNSEEN, 100):
            unseen_T = rng.permutation(test.n_targets) < n_unseen
            assert titles_of(None, evaluation, unseen_T, 20) == []


@pytest.mark.parametrize(("n_items", "is_accused"), [(1_000, True), (50, True), (24, False)])
def test_hits_on_all_that_was_never_seen_are_accused_where_lists_are_shorter_than_the_catalogue(
    n_items: int, is_accused: bool
) -> None:
    """100 unseen targets on ranks 1 and 2, of 200; k = 20. Honest is at most chance + 3 deviations + 0.6 (1 - chance).

    For 50 items: 0.4 + 3 sqrt(0.4 x 0.6 / 100) + 0.36 = 0.91 < 1. For 24: 0.833 + 3 x 0.037 + 0.12 = 1.07 > 1.
    """
    test = make_sessions([[session % n_items, 1, 2] for session in range(100)], n_items)
    ones = np.ones(200, dtype=np.int64)
    evaluation = Evaluation(RankCounts(np.tile([0, 1], 100), ones, 0 * ones), test)
    found = titles_of(None, evaluation, np.arange(200) < 100, 20)
    assert found == ([f"it {KNOWS}"] if is_accused else [])


def test_without_two_items_in_a_training_session_every_new_target_is_unseen() -> None:
    train = make_sessions([[0, 0], [1, 1, 1], [2, 2]], 3)
    test = make_sessions([[0, 1, 1], [2, 0]], 3)
    assert unseen_targets(train, test).tolist() == [True, False, True]  # the second 1 was clicked before
