"""Runs that were killed, stopped or short of room go on to the very bits of a run that was not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs.killed_runs import sessions_of, train_in
from torch import Tensor

from gru4rec.api import GRU4Rec
from gru4rec.config import Engine
from gru4rec.errors import ConfigError, ModelFileError
from gru4rec.runs.folder import RunFolder
from gru4rec.runs.metrics_file import read_metrics
from gru4rec.runs.recorder import Pace, RunRecorder
from gru4rec.runs.validation import Validation
from gru4rec.train.optim import IndexedAdagradM

HERE = Path(__file__).parent
COMMON = {"n_epochs": 3, "batch_size": 10, "n_sample": 30, "momentum": 0.2, "learning_rate": 0.1, "seed": 5}
RUNS: dict[str, dict[str, Any]] = {
    "cross-entropy": {"loss": "cross-entropy", "layers": [12], "dropout_p_hidden": 0.3, "logq": 1.0},
    "bpr-max": {"loss": "bpr-max", "layers": [12, 8], "dropout_p_embed": 0.4, "constrained_embedding": False,
                "embedding": 9, "grad_accumulation": 4},
    "all items": {"loss": "cross-entropy", "layers": [12], "n_sample": "all", "dropout_p_hidden": 0.2},
}  # fmt: skip


def lasting(line: dict[str, Any]) -> dict[str, Any]:
    """What of a line of metrics does not depend on the clock."""
    return {name: value for name, value in line.items() if name not in ("time", "events_per_second", "machine")}


def assert_same_run(folder: Path, undisturbed: Path) -> None:
    for name in ("model.gru4rec", "checkpoints/best.gru4rec"):
        assert (folder / name).read_bytes() == (undisturbed / name).read_bytes()
    lines, expected = (read_metrics(path / "metrics.jsonl") for path in (folder, undisturbed))
    assert list(map(lasting, lines)) == list(map(lasting, expected))
    assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)


@pytest.mark.parametrize("engine", ["fast", pytest.param("plain", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", RUNS)
def test_run_killed_at_random_goes_on_to_the_same_bits(tmp_path: Path, name: str, engine: str) -> None:
    settings = {**COMMON, **RUNS[name]}
    train_in(tmp_path / "undisturbed", settings, engine, 0)
    n_kills = 7 if engine == "fast" else 4  # the plain step takes its time
    task = {"folder": str(tmp_path / "killed"), "settings": settings, "engine": engine, "patience": 0,
            "seed": 3, "n_kills": n_kills}  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, HERE / "killed_runs.py", json.dumps(task)], capture_output=True, text=True, env=environment,
        check=False, timeout=120,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) >= 2, "most children lived long enough to be killed"
    assert_same_run(tmp_path / "killed", tmp_path / "undisturbed")


def recorded(folder: Path, settings: dict[str, Any], engine: Engine = "auto", **changes: Any) -> GRU4Rec:
    """Train in a folder in this process, with what is changed about the run."""
    gru = GRU4Rec(device="cpu", **settings)
    run = RunFolder(folder, {"settings": settings, "n_epochs": settings["n_epochs"]}, resume=True)
    try:
        recorder = RunRecorder(run, gru, pace=Pace(log_steps=7), **changes)
        return gru.fit(sessions_of(1, 400), recorder=recorder, engine=engine, threads=1, on_epoch=lambda report: None)
    finally:
        run.close()


def epochs_in(folder: Path) -> list[dict[str, Any]]:
    return [line for line in read_metrics(folder / "metrics.jsonl") if line["kind"] == "epoch"]


def weights_of(gru: GRU4Rec) -> dict[str, list[float]]:
    assert gru.model is not None
    return {name: weight.ravel().tolist() for name, weight in gru.model.state_dict().items()}


def test_run_that_ended_goes_on_for_more_epochs(tmp_path: Path) -> None:
    settings = {**COMMON, **RUNS["cross-entropy"]}
    first = recorded(tmp_path / "run", {**settings, "n_epochs": 2})
    more = recorded(tmp_path / "run", {**settings, "n_epochs": 3})
    whole = recorded(tmp_path / "whole", {**settings, "n_epochs": 3})
    assert weights_of(first) != weights_of(more) == weights_of(whole)
    assert more.n_epochs_done == 3
    again = recorded(tmp_path / "run", {**settings, "n_epochs": 3})
    assert weights_of(again) == weights_of(whole)
    assert len(read_metrics(tmp_path / "run" / "metrics.jsonl")) == len(
        read_metrics(tmp_path / "whole" / "metrics.jsonl")
    )


def test_patience_ends_a_run_which_stays_ended(tmp_path: Path) -> None:
    settings = {**COMMON, **RUNS["cross-entropy"], "n_epochs": 40, "learning_rate": 0.5}
    told: list[str] = []
    validation = Validation(sessions_of(2, 60), patience=2)
    gru = recorded(tmp_path / "run", settings, validation=validation, tell=told.append)
    lines = epochs_in(tmp_path / "run")
    values = [line["validation"]["recall@20"] for line in lines]
    best = values.index(max(values))
    assert len(values) == best + 1 + 2 < 40
    assert GRU4Rec.loadmodel(tmp_path / "run" / "checkpoints" / "best.gru4rec").n_epochs_done == best + 1
    again = recorded(tmp_path / "run", settings, validation=validation, tell=told.append)
    assert weights_of(again) == weights_of(gru)
    ending = [message for message in told if "training ends with epoch" in message]
    assert len(ending) == 2
    assert ending[0] == ending[1]
    assert len([line for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if line["kind"] == "epoch"]) == len(
        lines
    )


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Validation]:
    """A validation that measures, and then says what it is told to."""

    def with_values(*values: float) -> Validation:
        told, measure = iter(values), Validation.measure
        monkeypatch.setattr(
            Validation, "measure", lambda self, scorer: {**measure(self, scorer), "recall@20": next(told)}
        )
        return Validation(sessions_of(2, 60))

    return with_values


def test_best_epoch_before_an_interruption_stays_the_best(tmp_path: Path, scripted: Callable[..., Validation]) -> None:
    settings = {**COMMON, **RUNS["cross-entropy"]}
    validation = scripted(0.3, 0.1, 0.2)
    for n_epochs in (1, 3):
        recorded(tmp_path, {**settings, "n_epochs": n_epochs}, validation=validation)
    best = tmp_path / "checkpoints" / "best.gru4rec"
    assert GRU4Rec.loadmodel(best).n_epochs_done == 1
    best.unlink()
    with pytest.raises(ModelFileError, match=r"best.gru4rec, the model of the best epoch, is gone"):
        recorded(tmp_path, {**settings, "n_epochs": 5}, validation=validation)


def test_epoch_whose_model_could_not_be_saved_is_not_the_best(
    tmp_path: Path, scripted: Callable[..., Validation], monkeypatch: pytest.MonkeyPatch
) -> None:
    save = GRU4Rec.savemodel

    def fails_at_last(self: GRU4Rec, path: str | Path) -> None:
        if self.n_epochs_done == 3:
            raise ModelFileError(f"no room for {path}")
        save(self, path)

    monkeypatch.setattr(GRU4Rec, "savemodel", fails_at_last)
    told: list[str] = []
    gru = GRU4Rec(device="cpu", **COMMON, **RUNS["cross-entropy"])
    run = RunFolder(tmp_path, {}, resume=False)
    recorder = RunRecorder(run, gru, pace=Pace(), validation=scripted(0.1, 0.2, 0.3), tell=told.append)
    gru.fit(sessions_of(1, 400), recorder=recorder, threads=1, on_epoch=lambda report: None)
    run.close()
    assert recorder.best.epoch == 2
    assert GRU4Rec.loadmodel(recorder.best_path).n_epochs_done == 2
    assert sum("no room for" in message for message in told) == 2


@pytest.mark.parametrize("share", [1, 7])
def test_checkpoint_that_falls_due_is_not_dropped(tmp_path: Path, share: int) -> None:
    """Each epoch has about 170 steps: due are more steps than an epoch has, and steps where gradients wait."""
    taken: list[tuple[int, int]] = []

    class Listening(RunRecorder):
        def _keep(self, position: Any, hidden: Any, *, ends: bool = False) -> None:
            super()._keep(position, hidden, ends=ends)
            taken.append((position.epoch, position.step))

    settings = {**COMMON, **RUNS["cross-entropy"], "grad_accumulation": share}
    gru = GRU4Rec(device="cpu", **settings)
    run = RunFolder(tmp_path, {}, resume=False)
    recorder = Listening(run, gru, pace=Pace(checkpoint_steps=200))
    gru.fit(sessions_of(1, 400), recorder=recorder, threads=1, on_epoch=lambda report: None)
    run.close()
    assert 140 < read_metrics(tmp_path / "metrics.jsonl")[0]["step"] < 200
    assert [epoch for epoch, _ in taken[:-1]] == [2, 3]
    assert all(step % share == 0 for _, step in taken[:-1])


def test_metrics_that_were_lost_do_not_spoil_those_that_follow(tmp_path: Path) -> None:
    settings = {**COMMON, **RUNS["cross-entropy"]}
    recorded(tmp_path, {**settings, "n_epochs": 2})
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes()[:1500])
    n_whole, told = len(read_metrics(metrics)), []
    recorded(tmp_path, {**settings, "n_epochs": 3}, tell=told.append)
    lines = read_metrics(metrics)
    assert lines[n_whole - 1]["epoch"] == 1
    assert {line["epoch"] for line in lines[n_whole:]} == {3}
    assert any("shorter than it was at the checkpoint" in message for message in told)


def test_fewer_epochs_than_are_done_are_refused(tmp_path: Path) -> None:
    settings = {**COMMON, **RUNS["cross-entropy"]}
    recorded(tmp_path, {**settings, "n_epochs": 2})
    with pytest.raises(ConfigError, match=r"has 2 epochs behind it, and n_epochs=1 is asked for"):
        recorded(tmp_path, {**settings, "n_epochs": 1})


@pytest.mark.parametrize("contents", [b"", b"not a checkpoint", b"half"])
def test_damaged_checkpoint_is_refused(tmp_path: Path, contents: bytes) -> None:
    settings = {**COMMON, **RUNS["cross-entropy"], "n_epochs": 1}
    recorded(tmp_path, settings)
    checkpoint = tmp_path / "checkpoints" / "last.safetensors"
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: len(whole) // 2] if contents == b"half" else contents)
    with pytest.raises(ModelFileError, match=r"last.safetensors is not a checkpoint that can be read: .*Train anew"):
        recorded(tmp_path, settings)


def test_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    settings = {**COMMON, **RUNS["cross-entropy"], "n_epochs": 1}
    recorded(tmp_path / "one", settings)
    recorded(tmp_path / "other", {**settings, "layers": [13]})
    checkpoint = (tmp_path / "other" / "checkpoints" / "last.safetensors").read_bytes()
    (tmp_path / "one" / "checkpoints" / "last.safetensors").write_bytes(checkpoint)
    with pytest.raises(ModelFileError, match="it is of another model"):
        recorded(tmp_path / "one", settings)


def test_negatives_of_the_callers_own_cannot_go_on(tmp_path: Path) -> None:
    class Same:
        n_sample = 30

        def next(self) -> np.ndarray:
            return np.arange(30, dtype=np.int32)

    settings = {**COMMON, **RUNS["cross-entropy"], "n_epochs": 1}
    recorded(tmp_path, settings)
    run = RunFolder(tmp_path, {"settings": settings, "n_epochs": 1}, resume=True)
    gru = GRU4Rec(device="cpu", **settings)
    with pytest.raises(ConfigError, match="negatives= of your own cannot go on"):
        gru.fit(sessions_of(1, 400), negatives=Same(), recorder=RunRecorder(run, gru, pace=Pace()))
    run.close()


def test_gradient_norm_is_the_root_of_the_mean_squared_norm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squares = [0.0]
    step, step_rows = IndexedAdagradM.step, IndexedAdagradM.step_rows

    def listening_step(self: IndexedAdagradM) -> None:
        squares.append(sum(float((w.grad**2).sum()) for w in self.param_groups[0]["params"] if w.grad is not None))
        step(self)

    def listening_rows(self: IndexedAdagradM, table: Tensor, item_idx: Tensor, gradient: Tensor) -> None:
        summed = torch.zeros_like(table).index_add_(0, item_idx, gradient)  # rows of an item are one row
        squares[-1] += float((summed**2).sum())
        step_rows(self, table, item_idx, gradient)

    monkeypatch.setattr(IndexedAdagradM, "step", listening_step)
    monkeypatch.setattr(IndexedAdagradM, "step_rows", listening_rows)
    recorded(tmp_path, {**COMMON, **RUNS["bpr-max"], "n_epochs": 1, "grad_accumulation": 1}, engine="plain")
    lines = read_metrics(tmp_path / "metrics.jsonl")
    n_last = lines[-1]["step"] - lines[-2]["step"]
    assert lines[-1]["gradient_norm"] == pytest.approx(np.sqrt(np.mean(squares[-n_last:])), rel=1e-3)
    assert lines[0]["gradient_norm"] == pytest.approx(np.sqrt(np.mean(squares[1:8])), rel=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": {"layers": [9]}}, r"has settings.layers=\[12\], and \[9\] is asked for"),
        ({"device": "cuda:0"}, "has device='cpu', and 'cuda:0' is asked for"),
    ],
)
def test_run_goes_on_as_the_same_run_only(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    config = {"settings": {"layers": [12], "n_epochs": 3}, "device": "cpu", "n_epochs": 3, "command": ["a"]}
    RunFolder(tmp_path / "run", config, resume=False).close()
    RunFolder(tmp_path / "run", {**config, "n_epochs": 5, "command": ["b"]}, resume=True).close()
    with pytest.raises(ConfigError, match=message):
        RunFolder(tmp_path / "run", {**config, **change}, resume=True)


def test_run_goes_on_with_other_numbers_of_processes_and_so_of_threads(tmp_path: Path) -> None:
    config = {"device": "cuda", "threads": 4, "processes": 1}
    RunFolder(tmp_path / "run", {"device": "cuda", "threads": 4}, resume=False).close()  # as before there were several
    RunFolder(tmp_path / "run", config, resume=True).close()
    several = {"device": "cuda:0", "threads": 1, "processes": 2}
    RunFolder(tmp_path / "run", several, resume=True).close()
    with pytest.raises(ConfigError, match="has threads=1, and 2 is asked for"):
        RunFolder(tmp_path / "run", {**several, "threads": 2}, resume=True)
    with pytest.raises(ConfigError, match="has device='cuda', and 'cpu' is asked for"):
        RunFolder(tmp_path / "run", {**config, "device": "cpu"}, resume=True)


@pytest.mark.parametrize("name", ["train", "validation"])
def test_run_goes_on_with_its_logs_only(tmp_path: Path, name: str) -> None:
    log = {"source": "a.tsv", "n_events": 1234, "digest": "abc"}
    logs = {"train": log, "validation": log}
    RunFolder(tmp_path / "run", logs, resume=False).close()
    RunFolder(tmp_path / "run", {**logs, name: {**log, "source": "moved.tsv"}}, resume=True).close()
    wrong: list[tuple[dict[str, Any] | None, str]] = [
        ({"source": "b.tsv", "n_events": 99, "digest": "abd"}, r"b.tsv of 99 events is asked for"),
        ({**log, "digest": "abd"}, r"and a.tsv of 1,234 other events is asked for"),
        (None, "none is asked for: it would not go on as the same run. Give the log of before"),
    ]
    for other, message in wrong:
        with pytest.raises(ConfigError, match=message):
            RunFolder(tmp_path / "run", {**logs, name: other}, resume=True)
    RunFolder(tmp_path / "bare", {**logs, name: None}, resume=False).close()
    with pytest.raises(ConfigError, match="has none for its"):
        RunFolder(tmp_path / "bare", logs, resume=True)


def test_finished_run_without_its_checkpoint_is_not_trained_again(tmp_path: Path) -> None:
    settings = {**COMMON, **RUNS["cross-entropy"], "n_epochs": 1}
    recorded(tmp_path, settings)
    (tmp_path / "checkpoints" / "last.safetensors").unlink()
    told: list[str] = []
    recorded(tmp_path, settings, tell=told.append)
    assert "the run was ended before its first checkpoint: it begins anew" in told
    (tmp_path / "checkpoints" / "last.safetensors").unlink()
    (tmp_path / "model.gru4rec").touch()
    with pytest.raises(ModelFileError, match=r"last.safetensors, where the run goes on, is gone. Put it back"):
        recorded(tmp_path, settings)


def test_folder_of_a_run_is_not_taken_for_another(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run", {}, resume=False)
    with pytest.raises(ConfigError, match=r"run holds a run. Add --resume"):
        RunFolder(tmp_path / "run", {}, resume=False)
    other = "from gru4rec.runs.folder import RunFolder; import sys; RunFolder(sys.argv[1], {}, resume=True)"
    ran = subprocess.run([sys.executable, "-c", other, tmp_path / "run"], capture_output=True, text=True, check=False)
    assert "another process trains in" in ran.stderr
    run.close()
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match=r"files is there and holds no run. Name another folder"):
        RunFolder(tmp_path / "files", {}, resume=True)
    assert [path.name for path in (tmp_path / "files").iterdir()] == ["thesis.tex"]
