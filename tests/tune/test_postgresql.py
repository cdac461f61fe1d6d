"""One study on a real PostgreSQL server: workers are killed, the server is stopped and started, and nothing is lost."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import optuna
import pytest
from tune.postgresql import Server, running_server
from tune.programs import LONG, Programs
from tune.small_shop import by_place, call, study_of, words

from gru4rec.tune.claims import counted, is_lost, take
from gru4rec.tune.identity import identity
from gru4rec.tune.storage import address_of, open_storage, quiet_optuna, taking

pytest.importorskip("psycopg")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as running:
        yield running


def test_killed_workers_and_a_server_that_restarts_lose_and_double_nothing(
    server: Server, programs: Programs, shop: Path, tmp_path: Path
) -> None:
    flags = ["-nt", "8", "--sampler", "random", "--no-prune", "--no-report"]
    assert call(words(shop, tmp_path / "calm", *flags, "-q", fixed=LONG))[0] == 0
    flags += ["--workers", "4", "--storage", server.url]
    program = programs.start(shop, tmp_path / "wild", *flags, fixed=LONG)
    programs.kill_worker(server.url, "wild")
    programs.kill_worker(server.url, "wild")
    server.stop()
    time.sleep(1)
    server.start()
    programs.kill_worker(server.url, "wild")
    _, stderr = program.communicate(timeout=150)
    assert program.returncode == 0, stderr
    assert "Traceback" not in stderr
    rows = study_of(tmp_path / "wild")["trials"]
    assert len([row for row in rows if row["state"] != "lost"]) == 8
    assert not [row.get("reason") for row in rows if row["state"] == "failed"], stderr
    assert by_place(tmp_path / "wild") == by_place(tmp_path / "calm")
    assert (tmp_path / "wild" / "best_params.py").read_text() == (tmp_path / "calm" / "best_params.py").read_text()


def test_two_programs_share_a_study_of_exactly_so_many_trials(
    server: Server, programs: Programs, shop: Path, tmp_path: Path
) -> None:
    flags = ["-nt", "6", "--sampler", "random", "--no-report", "--study", "shared"]
    flags += ["--storage", f"{server.url}?sslpassword=secret"]
    first = programs.start(shop, tmp_path / "one", *flags, fixed=LONG)
    worker = programs.wait_for_worker(server.url, "shared")
    os.kill(worker, signal.SIGSTOP)  # until the other program has begun a trial too
    second = programs.start(shop, tmp_path / "two", *flags, "--resume", fixed=LONG)
    try:
        programs.wait_for_worker(server.url, "shared")
    finally:
        os.kill(worker, signal.SIGCONT)
    for program in (first, second):
        _, stderr = program.communicate(timeout=100)
        assert program.returncode == 0, stderr
        assert "secret" not in stderr
    assert "secret" not in (tmp_path / "one" / "study.json").read_text()
    assert study_of(tmp_path / "one")["trials"] == study_of(tmp_path / "two")["trials"]
    assert len({row["worker"] for row in study_of(tmp_path / "one")["trials"]}) == 2
    assert len(study_of(tmp_path / "one")["trials"]) == 6
    assert (tmp_path / "one" / "best_params.py").read_text() == (tmp_path / "two" / "best_params.py").read_text()


def test_trial_without_signs_of_life_is_run_again_with_its_settings(server: Server) -> None:
    quiet_optuna()
    address = address_of(server.url)
    storage = open_storage(address, heartbeat_s=1, create=True)
    study = optuna.create_study(study_name="silent", storage=storage)
    lock = partial(taking, address, storage, "silent")

    def next_trial(worker: str) -> optuna.Trial | None:
        return take(study, n_trials=1, worker=worker, lock=lock, sampler=lambda place: optuna.samplers.RandomSampler())

    silent = next_trial("elsewhere/1234:77")
    assert silent is not None
    drawn = silent.suggest_float("learning_rate", 0, 1)
    silent.set_user_attr("settings", {"learning_rate": drawn})
    assert next_trial(identity()) is None
    time.sleep(4.5)  # three beats of a second, and the next
    again = next_trial(identity())
    assert again is not None
    assert again.suggest_float("learning_rate", 0, 1) == drawn
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        silent.report(0.5, 1)
    study.tell(again, 0.25)
    assert [is_lost(trial) for trial in study.trials] == [True, False]
    assert [trial.value for trial in counted(study.trials).values()] == [0.25]
    assert next_trial(identity()) is None
    storage.engine.dispose()


def test_address_is_shown_without_its_password() -> None:
    for given in ("tuner:secret@host:5433/shop?sslpassword=secret", "tuner@host:5433/shop?user=a&password=secret"):
        address = address_of(f"postgresql://{given}")
        assert str(address) == "postgresql+psycopg://tuner@host:5433/shop"
        assert "secret" in address.url


def test_server_that_is_not_there_is_one_clear_message(shop: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"postgresql://tuner:secret@127.0.0.1:{free.getsockname()[1]}/postgres"
    status, _, stderr = call(words(shop, tmp_path / "run", "--storage", url))
    assert status == 2
    assert "cannot open the storage postgresql+psycopg://tuner@127.0.0.1" in stderr
    assert "Check that the server runs" in stderr
    assert "secret" not in stderr
    assert not (tmp_path / "run").exists()
