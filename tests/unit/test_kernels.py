"""Compiled kernels against the torch ones and against arithmetic; the fast step's tests cover ordinary numbers."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from gru4rec.jit import compiled as compile_loop
from gru4rec.model.losses import bpr_max_loss, cross_entropy_loss, elu
from gru4rec.train.kernels import compiled, loops, torch_ops

both_kernels = pytest.mark.parametrize("kernels", [compiled, torch_ops], ids=["compiled", "torch"])


@compile_loop
def _apply(function_number, values, out):  # type: ignore[no-untyped-def]
    for place in range(len(values)):
        out[place] = loops._exp(values[place]) if function_number == 0 else loops._tanh(values[place])


@pytest.mark.parametrize(("number", "function"), [(0, np.exp), (1, np.tanh)], ids=["exp", "tanh"])
def test_float32_functions_are_accurate(number: int, function: np.ufunc) -> None:
    values = np.concatenate([np.linspace(-86, 87, 200_001), np.geomspace(1e-30, 1, 1001)]).astype(np.float32)
    out = np.empty_like(values)
    _apply(number, values, out)
    expected = function(values.astype(np.float64))
    # 2^-24 is half a unit in the last place: 2 units for exp; for tanh as much of its largest value 1, and near 0 of
    # the value itself
    allowed = 4 * 2**-24 * (np.abs(expected) if number == 0 else np.minimum(1, 5 * np.abs(values)))
    assert (np.abs(out - expected) <= allowed).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_functions_at_the_ends(dtype: type) -> None:
    values = np.array([-np.inf, -1000, 1000, np.nan], dtype=dtype)
    out = np.empty_like(values)
    _apply(0, values, out)
    assert out[0] == out[1] == 0
    assert out[2] > 1e38
    assert np.isnan(out[3])
    _apply(1, values, out)
    np.testing.assert_array_equal(out, np.array([-1, -1, 1, np.nan], dtype=dtype))


def gradient_by_autograd(scores: Tensor, offset: Tensor, loss: str, elu_param: float = 0.5) -> tuple[Tensor, Tensor]:
    leaf = scores.clone().requires_grad_()
    moved = leaf + offset
    if loss == "cross-entropy":
        value = cross_entropy_loss(moved)
    else:
        value = bpr_max_loss(elu(moved, elu_param=elu_param), bpreg=1.2)
    (value / 7).backward()  # type: ignore[no-untyped-call]
    assert leaf.grad is not None
    return (value / 7).detach(), leaf.grad


def gradient_by_kernel(
    kernels: ModuleType, scores: Tensor, offset: Tensor, loss: str, elu_param: float = 0.5
) -> tuple[Tensor, Tensor, Tensor]:
    buffer, d_offset = scores.clone(), torch.full_like(offset, 99.0)
    arguments = buffer, offset, torch.arange(len(scores)), 1 / 7, d_offset
    if loss == "cross-entropy":
        return kernels.cross_entropy(*arguments), buffer, d_offset
    return kernels.bpr_max(*arguments, elu_param=elu_param, bpreg=1.2), buffer, d_offset


@both_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("loss", ["cross-entropy", "bpr-max"])
@pytest.mark.parametrize("spread", [1e-3, 1.0, 30.0, 300.0])
@pytest.mark.parametrize("n_columns", [3, 64, 200])
def test_loss_kernels_agree_with_autograd(
    kernels: ModuleType, dtype: torch.dtype, loss: str, spread: float, n_columns: int
) -> None:
    rng = torch.Generator().manual_seed(n_columns)
    scores = torch.randn(3, n_columns, generator=rng, dtype=torch.float64).mul(spread)
    offset = torch.randn(n_columns, generator=rng, dtype=torch.float64)
    expected_loss, expected = gradient_by_autograd(scores, offset, loss)
    value, gradient, d_offset = gradient_by_kernel(kernels, scores.to(dtype), offset.to(dtype), loss)
    tolerance = 1e-11 if dtype == torch.float64 else 2e-5 * max(1.0, spread)
    torch.testing.assert_close(value.double(), expected_loss, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(gradient.double(), expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(d_offset, gradient.sum(dim=0), rtol=1e-5, atol=1e-6)


@both_kernels
@pytest.mark.parametrize("loss", ["cross-entropy", "bpr-max"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_score_that_is_no_number_makes_the_loss_none(kernels: ModuleType, loss: str, bad: float) -> None:
    for column in (0, 1, 70):
        scores = torch.zeros(2, 130)
        scores[1, column] = bad
        value, _, _ = gradient_by_kernel(kernels, scores, torch.zeros(130), loss)
        assert not torch.isfinite(value), column


def test_torch_losses_leave_out_empty_lanes_and_their_columns() -> None:
    scores, offset = torch.randn(3, 9, dtype=torch.float64), torch.zeros(9, dtype=torch.float64)
    kept = [0, 2, 3, 4, 5, 6, 7, 8]
    offset[1] = -torch.inf
    for loss, options in (("cross_entropy", {}), ("bpr_max", {"elu_param": 0.5, "bpreg": 1.0})):
        buffer, d_offset = scores.clone(), torch.empty(9, dtype=torch.float64)
        value = getattr(torch_ops, loss)(buffer, offset, torch.tensor([0, -1, 2]), 0.5, d_offset, **options)
        small, d_small = scores[[0, 2]][:, kept], torch.empty(8, dtype=torch.float64)
        expected = getattr(torch_ops, loss)(small, offset[kept], torch.tensor([0, 1]), 0.5, d_small, **options)
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(buffer[[0, 2]][:, kept], small)
        assert not buffer[1].any()
        assert not buffer[:, 1].any()


@both_kernels
@pytest.mark.parametrize("momentum", [0.0, 0.4])
@pytest.mark.parametrize("size", [1, 5, 33])
def test_update_rows_sums_equal_rows_and_leaves_others(kernels: ModuleType, momentum: float, size: int) -> None:
    rng = np.random.default_rng(1)
    table, accumulator, velocity, gradient = (rng.random((n, size)) for n in (6, 6, 6, 7))
    item_idx = np.array([4, 1, 4, 0, 1, 4, 5], dtype=np.int32)
    expected = [table.copy(), accumulator.copy(), velocity.copy()]
    for item in set(item_idx.tolist()):
        g = 0.5 * gradient[item_idx == item].sum(axis=0)
        expected[1][item] += g**2
        change = -0.3 * g / np.sqrt(expected[1][item] + 1e-6)
        if momentum:
            change = expected[2][item] = momentum * velocity[item] + change
        expected[0][item] += change
    state = [torch.from_numpy(array.copy()) for array in (table, accumulator, velocity)]
    scratch = torch.zeros(6, dtype=torch.int32)
    kernels.update_rows(
        state[0], state[1], state[2] if momentum else None, torch.from_numpy(item_idx), torch.from_numpy(gradient),
        scratch, lr=0.3, momentum=momentum, eps=1e-6, share=0.5,
    )  # fmt: skip
    for actual, values in zip(state, expected, strict=True):
        np.testing.assert_allclose(actual.numpy(), values, rtol=1e-12)
    assert not scratch.any()


@both_kernels
@pytest.mark.parametrize("depth", [15.0, 20.0, 40.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bpr_max_of_negatives_far_below_zero(kernels: ModuleType, dtype: torch.dtype, depth: float) -> None:
    scores = torch.randn(2, 130, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - depth
    scores[0, 0] = scores[1, 1] = -depth + 1
    offset = torch.zeros(130, dtype=torch.float64)
    expected_loss, expected = gradient_by_autograd(scores, offset, "bpr-max", elu_param=0.0)
    value, gradient, _ = gradient_by_kernel(kernels, scores.to(dtype), offset.to(dtype), "bpr-max", elu_param=0.0)
    tolerance = 1e-11 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(value.double(), expected_loss, rtol=tolerance, atol=0)
    torch.testing.assert_close(gradient.double(), expected, rtol=tolerance, atol=tolerance)


@both_kernels
def test_momentum_without_velocity_is_none(kernels: ModuleType) -> None:
    weight, accumulator, gradient = torch.zeros(3), torch.ones(3), torch.ones(3)
    kernels.update_dense(weight, accumulator, None, gradient, lr=1.0, momentum=0.5, eps=0.0)
    torch.testing.assert_close(accumulator, torch.full((3,), 2.0))
    torch.testing.assert_close(weight, torch.full((3,), -(2.0**-0.5)))
