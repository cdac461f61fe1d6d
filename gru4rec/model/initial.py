"""Initial weights: the compatibility draw that recorded runs start from, or independent draws from a seed.

Every matrix is uniform in +-sqrt(6 / (rows + cols)) of each block it is made of; biases are zero. Blocks are drawn into
the weights some rows at a time, so that a catalogue of any size needs only a few megabytes beside its matrices.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from gru4rec.config import DEFAULT_SEED
from gru4rec.model.network import GRU4RecModel, GRUCell, ResetBeforeGRUCell
from gru4rec.model.shard import Shard

_VALUES_AT_ONCE = 1 << 17
"""Values drawn in one go: 1 MB of float64."""

_Draw = Callable[[int, int, float], np.ndarray]
"""Draws float32 numbers (rows, cols) up to a bound on either side."""

_Fill = Callable[[Tensor], None]
"""Draws one block (rows, cols) into a part of a weight."""


def initialise(model: GRU4RecModel, *, seed: int | None, shard: Shard | None = None) -> None:
    """Fill a model's weights in place.

    Args:
        model: Of any input mode, size and dtype; the draws are float32 numbers in every dtype.
        seed: None draws the compatibility weights (NumPy's legacy generator, seeded with 42); a number draws from a
            generator of its own.
        shard: Which rows of the item matrices the model holds; they get what they would get in the whole model.
    """
    draw = _compatible_draw() if seed is None else _seeded_draw(seed)

    def dense(block: Tensor) -> None:
        _fill(block, draw, Shard(0, 1, len(block)))

    def of_items(block: Tensor) -> None:
        _fill(block, draw, shard or Shard(0, 1, len(block)))

    with torch.no_grad():
        if model.E is not None:
            of_items(model.E.weight)
        if model.GE is not None:
            for block in model.GE.Wx0.weight.chunk(3, dim=1):
                of_items(block)
            for block in (*model.GE.Wrz0.chunk(2, dim=1), model.GE.Wh0):
                dense(block)
            nn.init.zeros_(model.GE.Bh0)
        for cell in model.G:
            assert isinstance(cell, GRUCell | ResetBeforeGRUCell)
            _fill_cell(cell, dense)
        of_items(model.Wy.weight)
        nn.init.zeros_(model.By.weight)


def _compatible_draw() -> _Draw:
    # NumPy's legacy generator is part of the recorded numbers; the global one is left alone.
    rng = np.random.RandomState(DEFAULT_SEED)

    def draw(n_rows: int, n_columns: int, bound: float) -> np.ndarray:
        rounded = np.float32(bound)
        drawn: np.ndarray = rng.rand(n_rows, n_columns).astype(np.float32) * (2 * rounded) - rounded  # as recorded
        return drawn

    return draw


def _seeded_draw(seed: int) -> _Draw:
    rng = np.random.default_rng(seed)

    def draw(n_rows: int, n_columns: int, bound: float) -> np.ndarray:
        return (rng.random((n_rows, n_columns)) * 2 * bound - bound).astype(np.float32)

    return draw


def _fill(block: Tensor, draw: _Draw, shard: Shard) -> None:
    """Draw all rows of a matrix, some at a time, and keep those of the shard."""
    n_rows, n_columns = shard.n_items, block.shape[1]
    bound = float(np.sqrt(6.0 / (n_rows + n_columns)))
    at_once = max(1, _VALUES_AT_ONCE // n_columns)
    for start in range(0, n_rows, at_once):
        stop = min(start + at_once, n_rows)
        of_block, held = shard.of_block(start, stop)
        block[held].copy_(torch.from_numpy(draw(stop - start, n_columns, bound)[of_block]))


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
