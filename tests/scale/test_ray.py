"""Lists in bulk on Ray are those without it, whoever is killed, and nothing is left behind."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from conftest import ROOT
from scale.bulk_runs import SMALL_PARTS, batch, made_up, n_done, read, rows_of, write_log
from scale.ray_runs import Cluster, cluster, of_session, session_of, wait_until

from gru4rec.scale import bulk
from gru4rec.scale.bulk_job import BulkJob
from gru4rec.scale.bulk_log import digest_of
from gru4rec.scale.ray_driver import end_session
from gru4rec.scale.ray_worker import PartWriter, RayTask

pytest.importorskip("ray", reason="pip install 'gru4rec[ray]'")


@pytest.fixture(scope="module")
def ray() -> Iterator[Cluster]:
    with cluster(n_cpus=2) as there:
        yield there


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write_log(tmp_path / "log.tsv", rows_of(made_up(60, 3), 4))


@pytest.fixture
def parts_of_50_clicks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gru4rec.scale.bulk_job.clicks_a_part", lambda k, n_items: 50)


# --- the same lists ---


@pytest.mark.parametrize(
    ("model", "flags"),
    [
        ("gru", ["--every-click", "--exclude-seen", "--exclude", "101", "139", "7"]),
        pytest.param(
            "knn", ["--every-click", "-k", "3", "--allow", "ALLOWED", "--exclude-current"], marks=pytest.mark.slow
        ),
    ],
)
def test_lists_on_ray_are_those_without(
    model: str, flags: list[str], ray: Cluster, models: Any, log: Path, tmp_path: Path, parts_of_50_clicks: None,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "allowed").write_text("103\n105\n120\n12345\n")
    flags = [str(tmp_path / "allowed") if flag == "ALLOWED" else flag for flag in flags]
    assert batch(models[model], log, "-o", tmp_path / "plain", *flags) == 0
    on_ray = ("--ray", "--ray-address", ray.address, "--ray-workers", 2 if model == "gru" else 1)
    assert batch(models[model], log, "-o", tmp_path / "ray", *flags, *on_ray) == 0
    assert (tmp_path / "ray").read_bytes() == (tmp_path / "plain").read_bytes()
    assert any(row["n_unknown"] for row in read(tmp_path / "ray"))
    assert {path.name for path in tmp_path.iterdir()} == {"allowed", "log.tsv", "plain", "ray"}
    assert capfd.readouterr() == ("", "")


def test_folder_on_ray_holds_the_parts_of_the_folder_without(
    ray: Cluster, models: Any, tmp_path: Path, parts_of_50_clicks: None
) -> None:
    """With text ids, and paths that begin where the command is."""
    rows = [(f"visit {s}", f"item {item}", time) for s, item, time in rows_of(made_up(60, 3), 4)]
    log = os.path.relpath(write_log(tmp_path / "log.tsv", rows))
    plain, on_ray = tmp_path / "plain", tmp_path / "ray"
    assert batch(os.path.relpath(models["text"]), log, "-o", f"{plain}/") == 0
    flags = ("--ray", "--ray-address", ray.address, "--ray-workers", 1)
    assert batch(os.path.relpath(models["text"]), log, "-o", f"{os.path.relpath(on_ray)}/", *flags) == 0
    contents = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in (plain, on_ray)]
    assert contents[0] == contents[1]
    assert len(contents[0]) > 3


def test_parts_without_ray_are_gone_on_with_on_ray(
    ray: Cluster, models: Any, log: Path, tmp_path: Path, parts_of_50_clicks: None, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    with pytest.raises(bulk.StoppedError):
        bulk.score_log(
            models["gru"], log, output, bulk.BulkOptions(), stop_signal=lambda: 15 if n_done(output) == 3 else 0
        )
    n_before = n_done(output)
    flags = ("--resume", "--json", "--ray", "--ray-address", ray.address, "--ray-workers", 1)
    assert batch(models["gru"], log, "-o", output, *flags) == 0
    said = json.loads(capsys.readouterr().out)
    assert 50 * (n_before - 1) < said["n_resumed"] < said["n_clicks"]
    assert batch(models["gru"], log, "-o", tmp_path / "whole") == 0
    assert output.read_bytes() == (tmp_path / "whole").read_bytes()


# --- killed and ended ---


class Run:
    """The command in a process of its own, with many parts and a temporary folder of its own."""

    def __init__(self, temporary: Path, said: IO[bytes], *args: Any) -> None:
        self.temporary, self._said = temporary, said
        self.process = subprocess.Popen(
            [sys.executable, "-c", SMALL_PARTS, "40", "batch", *map(str, args)],
            stdout=subprocess.PIPE, stderr=said, cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(temporary)},
        )  # fmt: skip

    def wait_for(self, condition: Callable[[], object]) -> None:
        wait_until(condition, self.process, self._said)

    def ended(self) -> tuple[int, str, str]:
        """Wait for its end; return its status and what it said."""
        out = self.process.communicate(timeout=120)[0]
        self._said.seek(0)
        return self.process.returncode, out.decode(), self._said.read().decode()


@contextmanager
def running(*args: Any) -> Iterator[Run]:
    folder = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))  # short, as paths of sockets have to be
    with tempfile.TemporaryFile() as said:
        run = Run(folder, said, *args)
        try:
            yield run
        finally:
            if run.process.poll() is None:
                end_session(session_of(run.process.pid))
                run.process.kill()
            run.process.communicate()
            shutil.rmtree(folder)


@pytest.fixture
def long_log(tmp_path: Path) -> Path:
    """About 200 parts of 40 clicks."""
    return write_log(tmp_path / "long.tsv", rows_of(made_up(1500, 8), 9))


@pytest.fixture
def whole(models: Any, long_log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The file of a run without Ray that nothing happened to, whose parts are those of :class:`Run`."""
    monkeypatch.setattr("gru4rec.scale.bulk_job.clicks_a_part", lambda k, n_items: 40)
    monkeypatch.setattr("gru4rec.scale.bulk_folder._GROUP_BYTES", 200_000)
    path = tmp_path / "whole"
    assert batch(models["gru"], long_log, "-o", path) == 0
    content = path.read_bytes()
    path.unlink()
    return content


