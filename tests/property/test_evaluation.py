"""Evaluation against a brute-force ranking, and its independence of batch and block size."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from unittest.mock import patch

import numpy as np
import pytest
import torch
from conftest import make_sessions
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gru4rec.api import GRU4Rec
from gru4rec.config import hyper_parameters
from gru4rec.data.sessions import Sessions
from gru4rec.evaluate.evaluator import evaluate, score_blocks
from gru4rec.evaluate.ranks import TIE_MODES, RankCounts
from gru4rec.model.initial import initialise
from gru4rec.model.network import GRU4RecModel
from gru4rec.model.scorer import GRUScorer


class CoarseScorer:
    """A scorer full of ties: score = (sum of clicks + item) modulo 4, so that a missed reset shows."""

    def __init__(self, n_items: int) -> None:
        self.n_items = n_items

    def start(self, n_sessions: int) -> tuple[Tensor, ...]:
        return (torch.zeros(n_sessions, 1, dtype=torch.float64),)

    def advance(self, state: tuple[Tensor, ...], item_idx: np.ndarray) -> tuple[Tensor, ...]:
        return (state[0] + torch.as_tensor(item_idx.astype(np.float64)).unsqueeze(1),)

    def ready(self, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return state

    def score_block(self, ready: tuple[Tensor, ...], start: int, stop: int) -> Tensor:
        return self.score_items(ready, np.arange(start, stop))

    def score_items(self, state: tuple[Tensor, ...], item_idx: np.ndarray) -> Tensor:
        return (state[0] + torch.as_tensor(np.asarray(item_idx, dtype=np.float64))) % 4


def brute_force_ranks(
    lists: list[list[int]], n_items: int, mode: str, random_places: Callable[[int], int]
) -> list[float]:
    """Rank each target by sorting the whole list of scores, one event at a time."""
    ranks = []
    for events in lists:
        for place in range(1, len(events)):
            scores = [(sum(events[:place]) + item) % 4 for item in range(n_items)]
            target = events[place]
            higher = sum(score > scores[target] for score in scores)
            equals = [item for item in range(n_items) if scores[item] == scores[target]]
            places = {
                "standard": 1,
                "conservative": len(equals),
                "median": (len(equals) - 1) / 2 + 1,
                "tiebreaking": random_places(len(equals)),
                "no_dedupe": equals.index(target) + 1,
            }
            ranks.append(higher + places[mode])
    return ranks


item_lists = st.lists(st.lists(st.integers(0, 299), min_size=1, max_size=7), min_size=1, max_size=12).filter(
    lambda lists: max(map(len, lists)) > 1
)


@pytest.mark.parametrize("mode", TIE_MODES)
@given(item_lists, st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 256, 280, 300, 1000]))
def test_ranks_equal_brute_force(
    mode: str, lists: list[list[int]], batch_size: int, rows: int, block_items: int
) -> None:
    sessions = make_sessions(lists, 300)
    with patch("gru4rec.evaluate.evaluator.ROWS", rows):
        evaluation = evaluate(CoarseScorer(300), sessions, batch_size=batch_size, block_items=block_items)
    draws = iter(np.random.default_rng([11, 2]).random(evaluation.n_targets))
    expected = brute_force_ranks(lists, 300, mode, lambda n_equal: int(next(draws) * n_equal) + 1)
    assert evaluation.counts.ranks(mode, seed=11).tolist() == expected  # type: ignore[arg-type]


def test_tiebreaking_is_uniform_among_equals() -> None:
    n = 60_000
    counts = RankCounts(np.full(n, 2), np.full(n, 3), np.zeros(n, dtype=np.int64))
    ranks, frequency = np.unique(counts.ranks("tiebreaking", seed=3), return_counts=True)
    assert ranks.tolist() == [3.0, 4.0, 5.0]
    np.testing.assert_allclose(frequency / n, 1 / 3, atol=0.01)  # about 5 standard errors


@pytest.fixture(scope="module", params=[(16,), (100,), (24, 12)], ids=str)
def scorer(request: pytest.FixtureRequest) -> GRUScorer:
    settings = hyper_parameters({"layers": request.param})
    model = GRU4RecModel(700, settings)
    initialise(model, seed=1)
    with torch.no_grad():
        model.Wy.weight.mul_(8)  # decisive states and scores, as after training
        model.Wy.weight[350:] = model.Wy.weight[:350]  # true ties
        model.By.weight.zero_()
    return GRUScorer(model)


long_lists = st.lists(st.lists(st.integers(0, 699), min_size=1, max_size=6), min_size=1, max_size=60).filter(
    lambda lists: max(map(len, lists)) > 1
)


@given(long_lists, st.integers(1, 70), st.integers(1, 99), st.integers(1, 800))
def test_evaluation_does_not_depend_on_batch_or_block_size(
    scorer: GRUScorer, lists: list[list[int]], batch_size: int, rows: int, block_items: int
) -> None:
    sessions = make_sessions(lists, 700)
    reference = evaluate(scorer, sessions)
    with patch("gru4rec.evaluate.evaluator.ROWS", rows):
        found = evaluate(scorer, sessions, batch_size=batch_size, block_items=block_items)
    for name in ("n_higher", "n_equal", "n_equal_before"):
        np.testing.assert_array_equal(getattr(found.counts, name), getattr(reference.counts, name))
    assert (reference.counts.n_equal >= 2).all(), "each item has a twin"


@given(st.lists(st.integers(0, 699), min_size=1, max_size=90), st.integers(0, 89))
def test_scores_are_the_same_bits_alone_and_in_any_batch(scorer: GRUScorer, items: list[int], row: int) -> None:
    row %= len(items)
    state = scorer.advance(scorer.advance(scorer.start(len(items)), items), items[::-1])
    alone = scorer.advance(scorer.advance(scorer.start(1), [items[row]]), [items[::-1][row]])
    for part, part_alone in zip(state, alone, strict=True):
        assert torch.equal(part[row], part_alone[0])
    for (_, scores), (_, scores_alone) in zip(score_blocks(scorer, state), score_blocks(scorer, alone), strict=True):
        assert torch.equal(scores[row], scores_alone[0])


def test_target_score_that_differs_from_its_block_is_counted_by_the_block() -> None:
    class RoundingScorer(CoarseScorer):
        """Rounds differently when asked for single items, as another matrix kernel would."""

        def score_block(self, state: tuple[Tensor, ...], start: int, stop: int) -> Tensor:
            return CoarseScorer.score_items(self, state, np.arange(start, stop))

        def score_items(self, state: tuple[Tensor, ...], item_idx: np.ndarray) -> Tensor:
            return super().score_items(state, item_idx) * (1 + 1e-15)

    sessions = make_sessions([[5, 6, 2], [1, 1], [3, 7, 9, 11]], 40)
    found, expected = (evaluate(kind(40), sessions).counts for kind in (RoundingScorer, CoarseScorer))
    for name in ("n_higher", "n_equal", "n_equal_before"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_no_dedupe_rank_is_the_place_in_the_recommended_list(golden_train: Sessions, golden_test: Sessions) -> None:
    gru = GRU4Rec(device="cpu", layers=[16], n_epochs=1, batch_size=16, n_sample=32).fit(golden_train)
    ranks = evaluate(gru.scorer(), golden_test).counts.ranks("no_dedupe")
    next_rank = iter(ranks.tolist())
    offsets = golden_test.offsets
    for start, stop in itertools.pairwise(offsets[:61]):
        ids = golden_test.items.ids_of(golden_test.item_idx[start:stop])
        for place in range(1, len(ids)):
            listed = gru.recommend(ids[:place], golden_test.items.n_items)
            assert listed.item_ids.index(ids[place]) + 1 == next(next_rank)
