"""run.py and gru4rec train under torchrun: what is printed and written, kills, signals, other numbers of processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from conftest import GOLDEN, ROOT
from distributed.launching import HERE, descendants, run, started, together, words
from doors import call

from gru4rec.bundle import load_bundle
from gru4rec.cli import main as gru4rec_command
from gru4rec.cli import run as run_command
from gru4rec.distributed.recorder import DistributedRecorder
from gru4rec.train.loop import Position

TRAIN, TEST = GOLDEN / "train.tsv", GOLDEN / "test.tsv"
SETTINGS = (
    "layers=16,batch_size=12,n_sample=32,loss=bpr-max,dropout_p_embed=0.2,momentum=0.2,constrained_embedding=False,"
    "embedding=8,seed=3"
)
RUN = ROOT / "run.py"
RESTARTED = ("--standalone", "--max-restarts", "2")


def arguments(folder: Path, *more: object, n_epochs: int = 2) -> list[str]:
    settings = f"{SETTINGS},n_epochs={n_epochs}"
    return [str(word) for word in (TRAIN, "-ps", settings, "-d", "cpu", "--run-dir", folder, *more)]


def weights_of(folder: Path) -> dict[str, np.ndarray]:
    return dict(load_bundle(folder / "model.gru4rec").weights)


def lines_of(folder: Path) -> list[dict[str, Any]]:
    """Lines of metrics, less what depends on the machine."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("time", "events_per_second", "machine")} for line in lines]


def numbers_in(stdout: str) -> list[float]:
    """Losses and metrics of what run.py printed."""
    return [float(number) for number in re.findall(r"(?:loss: |Recall@\d+: |MRR@\d+: )([\d.]+)", stdout)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of two processes that nobody disturbed, with what they printed beside it."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    line = words(2, RUN, *arguments(folder, "-t", TEST, "-m", "5", "20", "-s", folder.with_name("saved.gru4rec")))
    status, stdout, stderr = run(line)
    assert status == 0, stderr
    folder.with_name("stdout").write_text(stdout)
    folder.with_name("stderr").write_text(stderr)
    return folder


def test_two_processes_say_and_save_once_what_one_does(undisturbed: Path, tmp_path: Path) -> None:
    alone = tmp_path / "run"
    status, expected, _ = call(run_command.main, arguments(alone, "-t", TEST, "-m", 5, 20))
    assert status == 0
    stdout, stderr = (undisturbed.with_name(name).read_text() for name in ("stdout", "stderr"))
    assert [re.sub(r"[\d.]+", "0", line) for line in stdout.splitlines()] == [
        re.sub(r"[\d.]+", "0", line) for line in expected.splitlines()
    ]
    np.testing.assert_allclose(numbers_in(stdout), numbers_in(expected), rtol=2e-3)
    assert stderr.count("events in") == 2  # both logs, once
    for name, values in weights_of(alone).items():
        np.testing.assert_allclose(weights_of(undisturbed)[name], values, atol=2e-4)
    saved = dict(load_bundle(undisturbed.with_name("saved.gru4rec")).weights)
    assert all(np.array_equal(values, saved[name]) for name, values in weights_of(undisturbed).items())
    for line, line_alone in zip(lines_of(undisturbed), lines_of(alone), strict=True):
        assert line.keys() == line_alone.keys()
        for name in ("loss", "gradient_norm", "weight_norm"):
            assert line[name] == pytest.approx(line_alone[name], rel=1e-3), name


def test_saved_model_is_measured_by_three_processes_as_by_one(undisturbed: Path, tmp_path: Path) -> None:
    line = [undisturbed / "model.gru4rec", "-l", "-t", TEST, TEST, "-m", 5, 20, "-e", "conservative", "-d", "cpu"]
    again = tmp_path / "again.gru4rec"
    (status, stdout, stderr), *others = together(3, RUN, *line, "-s", again, "-lpm", "-pm", "mrr")
    assert status == 0, stderr
    assert others == [(0, "", "")] * 2
    assert call(run_command.main, [*line, "-lpm", "-pm", "mrr"])[:2] == (0, stdout)
    saved, expected = dict(load_bundle(again).weights), weights_of(undisturbed)
    assert saved.keys() == expected.keys()
    assert all(np.array_equal(saved[name], values) for name, values in expected.items())


def test_killed_processes_change_nothing(undisturbed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    line = words(2, RUN, *arguments(folder, "--resume", "--checkpoint-every", 15), how=RESTARTED)
    with started(line) as process:
        newest = written_anew(folder / "checkpoints" / "last.safetensors")
        for victim in (0, -1):  # the first process, then the last of those that were started again
            next(newest)
            os.kill(sorted(descendants(process.pid), key=rank_of)[victim], signal.SIGKILL)
        _, stderr = process.communicate(timeout=200)
    assert process.returncode == 0, stderr
    assert stderr.count("going on at epoch") == 2
    expected = weights_of(undisturbed)
    assert all(np.array_equal(values, expected[name]) for name, values in weights_of(folder).items())
    assert lines_of(folder) == lines_of(undisturbed)


def rank_of(pid: int) -> int:
    return int(psutil.Process(pid).environ()["RANK"])


def written_anew(path: Path, patience_s: float = 100) -> Iterator[float]:
    """Yield whenever a file has been written since."""
    seen, until = -1.0, time.monotonic() + patience_s
    while time.monotonic() < until:
        newest = path.stat().st_mtime_ns if path.exists() else -1.0
        if newest > seen:
            seen = newest
            yield newest
        time.sleep(0.02)
    raise AssertionError(f"{path} was not written")


def test_run_that_is_stopped_goes_on_with_other_numbers_of_processes(undisturbed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    line = [HERE / "late_signal_worker.py", *arguments(folder, "--checkpoint-every", 15, "--log-every", 5)]
    (status, _, stderr), *others = together(3, *line)
    assert [status, *(other for other, *_ in others)] == [143] * 3, stderr
    assert stderr.count("stopped at epoch 1, step 17. The same command with --resume goes on from there") == 1
    assert [stderr for *_, stderr in others] == [""] * 2
    assert not (folder / "model.gru4rec").exists()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["machine"]["process_share"] for line in lines] == [0.25 + 0.5 + 0.75] * 3  # none is a stranger
    status, _, stderr = call(run_command.main, arguments(folder, "--resume"))
    assert status == 0
    assert "going on at epoch" in stderr
    expected = weights_of(undisturbed)
    for name, values in weights_of(folder).items():
        np.testing.assert_allclose(values, expected[name], atol=2e-4)
    status, _, stderr = run(words(2, RUN, *arguments(folder, "--resume", n_epochs=3)))
    assert status == 0, stderr
    assert "going on at epoch 3, step 0" in stderr
    longer = tmp_path / "longer"
    assert call(run_command.main, arguments(longer, n_epochs=3))[0] == 0
    for name, values in weights_of(folder).items():
        np.testing.assert_allclose(values, weights_of(longer)[name], atol=1e-3)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["missing.tsv", "-ps", SETTINGS, "-d", "cpu"], "DataError: "),
        ([TRAIN, "-ps", SETTINGS, "-d", "gpu"], "DeviceError: unknown device 'gpu'"),
        ([TRAIN, "-ps", SETTINGS, "--epochs", 3], "run.py: error: unrecognized arguments: --epochs 3"),
    ],
)
def test_wrong_input_is_reported_once_by_all_processes(line: list[Any], said: str) -> None:
    results = together(2, RUN, *line)
    assert [(status, stdout) for status, stdout, _ in results] == [(2, "")] * 2
    assert said in results[0][2]
    assert results[1][2] == ""


