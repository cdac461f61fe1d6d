"""A search: makes or opens the study, keeps workers running, and says what was found.

Trials run in processes of their own, which map the logs that were read once. A process that is killed takes its trial
with it and nothing else: another takes its place.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from gru4rec.data.session_map import HEADER, write_session_map
from gru4rec.data.sessions import Sessions
from gru4rec.errors import ConfigError, DataError, GRU4RecError
from gru4rec.tune.claims import INTERRUPTED, REASON, WORKER, all_settled, counted, lose, n_left, release_lost
from gru4rec.tune.identity import identity
from gru4rec.tune.processes import worker_context
from gru4rec.tune.storage import (
    Address,
    close_storage,
    has_tables,
    making,
    open_storage,
    taking,
    try_lock,
)
from gru4rec.tune.study import Search, load_study, make_study, study_names
from gru4rec.tune.worker import Job, work

Opening = Literal["begin", "resume", "join"]
"""How a program comes to its study: it makes it, goes on with it, or either, as it finds it."""

_LOCK = ".lock"
_LOOK_S = 0.2
_GRACE_S = 60.0
"""How long a worker that is told to end may take, before it is killed."""
_MAX_IDLE_ROUNDS = 5
"""How often as many workers as there are may end before they begin a trial, and none that began one between."""


class FailedStudyError(GRU4RecError):
    """A study came to no result: workers ended, trials failed, or time was too short.

    Exit status 1: the input was usable, the run failed.
    """

    exit_status = 1


@dataclass(frozen=True)
class MappedLogs:
    """The logs as workers open them.

    Attributes:
        train: Session map.
        valid: Session map.
        fingerprints: Of their contents.
    """

    train: Path
    valid: Path
    fingerprints: tuple[str, str]


@contextlib.contextmanager
def own_folder(folder: Path) -> Iterator[Path]:
    """Make a run folder, and keep other programs out of it; one that was made and stayed empty is removed again.

    Raises:
        ConfigError: Another program works in it.
        DataError: It cannot be made or written.
    """
    lock = folder / _LOCK
    was_there = folder.is_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = try_lock(lock)
    except BlockingIOError:
        raise ConfigError(f"another gru4rec tune works in {folder}. Wait for it, or give another --run-dir") from None
    except OSError as error:
        raise DataError(f"cannot write to {folder}: {error.strerror}. Give another --run-dir") from None
    try:
        for left in folder.glob(".data-*"):
            shutil.rmtree(left, ignore_errors=True)
        yield folder
    finally:
        if not was_there and list(folder.iterdir()) == [lock]:
            shutil.rmtree(folder)
        file.close()


@contextlib.contextmanager
def mapped(train: Sessions, valid: Sessions, folder: Path) -> Iterator[MappedLogs]:
    """Write the logs for the workers; they are removed after the block."""
    try:
        data = Path(tempfile.mkdtemp(prefix=".data-", dir=folder))
    except OSError as error:
        raise DataError(f"cannot write to {folder}: {error.strerror}. Give another --run-dir") from None
    try:
        paths = data / "train.sessions", data / "valid.sessions"
        for path, sessions in zip(paths, (train, valid), strict=True):
            write_session_map(sessions, path)
        yield MappedLogs(*paths, (_fingerprint(paths[0]), _fingerprint(paths[1])))
    finally:
        shutil.rmtree(data, ignore_errors=True)


def check_study(address: Address, name: str, *, opening: Opening, n_trials: int, heartbeat_s: int) -> bool:
    """Make sure that there is a study to go on with, or none of that name; nothing is made.

    Returns:
        Whether it is there, and its trials have come to an end.

    Raises:
        ConfigError: It is there, or it is not.
        DataError: The storage cannot be reached.
    """
    names: list[str] = []
    is_complete = False
    if has_tables(address):
        storage = open_storage(address, heartbeat_s=heartbeat_s)
        names = study_names(storage, address)
        if name in names:
            study = optuna.load_study(study_name=name, storage=storage)
            is_complete = all_settled(study.get_trials(deepcopy=False), n_trials)
        close_storage(storage)
    if opening == "resume" and name not in names:
        there = f"it has: {', '.join(names)}" if names else "it has none"
        raise ConfigError(f"there is no study {name!r} in {address} ({there}). Leave --resume out to begin it")
    if opening == "begin" and name in names:
        raise ConfigError(
            f"the study {name!r} is in {address} already. Go on with it: --resume; or give another --study"
        )
    return is_complete


@contextlib.contextmanager
def open_study(
    address: Address, name: str, search: Search, starts: Sequence[Mapping[str, Any]], *, opening: Opening,
    heartbeat_s: int,
) -> Iterator[tuple[optuna.Study, BaseStorage]]:  # fmt: skip
    """Make or open the study for a block; the tables are made here, before any worker starts, by one program at a time.

    Raises:
        ConfigError: The study is there, or it searches something else.
        DataError: The storage cannot be reached.
    """
    with contextlib.ExitStack() as stack:
        with making(address):
            storage = open_storage(address, heartbeat_s=heartbeat_s, create=True)
            stack.callback(close_storage, storage)
            if opening == "begin" or (opening == "join" and name not in study_names(storage, address)):
                make_study(name, storage, search, starts)
        yield load_study(name, storage, search), storage


def run_workers(
    job: Job,
    study: optuna.Study,
    storage: BaseStorage,
    *,
    n_workers: int,
    on_look: Callable[[list[FrozenTrial]], None],
    tell: Callable[[str], None],
) -> None:
    """Run trials until every place of the study has come to an end, or time is up.

    Args:
        job: What workers do.
        study: As this process sees it.
        storage: Of the study.
        n_workers: Processes; none: others run the trials, which are waited for.
        on_look: Called now and then with all trials.
        tell: Called with a line where something went wrong.

    Raises:
        FailedStudyError: Workers end before they begin a trial.
        BaseException: What ``on_look`` raised, or a signal; the trials that ran are marked, and the workers have ended.
    """
    crew = _Crew(job, n_workers)
    n_idle_deaths = 0
    try:
        while True:
            trials = study.get_trials(deepcopy=False)
            on_look(trials)
            ours = [trial for trial in trials if trial.user_attrs.get(WORKER) in crew.names()]
            n_open = n_left(trials, job.n_trials, has_heartbeat=job.address.has_heartbeat)
            if n_open == 0 or (job.is_over and not any(trial.state == TrialState.RUNNING for trial in ours)):
                break
            if not job.is_over:
                crew.fill(n_open)
            ended = crew.ended()
            if ended:
                begun = {trial.user_attrs.get(WORKER) for trial in study.get_trials(deepcopy=False)}
                for name, status in ended:
                    n_idle_deaths = 0 if name in begun else n_idle_deaths + 1
                    tell(f"worker {name} ended with status {status}")
                if n_idle_deaths >= _MAX_IDLE_ROUNDS * min(n_workers, n_open):
                    raise FailedStudyError("the workers end before they begin a trial. See what they said above")
                with taking(job.address, storage, job.study_name):
                    release_lost(study)
            time.sleep(_LOOK_S)
        if not job.is_over and not all_settled(trials, job.n_trials):
            tell("trials that run on other machines are not waited for: a journal does not tell whether they live")
    finally:
        killed = crew.end()
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.user_attrs.get(WORKER) in killed:
                lose(study, trial.number, INTERRUPTED)


def results(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the complete trials that count, the best first.

    Raises:
        FailedStudyError: There is none; the message has the first reason.
    """
    places = counted(trials).values()
    complete = [trial for trial in places if trial.state == TrialState.COMPLETE]
    if not complete:
        reasons = [trial.user_attrs[REASON] for trial in places if REASON in trial.user_attrs]
        why = f"; the first: {reasons[0]}" if reasons else ""
        raise FailedStudyError(f"no trial of {len(places)} came to a result{why}")
    return sorted(complete, key=lambda trial: (-float(trial.value or 0.0), trial.number))


