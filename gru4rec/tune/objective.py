"""One trial: train on the training log, measure on the validation log; a failure is a result with a reason."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import optuna
import torch

from gru4rec.api import GRU4Rec
from gru4rec.data.sessions import Sessions
from gru4rec.errors import GRU4RecError
from gru4rec.evaluate.evaluator import evaluate
from gru4rec.model.device import cpu_threads, threads_that_help
from gru4rec.train.loop import EpochReport
from gru4rec.tune.claims import SETTINGS
from gru4rec.tune.space import draw
from gru4rec.tune.study import Search


@dataclass(frozen=True)
class Trainer:
    """Trains and measures settings.

    Attributes:
        model_class: The class GRU4Rec, or one built on it.
        device: Where.
        threads: CPU threads at most; settings too small for them take one.
        search: What is measured.
        train: The training sessions.
        valid: The validation sessions, in the same vocabulary.
    """

    model_class: type[GRU4Rec]
    device: str
    threads: int
    search: Search
    train: Sessions
    valid: Sessions

    def value_of(
        self,
        settings: dict[str, Any],
        *,
        on_epoch: Callable[[int, Callable[[], float]], None] = lambda epoch, value: None,
        on_step: Callable[[int], None] = lambda n_events: None,
    ) -> float:
        """Return the validation metric of settings.

        Args:
            settings: Those given; the others have their defaults.
            on_epoch: Called after each epoch but the last, with its number and what measures the model as it is.
            on_step: Called every now and then, while it trains and while it measures.

        Raises:
            GRU4RecError: Training diverged, or the settings do not go together.
        """
        gru = self.model_class(device=self.device).set_params(**settings)

        def after(report: EpochReport) -> None:
            if report.epoch < gru.settings.n_epochs:
                on_epoch(report.epoch, lambda: self._measured(gru, on_step))

        gru.fit(
            self.train,
            on_epoch=after,
            on_step=on_step,
            threads=min(self.threads, threads_that_help(gru.settings)),
            engine=self.search.engine,
            precision=self.search.precision,
        )
        return self._measured(gru, on_step)

    def _measured(self, gru: GRU4Rec, on_step: Callable[[int], None]) -> float:
        with cpu_threads(self.threads):
            evaluation = evaluate(gru.scorer(), self.valid, on_step=on_step)
        recall, mrr = evaluation.metrics([self.search.k], self.search.mode, seed=gru.settings.draw_seed)
        return (recall if self.search.metric == "recall" else mrr)[self.search.k]


def run_trial(trial: optuna.Trial, trainer: Trainer, on_step: Callable[[int], None]) -> float:
    """Draw settings, and return their validation metric.

    Raises:
        TrialPruned: The pruner ended it.
        Exception: What went wrong; see :func:`reason_of`.
    """
    search = trainer.search
    settings = draw(search.space, trial, search.fixed)
    trial.set_user_attr(SETTINGS, settings)

    def prune(epoch: int, value: Callable[[], float]) -> None:
        if search.pruner == "none":
            return
        trial.report(value(), epoch)
        if trial.should_prune():
            raise optuna.TrialPruned(f"pruned after epoch {epoch}")

    return trainer.value_of(settings, on_epoch=prune, on_step=on_step)


def reason_of(error: Exception) -> str:
    """Say why a trial failed."""
    if isinstance(error, GRU4RecError):
        return f"{type(error).__name__}: {error}"
    first = str(error).partition("\n")[0]
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and re.search("alloc|out of memory|overflowed", str(error))
    ):
        return f"out of memory: {first}. Lower layers, embedding, n_sample or batch_size"
    return f"{type(error).__name__}: {first}"


def free_memory() -> None:
    """Let go of what a trial has used."""
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
