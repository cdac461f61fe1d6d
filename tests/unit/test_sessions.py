"""Sessions: the ordering rules, and what is dropped, counted and reported."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from conftest import make_sessions
from hypothesis import given
from hypothesis import strategies as st

from gru4rec.data.batches import SessionDataIterator
from gru4rec.data.events import load_events
from gru4rec.data.sessions import Sessions
from gru4rec.data.vocabulary import Vocabulary
from gru4rec.errors import DataError


def from_rows(rows: list[tuple[Any, Any, Any]], known: list[Any] | None = None) -> Sessions:
    """Make sessions of (session id, item id, time) rows."""
    session, item, time = ([row[place] for row in rows] for place in range(3))
    log = load_events(pa.table({"SessionId": session, "ItemId": item, "Time": time}))
    return Sessions.from_log(log, None if known is None else Vocabulary(known))


def lists(sessions: Sessions) -> list[list[Any]]:
    """Return each session's item ids."""
    bounds = itertools.pairwise(sessions.offsets.tolist())
    return [sessions.items.ids_of(sessions.item_idx[first:stop]) for first, stop in bounds]


def test_sessions_events_are_in_time_order_and_ties_keep_the_input_order() -> None:
    rows = [(1, "d", 9), (1, "b", 5), (1, "x", 7), (1, "c", 5), (1, "a", 5), (1, "b", 7)]
    assert lists(from_rows(rows)) == [["b", "c", "a", "x", "b", "d"]]


def test_sessions_item_index_is_by_first_appearance_before_ordering() -> None:
    rows = [(2, "late", 9), (1, "x", 5), (2, "early", 1), (1, "late", 6)]
    sessions = from_rows(rows)
    assert sessions.items.ids_of([0, 1, 2]) == ["late", "x", "early"]
    assert sessions.item_idx.tolist() == [2, 0, 1, 0]  # session 2 starts at 1, session 1 at 5
    assert sessions.item_idx.dtype == np.int32


def test_sessions_are_in_order_of_their_first_event() -> None:
    rows = [(1, "a", 30), (1, "b", 99), (2, "c", 20), (3, "d", 10), (3, "e", 98), (2, "f", 15)]
    sessions = from_rows(rows)
    assert lists(sessions) == [["d", "e"], ["f", "c"], ["a", "b"]]
    assert sessions.start_time.tolist() == [10, 15, 30]
    assert sessions.offsets.tolist() == [0, 2, 4, 6]


@pytest.mark.parametrize(
    ("ids", "order"),
    [
        ([10, 9, -1, 100], [-1, 9, 10, 100]),
        (["10", "9", "-1", "100"], [-1, 9, 10, 100]),  # text that spells integers is in integer order
        (["10", "9", "x", "100"], ["10", "100", "9", "x"]),  # one other text: text order
        (["b", "B", "é", "a"], ["B", "a", "b", "é"]),
        ([2**53 + 1, 2**53, 2**53 + 2, 0], [0, 2**53, 2**53 + 1, 2**53 + 2]),
    ],
)
def test_sessions_of_equal_start_are_in_id_order(ids: list[Any], order: list[Any]) -> None:
    sessions = from_rows([(session, f"item of {session}", 5) for session in ids])
    assert lists(sessions) == [[f"item of {session}"] for session in order]


def test_sessions_interleaved_rows_are_put_together() -> None:
    rows = [(1, 11, 1), (2, 21, 2), (1, 12, 3), (3, 31, 4), (2, 22, 5), (1, 13, 6)]
    assert lists(from_rows(rows)) == [[11, 12, 13], [21, 22], [31]]


def test_sessions_float_times_order_within_one_unit() -> None:
    rows = [(1, "b", 0.75), (1, "a", 0.5), (2, "d", 0.25), (2, "c", -0.25)]
    sessions = from_rows(rows)
    assert lists(sessions) == [["c", "d"], ["a", "b"]]
    assert sessions.start_time.tolist() == [-0.25, 0.5]


def test_sessions_counts_follow_from_the_rows() -> None:
    rows = [(1, "a", 1), (1, "b", 2), (1, "a", 3), (2, "c", 4), (3, "a", 5), (3, "c", 6)]
    sessions = from_rows(rows)
    assert (sessions.n_events, sessions.n_sessions, sessions.items.n_items) == (6, 3, 3)
    assert sessions.lengths.tolist() == [3, 1, 2]
    assert sessions.n_targets == 3  # 2 + 0 + 1
    assert sessions.n_single_event_sessions == 1
    assert sessions.support().tolist() == [3, 1, 2]  # a, b, c
    assert (sessions.n_unknown_events, sessions.n_unknown_items, sessions.n_lost_sessions) == (0, 0, 0)


