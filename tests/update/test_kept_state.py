"""Training state in model files: what goes in comes out, older readers refuse it, what does not fit is damaged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import make_sessions
from safetensors import safe_open

import gru4rec.bundle
from gru4rec import GRU4Rec
from gru4rec.baselines.files import load
from gru4rec.bundle import load_bundle, save_bundle
from gru4rec.errors import ModelFileError

SESSIONS = make_sessions([[0, 1, 2], [1, 2, 3], [3, 0], [2, 1, 0, 3]])


def trained(*, keep_state: bool, **settings: object) -> GRU4Rec:
    common = {"layers": [4], "n_sample": 4, "batch_size": 2, "n_epochs": 2, "momentum": 0.1, "device": "cpu"}
    return GRU4Rec(**{**common, **settings}).fit(SESSIONS, keep_state=keep_state, on_epoch=lambda report: None)


@pytest.mark.parametrize(
    "settings",
    [{}, {"constrained_embedding": False, "embedding": 3}, {"constrained_embedding": False}, {"momentum": 0.0}],
    ids=["shared", "separate", "none", "no momentum"],
)
def test_state_is_in_the_file_beside_the_weights_and_comes_back(settings: dict, tmp_path: Path) -> None:
    gru = trained(keep_state=True, **settings)
    kinds = {"accumulator."} if settings.get("momentum") == 0 else {"accumulator.", "velocity."}
    assert gru.training_state is not None
    assert set(gru.training_state) == {kind + name for kind in kinds for name in gru.bundle().weights}
    assert all(np.any(array != 0) for array in gru.training_state.values())
    gru.savemodel(tmp_path / "kept.gru4rec")
    loaded = GRU4Rec.loadmodel(tmp_path / "kept.gru4rec", device="cpu")
    loaded.savemodel(tmp_path / "again.gru4rec")  # nothing is lost on the way
    for path in ("kept.gru4rec", "again.gru4rec"):
        bundle = load_bundle(tmp_path / path)
        assert bundle.training_state is not None
        assert bundle.training_state.keys() == gru.training_state.keys()
        for name, array in gru.training_state.items():
            np.testing.assert_array_equal(bundle.training_state[name], array, strict=True)


def test_state_changes_no_weight_and_no_score(tmp_path: Path) -> None:
    with_state, without = trained(keep_state=True), trained(keep_state=False)
    assert without.training_state is None
    for name, weight in without.bundle().weights.items():
        np.testing.assert_array_equal(with_state.bundle().weights[name], weight)
    with_state.savemodel(tmp_path / "m.gru4rec")
    without.savemodel(tmp_path / "plain.gru4rec")
    for path, version in (("m.gru4rec", 3), ("plain.gru4rec", 1)):
        with safe_open(tmp_path / path, framework="numpy") as file:
            assert json.loads(file.metadata()["gru4rec"])["format_version"] == version
        assert load(tmp_path / path).bundle.weights.keys() == without.bundle().weights.keys()


def test_training_anew_forgets_the_state() -> None:
    gru = trained(keep_state=True)
    assert gru.fit(SESSIONS, on_epoch=lambda report: None).training_state is None


def test_reader_of_version_2_refuses_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(keep_state=True).savemodel(tmp_path / "m.gru4rec")
    monkeypatch.setattr(gru4rec.bundle, "FORMAT_VERSION", 2)
    with pytest.raises(ModelFileError, match=r"format version 3, and this gru4rec .* reads up to 2\. Upgrade"):
        load_bundle(tmp_path / "m.gru4rec")


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("accumulator.Wy.weight", np.ones((3, 4), np.float32)),
        ("accumulator.Wy.weight", None),
        ("velocity.Nothing", np.ones(3, np.float32)),
        ("state_events", np.ones(2)),
    ],
    ids=["another shape", "missing", "of no weight", "two counts"],
)
def test_state_that_does_not_fit_is_damage(name: str, array: np.ndarray | None, tmp_path: Path) -> None:
    bundle = trained(keep_state=True).bundle()
    assert isinstance(bundle.training_state, dict)
    bundle.training_state.pop(name, None)
    if array is not None:
        bundle.training_state[name] = array
    save_bundle(bundle, tmp_path / "m.gru4rec")
    with pytest.raises(ModelFileError, match=f"damaged: {name} has shape"):
        load_bundle(tmp_path / "m.gru4rec")


def test_velocities_without_accumulators_are_damage(tmp_path: Path) -> None:
    bundle = trained(keep_state=True).bundle()
    assert bundle.training_state is not None
    state = {name: array for name, array in bundle.training_state.items() if name.startswith("velocity.")}
    save_bundle(replace(bundle, training_state=state), tmp_path / "m.gru4rec")
    with pytest.raises(ModelFileError, match=r"damaged: accumulator\.By\.weight has shape None"):
        load_bundle(tmp_path / "m.gru4rec")


def test_what_only_scores_leaves_the_state_aside(tmp_path: Path) -> None:
    trained(keep_state=True).savemodel(tmp_path / "m.gru4rec")
    fitted = load(tmp_path / "m.gru4rec")
    assert fitted.bundle is not None
    assert fitted.bundle.training_state is None
