"""A comparison, carried out: tune, fit, measure, and put all numbers together. Finished parts are kept and found again.

The test log is read to count its events, and scored once a model, after all settings are fixed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gru4rec.baselines.files import HYBRID, Fitted, hybrid_of
from gru4rec.baselines.hybrid_choice import choose_settings
from gru4rec.baselines.kinds import checked
from gru4rec.baselines.settings import HybridSettings
from gru4rec.baselines.sparse import SparseScorer
from gru4rec.compare.checks import check_logs, check_model, check_order, check_ties, finding, unseen_targets
from gru4rec.compare.cost import both, cost_of, scoring
from gru4rec.compare.fitting import Fit, Machine, check_saved, evaluation_of, fit, judged, measure
from gru4rec.compare.heading import command_of, heading
from gru4rec.compare.logs import Logs, digest, read_logs
from gru4rec.compare.measures import N_LISTED, Measured, Measures
from gru4rec.compare.page import SEVERITIES
from gru4rec.compare.parts import Parts
from gru4rec.compare.plan import GRU4REC, SAVED, Plan, Row
from gru4rec.compare.tuning import check_optuna, tune
from gru4rec.data.sessions import Sessions
from gru4rec.errors import ConfigError, GRU4RecError


@dataclass(frozen=True)
class Outcome:
    """What a comparison gave.

    Attributes:
        results: What results.json holds.
        measured: The models that could be measured, best first.
        n_parts_found: Parts that an earlier call had finished.
        n_parts_made: Parts that this call computed.
    """

    results: dict[str, Any]
    measured: list[Measured]
    n_parts_found: int
    n_parts_made: int


def compare(
    plan: Plan,
    folder: str | Path,
    *,
    machine: Machine | None = None,
    command: str = "",
    tell: Callable[[str], None] = lambda message: None,
) -> Outcome:
    """Carry a plan out.

    Args:
        plan: From :func:`gru4rec.compare.plan.read_plan`.
        folder: Where finished parts are kept, under ``parts``.
        machine: Device and threads.
        command: What the report names as the command that made it.
        tell: Called with a line on what is done.

    Raises:
        DataError: A log cannot be used, or the folder cannot be written to.
        ConfigError: The plan does not fit to the logs, or a library is missing.
    """
    if any(row.space is not None for row in plan.rows):
        check_optuna()
    logs = read_logs(plan.data, needs_valid=plan.needs_valid, where=plan.source, tell=tell)
    _check_fits_logs(plan, logs)
    parts = Parts(Path(folder) / "parts")
    return _Run(plan, parts, logs, machine or Machine(), tell).outcome(command)


def _check_fits_logs(plan: Plan, logs: Logs) -> None:
    """Refuse what can only be found wrong once the logs are known, before anything is fitted."""
    n_items, n_candidates = logs.test.items.n_items, plan.evaluation.candidates
    if max(plan.evaluation.k) > n_items:
        raise ConfigError(
            f"{plan.source}: k = {max(plan.evaluation.k)} is more than the {n_items} items of {logs.train.source}. "
            f"Give list lengths up to {n_items}"
        )
    if n_candidates is not None and n_candidates >= n_items:
        raise ConfigError(
            f"{plan.source}: candidates = {n_candidates} are too many, as {logs.train.source} has {n_items} items. "
            f"Give {n_items - 1} or fewer, or leave candidates out"
        )
    for row in plan.rows:
        if row.path is not None:
            check_saved(row.name, row.path, logs.train)


class _Run:
    """One comparison: what is known of it so far."""

    def __init__(self, plan: Plan, parts: Parts, logs: Logs, machine: Machine, tell: Callable[[str], None]) -> None:
        self.plan, self.parts, self.logs, self.machine, self.tell = plan, parts, logs, machine, tell
        self.digests = {id(log): digest(log) for log in (logs.train, logs.test, logs.train_tr, logs.train_valid) if log}
        self.settings: dict[str, dict[str, Any]] = {}
        self.tuning: dict[str, dict[str, Any] | None] = {}
        self.rows = {row.name: row for row in plan.rows}
        self.list_length = min(max(*plan.evaluation.k, N_LISTED), logs.test.items.n_items)

    def outcome(self, command: str) -> Outcome:
        """Do all of it."""
        errors = {row.name: self._fix_settings(row) for row in self.plan.rows}
        measures = Measures(self.logs.test, self.logs.train, self.plan.evaluation, self.plan.primary)
        models, measured = [], []
        findings = list(check_logs(self.logs.train, self.logs.test))
        unseen_T = unseen_targets(self.logs.train, self.logs.test)
        for row in self.plan.rows:
            said, evaluated, fitted = self._model(row, errors[row.name], measures)
            models.append(said)
            if evaluated is None or fitted is None:
                continue
            measured.append(evaluated)
            k = self.plan.primary[1]
            scorer = fitted.scorer if fitted.items.same_as(self.logs.test.items) else None
            findings += check_model(row.name, scorer, evaluated.first, unseen_T, k, self.plan.evaluation)
            if said["ties"] is not None:
                findings += check_ties(row.name, said["ties"], k)
        findings += check_order(models, self.plan.primary)
        if measured and not any(one["severity"] == "error" and one["model"] for one in findings):
            findings.append(
                finding(
                    "good", "No model shows signs of knowing the test log", "Lists do not change with what follows."
                )
            )
        if not measured:
            raise ConfigError(f"no model of the plan could be measured; the first: {models[0]['error']}")
        measured.sort(key=lambda model: -float(model.values[self.plan.primary].mean()))
        results = {
            **heading(self.plan, self.logs, self.digests, self.machine, command),
            "models": models,
            "pairs": measures.pairs(measured),
            "checks": sorted(findings, key=lambda one: SEVERITIES.index(one["severity"])),
            "examples": measures.examples(measured),
        }
        return Outcome(results, measured, self.parts.n_found, self.parts.n_made)

    def _fix_settings(self, row: Row) -> str | None:
        """Tune a model, or choose a hybrid's blend; return what went wrong."""
        self.settings[row.name], self.tuning[row.name] = row.settings, None
        try:
            if row.space is not None:
                found = tune(row, self.plan.n_trials, self.plan.evaluation.seed, self._valid_value(row), self.tell)
                self.settings[row.name] = found.pop("settings")
                self.tuning[row.name] = found
            elif row.kind == HYBRID and not row.settings:
                self.settings[row.name] = self._blend(row)
        except GRU4RecError as error:
            self.tell(f"{row.name}: {error}")
            return str(error)
        return None

    def _valid_value(self, row: Row) -> Callable[[dict[str, Any]], dict[str, Any]]:
        """Return a function that measures settings of a model on the validation log."""
        train_tr, valid = self._valid_logs()
        ties, seed = self.plan.evaluation.ties, self.plan.evaluation.seed

        def value(settings: dict[str, Any]) -> dict[str, Any]:
            def make() -> dict[str, Any]:
                made = fit(row.kind, settings, row.seeds[0], train_tr, self.machine)
                number = judged(made.fitted.scorer, valid, self.plan.judged_by, ties, seed, self.machine)
                return {"value": number, "seconds": made.report["train_s"]}

            what = self._what("trial", row, settings, row.seeds[0], train_tr)
            on = {"valid": self.digests[id(valid)], "by": self.plan.judged_by, "ties": ties, "tie_seed": seed}
            return self.parts.numbers({**what, **on}, make)

        return value

    def _valid_logs(self) -> tuple[Sessions, Sessions]:
        train_tr, valid = self.logs.train_tr, self.logs.train_valid
        assert train_tr is not None
        assert valid is not None
        return train_tr, valid

    def _blend(self, row: Row) -> dict[str, Any]:
        """Choose a hybrid's settings with parts that were fitted to ``train_tr``."""
        train_tr, valid = self._valid_logs()
        model, neighbours = self._parts_of(row)
        what = {
            "part": "blend",
            "model": self._what("fit", model, self.settings[model.name], model.seeds[0], train_tr),
            "neighbours": self._what("fit", neighbours, self.settings[neighbours.name], 0, train_tr),
            "valid": self.digests[id(valid)],
            "k": self.plan.primary[1],
        }

        def make() -> dict[str, Any]:
            self.tell(f"{row.name}: choosing the blend on {valid.source}")
            of_model = self._fitted(model, model.seeds[0], train_tr).fitted
            of_neighbours = self._fitted(neighbours, 0, train_tr).fitted
            assert isinstance(of_neighbours.scorer, SparseScorer)
            k = min(self.plan.primary[1], train_tr.items.n_items)
            choice = choose_settings(of_model.scorer, of_neighbours.scorer, valid, k=k)
            gains = " ".join(f"{gain:+.1%}" for gain in choice.gains)
            self.tell(f"{row.name}: gains over its better part on {valid.source}: {gains}")
            return {"settings": choice.settings.model_dump(mode="json"), "gains": choice.gains}

        return dict(self.parts.numbers(what, make)["settings"])

    def _parts_of(self, row: Row) -> tuple[Row, Row]:
        assert row.model is not None
        assert row.neighbours is not None
        return self.rows[row.model], self.rows[row.neighbours]

    def _what(self, part: str, row: Row, settings: dict[str, Any], seed: int, train: Sessions) -> dict[str, Any]:
        """Return all that decides a fitted model."""
        seeded = {"seed": seed, "device": self.machine.device} if row.kind == GRU4REC else {}
        if row.path is not None:
            stat = os.stat(row.path) if os.path.exists(row.path) else None
            seeded = {"path": row.path, "size": stat and stat.st_size, "mtime": stat and stat.st_mtime_ns}
        return {"part": part, "kind": row.kind, "settings": settings, **seeded, "train": self.digests[id(train)]}

    def _fitted(self, row: Row, seed: int, train: Sessions) -> Fit:
        """Return a fitted model; hybrids are put together of their parts."""
        if row.kind == HYBRID:
            model, neighbours = (self._fitted(part, seed, train) for part in self._parts_of(row))
            settings = checked(HybridSettings, self.settings[row.name], row.name)
            return Fit(hybrid_of(model.fitted, neighbours.fitted, settings), both(model.report, neighbours.report))

        def make() -> Fit:
            self.tell(f"{row.name}: fitting to {train.source}" + (f", seed {seed}" if row.kind == GRU4REC else ""))
            return fit(row.kind, self.settings[row.name], seed, train, self.machine, path=row.path)

        if row.kind == SAVED:
            return make()
        what = self._what("fit", row, self.settings[row.name], seed, train)
        return self.parts.fitted(what, make, device=self.machine.device)

    def _model(
        self, row: Row, error: str | None, measures: Measures
    ) -> tuple[dict[str, Any], Measured | None, Fitted | None]:
        """Fit a model to the whole training log, and measure it.

        Returns:
            What the report says; its evaluations, and the fitted model of the first seed, where it could be measured.
        """
        said: dict[str, Any] = {
            "name": row.name, "kind": row.kind, "settings": self.settings[row.name], "error": error,
            "tuning": self.tuning[row.name], "command": command_of(row, self.settings[row.name], self.plan),
            "seeds": list(self._seeds(row)) if self._is_seeded(row) else [],
        }  # fmt: skip
        if error is not None:
            return said, None, None
        measured, curves, costs, first = Measured(row.name, {}), {}, [], None
        try:
            for seed in self._seeds(row):
                made = self._fitted(row, seed, self.logs.train)
                first = first or made.fitted
                arrays = self._ranked(row, seed, made.fitted)
                measured.by_seed[seed] = evaluation_of(arrays, self.logs.test)
                curves[str(seed)] = made.report["curve"]
                costs.append({**made.report, **scoring(arrays)})
        except GRU4RecError as problem:
            self.tell(f"{row.name}: {problem}")
            return {**said, "error": str(problem)}, None, None
        self.tell(f"{row.name}: measured")
        numbers = measures.model(measured)
        return (
            {
                **said,
                **numbers,
                "curves": {seed: c for seed, c in curves.items() if c},
                "cost": cost_of(costs, self.logs.test.n_targets),
            },
            measured,
            first,
        )

    def _is_seeded(self, row: Row) -> bool:
        return row.kind == GRU4REC or (row.kind == HYBRID and self._is_seeded(self._parts_of(row)[0]))

    def _seeds(self, row: Row) -> tuple[int, ...]:
        return self._parts_of(row)[0].seeds if row.kind == HYBRID else row.seeds

    def _ranked(self, row: Row, seed: int, fitted: Fitted) -> dict[str, np.ndarray]:
        """Score the test log with a model."""
        what = self._what("ranks", row, self.settings[row.name], seed, self.logs.train)
        if row.kind == HYBRID:
            model, neighbours = self._parts_of(row)
            what["model"] = self._what("fit", model, self.settings[model.name], seed, self.logs.train)
            what["neighbours"] = self._what("fit", neighbours, self.settings[neighbours.name], 0, self.logs.train)
        what |= {"test": self.digests[id(self.logs.test)], "list_length": self.list_length}

        def make() -> dict[str, np.ndarray]:
            self.tell(f"{row.name}: scoring {self.logs.test.source}")
            return measure(fitted, self.logs.test, self.list_length, self.machine)

        return self.parts.arrays(what, make)
