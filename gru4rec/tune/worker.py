"""A worker process: takes trials of a study and runs them, until none is left or it is told to end."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from gru4rec.api import GRU4Rec
from gru4rec.data.session_map import open_session_map
from gru4rec.errors import GRU4RecError
from gru4rec.model.device import cpu_threads
from gru4rec.tune.claims import INTERRUPTED, JOB, MEMORY, REASON, lose, n_left, take
from gru4rec.tune.identity import identity
from gru4rec.tune.objective import Trainer, free_memory, reason_of, run_trial
from gru4rec.tune.storage import Address, open_storage, quiet_optuna, storage_failed, taking, wait_for_server
from gru4rec.tune.study import Search, load_study

_IDLE_S = 0.5


@dataclass(frozen=True)
class Job:
    """All that a worker needs; goes from process to process.

    Attributes:
        search: What is searched.
        address: Where the study is kept.
        study_name: Its name.
        n_trials: Trials of the study.
        train_map: Session map of the training log.
        valid_map: Session map of the validation log, in the vocabulary of the training log.
        model_class: The class GRU4Rec, or one built on it.
        devices: Where to train; workers take them in turn.
        threads: CPU threads of a worker at most.
        heartbeat_s: Seconds between signs of life.
        ends_at: No trial begins after this time (:func:`time.time`); None: no limit.
        job_name: What whoever started the program calls it; kept with its trials.
    """

    search: Search
    address: Address
    study_name: str
    n_trials: int
    train_map: Path
    valid_map: Path
    model_class: type[GRU4Rec]
    devices: tuple[str, ...]
    threads: int
    heartbeat_s: int
    ends_at: float | None
    job_name: str | None = None

    def trainer(self, device: str) -> Trainer:
        """Map the sessions, to train on a device."""
        train = open_session_map(self.train_map)
        valid = replace(open_session_map(self.valid_map), items=train.items)
        return Trainer(self.model_class, device, self.threads, self.search, train, valid)

    @property
    def is_over(self) -> bool:
        """Whether no trial may begin any more."""
        return self.ends_at is not None and time.time() >= self.ends_at


class Stopped(BaseException):
    """The worker is told to end."""


def work(job: Job, device: str, leash: Connection) -> None:
    """Be a worker.

    Args:
        job: What to do.
        device: Where to train.
        leash: A pipe's end. Its other end is closed to end this process, or because the program that holds it ended.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the program that started this one hears it too, and lets go
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    quiet_optuna()
    try:
        _work(job, device, lambda: told.is_set() or leash.poll())
    except Stopped:
        return
    except (StorageInternalError, SQLAlchemyError) as error:
        failure = storage_failed(error, job.address)
        print(f"worker {os.getpid()}: {failure}", file=sys.stderr)
        sys.exit(failure.exit_status)
    except GRU4RecError as error:
        if leash.poll():  # the program has ended, and taken the logs with it
            return
        print(f"worker {os.getpid()}: {error}", file=sys.stderr)
        sys.exit(error.exit_status)


def _work(job: Job, device: str, is_told_to_end: Callable[[], bool]) -> None:
    def check() -> None:
        if is_told_to_end() or job.is_over:
            raise Stopped

    wait_for_server(
        job.address, tell=lambda message: print(f"worker {os.getpid()}: {message}", file=sys.stderr), check=check
    )
    storage = open_storage(job.address, heartbeat_s=job.heartbeat_s)
    study = load_study(job.study_name, storage, job.search)
    trainer, me = job.trainer(device), identity()
    while not (is_told_to_end() or job.is_over):
        trial = take(
            study,
            n_trials=job.n_trials,
            worker=me,
            lock=partial(taking, job.address, storage, job.study_name),
            sampler=job.search.new_sampler,
        )
        if trial is not None:
            with cpu_threads(job.threads), _beating(study, trial):
                _run(study, trial, trainer, is_told_to_end, job.job_name)
            free_memory()
        elif not n_left(study.get_trials(deepcopy=False), job.n_trials, has_heartbeat=job.address.has_heartbeat):
            return
        else:
            time.sleep(_IDLE_S)  # another worker may be lost, and its trial free


def _run(
    study: optuna.Study, trial: optuna.Trial, trainer: Trainer, is_told_to_end: Callable[[], bool], job_name: str | None
) -> None:
    """Run a trial, and record what came of it. One that was given to another worker meanwhile is let go."""

    def look_up(n_events: int) -> None:
        if is_told_to_end():
            raise Stopped

    with suppress(UpdateFinishedTrialError, FinishedError):
        if job_name is not None:
            trial.set_user_attr(JOB, job_name)
        try:
            value = run_trial(trial, trainer, look_up)
            trial.set_user_attr(MEMORY, _memory_bytes())
            _tell(study, trial, TrialState.COMPLETE, value)
        except optuna.TrialPruned:
            _tell(study, trial, TrialState.PRUNED)
        except Stopped:
            lose(study, trial.number, INTERRUPTED)
        except (UpdateFinishedTrialError, StorageInternalError, SQLAlchemyError):
            raise
        except Exception as error:
            trial.set_user_attr(REASON, reason_of(error))
            _tell(study, trial, TrialState.FAIL)


class FinishedError(Exception):
    """The trial was finished by another, or by this worker in a call whose answer was lost."""


def _tell(study: optuna.Study, trial: optuna.Trial, state: TrialState, value: float | None = None) -> None:
    try:
        study.tell(trial, value, state)
    except ValueError:
        if study.trials[trial.number].state.is_finished():
            raise FinishedError from None
        raise


@contextmanager
def _beating(study: optuna.Study, trial: optuna.Trial) -> Iterator[None]:
    """Give signs of life while the block runs. Storage that is away is waited for there, not here."""
    beat = getattr(study._storage, "record_heartbeat", None)
    if beat is None:
        yield
        return
    interval_s, done = study._storage.get_heartbeat_interval(), threading.Event()  # type: ignore[attr-defined]

    def keep_beating() -> None:
        while not done.wait(interval_s):
            with suppress(StorageInternalError, SQLAlchemyError):
                beat(trial._trial_id)

    thread = threading.Thread(target=keep_beating, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()


def _memory_bytes() -> int | None:
    """Return the memory of this process, where the system tells."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return None
