"""Baselines and hybrids in model files, beside GRU4Rec's own: saved, loaded and served alike (docs/model-format.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gru4rec.baselines.hybrid import HybridScorer
from gru4rec.baselines.kinds import KINDS, baseline_settings, checked
from gru4rec.baselines.settings import BaselineSettings, HybridSettings
from gru4rec.baselines.sparse import SparseScorer
from gru4rec.bundle import (
    FORMAT_NAME,
    Bundle,
    ModelFile,
    bundle_of,
    damage_named,
    read_model_file,
    write_model_file,
)
from gru4rec.config import setting_values
from gru4rec.data.vocabulary import Vocabulary
from gru4rec.errors import ConfigError, ModelFileError
from gru4rec.evaluate.evaluator import Scorer
from gru4rec.model.scorer import GRUScorer

HYBRID = "hybrid"
FORMAT_VERSION = 2
_MODEL, _NEIGHBOURS = "model.", "neighbours."


@dataclass(frozen=True)
class Fitted:
    """A scorer and what belongs to it: what a model file holds, ready for use.

    Attributes:
        kind: ``gru4rec``, ``hybrid``, or the name of a baseline.
        scorer: Scores items.
        items: The vocabulary.
        support: Int64 (n_items,), training events of each item.
        settings: Of the kind; of GRU4Rec, its hyper-parameters.
        bundle: The weights of a GRU4Rec, or of the one in a hybrid.
        neighbours: The session kNN in a hybrid.
    """

    kind: str
    scorer: Scorer
    items: Vocabulary
    support: np.ndarray
    settings: Any
    bundle: Bundle | None = None
    neighbours: Fitted | None = None

    @property
    def n_bytes(self) -> int:
        """Memory of what was fitted, in bytes; ids are not counted."""
        return sum(array.nbytes for array in _arrays(self).values())


def fitted_gru(bundle: Bundle, *, device: Any = "cpu") -> Fitted:
    """Return a trained GRU4Rec as a scorer among others, without the optimiser's state.

    Raises:
        DivergedError: Its training failed.
    """
    bundle = replace(bundle, training_state=None)
    scorer = GRUScorer(bundle.restore(device=device))
    return Fitted(FORMAT_NAME, scorer, bundle.items, bundle.support, bundle.settings, bundle=bundle)


def hybrid_of(model: Fitted, neighbours: Fitted, settings: HybridSettings) -> Fitted:
    """Blend a GRU4Rec and a session kNN that were fitted to the same log.

    Raises:
        ConfigError: They are of other kinds, or of different catalogues.
    """
    if model.bundle is None or not isinstance(neighbours.scorer, SparseScorer):
        raise ConfigError(
            f"a hybrid blends a gru4rec with a session kNN, not {model.kind} with {neighbours.kind}. Name two such"
        )
    if not model.items.same_as(neighbours.items):
        raise ConfigError("the parts of a hybrid have different items. Fit both to the same log")
    scorer = HybridScorer(model.scorer, neighbours.scorer, settings)
    return Fitted(HYBRID, scorer, model.items, model.support, settings, bundle=model.bundle, neighbours=neighbours)


def save(fitted: Fitted, path: str | Path) -> None:
    """Write a model file; a save that is cut short leaves an old file of that name as it was.

    Raises:
        ModelFileError: The path cannot be written.
    """
    if fitted.kind == FORMAT_NAME:
        content: dict[str, Any] = _content_of_gru(fitted)
        write_model_file(path, content, _arrays(fitted), fitted.items, fitted.support)
        return
    content = {"kind": fitted.kind, "settings": fitted.settings.model_dump(mode="json")}
    if fitted.neighbours is not None:
        content["model"] = _content_of_gru(fitted)
        content["neighbours"] = {
            "kind": fitted.neighbours.kind,
            "settings": fitted.neighbours.settings.model_dump(mode="json"),
        }
    write_model_file(path, content, _arrays(fitted), fitted.items, fitted.support, format_version=FORMAT_VERSION)


def load(path: str | Path, *, device: Any = "cpu") -> Fitted:
    """Read a model file of any kind.

    Args:
        path: The file.
        device: Where a GRU4Rec computes; all others compute on the CPU.

    Raises:
        ModelFileError: The file cannot be used; the message says why.
        DivergedError: The model in it diverged in training.
    """
    file = read_model_file(path)
    if file.kind == FORMAT_NAME:
        return fitted_gru(bundle_of(file, path), device=device)
    with damage_named(path):
        if file.kind == HYBRID:
            return _hybrid(file, path)
        return _baseline(file.kind, file.content["settings"], file.arrays, file, path)


def _hybrid(file: ModelFile, path: str | Path) -> Fitted:
    weights = {name.removeprefix(_MODEL): array for name, array in file.arrays.items() if name.startswith(_MODEL)}
    rest = {
        name.removeprefix(_NEIGHBOURS): array for name, array in file.arrays.items() if name.startswith(_NEIGHBOURS)
    }
    model = fitted_gru(bundle_of(ModelFile(file.content["model"], weights, file.items, file.support), path))
    said = file.content["neighbours"]
    neighbours = _baseline(said["kind"], said["settings"], rest, file, path)
    return hybrid_of(model, neighbours, checked(HybridSettings, file.content["settings"], str(path)))


def _baseline(
    name: str, values: Mapping[str, Any], arrays: dict[str, np.ndarray], file: ModelFile, path: str | Path
) -> Fitted:
    if name not in KINDS:
        raise ModelFileError(f"{path} holds a model of the unknown kind {name!r}. Upgrade: pip install -U gru4rec")
    settings: BaselineSettings = baseline_settings(name, values, where=str(path))
    _check_indices(arrays, file.items.n_items, path)
    scorer = KINDS[name].restore(arrays, file.support, settings)
    return Fitted(name, scorer, file.items, file.support, settings)


def _check_indices(arrays: Mapping[str, np.ndarray], n_items: int, path: str | Path) -> None:
    """Refuse arrays that compiled loops would leave: offsets that fall, indices that point nowhere.

    Raises:
        ModelFileError: One of them does.
    """
    n_sessions = len(arrays["offsets"]) - 1 if "offsets" in arrays else 0
    n_pointed = {"item_idx": n_items, "posted": n_sessions}
    pointed_from = {"offsets": "item_idx", "posting_offsets": "posted", "row_offsets": "item_idx"}
    for name, array in arrays.items():
        if name in n_pointed:
            is_right = array.ndim == 1 and (not array.size or 0 <= array.min() <= array.max() < n_pointed[name])
        elif name in pointed_from:
            is_right = (
                array[0] == 0 and array[-1] == len(arrays[pointed_from[name]]) and bool((np.diff(array) >= 0).all())
            )
            is_right = is_right and (name == "offsets" or len(array) == n_items + 1)
        else:
            is_right = array.ndim == 1 and bool(np.isfinite(array).all())
        if not is_right:
            raise ModelFileError(f"{path} is damaged: {name} points outside the catalogue. Save the model again")


def _content_of_gru(fitted: Fitted) -> dict[str, Any]:
    assert fitted.bundle is not None
    return {
        "settings": setting_values(fitted.bundle.settings),
        "status": fitted.bundle.status,
        "n_epochs_done": fitted.bundle.n_epochs_done,
    }


def _arrays(fitted: Fitted) -> dict[str, np.ndarray]:
    """Return what of a model has to be saved, by name."""
    if fitted.kind == FORMAT_NAME:
        assert fitted.bundle is not None
        return dict(fitted.bundle.weights)
    if fitted.neighbours is None:
        return KINDS[fitted.kind].arrays(fitted.scorer)
    assert fitted.bundle is not None
    return {f"{_MODEL}{name}": array for name, array in fitted.bundle.weights.items()} | {
        f"{_NEIGHBOURS}{name}": array for name, array in _arrays(fitted.neighbours).items()
    }
