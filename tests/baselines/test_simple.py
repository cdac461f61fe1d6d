"""Popularity, popularity within the session, random order; and what all baselines have in common as scorers."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
import torch
from baselines.literal import all_scores, popularity, scores_of, session_popularity, state_of
from conftest import make_sessions
from hypothesis import given, settings
from hypothesis import strategies as st

from gru4rec.baselines.kinds import KINDS, baseline_settings, fit_baseline
from gru4rec.baselines.random_order import RandomScorer
from gru4rec.baselines.session_pop import SessionPopularityScorer
from gru4rec.baselines.settings import SessionPopularitySettings
from gru4rec.baselines.sparse import BELOW_ALL, popularity_behind
from gru4rec.evaluate.evaluator import Scorer, evaluate, score_blocks

N_ITEMS = 600
SWITCHES = {
    name: {"exclude_last": True} for name, kind in KINDS.items() if "exclude_last" in kind.settings.model_fields
}


def random_lists(seed: int, n_sessions: int) -> list[list[int]]:
    """Sessions of clicks on a few hundred items, the lower the commoner, so that some were never clicked."""
    rng = np.random.default_rng(seed)
    return [(N_ITEMS * rng.random(rng.integers(1, 9)) ** 3).astype(int).tolist() for _ in range(n_sessions)]


@pytest.fixture(scope="module", params=KINDS)
def scorer(request: pytest.FixtureRequest) -> Scorer:
    name = request.param
    return fit_baseline(
        name, make_sessions(random_lists(1, 500), N_ITEMS), baseline_settings(name, SWITCHES.get(name, {}))
    )


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 70))
def test_scores_are_the_same_bits_alone_and_in_any_batch(scorer: Scorer, seed: int, n_rows: int) -> None:
    lists = random_lists(seed, n_rows)
    together = scores_of(scorer, lists)
    for row, session in enumerate(lists[:10]):
        np.testing.assert_array_equal(scores_of(scorer, [session])[0], together[row])


def test_states_advance_side_by_side_as_alone(scorer: Scorer) -> None:
    lists = [events for events in random_lists(3, 60) if len(events) >= 4]
    state = scorer.start(len(lists))
    for place in range(4):
        state = scorer.advance(state, np.array([events[place] for events in lists], dtype=np.int32))
    for side_by_side, alone in zip(state, state_of(scorer, [events[:4] for events in lists]), strict=True):
        assert torch.equal(side_by_side, alone)


def test_blocks_and_single_items_have_the_same_bits(scorer: Scorer) -> None:
    lists = [[], *random_lists(4, 20)]
    ready = scorer.ready(state_of(scorer, lists))
    whole = scores_of(scorer, lists)
    for width in (256, 300, 599):
        blocks = [scores.numpy() for _, scores in score_blocks(scorer, ready, block_items=width)]
        np.testing.assert_array_equal(np.hstack(blocks), whole)
    for chosen in (np.array([5]), np.array([9, 3, 3, 599, 0]), np.arange(N_ITEMS)[::-1]):
        np.testing.assert_array_equal(scorer.score_items(ready, chosen), whole[:, chosen])


def test_evaluation_does_not_depend_on_batch_or_block_size(scorer: Scorer) -> None:
    test = make_sessions([*random_lists(5, 60), [1, 2]], N_ITEMS)
    reference = evaluate(scorer, test, list_length=20)
    for batch_size, block_items, rows in ((1, 256, 7), (9, 300, 64), (200, 600, 1)):
        with patch("gru4rec.evaluate.evaluator.ROWS", rows):
            found = evaluate(scorer, test, batch_size=batch_size, block_items=block_items, list_length=20)
        np.testing.assert_array_equal(found.lists_TK, reference.lists_TK)
        for name in ("n_higher", "n_equal", "n_equal_before"):
            np.testing.assert_array_equal(getattr(found.counts, name), getattr(reference.counts, name))


def test_session_without_clicks_gets_popularity(scorer: Scorer) -> None:
    support = np.array(popularity(random_lists(1, 500), N_ITEMS))
    state = scorer.start(2)
    assert all(not part.any() for part in state)
    scores = scores_of(scorer, [[]])[0]
    if isinstance(scorer, RandomScorer):
        assert abs(np.corrcoef(scores, support)[0, 1]) < 0.2  # 5 standard errors of 600 items
        return
    by_score = support[np.argsort(-scores, kind="stable")]
    assert (np.diff(by_score) <= 0).all()
    assert len(np.unique(scores)) == len(np.unique(support)), "equally popular items have equal scores"


@given(
    st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=5), min_size=1, max_size=6),
    st.lists(st.lists(st.integers(0, 6), max_size=9), min_size=1, max_size=5),
    st.sampled_from([1, 3, 50]),
    st.booleans(),
)
def test_session_popularity_equals_the_definition(
    lists: list[list[int]], sessions: list[list[int]], n_clicks: int, exclude_last: bool
) -> None:
    support = popularity(lists, 7)
    scorer = SessionPopularityScorer(
        np.array(support), SessionPopularitySettings(n_clicks=n_clicks, exclude_last=exclude_last)
    )
    expected = [
        all_scores(session_popularity(session, n_clicks=n_clicks, exclude_last=exclude_last), support)
        for session in sessions
    ]
    np.testing.assert_allclose(scores_of(scorer, sessions), expected, rtol=1e-8)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30))
def test_popularity_behind_is_the_share_of_more_popular_items(support: list[int]) -> None:
    found = popularity_behind(np.array(support))
    assert found.tolist() == pytest.approx(all_scores({}, support))
    assert BELOW_ALL < -1 < found.min() <= found.max() == 0


def test_random_order_is_another_for_every_session_and_seed_and_favours_nothing() -> None:
    sessions = [[1], [2], [1, 2], [2, 1], [1, 1]]
    scores = scores_of(RandomScorer(2_000, seed=5), sessions)
    between = np.corrcoef([*scores, scores_of(RandomScorer(2_000, seed=6), sessions)[0]])
    assert np.abs(between - np.eye(6)).max() < 0.12  # 5 standard errors of 2,000 items
    assert ((scores >= 0) & (scores < 1)).all()
    np.testing.assert_allclose(scores.mean(), 0.5, atol=0.015)  # 5 standard errors of 10,000 numbers
    np.testing.assert_array_equal(scores, scores_of(RandomScorer(2_000, seed=5), sessions))


@pytest.mark.parametrize("other_seed", [6, 4, 5 + 2**40])
def test_seeds_near_each_other_do_not_shift_the_order_along(other_seed: int) -> None:
    one, other = (scores_of(RandomScorer(2_000, seed=seed), [[7]])[0] for seed in (5, other_seed))
    shifted = [abs(np.corrcoef(one, np.roll(other, by))[0, 1]) for by in range(-3, 4)]
    assert max(shifted) < 0.12  # 5 standard errors of 2,000 items


def test_random_order_puts_the_target_among_the_best_twenty_as_often_as_chance() -> None:
    test = make_sessions(random_lists(6, 1_500), N_ITEMS)
    recall, _ = evaluate(RandomScorer(N_ITEMS), test).metrics([60], "conservative")
    assert recall[60] == pytest.approx(0.1, abs=0.021)  # 5 standard errors of 5,200 targets