def test_command_that_does_not_share_its_work_is_refused_once() -> None:
    first, second = together(2, Path(sys.executable).parent / "gru4rec", "evaluate", "no.gru4rec", TEST)
    assert (first[0], *second) == (2, 2, "", "")
    assert first[2].count("gru4rec evaluate is done by one process, and torchrun started 2") == 1


def test_full_disk_of_the_first_process_holds_up_nobody(undisturbed: Path, tmp_path: Path) -> None:
    (disk := tmp_path / "disk").mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no right to mount a small disk")
    try:
        line = arguments(disk / "run", "--checkpoint-every", 100)
        (status, stdout, stderr), (other, *silent) = together(2, RUN, *line, TMPDIR=str(tmp_path))
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert (status, other, silent) == (2, 2, ["", ""]), stderr
    assert stdout.count("Epoch") == 2
    assert stderr.count("last.safetensors: No space left on device") >= 4
    assert stderr.count("ModelFileError: ") == 1
    assert f"The model is in {tmp_path / 'run.gru4rec'}" in stderr
    saved, expected = dict(load_bundle(tmp_path / "run.gru4rec").weights), weights_of(undisturbed)
    assert all(np.array_equal(values, saved[name]) for name, values in expected.items())


# The rest needs no second process: one is a group too.


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this process look as if torchrun had started it alone."""
    for name, value in {
        "RANK": 0,
        "LOCAL_RANK": 0,
        "WORLD_SIZE": 1,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": 0,
    }.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.usefixtures("launched")
@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["-d", "cuda:0"], "-d cuda:0 would put all processes of the run on one GPU"),
        (["--engine", "plain"], "several processes train with the fast engine only"),
        (["-s", "no/such/folder/model"], "cannot save to"),
    ],
)
def test_refusals(line: list[str], message: str, tmp_path: Path) -> None:
    status, stdout, stderr = call(run_command.main, [TRAIN, "-ps", SETTINGS, "-d", "cpu", *line])
    assert (status, stdout.count("Epoch")) == (2, 0)
    assert message in stderr


@pytest.mark.usefixtures("launched")
def test_model_of_ones_own_and_baselines_are_refused(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "my_own_model.py").write_text("from gru4rec import GRU4Rec as Base\nclass GRU4Rec(Base): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    status, _, stderr = call(run_command.main, [TRAIN, "-ps", SETTINGS, "-d", "cpu", "-g", "my_own_model"])
    assert (status, "-g gives my_own_model.GRU4Rec" in stderr) == (2, True)
    status, _, stderr = call(gru4rec_command.main, ["train", TRAIN, "--model", "pop", "-d", "cpu"])
    assert (status, "is fitted by one process" in stderr) == (2, True)


@pytest.mark.usefixtures("launched")
def test_checkpoints_are_taken_where_steps_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places: list[tuple[int, int]] = []
    save = DistributedRecorder._save

    def noting(self: DistributedRecorder, position: Position, *rest: Any) -> None:
        places.append((position.epoch, position.step))
        save(self, position, *rest)

    monkeypatch.setattr(DistributedRecorder, "_save", noting)
    assert call(run_command.main, arguments(tmp_path / "run", "--checkpoint-every", 70, n_epochs=1))[0] == 0
    n_steps = lines_of(tmp_path / "run")[-1]["step"]
    assert places == [*((1, step) for step in range(70, n_steps + 1, 70)), (2, 0)]


@pytest.mark.usefixtures("launched")
def test_text_ids_are_saved_whole(tmp_path: Path) -> None:
    rows = [line.split("\t") for line in TRAIN.read_text().splitlines()[1:]]
    items = {item: f"item {'x' * (number % 7)}{number}" for number, item in enumerate({row[1]: 0 for row in rows})}
    log = tmp_path / "text.tsv"
    lines = ["\t".join([row[0], items[row[1]], row[2]]) for row in rows]
    log.write_text("\n".join(["SessionId\tItemId\tTime", *lines]) + "\n")
    line = ["train", log, "--layers", 4, "--n_epochs", 1, "--n_sample", 8, "-d", "cpu", "-o", tmp_path / "text.gru4rec"]
    assert call(gru4rec_command.main, line)[0] == 0
    bundle = load_bundle(tmp_path / "text.gru4rec")
    assert bundle.items.item_ids.to_pylist() == list(items.values())
    assert bundle.support.sum() == len(rows)
    status, stdout, _ = call(
        gru4rec_command.main, ["recommend", tmp_path / "text.gru4rec", bundle.items.ids_of([3])[0]]
    )
    assert (status, "item x" in stdout) == (0, True)


@pytest.mark.usefixtures("launched")
def test_gru4rec_train_in_a_group_writes_what_it_writes_alone(tmp_path: Path, monkeypatch: Any) -> None:
    line = ["train", TRAIN, "--layers", 16, "--n_epochs", 1, "--n_sample", 32, "--seed", 1, "-d", "cpu", "--keep-state"]
    valid = ["-t", TEST, "--json"]
    status, stdout, _ = call(gru4rec_command.main, [*line, *valid, "-o", tmp_path / "group.gru4rec"])
    assert status == 0
    for name in ("RANK", "MASTER_ADDR"):
        monkeypatch.delenv(name)
    status, expected, _ = call(gru4rec_command.main, [*line, *valid, "-o", tmp_path / "alone.gru4rec"])
    assert [json.loads(each)["event"] for each in stdout.splitlines()] == [
        json.loads(each)["event"] for each in expected.splitlines()
    ]
    group, alone = (load_bundle(tmp_path / f"{name}.gru4rec") for name in ("group", "alone"))
    assert group.training_state is not None
    assert alone.training_state is not None
    for arrays, arrays_alone in ((group.weights, alone.weights), (group.training_state, alone.training_state)):
        assert arrays.keys() == arrays_alone.keys()
        for name, values in arrays_alone.items():
            np.testing.assert_allclose(arrays[name], values, rtol=1e-2, atol=1e-4)
    assert np.array_equal(group.support, alone.support)
