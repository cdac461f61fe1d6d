"""The Triton kernels against the torch ones, on a GPU, or with TRITON_INTERPRET=1 on a CPU."""

from __future__ import annotations

import inspect
import os
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from unit.test_gpu_step import UNEVEN, new_batches, new_step, train

from gru4rec.train.gpu_plan import segments
from gru4rec.train.gpu_step import GPUStep
from gru4rec.train.kernels import torch_ops

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if IS_INTERPRETED else "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not IS_INTERPRETED and not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION"),
    pytest.mark.filterwarnings("ignore:(overflow|invalid value|divide by zero) encountered:RuntimeWarning"),
]
both_types = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
TOLERANCE = {torch.float32: {"rtol": 2e-5, "atol": 2e-6}, torch.float64: {"rtol": 1e-11, "atol": 1e-13}}


@pytest.fixture
def triton_ops(dtype: torch.dtype) -> ModuleType:
    pytest.importorskip("triton", reason="Triton is not installed")
    from gru4rec.train.kernels import triton_ops

    if dtype == torch.float64 and not triton_ops.EXACT_IN_FLOAT64:
        pytest.skip("this Triton rounds settings to float32")
    return triton_ops


class Numbers:
    """Random buffers of one type, the same for the same seed."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._rng, self._dtype = torch.Generator().manual_seed(0), dtype

    def __call__(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._rng, dtype=torch.float64).to(DEVICE, self._dtype)


def both(name: str, triton_ops: ModuleType, *arguments: Any, **options: Any) -> list[list[Tensor]]:
    """Call both kernels on copies; returns what each left in its buffers, the result last."""
    results = []
    for kernels in (torch_ops, triton_ops):
        copies = [argument.clone() if isinstance(argument, Tensor) else argument for argument in arguments]
        value = getattr(kernels, name)(*copies, **options)
        results.append([copy for copy in (*copies, value) if isinstance(copy, Tensor)])
    return results


def assert_equal(results: list[list[Tensor]], dtype: torch.dtype) -> None:
    for number, (expected, actual) in enumerate(zip(*results, strict=True)):
        torch.testing.assert_close(
            actual, expected, equal_nan=True, msg=lambda text, n=number: f"buffer {n}: {text}", **TOLERANCE[dtype]
        )


@pytest.mark.parametrize("dtype", [torch.float32])
def test_same_functions_as_torch(triton_ops: ModuleType, dtype: torch.dtype) -> None:
    functions = inspect.getmembers(torch_ops, inspect.isfunction)
    assert len(functions) > 15
    for name, function in functions:
        if not name.startswith("_"):
            assert inspect.signature(getattr(triton_ops, name)) == inspect.signature(function), name


@both_types
@pytest.mark.parametrize(("n_lanes", "n_hidden"), [(1, 1), (3, 7), (70, 33)])
def test_gates_equal_torch(triton_ops: ModuleType, dtype: torch.dtype, n_lanes: int, n_hidden: int) -> None:
    new, H = Numbers(dtype), n_hidden
    x, h, state, d_out = new(n_lanes, 3 * H), new(n_lanes, 3 * H), new(n_lanes, H), new(n_lanes, H)
    out, bias, bias_h = torch.zeros_like(state), new(3 * H), new(3 * H)
    after = both("reset_after_forward", triton_ops, x, h, bias, bias_h, state, out)
    after[0][1][:, : 2 * H] = after[1][1][:, : 2 * H] = 0  # torch adds a bias there that nobody reads
    assert_equal(after, dtype)
    assert_equal(both("reset_after_backward", triton_ops, d_out, state, *after[0][:2], bias, bias_h), dtype)

    gates = both("reset_before_gates", triton_ops, x, h[:, : 2 * H].contiguous(), bias, state, out)
    assert_equal(gates, dtype)
    output = both("reset_before_output", triton_ops, gates[0][0], new(n_lanes, H), state, out)
    assert_equal(output, dtype)
    output_back = both("reset_before_output_backward", triton_ops, d_out, state, output[0][0], out)
    assert_equal(output_back, dtype)
    x_back, h_back = output_back[0][2], h[:, : 2 * H].contiguous()
    assert_equal(both("reset_before_gates_backward", triton_ops, d_out, state, x_back, h_back, bias), dtype)


@both_types
def test_gates_far_from_zero_stay_numbers(triton_ops: ModuleType, dtype: torch.dtype) -> None:
    x, nothing = torch.linspace(-2000, 2000, 21, dtype=dtype, device=DEVICE).repeat(3, 1), torch.zeros(63)
    bias, state = nothing.to(DEVICE, dtype), torch.ones(1, 21, dtype=dtype, device=DEVICE)
    arguments = x.reshape(1, 63), torch.zeros(1, 63, dtype=dtype, device=DEVICE), bias, bias, state, 0 * state
    assert_equal(both("reset_after_forward", triton_ops, *arguments), dtype)


@both_types
def test_dropout_equals_torch(triton_ops: ModuleType, dtype: torch.dtype) -> None:
    values, uniform = Numbers(dtype)(37, 50), torch.rand(37, 50, generator=torch.Generator().manual_seed(1))
    uniform = uniform.to(DEVICE)
    uniform[0, :2] = torch.tensor([0.3, 0.0])  # on the border: kept
    dropped = both("apply_dropout", triton_ops, values, uniform, 0.3)
    assert_equal(dropped, dtype)
    assert dropped[1][1][0, :2].tolist() == [1, 0]
    assert_equal(both("scale_kept", triton_ops, values, dropped[0][1], 0.3), dtype)


@both_types
@pytest.mark.parametrize("has_correction", [True, False])
def test_column_offsets_equal_torch(triton_ops: ModuleType, dtype: torch.dtype, has_correction: bool) -> None:
    new = Numbers(dtype)
    bias, correction, item_idx = new(9, 1), new(9), torch.arange(300, dtype=torch.int32, device=DEVICE) % 9
    left_out = torch.tensor([0, 1, 0], dtype=torch.int32, device=DEVICE)
    arguments = bias, item_idx, left_out, correction if has_correction else None, 0.7, 0.2, new(300)
    result = both("column_offsets", triton_ops, *arguments)
    assert_equal(result, dtype)
    assert torch.isneginf(result[1][-1]).nonzero().tolist() == [[1]]
    assert_equal(both("column_offset", triton_ops, bias, item_idx, correction, 0.4, new(300)), dtype)


@both_types
@pytest.mark.parametrize("n_columns", [3, 64, 301, 5000])
@pytest.mark.parametrize(
    ("loss", "options"),
    [
        ("cross_entropy", {}),
        ("bpr_max", {"elu_param": 0.5, "bpreg": 1.2}),
        ("bpr_max", {"elu_param": 0.0, "bpreg": 0.0}),
    ],
)
def test_losses_equal_torch(
    triton_ops: ModuleType, dtype: torch.dtype, n_columns: int, loss: str, options: dict[str, float]
) -> None:
    new = Numbers(dtype)
    for spread in (1e-3, 1.0, 30.0):
        scores, offset = new(3, n_columns) * spread, new(n_columns)
        offset[1] = -torch.inf
        target = torch.tensor([2, -1, 0], dtype=torch.int32, device=DEVICE)
        results = both(loss, triton_ops, scores, offset, target, 1 / 7, new(n_columns), **options)
        for result in results:  # between infinities in the offset and rounded sums, only what is written counts
            del result[1]
        if spread > 1 and dtype == torch.float32:
            results = [[buffer / spread for buffer in result] for result in results]
        assert_equal(results, dtype)
        assert not results[1][0][1].any()
        assert not results[1][0][:, 1].any()


@both_types
@pytest.mark.parametrize("loss", ["cross_entropy", "bpr_max"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_score_that_is_no_number_makes_the_loss_none(
    triton_ops: ModuleType, dtype: torch.dtype, loss: str, bad: float
) -> None:
    options = {"elu_param": 0.5, "bpreg": 1.0} if loss == "bpr_max" else {}
    for column in (0, 1, 70):
        scores = torch.zeros(2, 130, dtype=dtype, device=DEVICE)
        scores[1, column] = bad
        target, offset = torch.arange(2, device=DEVICE), torch.zeros(130, dtype=dtype, device=DEVICE)
        assert not torch.isfinite(getattr(triton_ops, loss)(scores, offset, target, 1.0, offset.clone(), **options))


@both_types
@pytest.mark.parametrize("loss", ["cross_entropy", "bpr_max"])
def test_empty_lane_without_a_negative_has_no_gradient(triton_ops: ModuleType, dtype: torch.dtype, loss: str) -> None:
    options = {"elu_param": 0.0, "bpreg": 1.0} if loss == "bpr_max" else {}
    new = Numbers(dtype)
    scores, offset = new(3, 3), torch.tensor([0.0, 0.0, -torch.inf], dtype=dtype, device=DEVICE)
    scores[2] = torch.tensor([-1000.0, -1000.0, 5.0])
    target = torch.tensor([0, 1, -1], dtype=torch.int32, device=DEVICE)
    for gradient, _, _, d_offset, value in both(loss, triton_ops, scores, offset, target, 0.5, new(3), **options):
        assert torch.isfinite(gradient).all()
        assert torch.isfinite(d_offset).all()
        assert torch.isfinite(value)
        assert not gradient[2].any()


@both_types
@pytest.mark.parametrize("momentum", [0.0, 0.4])
@pytest.mark.parametrize("n", [1, 5, 3000])
def test_update_dense_equals_torch(triton_ops: ModuleType, dtype: torch.dtype, momentum: float, n: int) -> None:
    new = Numbers(dtype)
    velocity = new(n) if momentum else None
    arguments = new(n), new(n).abs(), velocity, new(n)
    options = {"lr": 0.3, "momentum": momentum, "eps": 1e-6, "share": 0.5}
    assert_equal(both("update_dense", triton_ops, *arguments, **options), dtype)


@both_types
@pytest.mark.parametrize("momentum", [0.0, 0.4])
@pytest.mark.parametrize("size", [1, 5, 700])
def test_update_segments_equals_torch(triton_ops: ModuleType, dtype: torch.dtype, momentum: float, size: int) -> None:
    new = Numbers(dtype)
    # item 4 twenty times; item 6 is no item of this table, so masked; the last two places have no gradient here
    item_idx = torch.tensor([4, 6, 1, 0, 1, 6, *[4] * 19, 5, 4, 2], dtype=torch.int32, device=DEVICE)
    order, items, count = segments(item_idx.unsqueeze(0), 6)[0]
    gradient, velocity = new(len(item_idx) - 2, size), new(6, size) if momentum else None
    arguments = new(6, size), new(6, size).abs(), velocity, order, items, count, gradient
    options = {"lr": 0.3, "momentum": momentum, "eps": 1e-6, "share": 0.5}
    results = both("update_segments", triton_ops, *arguments, **options)
    assert_equal(results, dtype)
    assert torch.equal(results[1][0][[2, 3]], arguments[0][[2, 3]])
    again = both("update_segments", triton_ops, *arguments, **options)
    assert all(torch.equal(first, second) for first, second in zip(results[1], again[1], strict=True))


@pytest.mark.parametrize("dtype", [torch.float64])
@pytest.mark.parametrize("loss", ["cross-entropy", "bpr-max"])
@pytest.mark.parametrize("mode", [{"constrained_embedding": True}, {"constrained_embedding": False}])
def test_step_with_triton_equals_step_with_torch(
    triton_ops: ModuleType, dtype: torch.dtype, loss: str, mode: dict[str, bool]
) -> None:
    settings = {
        "loss": loss, "layers": [8], "n_sample": 11, "momentum": 0.2, "dropout_p_hidden": 0.3, "grad_accumulation": 2,
        **mode,
    }  # fmt: skip
    expected, actual = (
        train(new_step(GPUStep, settings, dtype, device=DEVICE, kernels=kernels), new_batches(UNEVEN, settings), 1)
        for kernels in (torch_ops, triton_ops)
    )
    for name, values in expected.items():
        torch.testing.assert_close(actual[name], values, rtol=1e-10, atol=1e-13, msg=name)
