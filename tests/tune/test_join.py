"""Programs that only run trials of a study they share: begun by any of them, ended by signals, leaving nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy import NullPool, create_engine
from sqlalchemy.exc import OperationalError
from tune.postgresql import Server, running_server
from tune.programs import LONG, Programs
from tune.small_shop import by_place, call, study_of, words

from gru4rec import GRU4Rec
from gru4rec.cli import pipeline
from gru4rec.data.sessions import Sessions
from gru4rec.tune import job as jobs
from gru4rec.tune import storage as storages
from gru4rec.tune.claims import counted, n_left
from gru4rec.tune.identity import identity
from gru4rec.tune.job import FailedStudyError, open_study, run_workers
from gru4rec.tune.output import trial_row
from gru4rec.tune.scratch import no_folder
from gru4rec.tune.storage import (
    Address,
    LostStorageError,
    address_of,
    close_storage,
    has_tables,
    making,
    open_storage,
    quiet_optuna,
    storage_failed,
    wait_for_server,
)
from gru4rec.tune.study import Search
from gru4rec.tune.worker import Job, Stopped, _work

STEADY = ["--sampler", "random", "--no-prune"]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    pytest.importorskip("psycopg")
    with running_server() as running:
        yield running


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, empty."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def test_joining_programs_run_the_study_of_one_and_leave_nothing_else(
    shop: Path, tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = ["-nt", "3", *STEADY, "--no-report", "-q"]
    assert call(words(shop, tmp_path / "calm", *calm))[0] == 0
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    shared = ["--storage", f"sqlite:///{tmp_path / 'shared.db'}", "--study", "shared", *STEADY]
    for n_trials, job in (("1", "n1_1"), ("3", "n1_2")):  # the first begins the study, the second goes on with it
        assert call(words(shop, None, "--join", "--job", job, "-nt", n_trials, "-q", *shared)) == (0, "", "")
    status, _, stderr = call(words(shop, None, "--join", "-nt", "3", *shared))
    assert (status, stderr.startswith("nothing to do: 3 trials of shared in sqlite:///")) == (0, True)
    assert not list(work.iterdir())
    assert not list(scratch.glob(".gru4rec-join-*"))
    taking = ["--resume", "--workers", "0", "-nt", "3", "-fm", "1", "20", "--no-report"]
    status, stdout, stderr = call(words(shop, tmp_path / "result", *taking, *shared))
    assert status == 0, stderr
    assert [line.split(":")[0] for line in stdout.splitlines()][-2:] == ["Recall@1", "Recall@20"]
    assert "(3 done), all of them run by other programs" in stderr
    assert by_place(tmp_path / "result") == by_place(tmp_path / "calm")
    best = [(tmp_path / name / "best_params.py").read_text() for name in ("result", "calm")]
    assert best[0] == best[1]
    jobs = [row["job"] for row in study_of(tmp_path / "result")["trials"]]
    assert jobs == ["n1_1"] + ["n1_2"] * 2
    assert {row["job"] for row in study_of(tmp_path / "calm")["trials"]} == {None}


def test_programs_that_start_at_once_begin_one_study_and_one_is_told_to_end(
    server: Server, programs: Programs, shop: Path, scratch: Path
) -> None:
    flags = ["--join", "-nt", "4", "--study", "at-once", *STEADY]
    environment = {"GRU4REC_STORAGE": server.url}
    started = {
        job: programs.start(shop, None, *flags, "--job", job, fixed=LONG, environment=environment)
        for job in ("slurm-7_1", "slurm-7_2")
    }
    programs.wait_for_worker(server.url, "at-once")
    ended = started.pop("slurm-7_1")
    assert "postgresql" not in Path(f"/proc/{ended.pid}/cmdline").read_text()
    for _ in range(3):  # Slurm sends it to all processes of a step, and srun once more
        ended.send_signal(signal.SIGTERM)
    said = [program.communicate(timeout=100)[1] for program in (ended, started["slurm-7_2"])]
    assert [ended.returncode, started["slurm-7_2"].returncode] == [143, 0], said
    assert said[0].count("stopped") == 1
    storage = open_storage(address_of(server.url), heartbeat_s=20)
    (study,) = [study for study in storage.get_all_studies() if study.study_name == "at-once"]
    rows = [trial_row(trial) for trial in storage.get_all_trials(study._study_id)]
    close_storage(storage)
    assert sorted(row["place"] for row in rows if row["state"] == "complete") == [0, 1, 2, 3]
    assert {(row["state"], row["reason"]) for row in rows} <= {("complete", None), ("lost", "interrupted")}
    assert {row["job"] for row in rows} <= {"slurm-7_1", "slurm-7_2"}
    assert not list(scratch.glob(".gru4rec-join-*"))


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_study_is_made_by_one_program_at_a_time(kind: str, server: Server, tmp_path: Path) -> None:
    quiet_optuna()
    address = address_of(server.url if kind == "postgresql" else f"sqlite:///{tmp_path / 'study.db'}")
    search = Search((), {}, "mrr", 20, "standard", "auto", "float32", ("", ""), "random", "none", 42)
    opened: list[int] = []

    def join() -> None:
        with open_study(address, "one", search, [], opening="join", heartbeat_s=20) as (study, _):
            opened.append(study._study_id)

    programs = [threading.Thread(target=join) for _ in range(3)]
    with making(address):
        for program in programs:
            program.start()
        for program in programs:
            program.join(0.3)
        assert not opened
    for program in programs:
        program.join(60)
    assert len(opened) == 3
    assert len(set(opened)) == 1


def test_watching_program_takes_the_best_so_far_when_time_is_up(shop: Path, tmp_path: Path) -> None:
    shared = ["--storage", f"sqlite:///{tmp_path / 'shared.db'}", "--study", "shared", *STEADY, "-q"]
    assert call(words(shop, None, "--join", "-nt", "2", *shared))[0] == 0
    taking = ["--resume", "--workers", "0", "-nt", "50", "--timeout", "1", "--no-report", *shared]
    assert call(words(shop, tmp_path / "run", *taking))[0] == 0
    study = study_of(tmp_path / "run")
    assert [row["state"] for row in study["trials"]] == ["complete"] * 2
    assert study["best"] == max(study["trials"], key=lambda row: row["value"])["number"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "--join needs the storage that the programs share. Give --storage, or set GRU4REC_STORAGE"),
        (["--storage", ""], "--join needs the storage that the programs share"),
        (["--storage", "S", "--resume"], "--resume has no effect with --join"),
        (["--storage", "S", "--run-dir", "run"], "--run-dir has no effect with --join"),
        (["--storage", "S", "--workers", "0"], "--workers 0 has no effect with --join"),
        (["--storage", "S", "--candidate-seeds", "2"], "--candidate-seeds has no effect with --join"),
        (["--storage", "S", "-fm", "5"], "-fm has no effect with --join"),
        (["--storage", "S", "--no-report"], "--no-report has no effect with --join"),
        (["--storage", "sqlite:////nowhere/x.db"], "there is no folder /nowhere for --storage"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_flags_of_a_program_that_leaves_results_are_refused(
    given: list[str], message: str, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["sqlite:///x.db" if word == "S" else word for word in given]
    status, stdout, stderr = call([*words(shop, None, "--join", "-q"), *given])
    assert (status, stdout, stderr.count("\n")) == (2, "", 1)
    assert message in stderr
    assert not list(tmp_path.iterdir())


def test_empty_variable_names_no_storage(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRU4REC_STORAGE", "")
    monkeypatch.chdir(tmp_path)
    status, _, stderr = call(words(shop, None, "--join", "-q", "-nt", "1"))
    assert (status, "--join needs the storage" in stderr) == (2, True)
    assert not list(tmp_path.iterdir())


def test_watching_program_waits_for_workers_of_its_machine_on_a_journal(
    programs: Programs, shop: Path, tmp_path: Path
) -> None:
    address = address_of(f"journal:{tmp_path / 'study.journal'}")
    flags = ["--storage", str(address), "--study", "shared", "-nt", "2", *STEADY]
    joined = programs.start(shop, None, "--join", *flags, fixed=LONG)

    def has_begun_both() -> bool:
        if not has_tables(address):
            return False
        storage = open_storage(address, heartbeat_s=20)
        trials = [trial for each in storage.get_all_studies() for trial in storage.get_all_trials(each._study_id)]
        return 1 in counted(trials) and "worker" in counted(trials)[1].user_attrs

    until = time.monotonic() + 60
    while not has_begun_both():
        assert time.monotonic() < until
        time.sleep(0.05)
    taking = ["--resume", "--workers", "0", "--no-report", "-q", *flags]
    assert call(words(shop, tmp_path / "run", *taking, fixed=LONG))[0] == 0
    assert [row["state"] for row in study_of(tmp_path / "run")["trials"]] == ["complete"] * 2
    _, stderr = joined.communicate(timeout=60)
    assert joined.returncode == 0, stderr


@pytest.mark.parametrize(
    ("worker", "has_heartbeat", "n_expected"),
    [("node2/0:1", False, 1), ("node2/0:1", True, 2), (identity(), False, 2)],
    ids=["there", "there, alive", "here"],
)
def test_trials_of_other_machines_are_waited_for_where_they_show_that_they_live(
    worker: str, has_heartbeat: bool, n_expected: int
) -> None:
    study = optuna.create_study()
    study.enqueue_trial({}, user_attrs={"place": 0})
    study.ask().set_user_attr("worker", worker)
    assert n_left(study.get_trials(), 2, has_heartbeat=has_heartbeat) == n_expected


# --- what fails, and may go well another time ---


def a_job(address: Address, n_trials: int = 4) -> Job:
    search = Search((), {}, "mrr", 20, "standard", "auto", "float32", ("", ""), "random", "none", 42)
    nowhere = Path("/nowhere")
    return Job(search, address, "study", n_trials, nowhere, nowhere, GRU4Rec, ("cpu",), 1, 20, None)


class DyingCrew:
    """Two workers that end at each look; those of looks 5 and 10 had begun a trial."""

    def __init__(self, study: optuna.Study) -> None:
        self._study, self.n_looks = study, 0

    def names(self) -> set[str]:
        return set()

    def fill(self, n_open: int) -> None:
        pass

    def ended(self) -> list[tuple[str, int]]:
        self.n_looks += 1
        assert self.n_looks < 20
        if self.n_looks in (5, 10):
            trial = self._study.ask()
            trial.set_user_attr("worker", f"node1/0:{self.n_looks}.2")
            self._study.tell(trial, state=TrialState.FAIL)
        return [(f"node1/0:{self.n_looks}.{number}", 1) for number in (1, 2)]

    def end(self) -> set[str]:
        return set()


def test_program_gives_up_when_all_workers_end_five_times_and_none_begins_a_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = optuna.create_study()
    crew = DyingCrew(study)
    monkeypatch.setattr(jobs, "_Crew", lambda job, n_workers: crew)
    monkeypatch.setattr(jobs, "_LOOK_S", 0.0)
    job = a_job(address_of(f"sqlite:///{tmp_path / 'study.db'}"))
    with pytest.raises(FailedStudyError, match="the workers end before they begin a trial") as failed:
        run_workers(job, study, study._storage, n_workers=2, on_look=lambda trials: None, tell=lambda message: None)
    assert failed.value.exit_status == 1
    assert crew.n_looks == 15  # two idle ends a look since the last of look 10: the tenth at look 15


def test_worker_waits_for_a_server_until_it_is_told_to_end() -> None:
    pytest.importorskip("psycopg")
    answers = iter([False, True])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = address_of(f"postgresql://tuner@127.0.0.1:{free.getsockname()[1]}/postgres")
    with pytest.raises(Stopped):
        _work(a_job(address), "cpu", lambda: next(answers))


def test_time_is_counted_from_the_start_of_the_program(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(*args: Any) -> Sessions:
        time.sleep(0.6)
        return read(*args)

    read = pipeline.read_sessions
    monkeypatch.setattr(pipeline, "read_sessions", slowly)
    status, _, stderr = call(words(shop, tmp_path / "run", "-nt", "1", "--timeout", "1", "-q", "--no-report"))
    assert (status, "no trial came to an end within --timeout 1" in stderr) == (1, True)


def test_joining_program_with_another_space_is_refused(shop: Path, tmp_path: Path) -> None:
    shared = ["--storage", f"sqlite:///{tmp_path / 'shared.db'}", "--study", "shared", *STEADY, "-q", "--join"]
    assert call(words(shop, None, "-nt", "1", *shared))[0] == 0
    status, _, stderr = call(words(shop, None, "-nt", "2", *shared, fixed="n_epochs=2"))
    assert (status, "was begun with -fp" in stderr) == (2, True)


def test_logs_of_killed_programs_are_removed_and_those_of_others_are_not(scratch: Path) -> None:
    with no_folder() as ours:
        killed = scratch / f"{ours.name}-killed"
        shutil.copytree(ours, killed)  # with its mark, which nobody holds
        (killed / "train.sessions").mkdir()
        with no_folder() as other:
            assert sorted(scratch.iterdir()) == sorted([ours, other])
    assert not list(scratch.iterdir())


def test_folders_that_users_made_stay_whatever_their_names(scratch: Path, tmp_path: Path) -> None:
    def made(name: str, parent: Path = scratch) -> Path:
        (parent / name).mkdir()
        (parent / name / "kept").touch()
        return parent / name

    with no_folder() as ours:
        (mark,) = (path.name for path in ours.iterdir())
    prefix = ours.name[:-8]
    made("gru4rec-tune-mine").joinpath(".lock").touch()  # as a run folder
    made(f"{prefix}unmarked")
    os.mkfifo(made(f"{prefix}fifo") / mark)
    (made("elsewhere", tmp_path) / mark).touch()
    (made(f"{prefix}link") / mark).symlink_to(tmp_path / "elsewhere" / mark)
    (made(f"{prefix}dangling") / mark).symlink_to(tmp_path / "nowhere")
    (scratch / f"{prefix}folder-link").symlink_to(tmp_path / "elsewhere")
    before = sorted(tmp_path.rglob("*"))
    with no_folder():
        pass
    assert sorted(tmp_path.rglob("*")) == before


def test_folder_of_another_user_stays(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with no_folder() as ours:
        theirs = shutil.copytree(ours, scratch / f"{ours.name}-theirs")
    monkeypatch.setattr(os, "getuid", lambda: 1 + theirs.stat().st_uid)
    with no_folder():
        pass
    assert theirs.exists()


def test_joining_program_waits_for_a_server_that_starts(
    server: Server, programs: Programs, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = address_of(server.url)
    told: list[str] = []
    wait_for_server(address, tell=told.append)
    assert not told
    server.stop()
    try:
        waiting = threading.Thread(target=wait_for_server, args=(address,), kwargs={"tell": told.append})
        waiting.start()
        monkeypatch.setattr(storages, "PATIENCE_S", 0.0)
        with pytest.raises(LostStorageError, match=r"did not answer for 0 minutes: .*refused") as lost:
            wait_for_server(address, tell=told.append)
        assert lost.value.exit_status == 1
        assert waiting.is_alive()
    finally:
        monkeypatch.undo()
        server.start()
    waiting.join(30)
    assert not waiting.is_alive()
    assert [line.partition(":")[0] for line in told] == ["waiting for the storage postgresql+psycopg"]


def test_what_a_server_says_tells_wrong_input_from_a_storage_that_is_lost(server: Server, shop: Path) -> None:
    wrong = f"{server.url.removesuffix('/postgres')}/nowhere"
    status, _, stderr = call(words(shop, None, "--join", "--storage", wrong))  # not waited for
    assert (status, 'database "nowhere" does not exist' in stderr) == (2, True)
    address = address_of(server.url)
    engine = create_engine(address.url, poolclass=NullPool)
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OperationalError):
            for _ in range(60):  # it takes 40
                held.enter_context(engine.connect())
        with pytest.raises(LostStorageError, match="too many clients") as full:
            has_tables(address)
        assert full.value.exit_status == 1
    assert storage_failed(RuntimeError("gone"), address).exit_status == 1
