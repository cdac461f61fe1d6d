"""The state of a search as a table for terminals: the best trials, and those that run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial, TrialState

from gru4rec.tune.claims import counted, is_lost
from gru4rec.tune.output import number_of, trial_row
from gru4rec.tune.space import as_choice

if TYPE_CHECKING:
    from rich.table import Table

N_BEST = 5


def table_of(trials: Sequence[FrozenTrial], n_trials: int, metric: str) -> Table:
    """Return the table."""
    from rich.table import Table

    places = counted(trials).values()
    states = Counter(trial_row(trial)["state"] for trial in places)
    n_lost = sum(is_lost(trial) for trial in trials)
    tally = ", ".join(f"{n} {state}" for state, n in states.items()) or "none yet"
    table = Table(
        title=f"{number_of(n_trials, 'trial')}: {tally}{f' ({n_lost} lost)' if n_lost else ''}", title_justify="left"
    )
    for column in ("trial", metric, "seconds", "epochs", "settings"):
        table.add_column(column, overflow="fold")
    complete = [trial for trial in places if trial.state == TrialState.COMPLETE]
    for trial in sorted(complete, key=lambda trial: -float(trial.value or 0.0))[:N_BEST]:
        table.add_row(*_cells(trial))
    table.add_section()
    for trial in places:
        if trial.state == TrialState.RUNNING:
            table.add_row(*_cells(trial), style="dim")
    return table


def _cells(trial: FrozenTrial) -> tuple[str, ...]:
    row = trial_row(trial)
    seconds = row["seconds"]
    if seconds is None and trial.datetime_start is not None:
        seconds = (datetime.now() - trial.datetime_start).total_seconds()
    value = row["value"] if row["value"] is not None else next(reversed(row["epochs"].values()), None)
    settings = " ".join(f"{name}={as_choice(value)}" for name, value in row["settings"].items())
    shown = "running" if value is None else f"{value:.6f}{' so far' if trial.state == TrialState.RUNNING else ''}"
    return str(row["place"] + 1), shown, f"{seconds or 0:.0f}", str(len(row["epochs"]) or ""), settings
