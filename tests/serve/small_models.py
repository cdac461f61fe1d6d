"""Small GRU4Rec model files with random weights, for services that are asked and not admired."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gru4rec.bundle import Bundle, save_bundle
from gru4rec.config import hyper_parameters
from gru4rec.data.vocabulary import Vocabulary
from gru4rec.model.network import GRU4RecModel


def random_model(
    path: Path, *, n_items: int = 300, layers: Sequence[int] = (16,), seed: int = 0, text_ids: bool = False
) -> Path:
    """Write a model file. No two items have the same support, and an item's id is not its index.

    Args:
        path: The file.
        n_items: Number of items; their ids are 0..n_items-1, or ``item-0`` and so on.
        layers: Sizes of the GRU layers.
        seed: Of the weights, the supports and the order of the ids.
        text_ids: Whether ids are text.

    Returns:
        ``path``.
    """
    settings = hyper_parameters({"layers": list(layers)})
    rng = np.random.default_rng(seed)
    numbers = rng.permutation(n_items).tolist()
    ids: list[Any] = [f"item-{number}" for number in numbers] if text_ids else numbers
    shapes = {name: weight.shape for name, weight in GRU4RecModel(n_items, settings).state_dict().items()}
    weights = {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}
    save_bundle(Bundle(settings, weights, Vocabulary(ids), rng.permutation(n_items) + 1), path)
    return path
