"""Initial weights: the compatibility draw that recorded runs start from, or independent draws from a seed.

Every matrix is uniform in +-sqrt(6 / (rows + cols)) of each block it is made of; biases are zero.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from gru4rec.config import DEFAULT_SEED
from gru4rec.model.network import GRU4RecModel, GRUCell, GRUEmbedding, ResetBeforeGRUCell

_Uniform = Callable[[int, int], np.ndarray]


def initialise(model: GRU4RecModel, *, seed: int | None) -> None:
    """Fill a model's weights in place.

    Args:
        model: Of any input mode, size and dtype; the draws are float32 numbers in every dtype.
        seed: None draws the compatibility weights (NumPy's legacy generator, seeded with 42); a number draws from a
            generator of its own.
    """
    uniform = _compatible_uniform() if seed is None else _seeded_uniform(seed)
    if model.E is not None:
        _fill(model.E.weight, uniform(*model.E.weight.shape))
    if model.GE is not None:
        _fill_embedding_layer(model.GE, uniform)
    for cell in model.G:
        assert isinstance(cell, GRUCell | ResetBeforeGRUCell)
        _fill_cell(cell, uniform)
    _fill(model.Wy.weight, uniform(*model.Wy.weight.shape))
    nn.init.zeros_(model.By.weight)


def _compatible_uniform() -> _Uniform:
    # NumPy's legacy generator is part of the recorded numbers; the global one is left alone.
    rng = np.random.RandomState(DEFAULT_SEED)

    def uniform(rows: int, cols: int) -> np.ndarray:
        bound: np.float32 = np.float32(np.sqrt(6.0 / (rows + cols)))
        values: np.ndarray = rng.rand(rows, cols).astype(np.float32) * (2 * bound) - bound  # in float32, as recorded
        return values

    return uniform


def _seeded_uniform(seed: int) -> _Uniform:
    rng = np.random.default_rng(seed)

    def uniform(rows: int, cols: int) -> np.ndarray:
        bound = np.sqrt(6.0 / (rows + cols))
        values: np.ndarray = (rng.random((rows, cols)) * 2 * bound - bound).astype(np.float32)
        return values

    return uniform


def _fill_embedding_layer(layer: GRUEmbedding, uniform: _Uniform) -> None:
    n_items, n_hidden = layer.Wx0.num_embeddings, layer.Wh0.shape[0]
    _fill(layer.Wx0.weight, np.hstack([uniform(n_items, n_hidden) for _ in range(3)]))
    _fill(layer.Wrz0, np.hstack([uniform(n_hidden, n_hidden) for _ in range(2)]))
    _fill(layer.Wh0, uniform(n_hidden, n_hidden))
    nn.init.zeros_(layer.Bh0)


def _fill_cell(cell: GRUCell | ResetBeforeGRUCell, uniform: _Uniform) -> None:
    n_hidden, n_input = cell.weight_ih.shape[0] // 3, cell.weight_ih.shape[1]
    blocks = [uniform(n_input, n_hidden) for _ in range(3)]
    # Recorded runs stack square blocks as drawn; a block that is not square only fits transposed.
    _fill(cell.weight_ih, np.vstack([block if n_input == n_hidden else block.T for block in blocks]))
    recurrent = [uniform(n_hidden, n_hidden) for _ in range(3)]
    if isinstance(cell, GRUCell):
        _fill(cell.weight_hh, np.vstack(recurrent))
        nn.init.zeros_(cell.bias_ih)
        nn.init.zeros_(cell.bias_hh)
    else:
        _fill(cell.Wrz0, np.hstack(recurrent[:2]))
        _fill(cell.Wh0, recurrent[2])
        nn.init.zeros_(cell.Bh0)


def _fill(weight: Tensor, values: np.ndarray) -> None:
    with torch.no_grad():
        weight.copy_(torch.from_numpy(values))
