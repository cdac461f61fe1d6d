"""A vocabulary that grows: which rows new items get, what support becomes; against arithmetic and slow loops."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import make_sessions
from hypothesis import given
from hypothesis import strategies as st
from update.literal import NEW, OLD, log_of, rows_by_loop

import gru4rec.update.growth
from gru4rec import Sessions, Vocabulary
from gru4rec.errors import DataError
from gru4rec.update.growth import grown_state, grown_vocabulary, grown_weights, rows_around, support_after


def test_new_items_come_behind_the_old_in_the_order_of_the_log() -> None:
    items = grown_vocabulary(Vocabulary([0, 1, 2, 3]), log_of(NEW))
    assert items.ids_of(range(items.n_items)) == [0, 1, 2, 3, 9, 8, 7]


def test_log_without_new_items_keeps_the_vocabulary() -> None:
    items = Vocabulary([3, 2, 1, 0])
    assert grown_vocabulary(items, log_of(OLD)) is items


def test_ids_that_no_event_has_are_not_new() -> None:
    log = Sessions(np.array([0, 2], np.int32), np.array([0, 2]), np.array([0]), Vocabulary([7, 8, 9]), "new.tsv")
    assert grown_vocabulary(Vocabulary([7]), log).item_ids.to_pylist() == [7, 9]


@pytest.mark.parametrize(
    ("known", "logged", "grown"),
    [
        (["a", "7"], ["7", "b"], ["a", "7", "b"]),
        (["a", "7"], [7, 8], ["a", "7", "8"]),
        ([7, 9], ["7", "8"], [7, 9, 8]),
    ],
    ids=["text", "integers to text", "text that spells integers"],
)
def test_ids_of_the_other_type_are_understood(known: list, logged: list, grown: list) -> None:
    log = Sessions(np.array([0, 1], np.int32), np.array([0, 2]), np.array([0]), Vocabulary(logged), "new.tsv")
    items = grown_vocabulary(Vocabulary(known), log)
    assert items.ids_of(range(items.n_items)) == grown


def test_text_ids_beside_integers_are_refused() -> None:
    log = Sessions(
        np.arange(3, dtype=np.int32), np.array([0, 3]), np.array([0]), Vocabulary(["7", "08", "b"]), "new.tsv"
    )
    with pytest.raises(DataError, match=r"new\.tsv has the item '08', and the model's item ids are integers\. Correct"):
        grown_vocabulary(Vocabulary([7]), log)


def test_log_of_another_shop_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"none of the 3 items of made-up .* is known to the model\. Use a log of the shop"
    ):
        grown_vocabulary(Vocabulary([100, 200]), log_of([[7, 8, 9]]))


def test_log_whose_unknown_events_are_gone_is_refused() -> None:
    items = Vocabulary([0, 1, 2, 3])
    with pytest.raises(DataError, match=r"9 events were left out then\. Give the log that it was made from"):
        grown_vocabulary(items, log_of(NEW).with_vocabulary(items))


def test_support_is_the_old_one_decayed_plus_the_new_events() -> None:
    # 0 and 2 once, 1 and 3 twice, 9 five times, 8 and 7 twice
    sessions = log_of(NEW).with_vocabulary(Vocabulary([0, 1, 2, 3, 9, 8, 7]))
    support = np.array([10, 4, 1, 5])
    assert support_after(support, sessions, decay=1.0).tolist() == [11, 6, 2, 7, 5, 2, 2]
    assert support_after(support, sessions, decay=0.5).tolist() == [6, 4, 1, 4, 5, 2, 2]  # 5, 2, .5 -> 0, 2.5 -> 2


def test_support_of_what_nobody_clicks_any_more_stays_above_zero() -> None:
    sessions = make_sessions([[0, 1]], n_items=3)
    assert support_after(np.array([5, 5, 1]), sessions, decay=0.1).tolist() == [1, 1, 1]  # .5 -> 0, + 1; .1 -> 0


def test_rows_of_new_items_are_means_of_those_around_them_by_hand() -> None:
    table = np.array([[1.0, 0.0], [2.0, 4.0], [3.0, 0.0], [6.0, 8.0]], dtype=np.float32)
    sessions = log_of(NEW).with_vocabulary(Vocabulary([0, 1, 2, 3, 9, 8, 7]))
    rows, n_alone = rows_around(table, sessions, np.array([2, 1, 1, 0]))
    # 9: items 0 1 2 3, once each: (1+2+3+6)/4, (4+8)/4; 8 and 7: the mean by support, (2*1+2+3)/4, 4/4
    assert rows.tolist() == [[3.0, 3.0], [1.75, 1.0], [1.75, 1.0]]
    assert rows.dtype == np.float32
    assert n_alone == 2


lists = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), min_size=1, max_size=12)


@given(new=lists, n_known=st.integers(1, 6))
def test_rows_of_new_items_are_those_of_a_slow_loop(new: list[list[int]], n_known: int) -> None:
    known = list(range(n_known))
    log = log_of([known, *new])
    rng = np.random.default_rng(n_known)
    table, support = rng.normal(size=(n_known, 3)), rng.integers(1, 5, n_known)
    items = grown_vocabulary(Vocabulary(known), log)
    ids = items.ids_of(range(n_known, items.n_items))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gru4rec.update.growth, "_SESSIONS_AT_ONCE", 2)
        rows, _ = rows_around(table, log.with_vocabulary(items), support)
    expected = np.array(rows_by_loop(table, known, ids, [known, *new], support)).reshape(len(ids), 3)
    np.testing.assert_allclose(rows, expected, rtol=1e-12)


def test_every_item_table_grows_and_nothing_else() -> None:
    sessions = log_of(NEW).with_vocabulary(Vocabulary([0, 1, 2, 3, 9, 8, 7]))
    tables = {"Wy.weight": 3, "By.weight": 1, "E.weight": 2, "GE.Wx0.weight": 6}
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(size=(4, size)).astype(np.float32) for name, size in tables.items()}
    weights["G.0.weight_hh"] = np.ones((4, 2), np.float32)
    grown, n_alone = grown_weights(weights, sessions, np.ones(4))
    assert n_alone == 2
    for name, size in tables.items():
        assert grown[name].shape == (7, size)
        np.testing.assert_array_equal(grown[name][:4], weights[name])
        assert np.all(grown[name][4:] != 0)
    assert grown["G.0.weight_hh"] is weights["G.0.weight_hh"]


def test_accumulators_of_new_items_are_what_one_event_adds_and_velocities_are_zero() -> None:
    state = {
        "accumulator.Wy.weight": np.array([[6.0, 2.0], [4.0, 8.0]], np.float32),
        "velocity.Wy.weight": np.ones((2, 2), np.float32),
        "accumulator.G.0.bias_hh": np.ones(3, np.float32),
    }
    grown = grown_state(state, 2, np.array([3, 1]))
    # (6 + 4) / (3 + 1), (2 + 8) / 4
    assert grown["accumulator.Wy.weight"].tolist() == [[6, 2], [4, 8], [2.5, 2.5], [2.5, 2.5]]
    assert grown["velocity.Wy.weight"].tolist() == [[1, 1], [1, 1], [0, 0], [0, 0]]
    assert grown["accumulator.G.0.bias_hh"] is state["accumulator.G.0.bias_hh"]
    # where the support was decayed, the state says how many events there were: 10 / 8
    grown = grown_state({**state, "state_events": np.array([8.0])}, 2, np.array([3, 1]))
    assert grown["accumulator.Wy.weight"][2:].tolist() == [[1.25, 1.25], [1.25, 1.25]]
