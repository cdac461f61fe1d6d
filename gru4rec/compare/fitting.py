"""Fitting one model to one log, and measuring it on another: the two pieces of work that a comparison is made of."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gru4rec.api import GRU4Rec
from gru4rec.baselines.files import Fitted, fitted_gru, load
from gru4rec.baselines.kinds import baseline_settings, fit_baseline
from gru4rec.compare.memory import AddedMemory
from gru4rec.compare.plan import GRU4REC, SAVED
from gru4rec.data.sessions import Sessions
from gru4rec.errors import ConfigError, DataError, GRU4RecError
from gru4rec.evaluate.evaluator import Evaluation, Scorer, evaluate
from gru4rec.evaluate.metrics import event_values
from gru4rec.evaluate.ranks import RankCounts, TieMode
from gru4rec.model.device import cpu_threads


@dataclass(frozen=True)
class Machine:
    """Where models compute.

    Attributes:
        device: Of GRU4Rec; all others compute on the CPU.
        threads: CPU threads.
    """

    device: str = "cpu"
    threads: int = 1


@dataclass(frozen=True)
class Fit:
    """A fitted model, and what fitting it took.

    Attributes:
        fitted: The model.
        report: ``train_s`` (None: it was only loaded, which took ``load_s``), ``threads``, ``model_bytes``,
            ``added_bytes`` (see :class:`AddedMemory`) and ``curve``.
    """

    fitted: Fitted
    report: dict[str, Any]


def fit(
    kind: str, settings: dict[str, Any], seed: int, train: Sessions, machine: Machine, *, path: str | None = None
) -> Fit:
    """Fit a model of any kind but a hybrid.

    Args:
        kind: ``gru4rec``, ``saved`` or a baseline's name.
        settings: All of them.
        seed: Of a GRU4Rec.
        train: The log.
        machine: Where.
        path: Of a saved model.

    Raises:
        DivergedError: A training failed.
        ModelFileError: A saved model cannot be read.
    """
    memory, started, curve = AddedMemory(), time.perf_counter(), list[dict[str, Any]]()
    with cpu_threads(machine.threads):
        if kind == GRU4REC:
            gru = GRU4Rec(device=machine.device, **{**settings, "seed": seed})
            gru.fit(
                train,
                threads=machine.threads,
                on_epoch=lambda report: curve.append(
                    {"epoch": report.epoch, "loss": report.loss, "seconds": report.seconds}
                ),
            )
            fitted = fitted_gru(gru.bundle(), device=gru.device)
        elif kind == SAVED:
            assert path is not None
            fitted = load(path, device=machine.device)
        else:
            checked = baseline_settings(kind, settings)
            fitted = Fitted(kind, fit_baseline(kind, train, checked), train.items, train.support(), checked)
    seconds = time.perf_counter() - started
    return Fit(
        fitted,
        {
            "train_s": None if kind == SAVED else seconds,
            "load_s": seconds if kind == SAVED else None,
            "threads": machine.threads,
            "model_bytes": fitted.n_bytes,
            "added_bytes": memory.n_bytes(),
            "curve": curve,
        },
    )


def check_saved(name: str, path: str, train: Sessions) -> None:
    """Make sure, before anything is trained, that a saved model can be measured beside the others.

    Raises:
        ConfigError: The file cannot be used, or the model in it knows other items than the training log.
    """
    if not os.path.lexists(path):
        raise ConfigError(f"path of model {name!r}: there is no file {path}. Check the path")
    try:
        fitted = load(path)
    except GRU4RecError as error:
        raise ConfigError(f"path of model {name!r}: {error}") from None
    places = train.items.encode(fitted.items.item_ids)
    if fitted.items.n_items != train.items.n_items or (places < 0).any():
        raise ConfigError(
            f"path of model {name!r}: {path} knows {fitted.items.n_items:,} items, and {train.source} has "
            f"{train.items.n_items:,}, not the same ones: their lists could not be compared. Name a model that was "
            "trained on the plan's training log"
        )


def measure(fitted: Fitted, test: Sessions, list_length: int, machine: Machine) -> dict[str, np.ndarray]:
    """Rank all targets, and keep the lists.

    Returns:
        counts: Int64 (3, T).
        lists: Int32 (T, list_length), in the item indices of ``test``.
        seconds: Float64 (1,).
        threads: Int64 (1,).
    """
    own = test if fitted.items.same_as(test.items) else test.with_vocabulary(fitted.items)
    if own.n_events != test.n_events:
        raise DataError(f"the model knows other items than {test.source}. Train it on the plan's training log")
    started = time.perf_counter()
    with cpu_threads(machine.threads):
        found = evaluate(fitted.scorer, own, list_length=list_length)
    assert found.lists_TK is not None
    lists = found.lists_TK
    if own is not test:
        lists = test.items.encode(fitted.items.item_ids).astype(np.int32)[lists]
    counts = np.stack([found.counts.n_higher, found.counts.n_equal, found.counts.n_equal_before])
    seconds, threads = np.array([time.perf_counter() - started]), np.array([machine.threads])
    return {"counts": counts, "lists": lists, "seconds": seconds, "threads": threads}


def evaluation_of(arrays: dict[str, np.ndarray], test: Sessions) -> Evaluation:
    """Turn what :func:`measure` returned into an evaluation."""
    return Evaluation(RankCounts(*arrays["counts"]), test, arrays["lists"])


def judged(
    scorer: Scorer, valid: Sessions, by: Sequence[tuple[str, int]], ties: TieMode, seed: int, machine: Machine
) -> float:
    """Return the sum of some metrics, which tells tuning how good settings are."""
    with cpu_threads(machine.threads):
        counts = evaluate(scorer, valid).counts
    ranks = counts.ranks(ties, seed=seed)
    return float(sum(np.mean(event_values(ranks, metric, k)) for metric, k in by))
