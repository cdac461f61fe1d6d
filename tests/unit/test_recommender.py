"""Recommendations: unknown ids, empty sessions, exclusions, batches, live sessions."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import gru4rec
from gru4rec.api import GRU4Rec
from gru4rec.data.sessions import Sessions
from gru4rec.errors import ConfigError
from gru4rec.serve import recommender as recommender_module
from gru4rec.serve import search as search_module
from gru4rec.serve.recommender import Recommendations, Recommender


@pytest.fixture(scope="module")
def gru(golden_train: Sessions) -> GRU4Rec:
    return GRU4Rec(device="cpu", layers=[12], n_epochs=1, batch_size=16, n_sample=32, seed=1).fit(golden_train)


@pytest.fixture(scope="module")
def session(gru: GRU4Rec) -> list[int]:
    assert gru.items is not None
    return gru.items.ids_of([4, 30, 4, 111])


def test_list_is_in_descending_order_of_scores(gru: GRU4Rec, session: list[int]) -> None:
    found = gru.recommend(session, 50)
    assert len(found.item_ids) == len(set(found.item_ids)) == 50
    assert found.scores == sorted(found.scores, reverse=True)
    assert found.n_unknown == 0


def test_unknown_ids_are_skipped_and_counted(gru: GRU4Rec, session: list[int]) -> None:
    with_strangers = [-1, *session[:2], "no such item", *session[2:], 10**17]
    found, expected = gru.recommend(with_strangers), gru.recommend(session)
    assert found.item_ids == expected.item_ids
    assert found.scores == expected.scores
    assert found.n_unknown == 3


@pytest.mark.parametrize("items", [[], [-1, "x"]])
def test_session_without_known_items_gets_the_popular_ones(gru: GRU4Rec, golden_train: Sessions, items: list) -> None:
    found = gru.recommend(items, 5)
    counts = np.bincount(golden_train.item_idx)
    expected = sorted(range(len(counts)), key=lambda idx: (-counts[idx], idx))[:5]
    assert found.item_ids == golden_train.items.ids_of(expected)
    assert found.scores == [float(counts[idx]) for idx in expected]
    assert found.n_unknown == len(items)


def test_exclude_seen_leaves_out_the_sessions_items(gru: GRU4Rec, session: list[int]) -> None:
    whole = gru.recommend(session, 385).item_ids
    assert gru.recommend(session, 20, exclude="seen").item_ids == [i for i in whole if i not in session][:20]


def test_exclude_ids_leaves_them_out_and_ignores_unknown_ones(gru: GRU4Rec, session: list[int]) -> None:
    whole = gru.recommend(session, 385).item_ids
    denied = {whole[0], whole[3], "stranger"}
    assert gru.recommend(session, 20, exclude=denied).item_ids == [i for i in whole if i not in denied][:20]


def test_exclude_current_leaves_out_the_newest_item_alone(gru: GRU4Rec, session: list[int]) -> None:
    whole = gru.recommend(session, 385).item_ids
    assert gru.recommend(session, 384, exclude="current").item_ids == [i for i in whole if i != session[-1]]


def test_allow_leaves_its_items_in_their_order(gru: GRU4Rec, session: list[int]) -> None:
    whole = gru.recommend(session, 385)
    allowed = [whole.item_ids[place] for place in (300, 2, 50, 4)]
    for clicks in (session, []):
        order = gru.recommend(clicks, 385).item_ids
        found = gru.recommend(clicks, 20, allow=[*allowed, "stranger"])
        assert found.item_ids == [i for i in order if i in allowed]
    found = gru.recommend(session, 2, allow=allowed, exclude=[allowed[1]])
    assert found.item_ids == [whole.item_ids[4], whole.item_ids[50]]
    assert found.scores == [whole.scores[4], whole.scores[50]]
    assert gru.recommend(session, 5, allow=[]).item_ids == []


def test_exclusion_of_nearly_all_gives_a_short_list(gru: GRU4Rec, session: list[int]) -> None:
    whole = gru.recommend(session, 385).item_ids
    assert gru.recommend(session, 20, exclude=whole[:-2]).item_ids == whole[-2:]


def test_batch_equals_one_by_one_in_any_order(
    gru: GRU4Rec, golden_test: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    offsets = golden_test.offsets
    sessions = [
        golden_test.items.ids_of(golden_test.item_idx[start:stop]) for start, stop in itertools.pairwise(offsets[:71])
    ]
    sessions[3:3] = [[], [-5]]
    expected = [gru.recommend(one, exclude="seen") for one in sessions]
    assert gru.recommend_batch(sessions, exclude="seen") == expected
    monkeypatch.setattr(recommender_module, "_SESSIONS_AT_ONCE", 13)
    monkeypatch.setattr(search_module, "_SCORES_AT_ONCE", 385 * 7)  # seven sessions at a time
    assert gru.recommend_batch(sessions, exclude="seen") == expected


def test_exclude_holds_for_every_session_whatever_kind_of_collection_it_is(
    gru: GRU4Rec, session: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_module, "_SCORES_AT_ONCE", 385 * 2)  # several parts
    whole = gru.recommend(session, 385).item_ids
    expected = [i for i in whole if i not in whole[:3]][:5]
    for exclude in (whole[:3], set(whole[:3]), iter(whole[:3]), np.array(whole[:3])):
        lists = gru.recommend_batch([session] * 5, 5, exclude=exclude)
        assert [found.item_ids for found in lists] == [expected] * 5


def test_empty_batch_gives_no_lists(gru: GRU4Rec) -> None:
    assert gru.recommend_batch([]) == []


def test_live_session_equals_whole_session_after_every_click(gru: GRU4Rec, session: list[int]) -> None:
    live = gru.session()
    clicks = [session[0], "stranger", *session[1:]]
    for n_clicks, item_id in enumerate(clicks, 1):
        assert live.update(item_id) is (item_id != "stranger")
        assert live.recommend(10, exclude="seen") == gru.recommend(clicks[:n_clicks], 10, exclude="seen")


def test_live_session_before_the_first_click_gets_the_popular_items(gru: GRU4Rec) -> None:
    assert gru.session().recommend(5) == gru.recommend([], 5)


def test_recommender_from_file_equals_the_model(gru: GRU4Rec, session: list[int], tmp_path: Path) -> None:
    gru.savemodel(tmp_path / "m.gru4rec")
    assert gru4rec.Recommender.load(tmp_path / "m.gru4rec").recommend(session) == gru.recommend(session)


def test_text_that_spells_the_id_is_the_same_item(gru: GRU4Rec, session: list[int]) -> None:
    assert gru.recommend([str(item_id) for item_id in session]) == gru.recommend(session)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"items": "2407"}, r"a session is a list of item ids, not the text '2407'\. Write \['2407'\]"),
        ({"items": [1], "k": 0}, r"k=0 is out of range: the model has 385 items"),
        ({"items": [1], "k": 386}, r"k=386 is out of range: the model has 385 items"),
        ({"items": [1], "allow": "2407"}, r"allow is a collection of item ids, not the text '2407'"),
        (
            {"items": [1], "exclude": "sene"},
            r"unknown exclude 'sene'\. Give 'seen', 'current' or a collection of item ids",
        ),
    ],
)
def test_wrong_call_is_refused(gru: GRU4Rec, arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        gru.recommend(**arguments)


def test_untrained_model_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"not trained\. Call fit"):
        GRU4Rec(device="cpu").recommend([1])


def test_refitted_or_moved_model_recommends_from_its_new_weights(golden_train: Sessions, session: list[int]) -> None:
    refitted = GRU4Rec(device="cpu", layers=[12], n_epochs=1, batch_size=16, n_sample=32, seed=1).fit(golden_train)
    first = refitted.recommend(session)
    refitted.set_params(seed=2).fit(golden_train)
    fresh = GRU4Rec(device="cpu", layers=[12], n_epochs=1, batch_size=16, n_sample=32, seed=2).fit(golden_train)
    assert refitted.recommend(session) == fresh.recommend(session) != first
    assert refitted.to("cpu").recommend(session) == fresh.recommend(session)


def test_threads_share_a_recommender_and_a_session(gru: GRU4Rec) -> None:
    recommender = gru.recommender()
    shared = recommender.session()
    items = recommender.items.ids_of([4, 30, 5, 111])
    alone = recommender.recommend_batch([[item] * 25 for item in items], 5)

    def visit(item: int) -> Recommendations:
        own = recommender.session()
        for _ in range(25):
            own.update(item)
            shared.update(items[0])
            shared.recommend(5)
        return own.recommend(5)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(visit, items)) == alone
    assert shared.recommend(5) == recommender.recommend([items[0]] * 100, 5)


@pytest.mark.parametrize("search", ["auto", "int8", "bf16", "float32"])
def test_recommender_from_file_finds_the_same_lists_in_every_way(
    gru: GRU4Rec, session: list[int], tmp_path: Path, search: str
) -> None:
    gru.savemodel(tmp_path / "model.pt")
    assert Recommender.load(tmp_path / "model.pt", search=search).recommend(session, 50) == gru.recommend(session, 50)
