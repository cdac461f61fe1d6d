"""The best few settings once more with other seeds: the mean decides, not the luck of one draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from gru4rec.errors import GRU4RecError
from gru4rec.tune.claims import PLACE, SETTINGS
from gru4rec.tune.objective import Trainer

N_CANDIDATES = 3

_VALUES = "candidates"
"""The study's attribute that holds values by trial and seed."""


def choose(
    best: Sequence[FrozenTrial], study: optuna.Study, trainer: Trainer, *, n_seeds: int, tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Train the best trials' settings with several seeds.

    Args:
        best: Complete trials, the best first.
        study: Remembers the values, so that a study that is gone on with does not train again.
        trainer: Trains and measures.
        n_seeds: Seeds of each candidate; the first is the trial's own, whose value is known.
        tell: Called with a line a training.

    Returns:
        ``number`` and ``place`` of the trial, ``values`` (None where training failed) and their ``mean``; the best mean
        first, where all trainings succeeded.
    """
    rows = [_candidate(trial, study, trainer, n_seeds, tell) for trial in best[:N_CANDIDATES]]
    return sorted(rows, key=lambda row: (row["mean"] is None, -(row["mean"] or 0.0)))


def _candidate(
    trial: FrozenTrial, study: optuna.Study, trainer: Trainer, n_seeds: int, tell: Callable[[str], None]
) -> dict[str, Any]:
    values: list[float | None] = [trial.value]
    for seed in range(1, n_seeds):
        key = f"{trial.number}/{seed}"
        known: dict[str, float | None] = study.user_attrs.get(_VALUES, {})
        if key not in known:
            known = {**known, key: _value(trainer, {**trial.user_attrs[SETTINGS], "seed": seed})}
            study.set_user_attr(_VALUES, known)
        values.append(known[key])
        shown = "failed" if known[key] is None else f"{known[key]:.6f}"
        tell(f"candidate of trial {trial.user_attrs[PLACE] + 1}, seed {seed}: {trainer.search.name} {shown}")
    numbers = [value for value in values if value is not None]
    mean = sum(numbers) / len(numbers) if len(numbers) == len(values) else None
    return {"number": trial.number, "place": trial.user_attrs[PLACE], "values": values, "mean": mean}


def _value(trainer: Trainer, settings: dict[str, Any]) -> float | None:
    try:
        return trainer.value_of(settings)
    except GRU4RecError:
        return None
