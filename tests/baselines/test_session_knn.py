"""Session kNN against its definition, its index, and what its settings mean."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from baselines.literal import CloseCallError, all_scores, popularity, scores_of, session_knn, state_of
from conftest import make_sessions
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from gru4rec.baselines.session_knn import SessionIndex, SessionKNNScorer, weights_by_distance
from gru4rec.baselines.settings import SessionKNNSettings, Weighting
from gru4rec.baselines.sparse import BELOW_ALL
from gru4rec.data.sessions import Sessions

N_ITEMS = 9
WEIGHTINGS = get_args(Weighting)

items = st.integers(0, N_ITEMS - 2)  # the last item was never clicked
logs = st.lists(st.lists(items, min_size=1, max_size=7), min_size=1, max_size=16)
queries = st.lists(st.lists(st.integers(0, N_ITEMS - 1), max_size=14), min_size=1, max_size=5)
knn_settings = st.fixed_dictionaries(
    {
        "k": st.sampled_from([1, 2, 3, 5, 100]),
        "m": st.sampled_from([1, 2, 4, 7, 100]),
        "weighting": st.sampled_from(WEIGHTINGS),
        "score_weighting": st.sampled_from(WEIGHTINGS),
        "decay": st.sampled_from([0.5, 2.0, 3.5]),
        "cosine": st.booleans(),
        "recency": st.sampled_from([0.0, 0.1, 0.4, 2.0]),
        "gap_decay": st.sampled_from([0.0, 0.5, 3.0]),
        "idf_weight": st.sampled_from([0.0, 0.3, 5.0]),
        "exclude_last": st.booleans(),
        "n_clicks": st.sampled_from([1, 2, 5, 20]),
    }
)


def log_of(lists: list[list[int]], gaps: list[int] | None = None) -> Sessions:
    """Sessions that begin so many seconds after the one before; 1 where not told."""
    sessions = make_sessions(lists, N_ITEMS)
    return sessions if gaps is None else replace(sessions, start_time=np.cumsum(gaps[: len(lists)]))


def fitted(lists: list[list[int]], **values: Any) -> SessionKNNScorer:
    return SessionKNNScorer.fit(log_of(lists), SessionKNNSettings(**values))


def said_by(scorer: SessionKNNScorer, session: list[int]) -> dict[int, float]:
    """What the scorer says, without what it leaves to popularity."""
    scores = scores_of(scorer, [session])[0]
    return {int(item): float(scores[item]) for item in np.flatnonzero((scores > 0) | (scores <= BELOW_ALL))}


@settings(max_examples=200)
@given(logs, st.lists(st.integers(0, 3), min_size=16, max_size=16), queries, knn_settings)
def test_scores_equal_the_definition(
    lists: list[list[int]], gaps: list[int], sessions: list[list[int]], values: dict[str, Any]
) -> None:
    log = log_of(lists, gaps)
    support = popularity(lists, N_ITEMS)
    try:
        said = [session_knn(lists, log.start_time.tolist(), N_ITEMS, session, **values) for session in sessions]
    except CloseCallError:
        reject()
    found = scores_of(SessionKNNScorer.fit(log, SessionKNNSettings(**values)), sessions)
    expected = np.array([all_scores(each, support) for each in said])
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=0)


def test_equally_similar_sessions_the_newer_one_is_the_neighbour() -> None:
    scorer = fitted([[0, 1], [0, 2], [0, 3]], k=2, weighting="same", score_weighting="same")
    assert said_by(scorer, [0]) == pytest.approx({0: 2, 2: 1, 3: 1})


def test_candidates_are_the_newest_m_though_older_ones_are_more_similar() -> None:
    lists = [[0, 1, 5], [0, 6], [1, 7]]
    assert said_by(fitted(lists, m=2, weighting="same", score_weighting="same"), [0, 1]) == pytest.approx(
        {0: 1, 6: 1, 1: 1, 7: 1}
    )
    assert said_by(fitted(lists, m=3, k=1, weighting="same", score_weighting="same"), [0, 1]) == pytest.approx(
        {0: 2, 1: 2, 5: 2}
    )


def test_item_that_a_neighbour_holds_repeatedly_counts_once_where_it_is_nearest() -> None:
    # 1 stands at 0, 4 and 5; the shared item 0 at 2 for the last time: gaps 2, 2 and 3. 0 itself has gaps 1 and 0.
    lists = [[1, 0, 0, 2, 1, 1]]
    plain = fitted(lists, weighting="same", score_weighting="same")
    assert said_by(plain, [0]) == pytest.approx({0: 1, 1: 1, 2: 1})
    by_gap = fitted(lists, weighting="same", score_weighting="same", gap_decay=1.0)
    assert said_by(by_gap, [0]) == pytest.approx({0: 1, 1: np.exp(-2), 2: np.exp(-1)})
    cosine = fitted(lists, weighting="same", score_weighting="same", cosine=True)
    assert said_by(cosine, [0])[2] == pytest.approx(1 / np.sqrt(3))


def test_item_that_no_neighbour_says_anything_of_stands_behind_by_popularity() -> None:
    # the only shared click is the eleventh, whose linear weight is 0
    lists = [[0, 1], [2, 2]]
    scores = scores_of(fitted(lists, weighting="linear"), [[0, *[7] * 10]])[0]
    assert scores.tolist() == scores_of(fitted(lists, weighting="linear"), [[]])[0].tolist()


def test_gaps_beyond_49_count_as_49() -> None:
    scorer = fitted([[0, *[1, 2] * 25, 3]], weighting="same", score_weighting="same", gap_decay=20.0)
    assert said_by(scorer, [0])[3] == pytest.approx(np.exp(-49 / 20))


def test_items_that_nothing_is_said_of_follow_by_popularity() -> None:
    scores = scores_of(fitted([[0, 1], [2, 2, 2], [3, 3]]), [[0]])[0]
    assert (scores[:2] > 0).all()
    # 2 has three clicks, 3 two, 0 and 1 one; four of nine items are clicked more than the others
    np.testing.assert_allclose(scores[2:], [0, -1 / 9, *[-4 / 9] * 5])


@pytest.mark.parametrize("session", [[0], [5, 0], [1, 2], [0, 7], [7]], ids=str)
def test_excluded_item_is_below_all(session: list[int]) -> None:
    scores = scores_of(fitted([[4, 5], [0, 1], [0, 2]], exclude_last=True, m=2), [session])[0]
    assert scores.argmin() == session[-1]
    assert scores[session[-1]] <= BELOW_ALL
    assert (np.delete(scores, session[-1]) > -1).all()


def test_items_said_the_same_of_are_in_the_order_of_popularity() -> None:
    scorer = fitted([[0, 1, 2, 3], [2, 4], [2, 4], [1, 5]], weighting="same", score_weighting="same")
    scores = scores_of(scorer, [[0]])[0]
    np.testing.assert_allclose(scores[:4], 1, rtol=2e-9)
    assert scores[2] > scores[1] > scores[0] == scores[3]


@given(logs, st.sampled_from([1, 2, 3, 100]))
def test_postings_are_the_newest_sessions_each_once_newest_first(lists: list[list[int]], m: int) -> None:
    index = SessionIndex.of(log_of(lists), m)
    indexed = [index.item_idx[a:b].tolist() for a, b in itertools.pairwise(index.offsets)]
    for item in range(N_ITEMS):
        posted = index.posted[index.posting_offsets[item] : index.posting_offsets[item + 1]].tolist()
        assert [indexed[number] for number in posted] == [events for events in lists[::-1] if item in events][:m]
        assert posted == sorted(set(posted), reverse=True)


@given(logs, queries, knn_settings, st.sampled_from([1, 2, 4]))
def test_sessions_that_no_posting_names_are_left_out_and_nothing_changes(
    lists: list[list[int]], sessions: list[list[int]], values: dict[str, Any], m: int
) -> None:
    log = log_of(lists)
    index, whole = SessionIndex.of(log, m), SessionIndex.of(log, 10**7)
    named = [events for number, events in enumerate(lists) if any(number in _newest(lists, item, m) for item in events)]
    assert [index.item_idx[a:b].tolist() for a, b in itertools.pairwise(index.offsets)] == named
    settings_ = SessionKNNSettings(**{**values, "m": m})
    short, long = (SessionKNNScorer(each, log.support(), settings_) for each in (index, whole))
    np.testing.assert_array_equal(scores_of(short, sessions), scores_of(long, sessions))


def _newest(lists: list[list[int]], item: int, m: int) -> list[int]:
    return [number for number, events in enumerate(lists) if item in events][-m:]


def test_index_needs_less_than_forty_bytes_an_event() -> None:
    rng = np.random.default_rng(1)
    lists = [rng.integers(0, 800, size=rng.integers(2, 8)).tolist() for _ in range(3_000)]
    sessions = make_sessions(lists, 800)
    index = SessionIndex.of(sessions, 1_000)
    n_sessions, n_events = sessions.n_sessions, sessions.n_events
    posted = sum(len(set(events)) for events in lists)
    assert index.n_bytes == 4 * n_events + 8 * (n_sessions + 1) + 4 * n_sessions + 8 * 801 + 4 * posted
    assert index.n_bytes < 40 * n_events
    assert SessionIndex.of(sessions, 3).n_bytes < index.n_bytes / 2, "the index depends on m, not on the log"


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_weights_begin_at_one_and_fall(weighting: Weighting) -> None:
    weights = weights_by_distance(weighting, 15, 2.0)
    assert weights[0] == 1
    assert (np.diff(weights) <= 0).all()
    assert (weights >= 0).all()
    assert (weights[-1] < 1) == (weighting != "same")


def test_log_of_one_moment_has_no_age() -> None:
    log = log_of([[0, 1], [0, 2]], [5, 0])
    assert SessionIndex.of(log, 10).age.tolist() == [0, 0]
    assert SessionIndex.of(log_of([[0, 1], [0, 2], [0, 3]], [5, 1, 3]), 10).age.tolist() == [1, 0.75, 0]


def test_clicks_beyond_those_kept_are_forgotten() -> None:
    scorer = fitted([[0, 1], [2, 3]], n_clicks=2)
    for new, old in zip(state_of(scorer, [[5, 6, 7]]), state_of(scorer, [[0, 6, 7]]), strict=True):
        np.testing.assert_array_equal(new, old)
    assert said_by(scorer, [0, 6, 7]) == {}
    assert set(said_by(scorer, [0, 7])) == {0, 1}
