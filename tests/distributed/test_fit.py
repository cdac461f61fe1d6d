"""Several processes against one, over whole runs: losses of all steps, metrics, lists and files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import GOLDEN, real_log
from distributed.fit_worker import carry_out
from distributed.launching import HERE, fitted, together

from gru4rec.api import GRU4Rec, batch_eval

CASES = sorted(case for case in GOLDEN.glob("*.json") if case.with_suffix(".npz").exists())
SHORT = ("bpr_separate_linear", "xe_shared_plain")
MODES: dict[str, dict[str, Any]] = {
    "shared": {"constrained_embedding": True},
    "separate": {"constrained_embedding": False, "embedding": 40},
    "none": {"constrained_embedding": False, "embedding": 0},
}


@pytest.mark.parametrize(("n_ranks", "every", "n_settings"), [(2, 1, 54), (4, 5, 11)])
def test_sharded_step_in_float64_agrees_with_fast_step(n_ranks: int, every: int, n_settings: int) -> None:
    for status, stdout, stderr in together(n_ranks, HERE / "steps_worker.py", every):
        assert status == 0, stderr
        said = json.loads(stdout)
        assert said["n_settings"] == n_settings
        assert said["largest"] < 1e-12


@pytest.mark.parametrize("is_short", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_recorded_runs_agree_in_three_processes(is_short: bool, tmp_path: Path) -> None:
    cases = [case for case in CASES if (case.stem in SHORT) == is_short]
    assert len(cases) == (2 if is_short else 5)
    facts = {case: json.loads(case.read_text()) for case in cases}
    jobs = [
        {
            "case": str(case), "train": str(GOLDEN / "train.tsv"), "test": str(GOLDEN / "test.tsv"), "double": True,
            "settings": facts[case]["params"], "lists": 10, "save": str(tmp_path / f"{case.stem}.gru4rec"),
        }
        for case in cases
    ]  # fmt: skip
    for case, found in zip(cases, fitted(3, jobs, tmp_path), strict=True):
        recorded = facts[case]["float64"]
        np.testing.assert_allclose(found["losses"], np.load(case.with_suffix(".npz"))["loss64"], rtol=1e-10)
        np.testing.assert_allclose(found["epochs"], recorded["epoch_loss"], rtol=1e-10)
        alone = carry_out(jobs[cases.index(case)] | {"save": str(tmp_path / "alone.gru4rec")})
        assert found["metrics"] == json.loads(json.dumps(alone["metrics"])), case
        assert found["lists"] == alone["lists"], case
        gru, other = (GRU4Rec.loadmodel(tmp_path / f"{name}.gru4rec", device="cpu") for name in (case.stem, "alone"))
        recall, mrr = batch_eval(gru, GOLDEN / "test.tsv", cutoff=[1, 5, 20], mode="conservative")
        assert [{str(k): value for k, value in values.items()} for values in (recall, mrr)] == found["metrics"][
            "conservative"
        ]
        assert gru.bundle().items.same_as(other.bundle().items)
        assert (gru.status, gru.n_epochs_done, gru.settings) == (other.status, other.n_epochs_done, other.settings)
        weights, expected = gru.bundle().weights, other.bundle().weights
        assert weights.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_allclose(weights[name], values, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("n_ranks", [1, 2, 4])
def test_an_epoch_of_a_real_log_agrees_step_by_step(n_ranks: int, tmp_path: Path) -> None:
    folder = real_log("bol")
    jobs = []
    for loss in ("cross-entropy", "bpr-max"):
        for mode in MODES.values():
            settings = {
                "loss": loss, "layers": [40], "batch_size": 250, "n_sample": 512, "n_epochs": 1, "seed": 1,
                "bpreg": 0.5, "dropout_p_embed": 0.2, "dropout_p_hidden": 0.1, "momentum": 0.2, "learning_rate": 0.1,
                "grad_accumulation": 3 if mode is MODES["separate"] else 1, **mode,
            }  # fmt: skip
            settings["logq"] = 1.0 if loss == "cross-entropy" else 0.0
            log = {"train": str(folder / "train.tsv.gz"), "test": str(folder / "test.tsv.gz")}
            jobs += [{**log, "settings": settings, "double": double} for double in (True, False)]
    for job, found in zip(jobs, fitted(n_ranks, jobs, tmp_path, timeout=3000), strict=True):
        alone = carry_out(job)
        off = np.abs(np.array(found["losses"]) / alone["losses"] - 1)
        at_20 = [values["20"] for values in found["metrics"]["conservative"]]
        at_20_alone = [values[20] for values in alone["metrics"]["conservative"]]
        what = "float64" if job["double"] else "float32"
        print(n_ranks, job["settings"]["loss"], what, len(off), off[:100].max(), off.max(), at_20, at_20_alone)
        if job["double"]:
            assert off[:100].max() < 1e-12
            assert off.max() < 1e-7  # 300 steps let the last bits grow
        else:  # rounding makes runs drift apart: no further than two engines of one process do
            plain = np.array(carry_out(job | {"engine": "plain"})["losses"])
            off_plain = np.abs(plain / alone["losses"] - 1)
            print("  the plain engine:", off_plain[:100].max(), off_plain.max())
            assert off[:100].max() < max(1e-5, 4 * off_plain[:100].max())
            assert off.max() < 10 * off_plain.max()
        np.testing.assert_allclose(at_20, at_20_alone, rtol=0, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["cross-entropy", "bpr-max"])
def test_rounded_products_of_two_processes_are_as_near_as_rounding_allows(loss: str, tmp_path: Path) -> None:
    settings = {
        "loss": loss, "layers": [40], "batch_size": 20, "n_sample": 64, "n_epochs": 3, "seed": 1, "momentum": 0.2,
        "learning_rate": 0.1,
    }  # fmt: skip
    log = {"train": str(GOLDEN / "train.tsv"), "test": str(GOLDEN / "test.tsv")}
    job = {**log, "settings": settings, "precision": "bf16"}
    shared, alone, exact = fitted(2, [job], tmp_path)[0], carry_out(job), carry_out(job | {"precision": "float32"})
    off, rounding = (np.abs(np.array(found["losses"]) / alone["losses"] - 1) for found in (shared, exact))
    assert off[:30].max() < rounding[:30].max()
    assert off.mean() < 2 * rounding.mean()
    assert off.mean() > 0  # it was rounded in another place
