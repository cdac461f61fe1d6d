"""Every recorded run of the official program, number by number, through the public class.

The recordings lie in ``golden/``; a folder of the same format that $GRU4REC_GOLDEN names is run as well. Each case is
trained once in float64 and once in float32, fed the recorded negatives.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity.recorded import RecordedNegatives, WatchedStep, own_weights

from gru4rec.api import GRU4Rec, batch_eval
from gru4rec.config import Engine
from gru4rec.data.batches import SessionDataIterator
from gru4rec.data.events import load_events
from gru4rec.data.sessions import Sessions
from gru4rec.evaluate.evaluator import evaluate
from gru4rec.train.loop import Training

HERE = Path(__file__).parent / "golden"
FOLDERS = [HERE, *([Path(os.environ["GRU4REC_GOLDEN"])] if "GRU4REC_GOLDEN" in os.environ else [])]
CASES = [case for folder in FOLDERS for case in sorted(folder.glob("*.json")) if case.with_suffix(".npz").exists()]
DTYPES = [torch.float64, torch.float32]


def case_id(case: Path) -> str:
    return case.stem if case.parent == HERE else f"{case.parent.name}/{case.stem}"


every_case = pytest.mark.parametrize("case", CASES, ids=case_id)
every_engine = pytest.mark.parametrize("engine", ["plain", "fast"])
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=["float64", "float32"])


class WatchedGRU4Rec(GRU4Rec):
    """The public class, with an ear on each step's loss."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.step_losses: list[float] = []

    def _training(self, *arguments: Any) -> Training:
        training = super()._training(*arguments)
        return replace(training, step=WatchedStep(training.step, self.step_losses))


@dataclass
class Run:
    gru: WatchedGRU4Rec
    epoch_losses: list[float]
    recorded: dict[str, Any]
    """Results recorded in the same number type."""
    n_steps_recorded: int
    n_negatives_taken: int
    recorded_step_losses: np.ndarray


@lru_cache(maxsize=4)
def run(case: Path, dtype: torch.dtype, engine: Engine) -> Run:
    facts, steps = json.loads(case.read_text()), np.load(case.with_suffix(".npz"))
    gru = WatchedGRU4Rec(device="cpu", dtype=dtype, **facts["params"])
    weights = own_weights(facts["parameter_shapes"]) if facts["initialisation"] == "own" else None
    negatives = RecordedNegatives(steps["negatives"])
    epochs: list[float] = []
    gru.fit(
        case.parent / "train.tsv",
        initial_weights=weights,
        negatives=negatives,
        engine=engine,
        on_epoch=lambda report: epochs.append(report.loss),
    )
    double = dtype == torch.float64
    return Run(
        gru=gru,
        epoch_losses=epochs,
        recorded=facts["float64"] if double else facts,
        n_steps_recorded=facts["steps"],
        n_negatives_taken=negatives.n_taken,
        recorded_step_losses=steps["loss64" if double else "loss"],
    )


@every_case
def test_schedule_of_recorded_run_agrees_exactly(case: Path) -> None:
    facts, steps = json.loads(case.read_text()), np.load(case.with_suffix(".npz"))
    sessions = Sessions.from_log(load_events(case.parent / "train.tsv"))
    assert sessions.items.ids_of(range(len(facts["item_order_head"]))) == [int(i) for i in facts["item_order_head"]]
    batches = SessionDataIterator(
        sessions, batch_size=facts["params"]["batch_size"], negatives=RecordedNegatives(steps["negatives"])
    )
    n_steps = 0
    for _epoch in range(facts["params"]["n_epochs"]):
        for batch in batches:
            n_valid = steps["n_valid"][n_steps]
            assert len(batch.lanes) == n_valid
            np.testing.assert_array_equal(batch.input_idx, steps["in_idx"][n_steps][:n_valid])
            np.testing.assert_array_equal(batch.target_idx, steps["out_idx"][n_steps][:n_valid])
            np.testing.assert_array_equal(batch.resets, steps["reset"][n_steps][:n_valid])
            n_steps += 1
    assert n_steps == facts["steps"] == len(steps["n_valid"])


