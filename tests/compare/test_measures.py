"""The numbers of a report: corrections and groups, worked out by hand."""

from __future__ import annotations

import numpy as np
from conftest import make_sessions

from gru4rec.compare.measures import Measured, Measures
from gru4rec.compare.plan_file import EvaluationPlan
from gru4rec.compare.slices import slices_of


def test_p_values_of_three_models_are_corrected_after_holm_metric_by_metric() -> None:
    """Two comparisons a metric: the smaller p counts twice, the larger once, but for no less than the smaller."""
    rng = np.random.default_rng(1)
    test = make_sessions([[0, 1]] * 200, 3)
    plan = EvaluationPlan.model_validate({"k": (20,), "permutations": 5_000, "resamples": 100})
    measures = Measures(test, test, plan, ("recall", 20))
    chances = {"best": 0.60, "near": 0.52, "far": 0.44}
    models = [
        Measured(name, {}, {(metric, 20): (rng.random(200) < chance) * 1.0 for metric in ("recall", "mrr")})
        for name, chance in chances.items()
    ]
    pairs = measures.pairs(models)
    assert [(pair["a"], pair["metric"]) for pair in pairs] == [("best", "recall")] * 2 + [("best", "mrr")] * 2
    for pair_of_pairs in (pairs[:2], pairs[2:]):
        small, large = sorted(pair_of_pairs, key=lambda pair: float(pair["p_value"]))
        assert 0 < small["p_value"] < large["p_value"] < 0.5, "or nothing would be tested"
        assert small["p_adjusted"] == min(2 * small["p_value"], 1)
        assert large["p_adjusted"] == max(2 * small["p_value"], large["p_value"])


def test_groups_by_support_begin_where_the_items_before_them_end() -> None:
    # Clicks: 50, 20, 15, 10, 5 of 100. More popular items have 0, 50, 70, 85 and 95 % of them: the head is below 50 %,
    # the tail begins at 80 %. So the item that reaches 50 % is in the head, the one that reaches 85 % in the middle.
    clicks = np.repeat(np.arange(5), (50, 20, 15, 10, 5)).tolist()
    train = make_sessions([clicks], 5)
    test = make_sessions([[0, 0, 1, 2, 3, 4, 4]], 5)
    groups = dict(slices_of(test, train)["item support"])
    assert {name: inside.tolist() for name, inside in groups.items()} == {
        "head (1 items)": [True, False, False, False, False, False],
        "middle (2 items)": [False, True, True, False, False, False],
        "tail (2 items)": [False, False, False, True, True, True],
    }
