"""``--cache`` and session maps through the front doors: the same results, and one line on what the cache did."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import doors
import pytest
from conftest import GOLDEN, ROOT

from gru4rec.cli.main import main as gru4rec_command
from gru4rec.cli.run import main as run_py
from gru4rec.data.events import load_events
from gru4rec.data.session_map import write_session_map
from gru4rec.data.sessions import Sessions

TRAIN, TEST = GOLDEN / "train.tsv", GOLDEN / "test.tsv"
SETTINGS = ["--layers", "6", "--batch_size", "16", "--n_sample", "16", "--n_epochs", "2", "--seed", "3"]
STRING = "layers=6,batch_size=16,n_sample=16,n_epochs=2,seed=3"


def call(door: Callable[[Sequence[str]], int], *argv: Any) -> tuple[list[str], str]:
    """Run a front door that succeeds; return its results without times, and what it says."""
    status, stdout, stderr = doors.call(door, argv)
    assert status == 0
    return re.sub(r"\t\(.*|Total training time.*", "", stdout).splitlines(), stderr


def used(stderr: str) -> list[str]:
    """Which log the cache did what with, from standard error; each line must name the cache and a size."""
    found = re.findall(r"^(\S+): (mapped from|written to) the cache \S+ \([\d,]+\.\d MB\)$", stderr, re.MULTILINE)
    assert len(found) == stderr.count("the cache")
    return [f"{Path(path).name} {done.split()[0]}" for path, done in found]


def train(*argv: Any) -> tuple[list[str], str]:
    return call(gru4rec_command, "train", TRAIN, "-t", TEST, "-m", 5, "-d", "cpu", *SETTINGS, *argv)


@pytest.fixture(autouse=True)
def no_cache_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRU4REC_CACHE", raising=False)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_train_gives_the_same_model_with_and_without_a_cache(cache: Path, tmp_path: Path) -> None:
    models = [tmp_path / f"{place}.model" for place in range(3)]
    plain, stderr = train("-o", models[0])
    assert used(stderr) == []
    assert any("Recall@5" in line for line in plain)
    for model, done in zip(models[1:], ("written", "mapped"), strict=True):
        results, stderr = train("-o", model, "--cache", cache)
        assert results == plain
        assert used(stderr) == [f"train.tsv {done}", f"test.tsv {done}"]
        assert f"{TRAIN}: " in stderr
        assert model.read_bytes() == models[0].read_bytes()


def test_run_py_and_evaluate_share_the_cache_of_train(cache: Path, tmp_path: Path) -> None:
    model = tmp_path / "a.model"
    plain, _ = train("-o", model, "--cache", cache)
    results, stderr = call(run_py, TRAIN, "-ps", STRING, "-t", TEST, "-m", 5, "-d", "cpu", "--cache", cache)
    assert [line for line in results if "SET" not in line] == [line for line in plain if "SET" not in line]
    assert used(stderr) == ["train.tsv mapped", "test.tsv mapped"]
    for door, words in ((run_py, [model, "-l", "-t", TEST]), (gru4rec_command, ["evaluate", model, TEST])):
        results, stderr = call(door, *words, "-m", 5, "-d", "cpu", "--cache", cache)
        assert results == plain[-1:]
        assert used(stderr) == ["test.tsv mapped"]


def test_environment_names_the_cache_and_a_flag_another_or_none(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRU4REC_CACHE", str(cache))
    assert used(train()[1]) == ["train.tsv written", "test.tsv written"]
    assert used(train("--cache", tmp_path / "other")[1]) == ["train.tsv written", "test.tsv written"]
    assert used(train("--cache", "")[1]) == []
    assert train("-q")[1] == ""
    monkeypatch.setenv("GRU4REC_CACHE", "")
    assert used(train()[1]) == []


def test_session_maps_are_logs(tmp_path: Path) -> None:
    """The test map is once in the model's vocabulary, and once in its own."""
    plain, _ = train()
    sessions = Sessions.from_log(load_events(TRAIN))
    write_session_map(sessions, tmp_path / "train.sessions")
    write_session_map(Sessions.from_log(load_events(TEST), sessions.items), tmp_path / "known.sessions")
    write_session_map(Sessions.from_log(load_events(TEST)), tmp_path / "own.sessions")
    settings = ["-m", 5, "-d", "cpu", *SETTINGS]
    for name in ("known.sessions", "own.sessions"):
        results, stderr = call(gru4rec_command, "train", tmp_path / "train.sessions", "-t", tmp_path / name, *settings)
        assert results == plain
        assert f"{tmp_path / 'train.sessions'}: {sessions.n_events:,} events" in stderr
    results, _ = call(run_py, tmp_path / "train.sessions", "-ps", STRING, "-t", tmp_path / name, *settings[:4])
    assert results[-3:] == plain[-3:]


def fails(*argv: Any) -> str:
    """Run the real program on wrong input; return its one message."""
    code = f"import sys; from gru4rec.cli.main import main; sys.exit(main({[str(word) for word in argv]!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    return done.stderr


def test_wrong_caches_and_maps_end_with_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    message = fails("train", TRAIN, "-q", "-d", "cpu", *SETTINGS, "--cache", tmp_path / "file")
    assert message.startswith(
        f"DataError: cannot write to the cache {tmp_path / 'file'}: Not a directory. Give --cache"
    )
    assert len(message.splitlines()) == 1
    path = tmp_path / "train.sessions"
    write_session_map(Sessions.from_log(load_events(TRAIN)), path)
    (path / "offsets.npy").unlink()
    message = fails("train", path, "-q", "-d", "cpu", *SETTINGS)
    assert message.startswith(f"DataError: {path} is damaged: offsets.npy is missing. Delete the folder, and write it")
    message = fails("train", tmp_path, "-q", "-d", "cpu", *SETTINGS)
    assert message.startswith(f"DataError: {tmp_path} is a folder. Give the path of one file")


@pytest.mark.parametrize("command", ["demo", "simulate", "recommend", "convert"])
def test_commands_that_read_no_log_take_no_cache(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gru4rec_command([command, "--help"])
    assert "--cache" not in capsys.readouterr().out