class _Crew:
    """The worker processes of this program."""

    def __init__(self, job: Job, n_workers: int) -> None:
        self._context = worker_context()
        self._job, self._n_workers = job, n_workers
        self._workers: dict[str, tuple[Any, Connection]] = {}
        self._devices: dict[str, str] = {}

    def names(self) -> set[str]:
        return set(self._workers)

    def fill(self, n_open: int) -> None:
        """Start workers where there are too few for what is left to do."""
        while len(self._workers) < min(self._n_workers, n_open):
            end, leash = self._context.Pipe(duplex=False)
            in_use = [self._devices[name] for name in self._workers]
            device = min(self._job.devices, key=in_use.count)
            worker = self._context.Process(target=work, args=(self._job, device, end), daemon=True)
            worker.start()
            end.close()
            assert worker.pid is not None
            self._workers[identity(worker.pid)] = worker, leash
            self._devices[identity(worker.pid)] = device

    def ended(self) -> list[tuple[str, int]]:
        """Forget the workers that have ended, and return those that did so against the plan, with their status."""
        gone = {name: worker.exitcode for name, (worker, _) in self._workers.items() if worker.exitcode is not None}
        for name in gone:
            for part in self._workers.pop(name):
                part.close()
        return [(name, status) for name, status in gone.items() if status != 0]

    def end(self) -> set[str]:
        """Tell all workers to end, and wait for it; return those that had to be killed."""
        killed = set()
        until = time.monotonic() + _GRACE_S
        for _, leash in self._workers.values():
            leash.close()
        for name, (worker, _) in self._workers.items():
            worker.join(max(until - time.monotonic(), 0.0))
            if worker.exitcode is None:
                worker.kill()
                worker.join()
                killed.add(name)
        return killed


def _fingerprint(folder: Path) -> str:
    """Return what tells the contents of one session map from another's."""
    files = json.loads((folder / HEADER).read_text())["files"]
    return blake2b(json.dumps(files, sort_keys=True).encode(), digest_size=16).hexdigest()
