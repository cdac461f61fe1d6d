"""Initial weights: bounds, order, independence of global state. Recorded numbers: tests/parity."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gru4rec.config import hyper_parameters
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


def test_compatibility_draw_order_with_a_separate_embedding_and_two_sizes() -> None:
    """Restates the order from the recordings' description: embedding, (in, H) blocks, (H, H) blocks, output."""
    weights = weights_of(None, n_items=5, layers=[3], constrained_embedding=False, embedding=2)
    rng = np.random.RandomState(42)

    def draw(rows: int, cols: int) -> np.ndarray:
        bound = np.float32((6 / (rows + cols)) ** 0.5)
        return rng.rand(rows, cols).astype(np.float32) * (2 * bound) - bound

    np.testing.assert_array_equal(weights["E.weight"], draw(5, 2))
    np.testing.assert_array_equal(weights["G.0.weight_ih"], np.vstack([draw(2, 3).T for _ in range(3)]))
    np.testing.assert_array_equal(weights["G.0.weight_hh"], np.vstack([draw(3, 3) for _ in range(3)]))
    np.testing.assert_array_equal(weights["Wy.weight"], draw(5, 3))


@pytest.mark.parametrize("variant", ["reset_after", "reset_before"])
@pytest.mark.parametrize("layers", [[4], [4, 6]])
def test_no_matrix_is_left_at_zero(variant: str, layers: list[int]) -> None:
    for mode in ({}, {"constrained_embedding": False}, {"constrained_embedding": False, "embedding": 3}):
        for name, weight in weights_of(None, layers=layers, gru_variant=variant, **mode).items():
            is_bias = weight.ndim == 1 or weight.shape[1] == 1
            assert bool(weight.any()) is not is_bias, name
