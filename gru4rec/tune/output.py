"""What a search leaves in its folder: all trials as JSON, and the best settings as a parameter file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from gru4rec import __version__
from gru4rec.tune.checks import parameter_file_text
from gru4rec.tune.claims import JOB, LOST, MEMORY, PLACE, REASON, SETTINGS, WORKER, is_lost
from gru4rec.tune.space import as_choice
from gru4rec.tune.study import Search
from gru4rec.whole import write_whole

FORMAT, FORMAT_VERSION = "gru4rec-study", 1
_STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed",
           TrialState.RUNNING: "running", TrialState.WAITING: "waiting"}  # fmt: skip
_ADVICE = "Free some space, or give another --run-dir"


def trial_row(trial: FrozenTrial) -> dict[str, Any]:
    """Return a trial as ``study.json`` has it; one that was lost does not count."""
    attributes = trial.user_attrs
    seconds = None
    if trial.datetime_start is not None and trial.datetime_complete is not None:
        seconds = round((trial.datetime_complete - trial.datetime_start).total_seconds(), 3)
    lost = is_lost(trial)
    return {
        "number": trial.number,
        "place": attributes.get(PLACE),
        "state": "lost" if lost else _STATES[trial.state],
        "settings": attributes.get(SETTINGS) or dict(trial.params),
        "value": trial.value if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) else None,
        "seconds": seconds,
        "reason": attributes.get(LOST, "no sign of life of its worker") if lost else attributes.get(REASON),
        "epochs": {str(epoch): value for epoch, value in sorted(trial.intermediate_values.items())},
        "worker": attributes.get(WORKER),
        "job": attributes.get(JOB),
        "memory_bytes": attributes.get(MEMORY),
    }


def number_of(n: int, thing: str) -> str:
    """Count things: ``1 trial``, ``2 trials``."""
    return f"{n} {thing}{'' if n == 1 else 's'}"


def trial_line(row: Mapping[str, Any], n_trials: int, metric: str) -> str:
    """Say what came of a trial, in one line."""
    place = "?" if row["place"] is None else row["place"] + 1
    value = row["state"] if row["value"] is None else f"{metric} {row['value']:.6f}"
    pruned = f" (pruned after {number_of(len(row['epochs']), 'epoch')})" if row["state"] == "pruned" else ""
    seconds = "" if row["seconds"] is None else f" {row['seconds']:.1f}s"
    why = f" {row['reason']}" if row["reason"] else ""
    settings = ",".join(f"{name}={as_choice(value)}" for name, value in row["settings"].items())
    return f"trial {place} of {n_trials}: {value}{pruned}{seconds} {settings}{why}"


def write_study(
    path: Path, search: Search, trials: Iterable[FrozenTrial], *, study_name: str, n_trials: int, storage: str,
    best: int | None, candidates: list[dict[str, Any]], final: Mapping[str, Any] | None,
) -> dict[str, Any]:  # fmt: skip
    """Write ``study.json``, and return what is in it.

    Raises:
        DataError: It cannot be written.
    """
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "gru4rec_version": __version__,
        "study": study_name,
        "storage": storage,
        "n_trials": n_trials,
        **search.as_json(),
        "metric": search.name,
        "best": best,
        "candidates": candidates,
        "final": final,
        "trials": [trial_row(trial) for trial in trials],
    }
    text = json.dumps(content, indent=1, allow_nan=False)
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"), advice=_ADVICE)
    return content


def write_parameters(path: Path, settings: Mapping[str, Any]) -> None:
    """Write a parameter file.

    Raises:
        DataError: It cannot be written.
    """
    text = parameter_file_text(settings)
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"), advice=_ADVICE)
