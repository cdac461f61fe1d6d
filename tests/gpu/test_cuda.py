"""The GPU's step on a GPU: captured and replayed, against itself uncaptured and against the plain step."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from conftest import GOLDEN
from torch import Tensor
from unit.test_gpu_step import EVEN, MODES, UNEVEN, assert_same, new_batches, new_step, train
from unit.test_host_tables import SIZES, train_from_host

from gru4rec.api import GRU4Rec, batch_eval
from gru4rec.train import gpu_plan, gpu_step, host_tables
from gru4rec.train.gpu_step import GPUStep, gpu_kernels
from gru4rec.train.kernels import torch_ops
from gru4rec.train.step import PlainStep

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION"),
]
REAL = {"n_items": 3000, "n_lanes": 32}
LENGTHS = tuple(np.random.default_rng(2).integers(2, 12, 300).tolist())
BASE: dict[str, Any] = {"layers": [100], "n_sample": 500, "momentum": 0.2, "learning_rate": 0.1}
both_kernels = pytest.mark.parametrize("kernels", ["triton", "torch"])
both_losses = pytest.mark.parametrize("loss", ["cross-entropy", "bpr-max"])


def kernels_named(name: str, dtype: torch.dtype = torch.float32) -> ModuleType:
    kernels = torch_ops if name == "torch" else gpu_kernels(dtype)
    if name == "triton" and kernels is torch_ops:
        pytest.skip("no Triton for this type")
    return kernels


def run(settings: dict[str, Any], *, n_epochs: int = 2, **options: Any) -> dict[str, Tensor]:
    step = new_step(GPUStep, settings, torch.float32, device="cuda", **REAL, **options)
    return train(step, new_batches(LENGTHS, settings, **REAL), n_epochs)


def assert_same_bits(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, values in expected.items():
        assert torch.equal(actual[name], values), name


@both_kernels
@both_losses
@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("units_per_replay", [1, 4])
def test_captured_steps_give_the_bits_of_uncaptured_ones(
    monkeypatch: pytest.MonkeyPatch, kernels: str, loss: str, accumulation: int, units_per_replay: int
) -> None:
    monkeypatch.setattr(gpu_plan, "CHUNK_STEPS", 21)
    monkeypatch.setattr(gpu_step, "UNITS_PER_REPLAY", units_per_replay)
    settings = {
        **BASE, "loss": loss, "dropout_p_hidden": 0.3, "dropout_p_embed": 0.2, "grad_accumulation": accumulation,
    }  # fmt: skip
    options = {"kernels": kernels_named(kernels)}
    assert_same_bits(run(settings, **options), run(settings, capture=False, **options))


@both_kernels
@both_losses
@pytest.mark.parametrize("mode", MODES)
def test_float64_agrees_with_plain_to_1e_10(
    monkeypatch: pytest.MonkeyPatch, kernels: str, loss: str, mode: str
) -> None:
    monkeypatch.setattr(gpu_plan, "CHUNK_STEPS", 7)
    layers, variants = ([8], [9, 6]), ("reset_after", "reset_before")
    chosen = kernels_named(kernels, torch.float64)
    for sizes, variant, n_sample, accumulation in itertools.product(layers, variants, (11, 0), (1, 3)):
        if mode == "shared" and sizes == [9, 6]:
            sizes = [6, 6]
        settings = {
            "loss": loss, "layers": sizes, "gru_variant": variant, "n_sample": n_sample, "bpreg": 0.7,
            "grad_accumulation": accumulation, "momentum": 0.3 if n_sample else 0.0, "sample_alpha": 0.5,
            "elu_param": 0.5 if accumulation == 1 else 0.0,
            "logq": 0.8 if loss == "cross-entropy" and accumulation == 1 else 0.0, **MODES[mode],
        }  # fmt: skip
        results = []
        for kind, options in ((PlainStep, {}), (GPUStep, {"kernels": chosen})):
            step = new_step(kind, settings, device="cuda", **options)
            result = train(step, new_batches(UNEVEN, settings))
            results.append({name: values.cpu() for name, values in result.items()})
        assert_same(results[1], results[0], settings)


def test_dropout_draws_the_plain_steps_masks_while_all_lanes_are_active() -> None:
    settings = {"layers": [8, 8], "n_sample": 11, "dropout_p_hidden": 0.4, "dropout_p_embed": 0.2}
    results = []
    for kind in (PlainStep, GPUStep):
        result = train(new_step(kind, settings, device="cuda"), new_batches(EVEN, settings))
        results.append({name: values.cpu() for name, values in result.items()})
    assert_same(results[1], results[0], settings)


@both_kernels
@both_losses
def test_float32_errs_no_more_than_plain(kernels: str, loss: str) -> None:
    settings = {**BASE, "loss": loss}

    def errors(kind: type, exact: dict[str, Tensor], **options: Any) -> Iterator[tuple[str, float, float]]:
        step = new_step(kind, settings, torch.float32, device="cuda", **REAL, **options)
        for name, values in train(step, new_batches(LENGTHS, settings, **REAL), 1).items():
            right = exact[name].cpu()
            yield name, (values.cpu().double() - right).abs().max().item(), right.abs().max().item()

    exact = train(new_step(PlainStep, settings, device="cuda", **REAL), new_batches(LENGTHS, settings, **REAL), 1)
    plain = errors(PlainStep, exact)
    for (name, error, size), (_, plain_error, _) in zip(
        errors(GPUStep, exact, kernels=kernels_named(kernels)), plain, strict=True
    ):
        assert error <= 4 * plain_error + 1e-5 * size, name


@both_kernels
def test_same_seed_gives_the_same_bits(kernels: str) -> None:
    settings, options = {**BASE, "dropout_p_hidden": 0.3}, {"kernels": kernels_named(kernels)}
    assert_same_bits(run(settings, **options), run(settings, **options))


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_rounded_products_stay_near_float32_and_differ_from_it(precision: str) -> None:
    matmul = torch.backends.cuda.matmul
    name = "fp32_precision" if hasattr(matmul, "fp32_precision") else "allow_tf32"
    before = getattr(matmul, name)
    exact, rounded = run(BASE, n_epochs=1), run(BASE, n_epochs=1, precision=precision)
    losses, rounded_losses = exact["losses of epoch 0"], rounded["losses of epoch 0"]
    assert rounded["Wy.weight"].dtype == torch.float32
    assert not torch.equal(losses, rounded_losses)
    assert abs(rounded_losses.mean() / losses.mean() - 1) < 0.01
    assert getattr(matmul, name) == before


def test_capturing_again_in_mid_training_changes_nothing() -> None:
    settings = {**BASE, "dropout_p_hidden": 0.3}
    results = []
    for captures_again in (False, True):
        step = new_step(GPUStep, settings, torch.float32, device="cuda", **REAL)
        batches = new_batches(LENGTHS, settings, **REAL)
        assert isinstance(step, GPUStep)
        train(step, batches, 1)
        if captures_again:
            step._captured_settings = {}
        results.append(train(step, batches, 1))
    assert_same_bits(*results)


def test_learning_rate_that_changes_between_epochs_is_used() -> None:
    results = []
    for capture in (True, False):
        step = new_step(GPUStep, BASE, torch.float32, device="cuda", capture=capture, **REAL)
        batches = new_batches(LENGTHS, BASE, **REAL)
        train(step, batches, 1)
        step.optimizer.param_groups[0]["lr"] = 0.01
        results.append(train(step, batches, 1))
    assert_same_bits(*results)


def test_steps_do_not_wait_for_the_gpu() -> None:
    step, batches = new_step(GPUStep, BASE, torch.float32, device="cuda", **REAL), new_batches(LENGTHS, BASE, **REAL)
    train(step, batches, 1)
    torch.cuda.set_sync_debug_mode("error")
    try:
        list(step.epoch(batches))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_memory_does_not_grow_over_epochs() -> None:
    step, batches = new_step(GPUStep, BASE, torch.float32, device="cuda", **REAL), new_batches(LENGTHS, BASE, **REAL)
    train(step, batches, 2)
    torch.cuda.synchronize()
    allocated, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    for _ in range(5):
        list(step.epoch(batches))
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() <= allocated
    assert torch.cuda.memory_reserved() <= reserved


def test_long_run_learns_what_the_plain_step_learns() -> None:
    """Rounding drives the runs apart step by step, so that only their mean losses compare."""
    step = new_step(PlainStep, BASE, torch.float32, device="cuda", **REAL)
    plain, fast = train(step, new_batches(LENGTHS, BASE, **REAL), 5), run(BASE, n_epochs=5)
    mean, other = (result["losses of epoch 4"].double().mean().item() for result in (plain, fast))
    assert abs(mean - other) < 1e-3 * mean


@both_losses
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("max_bytes", [1, 1_000_000, 1 << 30])
def test_rows_that_visit_the_gpu_give_the_bits_of_rows_that_stay(
    monkeypatch: pytest.MonkeyPatch, max_bytes: int, loss: str, mode: str
) -> None:
    monkeypatch.setattr(host_tables, "VISITING_BYTES", max_bytes)
    settings = {
        "loss": loss, "layers": [8], "n_sample": 11, "momentum": 0.3, "logq": 0.8 if loss == "cross-entropy" else 0.0,
        "dropout_p_embed": 0.2, "dropout_p_hidden": 0.1, "grad_accumulation": 2, **MODES[mode],
    }  # fmt: skip
    step = new_step(GPUStep, settings, torch.float32, device="cuda", **SIZES)
    expected = train(step, new_batches(UNEVEN, settings, **SIZES))
    assert_same_bits(train_from_host(settings, "cuda"), {name: values.cpu() for name, values in expected.items()})


def test_a_run_with_tables_on_the_host_is_that_of_one_on_the_gpu(tmp_path: Path) -> None:
    metrics = []
    for tables in ("device", "host"):
        gru = GRU4Rec(device="cuda", layers=[16], n_sample=32, batch_size=12, n_epochs=2)
        gru.fit(GOLDEN / "train.tsv", tables=tables, on_epoch=lambda report: None)
        assert gru.bundle().weights["Wy.weight"].shape[1] == 16
        assert gru.model is not None
        assert gru.model.device.type == ("cpu" if tables == "host" else "cuda")
        gru.savemodel(path := tmp_path / f"{tables}.gru4rec")
        metrics.append(batch_eval(GRU4Rec.loadmodel(path, device="cpu"), GOLDEN / "test.tsv", cutoff=[1, 5, 20]))
    assert metrics[0] == metrics[1]