@every_case
def test_initial_weights_agree(case: Path) -> None:
    facts = json.loads(case.read_text())
    if facts["initialisation"] == "own":
        weights = {name: torch.from_numpy(array) for name, array in own_weights(facts["parameter_shapes"]).items()}
    else:
        gru = GRU4Rec(device="cpu", **{**facts["params"], "n_epochs": 1})
        gru.items = Sessions.from_log(load_events(case.parent / "train.tsv")).items
        weights = gru._new_model(None).state_dict()
    assert {name: list(weight.shape) for name, weight in weights.items()} == facts["parameter_shapes"]
    for name, (total, absolute, *first) in facts["init"].items():
        weight = weights[name].double()
        np.testing.assert_allclose(weight.sum(), total, rtol=0, atol=1e-9)
        np.testing.assert_allclose(weight.abs().sum(), absolute, rtol=1e-12)
        np.testing.assert_array_equal(weight.flatten()[:4], first)


@every_engine
@every_case
def test_every_step_loss_in_float64_agrees_to_1e_10(case: Path, engine: Engine) -> None:
    result = run(case, torch.float64, engine)
    assert len(result.gru.step_losses) == result.n_negatives_taken == result.n_steps_recorded
    np.testing.assert_allclose(result.gru.step_losses, result.recorded_step_losses, rtol=1e-10)
    np.testing.assert_allclose(result.epoch_losses, result.recorded["epoch_loss"], rtol=1e-10)


@every_engine
@every_case
def test_first_100_step_losses_in_float32_agree_to_1e_5(case: Path, engine: Engine) -> None:
    result = run(case, torch.float32, engine)
    np.testing.assert_allclose(result.gru.step_losses[:100], result.recorded_step_losses[:100], rtol=1e-5)
    np.testing.assert_allclose(result.epoch_losses, result.recorded["epoch_loss"], rtol=1e-4)


@every_engine
@every_case
def test_final_weights_agree(case: Path, engine: Engine) -> None:
    result = run(case, torch.float64, engine)
    for name, (total, absolute, *first) in result.recorded["final"].items():
        weight = result.gru.bundle().weights[name]
        np.testing.assert_allclose(weight.sum(), total, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(np.abs(weight).sum(), absolute, rtol=1e-9)
        np.testing.assert_allclose(weight.ravel()[:4], first, rtol=1e-9)


def assert_metrics_agree(gru: GRU4Rec, case: Path, recorded: dict[str, Any]) -> None:
    test = Sessions.from_log(load_events(case.parent / "test.tsv"), gru.items)
    evaluation = evaluate(gru.scorer(), test)
    for mode, expected in recorded["evaluation"].items():
        cutoff = [int(k) for k in expected["recall"]]
        recall, mrr = evaluation.metrics(cutoff, mode)
        assert evaluation.n_targets == expected["events"]
        np.testing.assert_allclose([recall[k] for k in cutoff], list(expected["recall"].values()), rtol=0, atol=1e-9)
        np.testing.assert_allclose([mrr[k] for k in cutoff], list(expected["mrr"].values()), rtol=0, atol=1e-9)
        assert batch_eval(gru, test, cutoff=cutoff, mode=mode) == (recall, mrr)


@every_dtype
@every_engine
@every_case
def test_metrics_agree_before_and_after_saving(case: Path, dtype: torch.dtype, engine: Engine, tmp_path: Path) -> None:
    result = run(case, dtype, engine)
    assert_metrics_agree(result.gru, case, result.recorded)
    result.gru.savemodel(tmp_path / "model.gru4rec")
    loaded = GRU4Rec.loadmodel(tmp_path / "model.gru4rec", device="cpu")
    assert loaded.dtype == dtype
    assert_metrics_agree(loaded, case, result.recorded)


@every_engine
@every_dtype
@every_case
def test_recommended_list_of_the_probe_session_agrees(case: Path, dtype: torch.dtype, engine: Engine) -> None:
    facts, result = json.loads(case.read_text()), run(case, dtype, engine)
    items = result.gru.items
    assert items is not None
    session = items.ids_of(facts["probe_items"])
    expected_idx, expected_score = result.recorded["probe_top10_idx"], result.recorded["probe_top10_score"]
    found = result.gru.recommend(session, 10)
    assert found.item_ids == items.ids_of(expected_idx)
    np.testing.assert_allclose(found.scores, expected_score, rtol=1e-9 if dtype == torch.float64 else 1e-4)
    live = result.gru.session()
    for item_id in session:
        live.update(item_id)
    assert live.recommend(10) == found
