"""Run by several processes, or called: trains and measures as asked for, and says what came out, step by step.

A job is a dictionary: ``train`` and ``test`` (logs), ``settings``, ``double`` (float64), ``case`` (a recorded run,
whose negatives and initial weights are used), ``save`` (a path), ``lists`` (length of the lists that are kept),
``engine``, ``precision``.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from parity.recorded import RecordedNegatives, WatchedStep, own_weights

from gru4rec.api import GRU4Rec
from gru4rec.data.session_map import load_sessions
from gru4rec.data.sessions import Sessions
from gru4rec.distributed import files
from gru4rec.distributed.group import Group, joined
from gru4rec.distributed.model import DistributedGRU4Rec
from gru4rec.evaluate.evaluator import evaluate
from gru4rec.evaluate.ranks import TIE_MODES


def carry_out(job: dict[str, Any], group: Group | None = None) -> dict[str, Any]:
    """Train and measure, alone or with the other processes of a group."""
    dtype = torch.float64 if job.get("double") else torch.float32
    gru: GRU4Rec
    if group is None:
        gru = GRU4Rec(device="cpu", dtype=dtype, **job["settings"])
    else:
        gru = DistributedGRU4Rec(group, dtype=dtype, **job["settings"])
    losses: list[float] = []
    make_training = gru._training
    gru._training = lambda *given: _watched(make_training(*given), losses)  # type: ignore[method-assign]
    epochs: list[float] = []
    gru.fit(
        job["train"],
        on_epoch=lambda report: epochs.append(report.loss),
        threads=1,
        engine=job.get("engine", "auto"),
        precision=job.get("precision", "float32"),
        **_recorded(job),
    )
    assert gru.items is not None
    test: Sessions = load_sessions(job["test"], vocabulary=gru.items)
    evaluation = evaluate(gru.scorer(), test, list_length=job.get("lists", 0))
    if "save" in job:
        gru.savemodel(job["save"])
        if group is not None:
            check_read(gru, DistributedGRU4Rec.load(job["save"], group), job["save"])
    metrics = {mode: evaluation.metrics([1, 5, 20], mode) for mode in TIE_MODES}
    lists = None if evaluation.lists_TK is None else evaluation.lists_TK.tolist()
    return {"losses": losses, "epochs": epochs, "metrics": metrics, "lists": lists}


def check_read(gru: GRU4Rec, loaded: GRU4Rec, path: str) -> None:
    """Make sure that this process reads what it wrote, as a new model and into one that is there."""
    assert gru.model is not None
    assert loaded.model is not None
    for _ in range(2):
        for name, weight in gru.model.state_dict().items():
            assert torch.equal(loaded.model.state_dict()[name], weight), name
            weight.zero_()
        gru.take_weights(path)


def _watched(training: Any, losses: list[float]) -> Any:
    return replace(training, step=WatchedStep(training.step, losses))


def _recorded(job: dict[str, Any]) -> dict[str, Any]:
    if "case" not in job:
        return {}
    case = Path(job["case"])
    facts, steps = json.loads(case.read_text()), np.load(case.with_suffix(".npz"))
    weights = own_weights(facts["parameter_shapes"]) if facts["initialisation"] == "own" else None
    return {"negatives": RecordedNegatives(steps["negatives"]), "initial_weights": weights}


def main() -> None:
    torch.set_num_threads(1)
    files._BLOCK_BYTES = 4_000  # so that files are of many blocks
    asked, answered = map(Path, sys.argv[1:])
    with joined(torch.device("cpu")) as group:
        results = [carry_out(job, group) for job in json.loads(asked.read_text())]
        if group.is_first:
            answered.write_text(json.dumps(results))


if __name__ == "__main__":
    main()
