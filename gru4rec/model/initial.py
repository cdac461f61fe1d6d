"""Initial weights: the compatibility draw that recorded runs start from, or independent draws from a seed.

Every matrix is uniform in +-sqrt(6 / (rows + cols)) of each block it is made of; biases are zero. Blocks are drawn into
the weights some rows at a time, so that a catalogue of any size needs only a few megabytes beside its matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from gru4rec.config import DEFAULT_SEED
from gru4rec.model.network import GRU4RecModel, GRUCell, GRUEmbedding, ResetBeforeGRUCell

_VALUES_AT_ONCE = 1 << 17
"""Values drawn in one go: 1 MB of float64."""

_Fill = Callable[[Tensor], None]
"""Draws one block (rows, cols) into a part of a weight."""


def initialise(model: GRU4RecModel, *, seed: int | None) -> None:
    """Fill a model's weights in place.

    Args:
        model: Of any input mode, size and dtype; the draws are float32 numbers in every dtype.
        seed: None draws the compatibility weights (NumPy's legacy generator, seeded with 42); a number draws from a
            generator of its own.
    """
    uniform = _compatible_uniform() if seed is None else _seeded_uniform(seed)
    with torch.no_grad():
        if model.E is not None:
            uniform(model.E.weight)
        if model.GE is not None:
            _fill_embedding_layer(model.GE, uniform)
        for cell in model.G:
            assert isinstance(cell, GRUCell | ResetBeforeGRUCell)
            _fill_cell(cell, uniform)
        uniform(model.Wy.weight)
        nn.init.zeros_(model.By.weight)


def _compatible_uniform() -> _Fill:
    # NumPy's legacy generator is part of the recorded numbers; the global one is left alone.
    rng = np.random.RandomState(DEFAULT_SEED)

    def fill(block: Tensor) -> None:
        bound: np.float32 = np.float32(np.sqrt(6.0 / sum(block.shape)))
        for rows in _row_chunks(block):
            values = rng.rand(*rows.shape).astype(np.float32) * (2 * bound) - bound  # in float32, as recorded
            rows.copy_(torch.from_numpy(values))

    return fill


def _seeded_uniform(seed: int) -> _Fill:
    rng = np.random.default_rng(seed)

    def fill(block: Tensor) -> None:
        bound = np.sqrt(6.0 / sum(block.shape))
        for rows in _row_chunks(block):
            values = (rng.random(rows.shape) * 2 * bound - bound).astype(np.float32)
            rows.copy_(torch.from_numpy(values))

    return fill


def _row_chunks(block: Tensor) -> Iterator[Tensor]:
    n_rows = max(1, _VALUES_AT_ONCE // block.shape[1])
    for start in range(0, len(block), n_rows):
        yield block[start : start + n_rows]


def _fill_embedding_layer(layer: GRUEmbedding, uniform: _Fill) -> None:
    for block in (*layer.Wx0.weight.chunk(3, dim=1), *layer.Wrz0.chunk(2, dim=1), layer.Wh0):
        uniform(block)
    nn.init.zeros_(layer.Bh0)


def _fill_cell(cell: GRUCell | ResetBeforeGRUCell, uniform: _Fill) -> None:
    for block in cell.weight_ih.chunk(3):
        # Recorded runs stack square blocks as drawn; a block that is not square only fits transposed.
        uniform(block if block.shape[0] == block.shape[1] else block.T)
    if isinstance(cell, GRUCell):
        recurrent = cell.weight_hh.chunk(3)
        nn.init.zeros_(cell.bias_ih)
        nn.init.zeros_(cell.bias_hh)
    else:
        recurrent = (*cell.Wrz0.chunk(2, dim=1), cell.Wh0)
        nn.init.zeros_(cell.Bh0)
    for block in recurrent:
        uniform(block)
