"""The GPU's step, run step by step on a CPU with the kernels in torch, against the plain step."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_sessions
from torch import Tensor

from gru4rec.config import hyper_parameters
from gru4rec.data.batches import SessionDataIterator
from gru4rec.data.negatives import SampleStore
from gru4rec.model.initial import initialise
from gru4rec.model.losses import bpr_max_loss, cross_entropy_loss, elu
from gru4rec.model.network import GRU4RecModel
from gru4rec.train import gpu_plan
from gru4rec.train.fast_step import FastStep
from gru4rec.train.gpu_plan import segments
from gru4rec.train.gpu_step import GPUStep
from gru4rec.train.kernels import torch_ops
from gru4rec.train.optim import IndexedAdagradM
from gru4rec.train.step import PlainStep

N_ITEMS, N_LANES = 30, 5
MODES = {
    "shared": {"constrained_embedding": True},
    "separate": {"constrained_embedding": False, "embedding": 8},
    "none": {"constrained_embedding": False, "embedding": 0},
}
UNEVEN, EVEN = (7, 2, 9, 3, 1, 5, 2, 2, 11, 4, 3, 6), (4,) * (3 * N_LANES)
AnyStep = PlainStep | FastStep | GPUStep


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_plan, "CHUNK_STEPS", 7)


def new_batches(
    lengths: Sequence[int], settings: dict[str, Any], *, n_items: int = N_ITEMS, n_lanes: int = N_LANES
) -> SessionDataIterator:
    rng = np.random.default_rng(0)
    sessions = make_sessions([rng.integers(0, n_items, length).tolist() for length in lengths], n_items)
    store = SampleStore(
        np.arange(1, n_items + 1), n_sample=settings["n_sample"], sample_alpha=0.5, rng=np.random.default_rng(1)
    )
    return SessionDataIterator(sessions, batch_size=n_lanes, negatives=store)


def new_step(
    kind: type[AnyStep],
    settings: dict[str, Any],
    dtype: torch.dtype = torch.float64,
    *,
    n_items: int = N_ITEMS,
    n_lanes: int = N_LANES,
    device: str = "cpu",
    **options: Any,
) -> AnyStep:
    log_support = torch.log(torch.arange(1, n_items + 1).to(device, dtype))
    rng = torch.Generator(device).manual_seed(3)
    model = GRU4RecModel(n_items, hyper_parameters(settings), rng=rng).to(device, dtype)
    initialise(model, seed=1)
    model.By.weight.copy_(torch.linspace(-0.5, 0.5, n_items).unsqueeze(1))
    chosen = model.settings
    optimizer = IndexedAdagradM(model.parameters(), lr=chosen.learning_rate, momentum=chosen.momentum)
    sizes = {"n_lanes": n_lanes, "batch_size": n_lanes + 1}

    def loss(scores_AM: Tensor, column_idx_M: Tensor) -> Tensor:
        if chosen.loss == "bpr-max":
            return bpr_max_loss(elu(scores_AM, elu_param=chosen.elu_param), bpreg=chosen.bpreg)
        log_p_M = log_support[column_idx_M]
        log_p_M[len(scores_AM) :] *= chosen.sample_alpha
        return cross_entropy_loss(scores_AM, log_p_M=log_p_M, logq=chosen.logq)

    if kind is PlainStep:
        return PlainStep(model, optimizer, loss, **sizes)
    kernels = torch_ops if device == "cpu" else None
    return kind(model, optimizer, log_support, **{"kernels": kernels, **sizes, **options})


def numbers_of(step: AnyStep) -> dict[str, Tensor]:
    """Weights, and accumulators and velocities, which the gradients decide."""
    result = {}
    for name, weight in step.model.named_parameters():
        result[name] = weight.detach().clone()
        result |= {f"{name} {part}": values.clone() for part, values in step.optimizer.state[weight].items()}
    return result


def train(step: AnyStep, batches: SessionDataIterator, n_epochs: int = 2) -> dict[str, Tensor]:
    losses = [torch.cat(list(step.epoch(batches))) for _ in range(n_epochs)]
    assert [len(losses_T) for losses_T in losses] == [batches.n_steps] * n_epochs
    return numbers_of(step) | {f"losses of epoch {number}": values for number, values in enumerate(losses)}


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor], settings: dict[str, Any]) -> None:
    assert actual.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(actual[name], values, rtol=1e-10, atol=1e-13, msg=f"{name} with {settings}")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("loss", ["cross-entropy", "bpr-max"])
def test_gpu_step_in_float64_agrees_with_plain_to_1e_10(loss: str, mode: str) -> None:
    layers, variants = ([8], [8, 8], [9, 6]), ("reset_after", "reset_before")
    for sizes, variant, n_sample, accumulation in itertools.product(layers, variants, (11, 0), (1, 3)):
        settings = {
            "loss": loss, "layers": sizes, "gru_variant": variant, "n_sample": n_sample, "bpreg": 0.7,
            "grad_accumulation": accumulation, "momentum": 0.3 if n_sample else 0.0, "sample_alpha": 0.5,
            "elu_param": 0.5 if accumulation == 1 else 0.0,
            "logq": 0.8 if loss == "cross-entropy" and accumulation == 1 else 0.0, **MODES[mode],
        }  # fmt: skip
        expected, actual = (
            train(new_step(kind, settings), new_batches(UNEVEN, settings)) for kind in (PlainStep, GPUStep)
        )
        assert_same(actual, expected, settings)


@pytest.mark.parametrize(("n_steps", "n_numbers"), [(1, 1 << 22), (256, 1 << 22), (256, 1)])
def test_chunks_of_any_size_give_the_same_bits(monkeypatch: pytest.MonkeyPatch, n_steps: int, n_numbers: int) -> None:
    settings = {"layers": [8], "n_sample": 11, "grad_accumulation": 2, "momentum": 0.2}
    expected = train(new_step(GPUStep, settings), new_batches(UNEVEN, settings))
    monkeypatch.setattr(gpu_plan, "CHUNK_STEPS", n_steps)
    monkeypatch.setattr(gpu_plan, "CHUNK_NUMBERS", n_numbers)
    actual = train(new_step(GPUStep, settings), new_batches(UNEVEN, settings))
    assert all(torch.equal(actual[name], values) for name, values in expected.items())


@pytest.mark.parametrize("mode", MODES)
def test_dropout_draws_the_plain_steps_masks_while_all_lanes_are_active(mode: str) -> None:
    for accumulation in (1, 3):
        settings = {
            "layers": [8, 8], "n_sample": 11, "dropout_p_hidden": 0.4, "dropout_p_embed": 0.2,
            "grad_accumulation": accumulation, **MODES[mode],
        }  # fmt: skip
        for kind in (PlainStep, FastStep):
            expected, actual = (
                train(new_step(kind_or_gpu, settings), new_batches(EVEN, settings)) for kind_or_gpu in (kind, GPUStep)
            )
            assert_same(actual, expected, settings)


def test_dropout_is_as_strong_where_lanes_are_empty() -> None:
    settings = {"layers": [500], "n_sample": 11, "dropout_p_hidden": 0.3, "dropout_p_embed": 0.1}
    step, batches = new_step(GPUStep, settings), new_batches((2, 4, 2, 2, 2), settings)
    assert isinstance(step, GPUStep)
    list(step.epoch(batches))
    for dropout, kept in ((0.3, step._stack._uniform[0]), (0.1, step._stack._input_uniform)):
        assert kept.unique().tolist() == [0, 1]
        assert abs(kept.mean().item() - (1 - dropout)) < 4 * (dropout * (1 - dropout) / (5 * 500)) ** 0.5
    assert not step._stack.out[0][step._stack._uniform[0] == 0].any()


def test_float32_stays_float32_and_near_float64() -> None:
    settings = {"layers": [8], "n_sample": 11, "momentum": 0.2}
    exact, rounded = (
        train(new_step(GPUStep, settings, dtype), new_batches(UNEVEN, settings))
        for dtype in (torch.float64, torch.float32)
    )
    for name, values in exact.items():
        assert rounded[name].dtype == torch.float32
        torch.testing.assert_close(rounded[name].double(), values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n_sample", [11, 0])
@pytest.mark.parametrize("loss", ["cross-entropy", "bpr-max"])
def test_warm_up_changes_nothing(loss: str, n_sample: int) -> None:
    for mode, variant, accumulation in itertools.product(MODES, ("reset_after", "reset_before"), (1, 3)):
        settings = {
            "loss": loss, "layers": [8], "n_sample": n_sample, "momentum": 0.3, "grad_accumulation": accumulation,
            "gru_variant": variant, "dropout_p_hidden": 0.3, "elu_param": 0.0, **MODES[mode],
        }  # fmt: skip
        step = new_step(GPUStep, settings)
        assert isinstance(step, GPUStep)
        expected = train(step, new_batches(UNEVEN, settings), 1)
        del expected["losses of epoch 0"]
        rng_state, states = step.model.rng.get_state(), [out.clone() for out in step._stack.out]
        step._warm_up()
        for name, values in numbers_of(step).items():
            assert torch.equal(values, expected[name]), (name, settings)
        assert torch.equal(step.model.rng.get_state(), rng_state)
        assert all(torch.equal(out, before) for out, before in zip(step._stack.out, states, strict=True))


def test_losses_of_a_chunk_stay_as_they_were_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_plan, "CHUNK_STEPS", 3)
    settings = {"layers": [8], "n_sample": 11}
    chunks = new_step(GPUStep, settings).epoch(new_batches(UNEVEN, settings))
    first = next(chunks)
    before = first.clone()
    assert len(first) == 3
    list(chunks)
    assert torch.equal(first, before)


def test_learning_rate_that_changes_between_epochs_is_used() -> None:
    settings = {"layers": [8], "n_sample": 11, "learning_rate": 0.1}
    results = []
    for kind in (PlainStep, GPUStep):
        step, batches = new_step(kind, settings), new_batches(UNEVEN, settings)
        train(step, batches, 1)
        step.optimizer.param_groups[0]["lr"] = 0.01
        results.append(train(step, batches, 1))
    assert_same(results[1], results[0], settings)


def test_segments_are_stable_and_leave_masked_rows_out() -> None:
    item_idx = torch.tensor([[4, 9, 1, 4, 1, 4], [9, 9, 9, 9, 9, 9]], dtype=torch.int32)
    order, item, count = segments(item_idx, 9)[0].tolist()
    assert order == [2, 4, 0, 3, 5, 1]
    assert item == [1, 1, 4, 4, 4, 8]
    assert count == [2, 0, 3, 0, 0, 0]
    assert not segments(item_idx, 9)[1, 2].any()


@pytest.mark.parametrize("momentum", [0.0, 0.4])
def test_update_segments_equals_update_rows_and_leaves_others(momentum: float) -> None:
    rng = torch.Generator().manual_seed(0)
    item_idx = torch.tensor([3, 1, 6, 3, 0, 4, 6, 3, 2, 3], dtype=torch.int32)  # 6 is masked; the last two have no part
    table, accumulator, velocity = (torch.rand(6, 5, generator=rng, dtype=torch.float64) for _ in range(3))
    gradient = torch.randn(8, 5, generator=rng, dtype=torch.float64)
    options = {"lr": 0.3, "momentum": momentum, "eps": 1e-6, "share": 0.5}
    states = table, accumulator, velocity if momentum else None
    expected, actual = ([None if state is None else state.clone() for state in states] for _ in range(2))
    rows = torch.tensor([0, 1, 3, 4, 5, 7])
    torch_ops.update_rows(*expected, item_idx[rows], gradient[rows], **options)
    torch_ops.update_segments(*actual, *segments(item_idx.unsqueeze(0), 6)[0], gradient, **options)
    for values, right in zip(actual, expected, strict=True):
        if values is not None:
            torch.testing.assert_close(values, right, rtol=1e-13, atol=1e-15)
            assert torch.equal(values[[2, 5]], right[[2, 5]])
