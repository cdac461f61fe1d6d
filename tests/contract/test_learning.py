"""Learning is bracketed from both sides: near the optimum where there is a pattern, at popularity where none is."""

from __future__ import annotations

import pyarrow as pa
import pytest

from gru4rec.api import GRU4Rec
from gru4rec.baselines.pop import PopularityScorer
from gru4rec.cli.demo import SETTINGS
from gru4rec.data.events import load_events
from gru4rec.data.sessions import Sessions
from gru4rec.data.simulate import Shop, ShopSettings, simulate_shop
from gru4rec.data.simulated_logs import LogColumns, Split, optimal_metrics, shuffle_items, split_by_time
from gru4rec.evaluate.evaluator import evaluate


@pytest.fixture(scope="module")
def shop() -> Shop:
    return simulate_shop(ShopSettings(seed=11))


@pytest.fixture(scope="module")
def split(shop: Shop) -> Split:
    return split_by_time(shop.session_id, shop.item_id, shop.time)


def sessions_of(log: LogColumns, train: Sessions | None = None) -> Sessions:
    table = pa.table({"SessionId": log.session_id, "ItemId": log.item_id, "Time": log.time})
    return Sessions.from_log(load_events(table), None if train is None else train.items)


def recall_and_mrr(scorer, test: Sessions) -> tuple[float, float]:
    recall, mrr = evaluate(scorer, test).metrics([20], "conservative")
    return recall[20], mrr[20]


def test_trained_model_reaches_nine_tenths_of_the_optimum_on_the_simulated_shop(shop: Shop, split: Split) -> None:
    train = sessions_of(split.train)
    test = sessions_of(split.test, train)
    optimum = optimal_metrics(shop, *split.test, train_item_ids=split.train.item_id)
    recall, mrr = recall_and_mrr(GRU4Rec(device="cpu", seed=1, **SETTINGS).fit(train).scorer(), test)
    assert recall >= 0.9 * optimum["realised_recall"][20]
    assert mrr >= 0.9 * optimum["realised_mrr"][20]
    # nothing beats the optimum by more than chance: 8,900 events, standard error 0.005
    assert recall <= optimum["expected_recall"][20] + 0.02
    popular_recall, _ = recall_and_mrr(PopularityScorer(train.support()), test)
    assert popular_recall < 0.3 * recall


def test_shuffled_log_stays_at_popularity(shop: Shop) -> None:
    """A model that finds more in a shuffled log sees its target."""
    split = split_by_time(shop.session_id, shuffle_items(shop.item_id, seed=3), shop.time)
    train = sessions_of(split.train)
    test = sessions_of(split.test, train)
    recall, mrr = recall_and_mrr(GRU4Rec(device="cpu", seed=1, **{**SETTINGS, "n_epochs": 2}).fit(train).scorer(), test)
    popular_recall, popular_mrr = recall_and_mrr(PopularityScorer(train.support()), test)
    assert recall <= popular_recall + 0.015
    assert mrr <= popular_mrr + 0.01
    assert recall >= 0.5 * popular_recall, "popularity itself must be learned"
