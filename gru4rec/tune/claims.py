"""Who tries what: each of a study's places is tried by one worker, whatever happens to workers and servers.

A study has ``n_trials`` places, numbered from 0. A worker takes a place under the study's lock and enters a trial for
it. A trial whose worker is lost does not count: its place is free again, with the settings that were drawn. Everything
is read from the storage anew, so a worker may end between any two steps.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from gru4rec.tune.identity import is_dead, is_here

PLACE, WORKER, SETTINGS, REASON, LOST, MEMORY = "place", "worker", "settings", "reason", "lost", "memory_bytes"
"""User attributes of a trial: its place, who runs it, all settings, why it failed, how it was lost, memory after it."""

JOB = "job"
"""User attribute of a trial: what the program that runs it is called by whoever started it."""

MAX_LOSSES = 3
"""A place whose worker is lost that often has settings that kill; it is recorded as failed."""

Lock = Callable[[], AbstractContextManager[Callable[[], bool]]]
"""Held while a trial is taken; its value tells whether it is still held."""


def is_lost(trial: FrozenTrial) -> bool:
    """Tell whether a trial came to nothing because its worker did, so that it does not count."""
    return trial.state == TrialState.FAIL and REASON not in trial.user_attrs


def counted(trials: Iterable[FrozenTrial]) -> dict[int, FrozenTrial]:
    """Return the trial of each place that has one; a second one of a place never counts."""
    places: dict[int, FrozenTrial] = {}
    for trial in trials:
        if PLACE in trial.user_attrs and not is_lost(trial):
            places.setdefault(trial.user_attrs[PLACE], trial)
    return places


def all_settled(trials: Iterable[FrozenTrial], n_trials: int) -> bool:
    """Tell whether every place has come to an end."""
    places = counted(trials)
    return len(places) >= n_trials and all(trial.state.is_finished() for trial in places.values())


def n_left(trials: Iterable[FrozenTrial], n_trials: int, *, has_heartbeat: bool) -> int:
    """Return how many places are to be tried or waited for.

    Without heartbeats nobody knows whether workers of other machines live, and their trials are not waited for.
    """
    places = counted(trials).values()
    n_done = sum(trial.state.is_finished() or (not has_heartbeat and _runs_elsewhere(trial)) for trial in places)
    return max(n_trials - n_done, 0)


def _runs_elsewhere(trial: FrozenTrial) -> bool:
    worker = trial.user_attrs.get(WORKER)
    return trial.state == TrialState.RUNNING and worker is not None and not is_here(worker)


def take(
    study: optuna.Study,
    *,
    n_trials: int,
    worker: str,
    lock: Lock,
    sampler: Callable[[int], optuna.samplers.BaseSampler],
) -> Trial | None:
    """Take the next place.

    Args:
        study: Its sampler is replaced by the place's own.
        n_trials: Places of the study.
        worker: Who asks, as :func:`gru4rec.tune.identity.identity` names it.
        lock: Of the study.
        sampler: Makes the sampler of a place.

    Returns:
        A running trial, or None where no place is free.
    """
    while True:
        with lock() as is_held:
            release_lost(study)
            waiting = _next_waiting(study, n_trials)
            if waiting is None:
                return None
            study.sampler = sampler(waiting.user_attrs[PLACE])
            trial = study.ask()
            if is_held() and trial.number == waiting.number:
                with contextlib.suppress(UpdateFinishedTrialError):
                    trial.set_user_attr(WORKER, worker)
                    if _has_heartbeat(study):
                        study._storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]
                    return trial
            lose(study, trial.number, "the lock was lost while it was taken")


def release_lost(study: optuna.Study) -> None:
    """Mark the running trials that nobody runs any more. The caller holds the lock.

    Trials get their worker's name under the lock, so one without a name was left by a process that ended there.
    """
    if _has_heartbeat(study):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            optuna.storages.fail_stale_trials(study)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        worker = trial.user_attrs.get(WORKER)
        if worker is None or is_dead(worker):
            lose(study, trial.number, f"worker {worker or 'without a name'} ended")


def lose(study: optuna.Study, number: int, how: str) -> None:
    """Mark a running trial as lost: its place is free again."""
    trial_id = study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    with contextlib.suppress(UpdateFinishedTrialError):
        study._storage.set_trial_user_attr(trial_id, LOST, how)
        study._storage.set_trial_state_values(trial_id, TrialState.FAIL)


def enter(study: optuna.Study, place: int, params: dict[str, Any]) -> None:
    """Put a trial of a place into the queue, with the settings that are known already."""
    study.enqueue_trial(params, user_attrs={PLACE: place})


def _next_waiting(study: optuna.Study, n_trials: int) -> FrozenTrial | None:
    """Return the first trial of the queue, which is filled where it is empty and a place is free."""
    while True:
        trials = study.get_trials(deepcopy=False)
        places = counted(trials)
        for trial in trials:
            if trial.state == TrialState.WAITING:
                place = trial.user_attrs.get(PLACE)
                if place is not None and places[place].number == trial.number:
                    return trial
                lose(study, trial.number, "its place was taken twice")
        free = next((place for place in range(n_trials) if place not in places), None)
        if free is None or len(places) >= n_trials:
            return None
        lost = [trial for trial in trials if trial.user_attrs.get(PLACE) == free]
        n_losses = sum(WORKER in trial.user_attrs and not _was_interrupted(trial) for trial in lost)
        params = next((trial.params for trial in reversed(lost) if SETTINGS in trial.user_attrs), {})
        started = next((_fixed_params(trial) for trial in lost if _fixed_params(trial)), {})
        if n_losses >= MAX_LOSSES:
            _give_up(study, free, lost[-1])
        else:
            enter(study, free, params or started)


INTERRUPTED = "interrupted"
"""How a trial is lost whose worker was told to end."""


def _was_interrupted(trial: FrozenTrial) -> bool:
    return bool(trial.user_attrs.get(LOST) == INTERRUPTED)


def _fixed_params(trial: FrozenTrial) -> dict[str, Any]:
    return dict(trial.system_attrs.get("fixed_params", {}))


def _give_up(study: optuna.Study, place: int, lost: FrozenTrial) -> None:
    """Record a place as failed, with the settings that were tried."""
    how = lost.user_attrs.get(LOST, "no sign of life")
    reason = f"killed: its worker was lost {MAX_LOSSES} times ({how}), perhaps for want of memory"
    attributes = {PLACE: place, REASON: reason, SETTINGS: lost.user_attrs.get(SETTINGS)}
    study.add_trial(
        optuna.create_trial(
            state=TrialState.FAIL, params=lost.params, distributions=lost.distributions, user_attrs=attributes
        )
    )


def _has_heartbeat(study: optuna.Study) -> bool:
    interval = getattr(study._storage, "get_heartbeat_interval", lambda: None)
    try:
        return interval() is not None
    except AttributeError:
        return False
