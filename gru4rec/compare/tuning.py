"""Tuning one model of a comparison: every model gets the same number of trials, the plan's settings the first.

No settings are measured twice; a space that holds fewer than the trials is tried whole. Each trial's value is a part on
disk, so an interrupted search goes on: the same seed proposes the same settings.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gru4rec.baselines.kinds import baseline_settings
from gru4rec.compare.plan import GRU4REC, Row
from gru4rec.config import hyper_parameters, setting_values
from gru4rec.errors import ConfigError, GRU4RecError
from gru4rec.tune.space import Dimension, as_choice

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.samplers import BaseSampler

Value = Callable[[dict[str, Any]], dict[str, Any]]
"""Settings in; ``value`` and ``seconds`` out, from disk where they were found before."""

_REPEATS = 20
"""Proposals that were measured before, after which settings are drawn by chance."""
_MANY = 100_000
"""Settings of a space that proposals by chance are expected to find all of."""
_ROUNDING = 1e-9


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
        n_trials: Trials in all, or fewer where the space does not hold as many.
        seed: Of the sampler.
        value: Measures settings on the validation log; may raise, which is a failed trial.
        tell: Called with a line a trial.

    Returns:
        ``trials`` (number, settings, value, seconds, status, error), and the number of the ``best``; ``settings``, all
        of the best one's.

    Raises:
        ConfigError: All trials failed.
    """
    assert row.space is not None
    search = _Search(row, row.space, seed)
    trials: list[dict[str, Any]] = []
    all_settings: list[dict[str, Any]] = []
    while len(trials) < n_trials:
        proposed = search.next()
        if proposed is None:
            tell(f"{row.name}: all {len(trials)} settings of its space were tried")
            break
        settings = completed(row, proposed)
        found = _tried(value, settings)
        search.report(found["value"])
        tried = {dimension.name: settings[dimension.name] for dimension in row.space}
        trials.append({"number": len(trials), "settings": tried, **found})
        all_settings.append(settings)
        shown = "failed" if found["value"] is None else f"{found['value']:.4f}"
        tell(f"{row.name}: trial {len(trials)} of {n_trials}: {shown} {json.dumps(tried)}")
    finished = [trial for trial in trials if trial["value"] is not None]
    if not finished:
        raise ConfigError(f"all {len(trials)} trials of {row.name!r} failed; the first: {trials[0]['error']}")
    best = max(finished, key=lambda trial: (trial["value"], -trial["number"]))["number"]
    return {"trials": trials, "best": best, "settings": all_settings[best]}


class _Search:
    """Proposes settings: the row's own first, then what the tuner expects to be better; none twice."""

    def __init__(self, row: Row, space: tuple[Dimension, ...], seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space = space
        self._tuner: BaseSampler = optuna.samplers.TPESampler(seed=seed)
        self._by_chance: BaseSampler = optuna.samplers.RandomSampler(seed=seed)
        self._study: Study = optuna.create_study(direction="maximize", sampler=self._tuner)
        self._failed = optuna.trial.TrialState.FAIL
        self._trial: Trial | None = None
        self._own = {dimension.name: row.settings[dimension.name] for dimension in space}
        self._seen: set[str] = set()
        self._size = math.prod(map(_n_values, space))
        self._is_first = True

    def next(self) -> dict[str, Any] | None:
        """Return settings that were not tried yet, an empty dict for the row's own; None where there are no more."""
        if self._is_first:
            self._is_first = False
            if not all(_can_propose(dimension, self._own[dimension.name]) for dimension in self._space):
                return {}
            self._study.enqueue_trial({name: as_choice(value) for name, value in self._own.items()})
            self._proposed()
            return {}
        if len(self._seen) >= self._size:
            return None
        self._study.sampler = self._tuner
        for n_repeats in range(_REPEATS * (1 + int(min(self._size, _MANY)))):
            if n_repeats == _REPEATS:
                self._study.sampler = self._by_chance
            if (proposed := self._proposed()) is not None:
                return proposed
        return None

    def _proposed(self) -> dict[str, Any] | None:
        """Ask for settings; None where they were tried before."""
        self._trial = self._study.ask()
        proposed = {dimension.name: dimension.suggest(self._trial) for dimension in self._space}
        key = json.dumps(proposed, sort_keys=True)
        if key in self._seen:
            self.report(None)
            return None
        self._seen.add(key)
        return proposed

    def report(self, value: float | None) -> None:
        """Say how good the settings were that were proposed last; None if they failed."""
        if self._trial is None:
            return  # the row's own, which are not in the space
        if value is None:
            self._study.tell(self._trial, state=self._failed)
        else:
            self._study.tell(self._trial, value)


def _n_values(dimension: Dimension) -> float:
    """Return how many values a dimension has."""
    if dimension.dtype == "categorical":
        return len({json.dumps(as_choice(value)) for value in dimension.values})
    low, high = dimension.values
    step = dimension.step or (1 if dimension.dtype == "int" else None)
    if step is None:
        return math.inf if low < high else 1
    return float((high - low) / step + _ROUNDING) // 1 + 1


def _can_propose(dimension: Dimension, value: Any) -> bool:
    """Tell whether a dimension has a value, at its steps."""
    if not dimension.holds(value):
        return False
    if dimension.dtype == "categorical" or dimension.step is None:
        return True
    n_steps = (value - dimension.values[0]) / dimension.step
    return bool(abs(n_steps - round(n_steps)) < _ROUNDING)


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