def test_sessions_unknown_items_are_dropped_before_sessions_are_formed_and_counted() -> None:
    rows = [
        (1, "new", 1),  # with this event gone, session 1 starts at 7, after session 2
        (1, "a", 7),
        (1, "new", 8),
        (1, "b", 9),
        (2, "b", 5),
        (2, "newer", 6),
        (3, "new", 2),  # the whole of session 3 is unknown
        (3, "newest", 3),
    ]
    sessions = from_rows(rows, known=["b", "a", "unused"])
    assert lists(sessions) == [["b"], ["a", "b"]]
    assert sessions.item_idx.tolist() == [0, 1, 0]
    assert sessions.start_time.tolist() == [5, 7]
    assert sessions.items.n_items == 3
    assert sessions.support().tolist() == [2, 1, 0]
    assert (sessions.n_unknown_events, sessions.n_unknown_items, sessions.n_lost_sessions) == (5, 3, 1)
    assert sessions.n_single_event_sessions == 1


@pytest.mark.parametrize("known", [[7, 8], ["7", "8"]])
@pytest.mark.parametrize("ids", [[8, 7, 9], ["8", "7", "9"], ["8", "7", "x"]])
def test_sessions_vocabulary_of_the_other_kind_knows_the_same_items(known: list[Any], ids: list[Any]) -> None:
    sessions = from_rows([(1, item, time) for time, item in enumerate(ids)], known)
    assert sessions.item_idx.tolist() == [1, 0]
    assert sessions.n_unknown_events == 1


def test_sessions_no_known_item_raises_with_the_number_of_items() -> None:
    with pytest.raises(DataError, match=r"none of the 2 items of the pyarrow table is in the training log"):
        from_rows([(1, "x", 1), (1, "y", 2), (2, "x", 3)], known=["a"])


def test_sessions_report_says_what_is_here_and_what_was_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log.tsv"
    rows = [(1, "a", 1), (1, "b", 2), (1, "z", 3), (2, "b", 4), (2, "y", 5), (3, "z", 6), (4, "a", 7), (4, "a", 8)]
    pd.DataFrame(rows, columns=["SessionId", "ItemId", "Time"]).to_csv(path, sep="\t", index=False)
    log = load_events(path)
    assert (
        Sessions.from_log(log).report() == f"{path}: 8 events in 4 sessions; 1 sessions of one event give no prediction"
    )
    assert Sessions.from_log(log, Vocabulary(["a", "b"])).report() == (
        f"{path}: 5 events in 3 sessions; 3 events of 2 unknown items left out; 1 sessions left out with them; "
        "1 sessions of one event give no prediction"
    )


def test_sessions_report_separates_thousands() -> None:
    assert make_sessions([[0, 1]] * 1234).report() == "made-up sessions: 2,468 events in 1,234 sessions"


def test_sessions_check_predictable_needs_one_session_of_two_events() -> None:
    make_sessions([[0], [1], [0, 1]]).check_predictable()
    with pytest.raises(DataError, match="no session of made-up sessions has two events"):
        make_sessions([[0], [1], [2]]).check_predictable()


def test_sessions_from_log_does_not_change_the_log() -> None:
    log = load_events(pa.table({"SessionId": [2, 1, 2], "ItemId": [7, 8, 9], "Time": [3, 2, 1]}))
    before = [column.copy() for column in (log.session_code, log.item_code, log.time)]
    Sessions.from_log(log)
    Sessions.from_log(log, Vocabulary([9, 8]))
    for column, old in zip((log.session_code, log.item_code, log.time), before, strict=True):
        np.testing.assert_array_equal(column, old)


# --- the same rules as a slow loop ---


@dataclass
class Expected:
    lists: list[list[Any]]
    start: list[Any]
    items: list[Any]
    n_unknown_events: int
    n_unknown_items: int
    n_lost_sessions: int


def as_ids(values: list[Any]) -> list[Any]:
    """Read integers where every id spells one."""
    texts = [str(value) for value in values]
    try:
        is_usual = all(str(int(text)) == text and -(2**63) <= int(text) < 2**63 for text in texts)
    except ValueError:
        is_usual = False
    return [int(text) for text in texts] if is_usual else texts


