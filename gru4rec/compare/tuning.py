"""Tuning one model of a comparison: every model gets the same number of trials, the plan's settings the first.

Each trial's value is a part on disk, so an interrupted search goes on: the same seed proposes the same settings.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from gru4rec.baselines.kinds import baseline_settings
from gru4rec.compare.plan import GRU4REC, Row
from gru4rec.config import hyper_parameters, setting_values
from gru4rec.errors import ConfigError, GRU4RecError

Value = Callable[[dict[str, Any]], dict[str, Any]]
"""Settings in; ``value`` and ``seconds`` out, from disk where they were found before."""


def check_optuna() -> None:
    """Make sure that there is a tuner.

    Raises:
        ConfigError: Optuna is missing.
    """
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise ConfigError("tuning needs optuna, which is missing. Run: pip install 'gru4rec[tune]'") from None


def tune(row: Row, n_trials: int, seed: int, value: Value, tell: Callable[[str], None]) -> dict[str, Any]:
    """Search a model's space.

    Args:
        row: The model; its own settings are the first trial.
        n_trials: Trials in all.
        seed: Of the sampler.
        value: Measures settings on the validation log; may raise, which is a failed trial.
        tell: Called with a line a trial.

    Returns:
        ``trials`` (number, settings, value, seconds, status, error), and the number of the ``best``; ``settings``, all
        of the best one's.

    Raises:
        ConfigError: All trials failed.
    """
    import optuna

    assert row.space is not None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    trials: list[dict[str, Any]] = []
    all_settings: list[dict[str, Any]] = []
    for number in range(n_trials):
        trial = study.ask() if number else None
        proposed = {} if trial is None else {dimension.name: dimension.suggest(trial) for dimension in row.space}
        settings = completed(row, proposed)
        found = _tried(value, settings)
        tried = {dimension.name: settings[dimension.name] for dimension in row.space}
        trials.append({"number": number, "settings": tried, **found})
        all_settings.append(settings)
        if trial is not None and found["value"] is not None:
            study.tell(trial, found["value"])
        elif trial is not None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        shown = "failed" if found["value"] is None else f"{found['value']:.4f}"
        tell(f"{row.name}: trial {number + 1} of {n_trials}: {shown} {json.dumps(tried)}")
    finished = [trial for trial in trials if trial["value"] is not None]
    if not finished:
        raise ConfigError(f"all {n_trials} trials of {row.name!r} failed; the first: {trials[0]['error']}")
    best = max(finished, key=lambda trial: (trial["value"], -trial["number"]))["number"]
    return {"trials": trials, "best": best, "settings": all_settings[best]}


def completed(row: Row, proposed: dict[str, Any]) -> dict[str, Any]:
    """Return all settings, those proposed put over the plan's."""
    values = {**row.settings, **proposed}
    if row.kind == GRU4REC:
        return setting_values(hyper_parameters(values))
    return baseline_settings(row.kind, values).model_dump(mode="json")


def _tried(value: Value, settings: dict[str, Any]) -> dict[str, Any]:
    """Measure settings; a failure is a result."""
    started = time.perf_counter()
    try:
        return {**value(settings), "status": "finished", "error": None}
    except GRU4RecError as error:
        return {"value": None, "seconds": time.perf_counter() - started, "status": "failed", "error": str(error)}