def test_worker_that_is_killed_changes_nothing(models: Any, long_log: Path, whole: bytes, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with running(models["gru"], long_log, "-o", output, "--ray", "--ray-workers", 2, "--json") as run:
        run.wait_for(lambda: n_done(output) >= 20)
        session = session_of(run.process.pid)
        workers = of_session(session, "PartWriter")
        assert len(workers) == 2
        workers[0].kill()
        status, out, err = run.ended()
        assert status == 0, err
        assert json.loads(out)["n_rows"] == 1500
        assert "2 workers write" in err
        assert len(err.splitlines()) == 6, err
        assert output.read_bytes() == whole
        assert sorted(path.name for path in tmp_path.iterdir()) == ["long.tsv", "out"]
        assert not of_session(session)
        assert not list(run.temporary.iterdir())


def test_run_on_ray_that_is_told_to_stop_ends_ray_and_goes_on_without(
    models: Any, long_log: Path, whole: bytes, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with running(models["gru"], long_log, "-o", output, "--ray", "--ray-workers", 1) as run:
        run.wait_for(lambda: n_done(output) >= 5)
        session = session_of(run.process.pid)
        assert of_session(session, "PartWriter")
        run.process.send_signal(signal.SIGINT)
        status, out, err = run.ended()
        assert (status, out) == (130, "")
        assert "out.parts holds what is done; the same command with --resume goes on" in err
        assert not of_session(session)
        assert not list(run.temporary.iterdir())
    assert n_done(output) >= 5
    assert batch(models["gru"], long_log, "-o", output, "--resume") == 0
    assert output.read_bytes() == whole


def test_cluster_is_left_by_a_command_that_is_killed(ray: Cluster, models: Any, long_log: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with running(models["gru"], long_log, "-o", output, "--ray", "--ray-address", ray.address) as run:
        run.wait_for(lambda: n_done(output) >= 5)
        session = session_of(run.process.pid)
        assert of_session(ray.session, "PartWriter")
        run.process.kill()
        until = time.monotonic() + 60
        while of_session(session) or of_session(ray.session, "PartWriter") or list(run.temporary.iterdir()):
            assert time.monotonic() < until
            time.sleep(0.05)
    assert of_session(ray.session, "gcs_server")


# --- wrong input ---


def test_wrong_flags_are_one_message_and_leave_nothing(
    models: Any, log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {
        "--ray-address is of a run on Ray. Add --ray": ["--ray-address", "auto"],
        "--ray-workers is of a run on Ray. Add --ray": ["--ray-workers", "2"],
        "--threads is of a run without Ray": ["--ray", "--threads", "2"],
        "'ray://a:1' is not the address of a Ray cluster": ["--ray", "--ray-address", "ray://a:1"],
        "'a' is not the address": ["--ray", "--ray-address", "a"],
        "'a:99999' is not the address": ["--ray", "--ray-address", "a:99999"],
        "no Ray cluster answers at 127.0.0.1:1 ": ["--ray", "--ray-address", "127.0.0.1:1"],
    }
    for message, flags in wrong.items():
        assert batch(models["gru"], log, "-o", tmp_path / "out", *flags) == 2, message
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1
        assert [path.name for path in tmp_path.iterdir()] == ["log.tsv"], message


def test_address_of_something_else_is_one_message(
    models: Any, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gru4rec.scale.ray_bulk._JOIN_S", 2)
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        assert batch(models["gru"], log, "-o", tmp_path / "out", "--ray", "--ray-address", address) == 2
    said = capsys.readouterr().err
    assert f"cannot use the Ray cluster at {address} (no answer within 2 s). Check that it runs" in said
    assert said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["log.tsv"]


WITHOUT = """
import sys
sys.modules[sys.argv[1]] = None
from gru4rec.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("missing", ["ray", "pandas"])
def test_missing_package_is_named(missing: str, models: Any, log: Path, tmp_path: Path) -> None:
    command = ["batch", str(models["gru"]), str(log), "-o", str(tmp_path / "out"), "--ray"]
    done = subprocess.run([sys.executable, "-c", WITHOUT, missing, *command], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr == f"ConfigError: --ray needs {missing}, which is missing. Run: pip install 'gru4rec[ray]'\n"
    assert [path.name for path in tmp_path.iterdir()] == ["log.tsv"]


def test_worker_whose_machine_has_other_files_says_so(models: Any, log: Path, tmp_path: Path) -> None:
    asked = {"part": np.array([7]), "first": np.array([0]), "stop": np.array([1])}
    job = BulkJob(models["gru"], log, bulk.BulkOptions())
    job.open(tmp_path)
    right = RayTask(job, tmp_path, digest_of(models["gru"]))
    for changes, kind, message in (
        ({"model_digest": digest_of(models["knn"])}, "DataError", "gru is another model here. Give paths that all"),
        ({"folder": tmp_path / "none"}, "DataError", "log.tsv is no session map here, nor is one in .*none. Give"),
        ({"version": "0.0"}, "ConfigError", "is .* here, not 0.0. Install the same everywhere"),
        ({}, "DataError", "cannot write .*part-0000007.parquet: .*No such file"),  # there is no folder of parts
    ):
        answer = PartWriter(pickle.dumps(replace(right, **changes)))(asked)
        assert (answer["part"].tolist(), answer["kind"]) == ([7], [kind])
        assert re.search(message, answer["message"][0]), answer
    (tmp_path / "parts").mkdir()
    assert PartWriter(pickle.dumps(right))(asked)["kind"] == [""]
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["part-0000007.parquet"]