def slowly(rows: list[tuple[Any, Any, Any]], known: list[Any] | None) -> Expected:
    session_ids, item_ids, times = (
        as_ids([row[0] for row in rows]),
        as_ids([row[1] for row in rows]),
        [r[2] for r in rows],
    )
    items = list(dict.fromkeys(item_ids)) if known is None else known
    events: dict[Any, list[tuple[Any, int, Any]]] = {}
    unknown = []
    for place, (session_id, item_id, time) in enumerate(zip(session_ids, item_ids, times, strict=True)):
        if item_id in items:
            events.setdefault(session_id, []).append((time, place, item_id))
        else:
            unknown.append(item_id)
    in_order = sorted((min(listed)[0], session_id) for session_id, listed in events.items())
    return Expected(
        lists=[[item_id for _, _, item_id in sorted(events[session_id])] for _, session_id in in_order],
        start=[start for start, _ in in_order],
        items=items,
        n_unknown_events=len(unknown),
        n_unknown_items=len(set(unknown)),
        n_lost_sessions=len(set(session_ids)) - len(events),
    )


INTEGER_IDS = st.integers(-3, 12) | st.sampled_from([2**63 - 1, -(2**63), 2**53, 2**53 + 1])
TEXT_IDS = st.sampled_from(["a", "B", "é", "10", "9", "007", "7", "日本"]) | st.text(min_size=1, max_size=2)
TIMES = st.integers(-2, 3)
FLOAT_TIMES = st.sampled_from([-0.5, 0.0, 0.25, 1.0, 1e300])


def logs(session_ids: st.SearchStrategy[Any], item_ids: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(st.tuples(session_ids, item_ids, TIMES), min_size=1, max_size=30),
        st.lists(st.tuples(session_ids, item_ids, FLOAT_TIMES), min_size=1, max_size=30),
    )


@pytest.mark.parametrize(
    "session_ids", [INTEGER_IDS, INTEGER_IDS.map(str), TEXT_IDS], ids=["integers", "digits", "text"]
)
@pytest.mark.parametrize("item_ids", [INTEGER_IDS, TEXT_IDS], ids=["integer-items", "text-items"])
def test_sessions_agree_with_a_slow_loop(session_ids: st.SearchStrategy[Any], item_ids: st.SearchStrategy[Any]) -> None:
    @given(logs(session_ids, item_ids))
    def check(rows: list[tuple[Any, Any, Any]]) -> None:
        compare(from_rows(rows), slowly(rows, None))

    check()


@given(logs(INTEGER_IDS, st.integers(0, 9)), st.lists(st.integers(0, 12), unique=True, min_size=1))
def test_sessions_with_a_vocabulary_agree_with_a_slow_loop(rows: list[tuple[Any, Any, Any]], known: list[int]) -> None:
    expected = slowly(rows, known)
    if not expected.lists:
        with pytest.raises(DataError, match="is in the training log"):
            from_rows(rows, known)
        return
    compare(from_rows(rows, known), expected)


def compare(sessions: Sessions, expected: Expected) -> None:
    assert lists(sessions) == expected.lists
    assert sessions.start_time.tolist() == expected.start
    assert sessions.items.item_ids.to_pylist() == expected.items
    assert sessions.n_unknown_events == expected.n_unknown_events
    assert sessions.n_unknown_items == expected.n_unknown_items
    assert sessions.n_lost_sessions == expected.n_lost_sessions
    assert sessions.n_targets == sum(len(listed) - 1 for listed in expected.lists)
    flat = [item for listed in expected.lists for item in listed]
    assert sessions.support().tolist() == [flat.count(item) for item in expected.items]


@pytest.mark.parametrize("wrong", [-1, 3])
def test_index_outside_the_vocabulary_is_refused_before_it_is_used(wrong: int) -> None:
    sessions = make_sessions([[0, 1, 2], [2, wrong, 0]], n_items=3)
    with pytest.raises(DataError, match="holds an item index outside its 3 items: its file is damaged"):
        list(SessionDataIterator(sessions, batch_size=2))


def test_offsets_that_do_not_rise_are_refused_before_they_are_used() -> None:
    sessions = make_sessions([[0, 1, 2], [2, 1], [0, 1]])
    damaged = replace(sessions, offsets=np.array([0, 6, 5, 7]))
    for use in (
        lambda: SessionDataIterator(damaged, batch_size=2),
        lambda: damaged.with_vocabulary(Vocabulary([2, 1])),
    ):
        with pytest.raises(DataError, match="holds sessions that end before they begin: its file is damaged"):
            use()
    wrong = replace(sessions, item_idx=np.array([0, 1, 2, 2, -7, 0, 1], dtype=np.int32))
    with pytest.raises(DataError, match="holds an item index outside its 3 items"):
        wrong.with_vocabulary(Vocabulary([2, 1]))
