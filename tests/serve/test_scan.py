"""A scan's candidates hold the best for sure, and lists found by it are those of scoring everything, bit for bit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gru4rec.config import hyper_parameters
from gru4rec.model.network import GRU4RecModel
from gru4rec.model.scorer import GRUScorer
from gru4rec.serve.scan import SCAN_KINDS, ScanTable
from gru4rec.serve.search import DenseSearch, ScanSearch, can_scan
from gru4rec.serve.topk import Wanted

NONE = np.empty(0, dtype=np.int32)


def scorer_of(n_items: int, *, seed: int, layers: tuple[int, ...] = (12,), spread: float = 0.3, **given: Any) -> Any:
    """Make a model with random weights, a few items of them large, a few all zero and a few twice."""
    model = GRU4RecModel(n_items, hyper_parameters({"layers": list(layers), **given}, where="test"))
    rng = np.random.default_rng(seed)
    state = {
        name: torch.from_numpy(rng.standard_normal(tuple(weight.shape)).astype(np.float32) * spread)
        for name, weight in model.state_dict().items()
    }
    odd = rng.integers(0, n_items, 6)
    state["Wy.weight"][odd[:2]] *= 20
    state["Wy.weight"][odd[2]] = 0
    state["Wy.weight"][odd[3]], state["By.weight"][odd[3]] = state["Wy.weight"][odd[4]], state["By.weight"][odd[4]]
    model.load_state_dict(state)
    return GRUScorer(model)


def state_of(scorer: GRUScorer, n_sessions: int, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    state = scorer.start(n_sessions)
    for _ in range(3):
        state = scorer.advance(state, rng.integers(0, scorer.n_items, n_sessions))
    return state


def some(rng: np.random.Generator, n_items: int, n: int) -> np.ndarray:
    return np.unique(rng.integers(0, n_items, n)).astype(np.int32)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    n_items=st.sampled_from([1, 2, 63, 64, 65, 300, 1000, 5003]),
    n_sessions=st.integers(1, 9),
    kind=st.sampled_from(SCAN_KINDS),
    k=st.sampled_from([1, 5, 20, 300]),
    filtered=st.sampled_from(["no", "excluded", "allowed", "both"]),
)
def test_lists_of_a_scan_are_those_of_scoring_everything(
    seed: int, n_items: int, n_sessions: int, kind: Any, k: int, filtered: str
) -> None:
    rng = np.random.default_rng(seed)
    scorer = scorer_of(n_items, seed=seed)
    wanted = [
        Wanted(
            min(k, n_items) if row % 2 == 0 else 1,
            some(rng, n_items, 40) if filtered in ("excluded", "both") else NONE,
            some(rng, n_items, n_items) if filtered in ("allowed", "both") and row % 3 else None,
        )
        for row in range(n_sessions)
    ]
    state = state_of(scorer, n_sessions, seed)
    exact, scanned = DenseSearch(scorer).best(state, wanted), ScanSearch(scorer, kind).best(state, wanted)
    for one, other in zip(exact, scanned, strict=True):
        assert one.item_idx.tolist() == other.item_idx.tolist()
        assert one.scores.tobytes() == other.scores.tobytes()


@pytest.mark.parametrize("kind", SCAN_KINDS)
def test_scan_in_parts_finds_the_same_lists(kind: Any) -> None:
    scorer = scorer_of(3001, seed=5, layers=(30, 17))
    state, wanted = state_of(scorer, 11, 1), [Wanted(20, NONE)] * 11
    exact = DenseSearch(scorer).best(state, wanted)
    scanned = ScanSearch(scorer, kind, threads=3).best(state, wanted)
    assert [best.item_idx.tolist() for best in exact] == [best.item_idx.tolist() for best in scanned]


def test_more_parts_than_blocks_do_no_harm() -> None:
    weights = np.arange(6, dtype=np.float32).reshape(3, 2)
    with ThreadPoolExecutor(4) as pool:
        table = ScanTable(weights, np.zeros(3, dtype=np.float32), "int8", pool=pool, n_parts=4)
        (found,) = table.candidates(np.ones((1, 2)), [Wanted(1, NONE)])
    assert found is not None
    assert found.tolist() == [2]


@pytest.mark.parametrize("kind", SCAN_KINDS)
def test_candidates_are_few_and_hold_the_best(kind: Any) -> None:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((20_000, 50), dtype=np.float32)
    bias = rng.standard_normal(20_000).astype(np.float32)
    hidden = np.tanh(rng.standard_normal((7, 50), dtype=np.float32))
    found = ScanTable(weights, bias, kind).candidates(hidden, [Wanted(20, NONE)] * 7)
    scores = hidden.astype(np.float64) @ weights.T.astype(np.float64) + bias
    for row, candidates in enumerate(found):
        assert candidates is not None
        assert set(np.argsort(-scores[row])[:20]) <= set(candidates.tolist())
        assert len(candidates) < 100


def test_rounded_weights_are_within_their_bounds_of_the_exact_scores() -> None:
    # Two items whose rounding to int8 swaps their order: 1.0 wins over 0.99 by 0.01, but steps are 100 / 127 wide.
    weights = np.array([[100, 0.99, 0], [100, 1.0, 0], [0, 0, 1]], dtype=np.float32)
    (found,) = ScanTable(weights, np.zeros(3, dtype=np.float32), "int8").candidates(
        np.array([[1, 1, 0]], dtype=np.float32), [Wanted(1, NONE)]
    )
    assert found is not None
    assert sorted(found.tolist()) == [0, 1]


def test_more_equals_than_there_is_room_for_are_scored_densely() -> None:
    n_items = 4000
    scorer = scorer_of(n_items, seed=1)
    model_weights, biases = scorer.output_weights()
    model_weights[:], biases[:] = 0.25, 1.5
    state = state_of(scorer, 2, 3)
    search = ScanSearch(scorer, "int8")
    assert search.table.candidates(state[-1].numpy(), [Wanted(20, NONE)] * 2) == [None, None]
    for best in search.best(state, [Wanted(20, np.array([1, 3], dtype=np.int32))] * 2):
        assert best.item_idx.tolist() == [0, 2, *range(4, 22)]


@pytest.mark.parametrize("kind", SCAN_KINDS)
@pytest.mark.parametrize("spread", [1e-20, 1e-4, 30.0])
def test_scores_of_any_size_are_found(kind: Any, spread: float) -> None:
    scorer = scorer_of(700, seed=2, spread=spread)
    state, wanted = state_of(scorer, 5, 9), [Wanted(20, NONE)] * 5
    exact, scanned = DenseSearch(scorer).best(state, wanted), ScanSearch(scorer, kind).best(state, wanted)
    assert [best.item_idx.tolist() for best in exact] == [best.item_idx.tolist() for best in scanned]


def test_memory_is_what_the_kind_says() -> None:
    weights, bias = np.zeros((6400, 100), dtype=np.float32), np.zeros(6400, dtype=np.float32)
    sizes = [ScanTable(weights, bias, kind).n_bytes / 6400 for kind in SCAN_KINDS]
    assert sizes == [100 + 12, 200 + 12, 400 + 12]


def test_only_models_in_float32_on_the_cpu_are_scanned() -> None:
    scorer = scorer_of(20, seed=0)
    assert can_scan(scorer)
    assert not can_scan(GRUScorer(scorer._network.double()))
