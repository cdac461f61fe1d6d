"""Baselines by name: what their settings refuse, and what each learns on a made-up shop whose optimum is known."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from gru4rec.baselines.kinds import KINDS, baseline_settings, fit_baseline, kind_of
from gru4rec.data.events import load_events
from gru4rec.data.sessions import Sessions
from gru4rec.data.simulate import Shop, ShopSettings, simulate_shop
from gru4rec.data.simulated_logs import LogColumns, optimal_metrics, shuffle_items, split_by_time
from gru4rec.errors import ConfigError
from gru4rec.evaluate.evaluator import evaluate


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("vsknn", {"idf": 1}, r"^unknown setting 'idf' in the settings of vsknn\. Choose from: k, m, .*n_clicks$"),
        ("vsknn", {"gap_decy": 1}, r"unknown setting 'gap_decy' .*; did you mean 'gap_decay'\?$"),
        ("pop", {"k": 1}, r"^unknown setting 'k' in the settings of pop\. Choose from: it has no settings$"),
        ("vsknn", {"k": 0}, r"^k=0 in the settings of vsknn does not fit: input should be greater than or equal to 1$"),
        ("stan", {"decay": 0}, r"^decay=0 in .* of stan does not fit: input should be greater than 0$"),
        ("stan", {"recency": "nan"}, r"^recency='nan' .* does not fit: input should be a finite number$"),
        ("sknn", {"weighting": "lineer"}, r"^weighting='lineer' .* does not fit: input should be 'same', 'linear', "),
        ("sknn", {"cosine": "perhaps"}, r"^cosine='perhaps' .* does not fit: input should be a valid boolean"),
        ("markov", {"steps": 1_001}, r"^steps=1001 .* does not fit: input should be less than or equal to 1000$"),
        ("item_knn", {"regularisation": -1, "n": 3}, r"^regularisation=-1 .* equal to 0; unknown setting 'n' in "),
        ("vsknnn", {}, r"^unknown baseline 'vsknnn'\. Choose from random, pop, .*; did you mean 'vsknn'\?$"),
        ("what", {}, r"^unknown baseline 'what'\. Choose from .*, stan$"),
    ],
)
def test_wrong_settings_are_named_with_the_nearest_right_one(name: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        baseline_settings(name, values)


def test_message_names_where_the_settings_came_from() -> None:
    with pytest.raises(ConfigError, match=r"^k=-1 in -ps of sknn does not fit"):
        baseline_settings("sknn", {"k": -1}, where="-ps")


def test_text_is_converted_and_given_values_come_before_a_kinds_own() -> None:
    settings = baseline_settings("stan", {"k": "500", "cosine": "False", "recency": "0.7"})
    assert settings.model_dump(include={"k", "cosine", "recency", "gap_decay"}) == {
        "k": 500, "cosine": False, "recency": 0.7, "gap_decay": 2.0,
    }  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_what_a_tuner_tries_is_allowed(name: str) -> None:
    for parameter in kind_of(name).space:
        for value in parameter["values"]:
            assert getattr(baseline_settings(name, {parameter["name"]: value}), parameter["name"]) == value


@pytest.fixture(scope="module")
def shop() -> Shop:
    return simulate_shop(ShopSettings(seed=11, n_sessions=10_000))


def sessions_of(log: LogColumns, train: Sessions | None = None) -> Sessions:
    table = pa.table({"SessionId": log.session_id, "ItemId": log.item_id, "Time": log.time})
    return Sessions.from_log(load_events(table), None if train is None else train.items)


def recall_and_mrr(name: str, train: Sessions, test: Sessions) -> tuple[float, float]:
    scorer = fit_baseline(name, train, baseline_settings(name, {}))
    recall, mrr = evaluate(scorer, test).metrics([20], "conservative")
    return recall[20], mrr[20]


def test_every_baseline_learns_and_none_beats_the_optimum(shop: Shop) -> None:
    split = split_by_time(shop.session_id, shop.item_id, shop.time)
    train = sessions_of(split.train)
    test = sessions_of(split.test, train)
    optimum = optimal_metrics(shop, *split.test, train_item_ids=split.train.item_id)
    found = {name: recall_and_mrr(name, train, test) for name in KINDS}
    for name, (recall, mrr) in found.items():
        # nothing beats the optimum by more than chance: 3,800 targets, standard error 0.008
        assert recall <= optimum["expected_recall"][20] + 0.03, name
        assert mrr <= optimum["expected_mrr"][20] + 0.03, name
    popular_recall, popular_mrr = found["pop"]
    assert found["random"][0] < 0.4 * popular_recall
    for name in ("markov", "association_rules", "item_knn", "sknn", "vsknn", "vmisknn", "stan"):
        assert found[name][0] > 3 * popular_recall, name
        assert found[name][1] > 3 * popular_mrr, name


def test_nothing_beats_popularity_on_a_shuffled_log(shop: Shop) -> None:
    """A baseline that finds more in a shuffled log sees its target."""
    split = split_by_time(shop.session_id, shuffle_items(shop.item_id, seed=3), shop.time)
    train = sessions_of(split.train)
    test = sessions_of(split.test, train)
    popular_recall, popular_mrr = recall_and_mrr("pop", train, test)
    for name in KINDS:
        recall, mrr = recall_and_mrr(name, train, test)
        assert recall <= popular_recall + 0.015, name
        assert mrr <= popular_mrr + 0.01, name
