"""Initial weights: bounds, order, independence of global state. Recorded numbers: tests/parity."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
import torch

from gru4rec.config import hyper_parameters
from gru4rec.model import initial
from gru4rec.model.initial import initialise
from gru4rec.model.network import GRU4RecModel


def weights_of(seed: int | None, n_items: int = 300, **settings: object) -> dict[str, torch.Tensor]:
    model = GRU4RecModel(n_items, hyper_parameters({"layers": [64], **settings}))
    initialise(model, seed=seed)
    return model.state_dict()


@pytest.mark.parametrize("seed", [None, 7])
def test_blocks_fill_their_bounds_and_biases_are_zero(seed: int | None) -> None:
    weights = weights_of(seed)
    bounds = {"Wy.weight": (300, 64), "G.0.weight_ih": (64, 64), "G.0.weight_hh": (64, 64)}
    for name, (rows, cols) in bounds.items():
        bound = (6 / (rows + cols)) ** 0.5
        assert weights[name].abs().max().item() <= bound * (1 + 1e-6)
        assert weights[name].abs().max().item() > bound * 0.99
        assert weights[name].mean().abs().item() < bound * 0.05
    assert not any(weights[name].any() for name in ("By.weight", "G.0.bias_ih", "G.0.bias_hh"))


def test_compatibility_weights_are_the_same_every_time_and_leave_numpy_alone() -> None:
    np.random.seed(3)
    expected = np.random.rand(4)
    np.random.seed(3)
    first, second = weights_of(None), weights_of(None)
    np.testing.assert_array_equal(np.random.rand(4), expected)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_seeds_give_independent_weights() -> None:
    first, again, other = (weights_of(seed)["Wy.weight"] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert abs(np.corrcoef(first.flatten(), other.flatten())[0, 1]) < 0.03  # 19,200 values: four standard errors


def one_go(seed: int | None) -> Callable[[int, int], np.ndarray]:
    """Restate a block's draw from the recordings' description: the whole matrix at once."""
    if seed is None:
        legacy = np.random.RandomState(42)

        def draw(rows: int, cols: int) -> np.ndarray:
            bound = np.float32((6 / (rows + cols)) ** 0.5)
            return legacy.rand(rows, cols).astype(np.float32) * (2 * bound) - bound
    else:
        rng = np.random.default_rng(seed)

        def draw(rows: int, cols: int) -> np.ndarray:
            bound = (6 / (rows + cols)) ** 0.5
            return (rng.random((rows, cols)) * 2 * bound - bound).astype(np.float32)

    return draw


every_draw = pytest.mark.parametrize(
    ("seed", "values_at_once"), [(seed, n) for seed in (None, 7) for n in (1, 10, 1 << 17)]
)


@every_draw
def test_draw_order_with_a_separate_embedding_and_two_sizes(
    seed: int | None, values_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Embedding, (in, H) blocks, (H, H) blocks, output; chunks of rows follow each other in one sequence."""
    monkeypatch.setattr(initial, "_VALUES_AT_ONCE", values_at_once)
    weights = weights_of(seed, n_items=5, layers=[3], constrained_embedding=False, embedding=2)
    draw = one_go(seed)
    np.testing.assert_array_equal(weights["E.weight"], draw(5, 2))
    np.testing.assert_array_equal(weights["G.0.weight_ih"], np.vstack([draw(2, 3).T for _ in range(3)]))
    np.testing.assert_array_equal(weights["G.0.weight_hh"], np.vstack([draw(3, 3) for _ in range(3)]))
    np.testing.assert_array_equal(weights["Wy.weight"], draw(5, 3))


@every_draw
def test_draw_order_without_embedding_and_a_second_layer_that_resets_before(
    seed: int | None, values_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks that lie side by side are drawn one after the other; square input blocks are stacked as drawn."""
    monkeypatch.setattr(initial, "_VALUES_AT_ONCE", values_at_once)
    settings = {"layers": [3, 3], "constrained_embedding": False, "gru_variant": "reset_before"}
    weights = weights_of(seed, n_items=7, **settings)
    draw = one_go(seed)
    np.testing.assert_array_equal(weights["GE.Wx0.weight"], np.hstack([draw(7, 3) for _ in range(3)]))
    np.testing.assert_array_equal(weights["GE.Wrz0"], np.hstack([draw(3, 3) for _ in range(2)]))
    np.testing.assert_array_equal(weights["GE.Wh0"], draw(3, 3))
    np.testing.assert_array_equal(weights["G.0.weight_ih"], np.vstack([draw(3, 3) for _ in range(3)]))
    np.testing.assert_array_equal(weights["G.0.Wrz0"], np.hstack([draw(3, 3) for _ in range(2)]))
    np.testing.assert_array_equal(weights["G.0.Wh0"], draw(3, 3))
    np.testing.assert_array_equal(weights["Wy.weight"], draw(7, 3))


@pytest.mark.parametrize("seed", [None, 7])
def test_drawing_needs_a_few_megabytes_beside_the_weights(seed: int | None) -> None:
    settings = {"layers": [100], "constrained_embedding": False}
    model = GRU4RecModel(20_000, hyper_parameters(settings))  # Wx0: 24 MB, and twice that in float64
    tracemalloc.start()  # NumPy reports its arrays to it
    initialise(model, seed=seed)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 1_000_000 < peak_bytes < 4_000_000


@pytest.mark.parametrize("variant", ["reset_after", "reset_before"])
@pytest.mark.parametrize("layers", [[4], [4, 6]])
def test_no_matrix_is_left_at_zero(variant: str, layers: list[int]) -> None:
    for mode in ({}, {"constrained_embedding": False}, {"constrained_embedding": False, "embedding": 3}):
        for name, weight in weights_of(None, layers=layers, gru_variant=variant, **mode).items():
            is_bias = weight.ndim == 1 or weight.shape[1] == 1
            assert bool(weight.any()) is not is_bias, name
