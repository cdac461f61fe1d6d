"""Item matrices in host memory: the bits of a model that is wholly on the device, here one CPU beside the other."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import GOLDEN
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from unit.test_gpu_step import MODES, UNEVEN, new_batches, new_step, numbers_of, train

from gru4rec.api import GRU4Rec
from gru4rec.config import Tables
from gru4rec.errors import ConfigError
from gru4rec.runs.folder import RunFolder
from gru4rec.runs.recorder import Pace, RunRecorder
from gru4rec.train import gpu_plan, host_tables
from gru4rec.train.gpu_step import GPUStep
from gru4rec.train.host_tables import HostTablesStep, VisitingRows
from gru4rec.train.kernels import torch_ops

SIZES = {"n_items": 400, "n_lanes": 5}


def host_step(settings: dict[str, Any], device: str = "cpu", **options: Any) -> tuple[HostTablesStep, GPUStep]:
    """Return a step whose rows visit ``device``, and one that holds the same weights on the host."""
    at_home = new_step(GPUStep, settings, torch.float32, **SIZES)
    assert isinstance(at_home, GPUStep)
    at_home.model.rng = torch.Generator(device).manual_seed(3)
    log_support = torch.log(torch.arange(1, SIZES["n_items"] + 1).float())
    kernels = torch_ops if device == "cpu" else None
    sizes = {"n_lanes": SIZES["n_lanes"], "batch_size": SIZES["n_lanes"] + 1}
    step = HostTablesStep(
        at_home.model, at_home.optimizer, log_support, device=torch.device(device), kernels=kernels, **sizes, **options
    )
    return step, at_home


def train_from_host(settings: dict[str, Any], device: str = "cpu", **options: Any) -> dict[str, Tensor]:
    step, at_home = host_step(settings, device, **options)
    result = train(step, new_batches(UNEVEN, settings, **SIZES))
    return {name: values for name, values in result.items() if name.startswith("losses")} | numbers_of(at_home)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("loss", ["cross-entropy", "bpr-max"])
def test_rows_that_visit_give_the_bits_of_rows_that_stay(monkeypatch: pytest.MonkeyPatch, loss: str, mode: str) -> None:
    for max_bytes, n_sample, accumulation in itertools.product((1, 30_000, 1 << 30), (11, 0), (1, 3)):
        monkeypatch.setattr(host_tables, "VISITING_BYTES", max_bytes)
        settings = {
            "loss": loss, "layers": [8], "n_sample": n_sample, "grad_accumulation": accumulation, "sample_alpha": 0.5,
            "momentum": 0.3 if n_sample else 0.0, "logq": 0.8 if loss == "cross-entropy" else 0.0,
            "dropout_p_embed": 0.2, "dropout_p_hidden": 0.1, **MODES[mode],
        }  # fmt: skip
        expected = train(new_step(GPUStep, settings, torch.float32, **SIZES), new_batches(UNEVEN, settings, **SIZES))
        actual = train_from_host(settings)
        assert actual.keys() == expected.keys()
        for name, values in expected.items():
            assert torch.equal(actual[name], values), (name, max_bytes, settings)


def test_only_as_many_rows_visit_as_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"layers": [8], "n_sample": 11, "momentum": 0.2}
    item_bytes = (8 + 1) * 4 * 3
    for n_steps in (1, 3):
        monkeypatch.setattr(host_tables, "VISITING_BYTES", n_steps * (2 * 5 + 11) * item_bytes)
        step, at_home = host_step(settings)
        assert step.model.n_items == n_steps * 21
        values = [*step.model.parameters(), *(state for one in step.optimizer.state.values() for state in one.values())]
        rows = [value for value in values if len(value) == step.model.n_items]
        assert sum(value.nbytes for value in rows) == host_tables.VISITING_BYTES
        assert at_home.model.n_items == 400
        train(step, new_batches(UNEVEN, settings, **SIZES), n_epochs=1)
    monkeypatch.setattr(host_tables, "VISITING_BYTES", 1 << 30)
    monkeypatch.setattr(gpu_plan, "CHUNK_STEPS", 256)
    assert host_step(settings)[0].model.n_items == 400  # never more than there are


def test_settings_of_the_optimiser_that_change_between_epochs_are_used() -> None:
    settings = {"layers": [8], "n_sample": 11, "momentum": 0.2}
    step, at_home = host_step(settings)
    like = new_step(GPUStep, settings, torch.float32, **SIZES)
    batches, batches_like = (new_batches(UNEVEN, settings, **SIZES) for _ in range(2))
    for learning_rate in (0.1, 0.01):
        at_home.optimizer.param_groups[0]["lr"] = like.optimizer.param_groups[0]["lr"] = learning_rate
        train(step, batches, n_epochs=1)
        expected = train(like, batches_like, n_epochs=1)
    assert all(torch.equal(values, expected[name]) for name, values in numbers_of(at_home).items())


@given(st.lists(st.integers(0, 399), max_size=60))
def test_items_are_named_by_the_rows_that_they_visit_in(items: list[int]) -> None:
    touched, row = _visitors().named_by_row(np.array(items, dtype=np.int32))
    assert sorted(touched.tolist()) == sorted(set(items))
    assert touched[row].tolist() == items


def _visitors() -> VisitingRows:
    at_home = new_step(GPUStep, {"layers": [8], "n_sample": 11}, torch.float32, **SIZES)
    assert isinstance(at_home, GPUStep)
    log_support = torch.zeros(400)
    return VisitingRows(at_home.model, at_home.optimizer, log_support, n_rows=60, device=torch.device("cpu"))


class _Anywhere(GRU4Rec):
    """Trains with item matrices apart from the network on a CPU too, where that is of no use."""

    def choose_engine(self, engine: Any = "auto", precision: Any = "float32", tables: Tables = "device") -> Any:
        return super().choose_engine(engine, precision)


def fitted(folder: Path | None = None, tables: Tables = "host", *, n_epochs: int = 2, **more: Any) -> GRU4Rec:
    settings = {"layers": [16], "n_sample": 32, "batch_size": 12, "momentum": 0.2, "logq": 1.0}
    gru = _Anywhere(device="cpu", dtype=torch.float64, n_epochs=n_epochs, **settings)
    if folder is not None:
        run = RunFolder(folder, {"settings": settings, "n_epochs": n_epochs}, resume=True)
        more["recorder"] = RunRecorder(run, gru, pace=Pace())
    try:
        return gru.fit(GOLDEN / "train.tsv", tables=tables, threads=1, on_epoch=lambda report: None, **more)
    finally:
        if folder is not None:
            run.close()


def test_a_whole_run_is_that_of_the_fast_engine_and_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    gru, expected = fitted(keep_state=True), fitted(tables="device", keep_state=True)
    assert gru.training_state is not None
    assert expected.training_state is not None
    fitted(tmp_path, n_epochs=1)
    on = fitted(tmp_path)
    for name, values in expected.bundle().weights.items():
        np.testing.assert_allclose(gru.bundle().weights[name], values, rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(on.bundle().weights[name], gru.bundle().weights[name])
    for name, values in expected.training_state.items():
        np.testing.assert_allclose(gru.training_state[name], values, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("device", "options", "said"),
    [
        ("cpu", {}, "tables=host is for GPUs"),
        ("cuda", {"engine": "plain"}, "tables=host needs the fast engine"),
        ("cuda", {"n_sample": "all"}, "n_sample=all touches all"),
        ("cuda", {"tables": "disk"}, "unknown tables 'disk'. Choose from device, host"),
    ],
)
def test_what_tables_do_not_go_with_is_refused(device: str, options: dict[str, Any], said: str) -> None:
    how = {"tables": "host", "engine": "auto"} | {k: v for k, v in options.items() if k != "n_sample"}
    gru = GRU4Rec(device="cpu", **{k: v for k, v in options.items() if k == "n_sample"})
    gru.device = torch.device(device)
    with pytest.raises(ConfigError, match=said):
        gru.fit(GOLDEN / "train.tsv", **how)
