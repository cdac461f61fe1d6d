"""``run.py`` and ``gru4rec train`` with a run folder: signals, a full disk, wrong flags, what is left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from runs.killed_runs import sessions_of
from runs.test_resume import lasting

from gru4rec.api import GRU4Rec
from gru4rec.cli.main import main
from gru4rec.runs.metrics_file import read_metrics

ROOT = Path(__file__).parent.parent.parent
SETTINGS = ["--layers", "16", "--n_epochs", "3", "--batch_size", "8", "--dropout_p_hidden", "0.3", "--momentum", "0.1"]
QUIETLY = ["-d", "cpu", "--threads", "1"]


def write_log(path: Path, seed: int, n_sessions: int) -> Path:
    sessions = sessions_of(seed, n_sessions)
    session = np.repeat(np.arange(sessions.n_sessions), sessions.lengths)
    rows = zip(session, sessions.item_idx, range(sessions.n_events), strict=True)
    path.write_text("SessionId\tItemId\tTime\n" + "".join(f"{s}\t{i}\t{t}\n" for s, i, t in rows))
    return path


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("logs")
    return {name: write_log(folder / f"{name}.tsv", seed, n) for seed, (name, n) in enumerate(
        {"train": 2_000, "valid": 200, "test": 200}.items()
    )}  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(logs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert main(command(logs, folder)[1:]) == 0
    return folder


def command(logs: dict[str, Path], folder: Path, *more: str) -> list[str]:
    validated = ["--validate", str(logs["valid"]), "--checkpoint-every", "50", "--log-every", "40"]
    return ["gru4rec", "train", str(logs["train"]), "--run-dir", str(folder), *validated, *SETTINGS, *QUIETLY, *more]


def start(arguments: list[str], **environment: str) -> subprocess.Popen[str]:
    program = [sys.executable, "-c", "from gru4rec.cli.main import command; command()", *arguments[1:]]
    return subprocess.Popen(
        program, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip


def wait_for_lines(folder: Path, n: int) -> None:
    deadline = time.monotonic() + 60
    while len(read_metrics(folder / "metrics.jsonl")) < n:
        assert time.monotonic() < deadline, "no metrics came"
        time.sleep(0.01)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["TERM", "INT"])
def test_signal_ends_a_run_that_goes_on_to_the_same_bits(
    number: signal.Signals, status: int, tmp_path: Path, logs: dict[str, Path], undisturbed: Path
) -> None:
    folder = tmp_path / "run"
    process = start(command(logs, folder))
    wait_for_lines(folder, 3)
    process.send_signal(number)
    for _ in range(2):  # Slurm sends it to every process of a step, and torchrun passes on what it got
        process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == status
    assert "stopped at epoch" in said
    assert "The same command with --resume goes on from there" in said
    assert json.loads((folder / "config.json").read_text())["status"] == "interrupted"
    assert not (folder / "model.gru4rec").exists()
    assert main(command(logs, folder, "--resume")[1:]) == 0
    assert (folder / "model.gru4rec").read_bytes() == (undisturbed / "model.gru4rec").read_bytes()
    lines, expected = (read_metrics(path / "metrics.jsonl") for path in (folder, undisturbed))
    assert list(map(lasting, lines)) == list(map(lasting, expected))
    assert json.loads((folder / "config.json").read_text())["status"] == "finished"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with little room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs the rights to mount")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_full_disk_does_not_end_training_and_the_last_checkpoint_goes_elsewhere(
    small_disk: Path, tmp_path: Path, logs: dict[str, Path], undisturbed: Path
) -> None:
    folder, elsewhere = small_disk / "run", tmp_path / "elsewhere"
    elsewhere.mkdir()
    process = start(command(logs, folder), TMPDIR=str(elsewhere))
    wait_for_lines(folder, 2)
    checkpoint = folder / "checkpoints" / "last.safetensors"
    size = checkpoint.stat().st_size if checkpoint.exists() else 0
    (small_disk / "filler").write_bytes(b"x" * max(0, shutil.disk_usage(small_disk).free - 4096))
    before = size and checkpoint.read_bytes()
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143, said
    assert "No space left on device" in said
    assert not size or checkpoint.read_bytes() == before or len(checkpoint.read_bytes()) == size
    saved = elsewhere / "run-checkpoint.safetensors"
    assert f"Copy {saved} to {checkpoint}" in said
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved, ignore=shutil.ignore_patterns(".*"))
    shutil.copy(saved, moved / "checkpoints" / "last.safetensors")
    assert main(command(logs, moved, "--resume")[1:]) == 0
    assert (moved / "model.gru4rec").read_bytes() == (undisturbed / "model.gru4rec").read_bytes()
    lines, expected = (read_metrics(path / "metrics.jsonl") for path in (moved, undisturbed))
    assert list(map(lasting, lines)) == list(map(lasting, expected))


def test_model_that_cannot_take_its_place_is_written_elsewhere(
    tmp_path: Path, logs: dict[str, Path], undisturbed: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder)
    (folder / "model.gru4rec").unlink()
    (folder / "model.gru4rec" / "in the way").mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert main(command(logs, folder, "--resume")[1:]) == 2
    elsewhere = tmp_path / "run.gru4rec"
    assert f"The model is in {elsewhere}" in capsys.readouterr().err
    assert elsewhere.read_bytes() == (undisturbed / "model.gru4rec").read_bytes()
    assert json.loads((folder / "config.json").read_text())["status"] == "failed"


def test_model_is_that_of_the_best_epoch(undisturbed: Path, logs: dict[str, Path]) -> None:
    epochs = [line for line in read_metrics(undisturbed / "metrics.jsonl") if line["kind"] == "epoch"]
    best = max(epochs, key=lambda line: (line["validation"]["recall@20"], -line["epoch"]))["epoch"]
    assert GRU4Rec.loadmodel(undisturbed / "model.gru4rec").n_epochs_done == best


def test_run_py_trains_in_a_folder_too(tmp_path: Path, logs: dict[str, Path], undisturbed: Path) -> None:
    values = "layers=16,n_epochs=3,batch_size=8,dropout_p_hidden=0.3,momentum=0.1"
    flags = ["--validate", str(logs["valid"]), "--run-dir", str(tmp_path / "run"), "-s", str(tmp_path / "copy")]
    program = [sys.executable, str(ROOT / "run.py"), str(logs["train"]), "-ps", values, *flags, *QUIETLY]
    ran = subprocess.run(program, capture_output=True, text=True, check=True)
    assert ran.stdout.count("Epoch") == 3
    for path in (tmp_path / "copy", tmp_path / "run" / "model.gru4rec"):
        assert path.read_bytes() == (undisturbed / "model.gru4rec").read_bytes()


def test_report_and_tensorboard_events_are_written(tmp_path: Path, logs: dict[str, Path]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "run"
    assert main(command(logs, folder, "--tensorboard")[1:]) == 0
    page = (folder / "report.html").read_text()
    assert page.count("<svg") == 6
    assert "<td>true</td>" in page  # settings as in the other reports
    assert "<td>True</td>" not in page
    assert "recall@20" in page
    assert "http" not in page.replace("http://www.w3.org", "")
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    lines = read_metrics(folder / "metrics.jsonl")
    shown = [(event.step, event.value) for event in events.Scalars("epoch/loss")]
    expected = [(line["step"], line["loss"]) for line in lines if line["kind"] == "epoch"]
    assert shown == [(step, pytest.approx(loss, rel=1e-6)) for step, loss in expected]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--resume"], "--resume needs a run folder. Add --run-dir DIR"),
        (["--validate", "valid"], "--validate needs a run folder"),
        (["--run-dir", "run", "--patience", "2"], "--patience needs a log to measure on. Add --validate LOG"),
        (["--run-dir", "run", "--validate", "valid", "--patience", "0"], "--patience 0 is below 1"),
        (["--run-dir", "run", "--log-every", "-1"], "--log-every -1 is negative"),
        (["--run-dir", "run", "--checkpoint-every", "1.5"], "is no number of steps and no time. Write 5000, 90s, 5m"),
        (["--run-dir", "run", "--checkpoint-every", "0"], "is no number of steps and no time"),
        (["--run-dir", "run", "--validate", "test", "-t", "test"], "is a test log too: its figures would say nothing"),
        (["--run-dir", "run", "--model", "pop"], "--run-dir has no effect on a pop"),
        (["--run-dir", "log.txt/run"], "cannot write to"),
        (["--run-dir", "run", "-o", "run/config.json"], "run/config.json is in the run folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_flags_are_refused_and_leave_nothing(
    flags: list[str], message: str, logs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("log.txt").write_text("")
    flags = [str(logs.get(flag, flag)) if flag in ("valid", "test") else flag for flag in flags]
    assert main(["train", str(logs["train"]), *flags, "-q", *QUIETLY]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["log.txt"]
