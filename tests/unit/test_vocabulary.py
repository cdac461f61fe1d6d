"""The door between item ids and item indices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gru4rec.data.vocabulary import Vocabulary, integers_where_possible
from gru4rec.errors import DataError

INT64 = st.integers(-(2**63), 2**63 - 1)


@pytest.mark.parametrize(
    "item_ids",
    [[70, -3, 2**53 + 1], np.array([70, -3, 2**53 + 1]), pa.array([70, -3, 2**53 + 1])],
    ids=["list", "numpy", "arrow"],
)
def test_vocabulary_integers_answer_for_every_spelling(item_ids: Any) -> None:
    items = Vocabulary(item_ids)
    assert items.is_integer
    assert (len(items), items.n_items) == (3, 3)
    asked = [70, "70", 70.0, np.int16(70), np.float32(70), np.str_("70"), -3, "-3", 2**53 + 1, str(2**53 + 1)]
    assert [items.index_of(item_id) for item_id in asked] == [0, 0, 0, 0, 0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    "item_id",
    [71, "71", "070", "+70", " 70", "70\n", "70.0", "", 70.5, float("nan"), float("inf"), None, True, b"70", [70],
     2**53, 2**53 + 2, 2**63, -(2**63) - 1, 2**200, "9" * 30],
)  # fmt: skip
def test_vocabulary_integers_unknown_id_has_no_index(item_id: Any) -> None:
    assert Vocabulary([70, 1, 2**53 + 1][::2]).index_of(item_id) is None


def test_vocabulary_text_answers_for_integers_and_whole_floats() -> None:
    items = Vocabulary(["7", "007", "é", "a b", "1.5"])
    assert not items.is_integer
    asked = ["7", 7, 7.0, np.int64(7), np.float32(7), "007", "é", "a b", "1.5", 1.5]
    assert [items.index_of(item_id) for item_id in asked] == [0, 0, 0, 0, 0, 1, 2, 3, 4, 4]
    assert [items.index_of(item_id) for item_id in [8, "07", "E", "a  b", "", None, "7\n"]] == [None] * 7


def test_vocabulary_bool_is_no_integer() -> None:
    assert Vocabulary([0, 1]).index_of(True) is None
    assert Vocabulary([0, 1]).index_of(np.bool_(False)) is None


@pytest.mark.parametrize(
    ("known", "asked"),
    [
        ([5, 9, 2], pa.array([2, 5, 4, 9, 2])),
        ([5, 9, 2], pa.array(["2", "5", "x", "9", "2"])),
        (["5", "9", "2"], pa.array([2, 5, 4, 9, 2])),
        (["5", "9", "2"], pa.array(["2", "5", "02", "9", "2"])),
    ],
)
def test_vocabulary_encode_gives_the_index_or_minus_one(known: list[Any], asked: pa.Array) -> None:
    item_idx = Vocabulary(known).encode(asked)
    assert item_idx.dtype == np.int32
    assert item_idx.tolist() == [2, 0, -1, 1, 2]


def test_vocabulary_encode_of_nothing_is_empty() -> None:
    assert Vocabulary([1]).encode(pa.array([], pa.int64())).tolist() == []


def test_vocabulary_ids_of_gives_plain_values_in_the_order_asked() -> None:
    found = Vocabulary([50, 30, 70]).ids_of(np.array([2, 0, 2], dtype=np.int32))
    assert found == [70, 50, 70]
    assert {type(item_id) for item_id in found} == {int}
    assert Vocabulary(["b", "a"]).ids_of([1]) == ["a"]
    assert Vocabulary(["b", "a"]).ids_of([]) == []


@pytest.mark.parametrize("item_idx", [-1, 3])
def test_vocabulary_ids_of_index_outside_raises(item_idx: int) -> None:
    with pytest.raises(IndexError):
        Vocabulary([50, 30, 70]).ids_of([item_idx])


@pytest.mark.parametrize(
    ("item_ids", "message"),
    [
        ([1, 2, 1], "stands twice"),
        (["a", "a"], "stands twice"),
        ([1, None], "1 item ids are missing"),
        (["a", None, None], "2 item ids are missing"),
        ([1, "a"], "neither all integers .* nor all text"),
        ([2**63], "neither all integers"),
        ([2**70, 1], "neither all integers"),
        ([[1], [2]], "Give integers or text"),
        ([1.5], "double"),
        ([True, False], "bool"),
        ([b"a"], "binary"),
    ],
)
def test_vocabulary_wrong_ids_raise(item_ids: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Vocabulary(item_ids)


def test_vocabulary_empty_knows_nothing() -> None:
    items = Vocabulary([])
    assert items.n_items == 0
    assert items.index_of(1) is None


@given(st.lists(INT64, unique=True, min_size=1), st.lists(INT64))
def test_vocabulary_integers_agree_with_a_dictionary(item_ids: list[int], asked: list[int]) -> None:
    slow = {item_id: item_idx for item_idx, item_id in enumerate(item_ids)}
    items = Vocabulary(item_ids)
    for item_id in item_ids + asked:
        assert items.index_of(item_id) == slow.get(item_id)
        assert items.index_of(str(item_id)) == slow.get(item_id)
    assert items.encode(pa.array(asked, pa.int64())).tolist() == [slow.get(item_id, -1) for item_id in asked]
    assert items.ids_of(range(len(item_ids))) == item_ids


@given(st.lists(st.text(), unique=True, min_size=1), st.lists(st.text() | INT64))
def test_vocabulary_text_agrees_with_a_dictionary(item_ids: list[str], asked: list[Any]) -> None:
    slow = {item_id: item_idx for item_idx, item_id in enumerate(item_ids)}
    items = Vocabulary(item_ids)
    for item_id in [*item_ids, *asked]:
        assert items.index_of(item_id) == slow.get(str(item_id))
    assert items.ids_of(range(len(item_ids))) == item_ids


@given(st.lists(st.text() | INT64.map(str) | st.from_regex(r"\A[-+]?0?[0-9]{1,20}\Z"), min_size=1))
def test_integers_where_possible_only_if_every_text_is_what_python_prints(texts: list[str]) -> None:
    def is_usual(text: str) -> bool:
        try:
            return str(int(text)) == text and -(2**63) <= int(text) < 2**63
        except ValueError:
            return False

    result = integers_where_possible(pa.array(texts))
    expected: list[Any] = [int(text) for text in texts] if all(map(is_usual, texts)) else texts
    assert result.to_pylist() == expected
