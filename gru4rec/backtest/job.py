"""A backtest, all of it: for each window three policies, what they cost, and how they do on the part that follows.

``retrain`` trains anew on everything so far; ``update`` goes on from its own model of the window before; ``stale`` is
the model of the first part. Finished work lies in the folder, so that the same again goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from gru4rec.api import GRU4Rec
from gru4rec.backtest.folder import FORMAT, begin
from gru4rec.backtest.measure import measure
from gru4rec.backtest.warm_up import warm_up
from gru4rec.backtest.windows import Parts, new_items_of
from gru4rec.compare.parts import Parts as Finished
from gru4rec.config import Engine, HyperParameters, Precision, setting_values
from gru4rec.data.sessions import Sessions
from gru4rec.data.vocabulary import Vocabulary
from gru4rec.errors import ModelFileError
from gru4rec.evaluate.evaluator import check_cutoffs
from gru4rec.evaluate.ranks import TieMode
from gru4rec.model.device import cpu_threads
from gru4rec.runs.folder import fingerprint, versions
from gru4rec.update.job import update
from gru4rec.update.settings import UpdateSettings, training_settings

FORMAT_VERSION = 1

POLICIES = ("retrain", "update", "stale")

TITLES = {"retrain": "train anew", "update": "update", "stale": "do nothing"}
"""What the policies are called where people read."""


@dataclass(frozen=True)
class Plan:
    """What decides a backtest, beside its log.

    Attributes:
        settings: What models are trained with.
        update: How updates treat what is old.
        update_training: Settings that an update trains with instead of those above.
        cutoffs: List lengths; the first is the one that is shown.
        ties: Tie mode.
        device: Where models compute.
        threads: CPU threads.
        engine: Which step trains.
        precision: Of the matrix products in training.
    """

    settings: HyperParameters
    update: UpdateSettings = field(default_factory=UpdateSettings)
    update_training: Mapping[str, Any] = field(default_factory=dict)
    cutoffs: Sequence[int] = (20,)
    ties: TieMode = "standard"
    device: str = "cpu"
    threads: int = 1
    engine: Engine = "auto"
    precision: Precision = "float32"

    @property
    def decides(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        return {
            "settings": setting_values(self.settings),
            "update": self.update.values,
            "update_training": setting_values(
                training_settings(self.settings, self.update_training, has_state=True, where="the plan")
            ),
            "cutoffs": list(self.cutoffs),
            "ties": self.ties,
            "device": self.device,
            "threads": self.threads,
            "engine": self.engine,
            "precision": self.precision,
        }


def backtest(parts: Parts, plan: Plan, folder: Path, *, command: str, tell: Callable[[str], None]) -> dict[str, Any]:
    """Carry a backtest out.

    Args:
        parts: The log, cut.
        plan: What decides the rest.
        folder: Gets what is asked for, and finished work, in ``parts/``.
        command: What the report says it was made with.
        tell: Called with a line for each finished piece of work.

    Returns:
        What ``backtest.json`` holds.

    Raises:
        ConfigError: A setting or a list length does not fit.
        DataError: The folder cannot be written to, or a part has no item that was there before.
        DivergedError: Training failed.
    """
    check_cutoffs(plan.cutoffs, parts.up_to(1).items.n_items)
    decided_by = {"plan": plan.decides, "log": fingerprint(parts.log), "cuts": parts.cuts.tolist()}
    begin(folder, {"cut": parts.rule, **decided_by}, tell)
    work = _Work(parts, plan, decided_by, Finished(folder / "parts"), tell)
    first = work.first()
    windows = [work.window(window) for window in range(1, len(parts) - 1)]
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "title": f"Backtest on {Path(parts.log.source).name}",
        "command": command,
        "versions": versions(),
        "log": fingerprint(parts.log),
        "rule": parts.rule,
        "plan": plan.decides,
        "parts": [_counts_of(parts, place) for place in range(len(parts))],
        "first": first,
        "windows": windows,
        "summary": summary_of(windows, [str(k) for k in plan.cutoffs]),
        "n_found": work.finished.n_found,
    }


class _Work:
    """The windows' work, one after the other, each piece read where it was finished before."""

    def __init__(
        self, parts: Parts, plan: Plan, decided_by: Mapping[str, Any], finished: Finished, tell: Callable[[str], None]
    ) -> None:
        self.parts, self.plan, self.finished, self._tell = parts, plan, finished, tell
        self._decided_by = decided_by
        self._models: dict[int, GRU4Rec] = {}
        self._is_warm = False

    def first(self) -> dict[str, Any]:
        """Return how the model of the first part does on the second, and what it cost."""

        def make() -> dict[str, Any]:
            cost = self._make_model(0)
            return {**cost, **self._measure(self._models[0], 1, None)}

        return self._numbers("first", 0, make)

    def window(self, window: int) -> dict[str, Any]:
        """Return what the policies do with part ``window``, counted from 0, measured on the next."""
        new_items = new_items_of(self.parts, window)
        making = {"retrain": self._retrain, "update": self._update, "stale": self._stay}
        policies = {
            policy: self._numbers(policy, window, partial(making[policy], window, new_items)) for policy in POLICIES
        }
        return {"window": window, "policies": policies}

    def _numbers(self, policy: str, window: int, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        n_found = self.finished.n_found
        numbers = self.finished.numbers({"part": policy, "window": window, **self._decided_by}, make)
        k = str(self.plan.cutoffs[0])
        what = f"window {window} of {len(self.parts) - 2}, {TITLES[policy]}" if window else "the first model"
        self._tell(
            f"{what}: {numbers['seconds']:.1f} s, "
            f"MRR@{k} {numbers['all']['mrr'][k]:.4f}{' (found)' if self.finished.n_found > n_found else ''}"
        )
        return numbers

    def _retrain(self, window: int, new_items: Vocabulary | None) -> dict[str, Any]:
        log = self.parts.up_to(window + 1)
        gru, cost = self._fit(log, keep_state=False)
        return {**cost, **self._measure(gru, window + 1, new_items)}

    def _update(self, window: int, new_items: Vocabulary | None) -> dict[str, Any]:
        cost = self._make_model(window)
        return {**cost, **self._measure(self._models[window], window + 1, new_items)}

    def _stay(self, window: int, new_items: Vocabulary | None) -> dict[str, Any]:
        return {"seconds": 0.0, "cpu_seconds": 0.0, **self._measure(self._model(0), window + 1, new_items)}

    def _model(self, window: int) -> GRU4Rec:
        """Return the updated model of a window, 0 being that of the first part: kept, from its file, or made anew."""
        if window not in self._models:
            try:
                self._models[window] = GRU4Rec.loadmodel(self._path(window), device=self.plan.device)
            except ModelFileError:
                self._make_model(window)
        return self._models[window]

    def _make_model(self, window: int) -> dict[str, Any]:
        """Train the first part's model, or update that of the window before; returns what it cost."""
        if window == 0:
            gru, cost = self._fit(self.parts.up_to(1), keep_state=True)
        else:
            gru, cost = self._fit_update(self._model(window - 1), window)
            self._models.pop(window - 1 or -1, None)  # that of the first part is kept
        gru.savemodel(self._path(window))
        self._models[window] = gru
        return cost

    def _fit(self, log: Sessions, *, keep_state: bool) -> tuple[GRU4Rec, dict[str, Any]]:
        plan = self.plan
        gru, clock = GRU4Rec(device=plan.device, **setting_values(plan.settings)), self._clock()
        gru.fit(
            log, threads=plan.threads, engine=plan.engine, precision=plan.precision, keep_state=keep_state,
            on_epoch=lambda report: None,
        )  # fmt: skip
        return gru, clock.cost

    def _fit_update(self, before: GRU4Rec, window: int) -> tuple[GRU4Rec, dict[str, Any]]:
        plan, new, old = self.plan, self.parts.part(window), self.parts.up_to(window)
        clock = self._clock()
        updated = update(
            before, new, replay=old, settings=plan.update, threads=plan.threads, engine=plan.engine,
            precision=plan.precision, on_epoch=lambda report: None, tell=self._tell, **plan.update_training,
        )  # fmt: skip
        return updated.gru, {**clock.cost, "account": updated.account}

    def _clock(self) -> _Clock:
        """Return a clock that begins now; before the first of a process, what is slow only once is done."""
        if not self._is_warm:
            plan, self._is_warm = self.plan, True
            warm_up(
                plan.settings, plan.update_training, device=plan.device, threads=plan.threads, engine=plan.engine,
                precision=plan.precision,
            )  # fmt: skip
        return _Clock()

    def _measure(self, gru: GRU4Rec, place: int, new_items: Vocabulary | None) -> dict[str, Any]:
        with cpu_threads(self.plan.threads):
            return measure(gru, self.parts.part(place), new_items, cutoffs=self.plan.cutoffs, ties=self.plan.ties)

    def _path(self, window: int) -> Path:
        return self.finished.path_of({"part": "model", "window": window, **self._decided_by}, "gru4rec")


class _Clock:
    """Wall time and processor time since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    @property
    def cost(self) -> dict[str, Any]:
        return {"seconds": time.perf_counter() - self._wall, "cpu_seconds": time.process_time() - self._cpu}


def _counts_of(parts: Parts, place: int) -> dict[str, Any]:
    part, new_items = parts.part(place), new_items_of(parts, place)
    return {
        "n_sessions": part.n_sessions,
        "n_events": part.n_events,
        "n_items": part.items.n_items,
        "n_new_items": 0 if new_items is None else new_items.n_items,
        "first_start": part.start_time[0].item(),
    }


def summary_of(windows: Sequence[Mapping[str, Any]], cutoffs: Sequence[str]) -> dict[str, Any]:
    """Return means over the windows by policy, sums of seconds, and how updating stands to training anew.

    A window counts as much as any other, however many targets it has.
    """
    summary: dict[str, Any] = {}
    for policy in POLICIES:
        rows = [window["policies"][policy] for window in windows]
        summary[policy] = {
            "seconds": sum(row["seconds"] for row in rows),
            "cpu_seconds": sum(row["cpu_seconds"] for row in rows),
            **{
                which: {
                    metric: {k: _mean([row[which][metric][k] for row in rows]) for k in cutoffs}
                    for metric in ("recall", "mrr")
                }
                for which in ("all", "known")
            },
            "new": {
                key: {k: _mean([row["new"][key][k] for row in rows]) for k in cutoffs}
                for key in ("recall", "share_of_lists", "share_of_places")
            },
        }
    new, old = summary["update"], summary["retrain"]
    summary["update_over_retrain"] = {
        "seconds": new["seconds"] / old["seconds"],
        "cpu_seconds": new["cpu_seconds"] / old["cpu_seconds"],
        **{
            metric: {k: _ratio(new["all"][metric][k], old["all"][metric][k]) for k in cutoffs}
            for metric in ("recall", "mrr")
        },
    }
    return summary


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are there."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def _ratio(value: float, to: float) -> float | None:
    return value / to if to else None
