"""Markov, association rules and item kNN against their definitions."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from baselines.literal import (
    CloseCallError,
    Log,
    Said,
    all_scores,
    association_rules,
    best_of,
    item_cosine,
    popularity,
    scores_of,
    sequential_rules,
    state_of,
)
from conftest import make_sessions
from hypothesis import given, reject
from hypothesis import strategies as st

from gru4rec.baselines import item_to_item
from gru4rec.baselines.settings import AssociationSettings, ItemKNNSettings, MarkovSettings
from gru4rec.baselines.sparse import SparseScorer
from gru4rec.evaluate.evaluator import Scorer

N_ITEMS = 8
logs = st.lists(st.lists(st.integers(0, N_ITEMS - 2), min_size=1, max_size=8), min_size=1, max_size=12)
n_kept = st.sampled_from([1, 2, 3, 100])


def check_rows(scorer: Scorer, log: Log, rows: list[Said]) -> None:
    """Compare the scores of all items after each item, and of a session without clicks."""
    support = popularity(log, N_ITEMS)
    found = scores_of(scorer, [*([item] for item in range(N_ITEMS)), []])
    np.testing.assert_allclose(found, [all_scores(said, support) for said in [*rows, {}]], rtol=1e-6, atol=0)


@given(logs, st.sampled_from([1, 2, 3, 50]), n_kept)
def test_markov_equals_sequential_rules(lists: list[list[int]], steps: int, n: int) -> None:
    try:
        rows = [best_of(sequential_rules(lists, item, steps=steps), n) for item in range(N_ITEMS)]
    except CloseCallError:
        reject()
    settings = MarkovSettings(steps=steps, n_neighbours=n)
    check_rows(item_to_item.markov(make_sessions(lists, N_ITEMS), settings), lists, rows)


@given(logs, n_kept)
def test_association_rules_equal_the_definition(lists: list[list[int]], n: int) -> None:
    rows = [best_of(association_rules(lists, item), n) for item in range(N_ITEMS)]
    settings = AssociationSettings(n_neighbours=n)
    check_rows(item_to_item.association_rules(make_sessions(lists, N_ITEMS), settings), lists, rows)


@given(logs, st.sampled_from([0.0, 0.5, 20.0]), n_kept)
def test_item_knn_equals_the_cosine(lists: list[list[int]], regularisation: float, n: int) -> None:
    try:
        rows = [
            best_of(item_cosine(lists, item, regularisation=regularisation), n, is_exact=False)
            for item in range(N_ITEMS)
        ]
    except CloseCallError:
        reject()
    settings = ItemKNNSettings(regularisation=regularisation, n_neighbours=n)
    check_rows(item_to_item.item_knn(make_sessions(lists, N_ITEMS), settings), lists, rows)


def test_rows_by_hand() -> None:
    # After 0: 1 at distance 1 twice and 2 at distance 2 once, 0 itself not.
    sessions = make_sessions([[0, 1, 2], [0, 0, 1]], 3)
    assert scores_of(item_to_item.markov(sessions, MarkovSettings(steps=2)), [[0]])[0, 1:] == pytest.approx([2.5, 0.5])
    # 0 and 1 are in both sessions, 2 in one: 2 / 2 and 1 / sqrt(2).
    knn = item_to_item.item_knn(sessions, ItemKNNSettings(regularisation=0))
    assert scores_of(knn, [[0]])[0, 1:] == pytest.approx([1, 2**-0.5])
    # Pairs of events: 0 1 once and twice, 0 2 once.
    rules = item_to_item.association_rules(sessions, AssociationSettings())
    assert scores_of(rules, [[0]])[0, 1:] == pytest.approx([3, 1])


@pytest.mark.parametrize("session", [[3], [7, 7, 3], list(range(8)) * 9 + [3]], ids=["one", "three", "many"])
def test_only_the_last_click_matters(session: list[int]) -> None:
    rng = np.random.default_rng(4)
    sessions = make_sessions([rng.integers(0, 8, 6).tolist() for _ in range(40)], 8)
    scorer = item_to_item.markov(sessions, MarkovSettings())
    np.testing.assert_array_equal(scores_of(scorer, [session]), scores_of(scorer, [[3]]))


def test_events_further_away_than_the_longest_reach_do_not_stand_beside() -> None:
    n_between = item_to_item.LONGEST
    sessions = make_sessions([[0, *[1] * (n_between - 1), 2, 3]], 4)  # 2 stands LONGEST after 0, 3 one further
    scores = scores_of(item_to_item.association_rules(sessions, AssociationSettings()), [[0]])[0]
    assert scores[1:3] == pytest.approx([n_between - 1, 1])
    assert scores[3] <= 0


def test_scores_are_the_bits_of_the_padded_rows() -> None:
    rng = np.random.default_rng(4)
    log_ = make_sessions([rng.integers(0, 40, size=5).tolist() for _ in range(60)], 40)
    scorer = item_to_item.association_rules(log_, AssociationSettings())
    state = state_of(scorer, [[item] for item in range(40)] + [[]])
    ready, said = scorer.ready(state), scorer.said(state)
    for start, stop in ((0, 40), (3, 17), (39, 40)):
        np.testing.assert_array_equal(
            scorer.score_block(ready, start, stop), SparseScorer.score_block(scorer, said, start, stop)
        )
    for wanted in ([7], [9, 3, 3, 38, 0]):
        np.testing.assert_array_equal(scorer.score_items(ready, wanted), SparseScorer.score_items(scorer, said, wanted))


def test_rows_as_long_as_the_catalogue_take_no_memory_of_their_own() -> None:
    """A hub stands beside 20,000 items. Padded rows of 512 sessions would be 512 x 20,000 x 12 bytes, 123 MB."""
    n_items = 20_000
    log_ = make_sessions([[0, item] for item in range(1, n_items)], n_items)
    scorer = item_to_item.association_rules(log_, AssociationSettings())
    assert scorer.matrix.row_offsets[1] == n_items - 1
    state = state_of(scorer, [[0]] * 512)
    scorer.score_block(scorer.ready(state), 0, 16)  # compiled before it is measured
    tracemalloc.start()
    ready = scorer.ready(state)
    scores = scorer.score_block(ready, 0, 256)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert scores[:, 1:].min() > 0
    assert peak < 4_000_000  # the block itself is 512 x 256 x 8 bytes, 1 MB
