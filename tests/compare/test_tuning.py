"""Tuning: the plan's settings first, none twice, and the tuner knows what was found."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("optuna")

from gru4rec.baselines.kinds import baseline_settings
from gru4rec.compare.plan import Row
from gru4rec.compare.tuning import tune
from gru4rec.errors import DataError
from gru4rec.tune.space import Dimension, space_of


def row_of(space: list[dict[str, Any]], **settings: Any) -> Row:
    values = baseline_settings("vsknn", settings).model_dump(mode="json")
    return Row(name="V", kind="vsknn", settings=values, seeds=(0,), space=dimensions(space))


def dimensions(space: list[dict[str, Any]]) -> tuple[Dimension, ...]:
    return space_of(space, where="the test")


def tuned(row: Row, n_trials: int, value: Any = None) -> tuple[list[dict[str, Any]], list[str]]:
    """Tune with a value that is known beforehand; return the trials and what was told."""
    told: list[str] = []

    def measured(settings: dict[str, Any]) -> dict[str, Any]:
        return {"value": (value or (lambda found: float(found["k"])))(settings), "seconds": 0.0}

    return tune(row, n_trials, 42, measured, told.append)["trials"], told


CHOICES = [
    {"name": "k", "dtype": "categorical", "values": [5, 50, 100]},
    {"name": "exclude_last", "dtype": "categorical", "values": [False, True]},
]


def as_pairs(trials: list[dict[str, Any]]) -> list[tuple[int, bool]]:
    return [(trial["settings"]["k"], trial["settings"]["exclude_last"]) for trial in trials]


def test_small_space_is_tried_whole_and_nothing_twice() -> None:
    trials, told = tuned(row_of(CHOICES, k=50, exclude_last=False), 20)
    pairs = as_pairs(trials)
    assert pairs[0] == (50, False), "the plan's own settings come first"
    assert sorted(pairs) == [(k, last) for k in (5, 50, 100) for last in (False, True)]
    assert [trial["number"] for trial in trials] == list(range(6))
    assert told[0].startswith("V: trial 1 of 20: 50.0000 ")
    assert told[-1] == "V: all 6 settings of its space were tried"


def test_own_settings_outside_the_space_are_tried_beside_it() -> None:
    pairs = as_pairs(tuned(row_of(CHOICES, k=7, exclude_last=False), 20)[0])
    assert pairs[0] == (7, False)
    assert len(pairs) == len(set(pairs)) == 7


@pytest.mark.parametrize("own", [10, 12], ids=["on a step", "between two steps"])
def test_steps_are_counted_as_settings(own: int) -> None:
    space = [{"name": "k", "dtype": "int", "values": [5, 25], "step": 5}]  # 5, 10, 15, 20, 25
    trials, _ = tuned(row_of(space, k=own), 20)
    values = [trial["settings"]["k"] for trial in trials]
    assert values[0] == own
    assert sorted({*values, own}) == sorted({5, 10, 15, 20, 25, own})
    assert len(values) == len(set(values))


def test_failed_settings_are_not_tried_again() -> None:
    def value(settings: dict[str, Any]) -> float:
        if settings["k"] == 50:
            raise DataError("out of memory")
        return float(settings["k"])

    trials, _ = tuned(row_of(CHOICES, k=50, exclude_last=False), 20, value)
    assert len(trials) == len(set(as_pairs(trials))) == 6
    assert [trial["status"] for trial in trials].count("failed") == 2


def test_same_seed_proposes_the_same_and_a_wide_space_gets_all_trials() -> None:
    space = [{"name": "decay", "dtype": "float", "values": [0.5, 8.0]}, *CHOICES]
    first, again = (tuned(row_of(space, k=50), 30, lambda found: -abs(found["decay"] - 3.0))[0] for _ in range(2))
    assert first == again
    assert len(first) == 30
    assert first[0]["settings"]["decay"] == 2.0, "the default"


def test_tuner_learns_from_the_plans_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    import optuna

    told: list[tuple[dict[str, Any], float | None]] = []
    tell = optuna.study.Study.tell

    def watched(self: Any, trial: Any, values: Any = None, **options: Any) -> Any:
        told.append((dict(trial.params), values))
        return tell(self, trial, values, **options)

    monkeypatch.setattr(optuna.study.Study, "tell", watched)
    tuned(row_of(CHOICES, k=50, exclude_last=False), 3)
    assert told[0] == ({"k": 50, "exclude_last": False}, 50.0)
