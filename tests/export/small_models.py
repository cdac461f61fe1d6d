"""Small GRU4Rec model files with random weights, biases too, of every input mode, cell and number type."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gru4rec.bundle import Bundle, save_bundle
from gru4rec.config import hyper_parameters
from gru4rec.data.vocabulary import Vocabulary
from gru4rec.model.network import GRU4RecModel

MODES: dict[str, dict[str, Any]] = {
    "shared": {},
    "separate": {"constrained_embedding": False, "embedding": 5},
    "none": {"constrained_embedding": False},
}
LAYERS = ([8], [7, 8], [6, 7, 8])
CELLS = ("reset_after", "reset_before")
N_ITEMS = 60
INTEGER_IDS = [1000 - 7 * place for place in range(N_ITEMS)]
TEXT_IDS = ["", "007", "7", "ä b", "日本", '"q"\n', *(f"item {place}" for place in range(N_ITEMS - 6))]


def save_model(
    path: Path, ids: Sequence[Any] = INTEGER_IDS, *, dtype: str = "float32", changed: Any = None, **settings: Any
) -> Path:
    """Write a model file.

    Args:
        path: The file.
        ids: Of its items.
        dtype: Of its weights.
        changed: Called with the weights by name, to change some.
        settings: Hyper-parameters.
    """
    checked = hyper_parameters({"layers": [8], **settings})
    rng = np.random.default_rng(11)
    shapes = {name: weight.shape for name, weight in GRU4RecModel(len(ids), checked).state_dict().items()}
    weights = {name: (0.5 * rng.standard_normal(shape)).astype(dtype) for name, shape in shapes.items()}
    if changed is not None:
        changed(weights)
    save_bundle(Bundle(checked, weights, Vocabulary(list(ids)), np.arange(len(ids))[::-1] ** 2), path)
    return path
