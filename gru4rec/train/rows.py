"""Gradients of the rows of one item matrix, collected until they are applied."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from gru4rec.train.optim import IndexedAdagradM


class RowGradients:
    """Gradients of rows of an item matrix that wait for its update, in the order they came.

    Args:
        table: Item matrix (N, D).
        n_rows: Rows of a step; there will be room for more when they come.
        scratch: Int32 (N,) of zeros, which the matrices of a model share.
    """

    def __init__(self, table: Tensor, n_rows: int, scratch: Tensor) -> None:
        self.table = table
        self._item_idx = torch.empty(n_rows, dtype=torch.int32, device=table.device)
        self._gradient = table.new_empty(n_rows, table.shape[1])
        self._scratch = scratch
        self._n_waiting = 0

    def add(self, n_rows: int) -> tuple[Tensor, Tensor]:
        """Return places to fill with the item indices (n_rows,) and gradients (n_rows, D) of some more rows."""
        rows = slice(self._n_waiting, self._n_waiting + n_rows)
        if rows.stop > len(self._item_idx):
            self._grow(2 * rows.stop)
        self._n_waiting = rows.stop
        return self._item_idx[rows], self._gradient[rows]

    def _grow(self, n_rows: int) -> None:
        item_idx, gradient = self._item_idx, self._gradient
        self._item_idx, self._gradient = item_idx.new_empty(n_rows), gradient.new_empty(n_rows, gradient.shape[1])
        self._item_idx[: len(item_idx)], self._gradient[: len(gradient)] = item_idx, gradient

    def take(self) -> tuple[Tensor, Tensor]:
        """Return what waits, item indices and gradients, and forget it."""
        waiting = self._item_idx[: self._n_waiting], self._gradient[: self._n_waiting]
        self._n_waiting = 0
        return waiting

    def apply(self, kernels: ModuleType, optimizer: IndexedAdagradM, share: float) -> None:
        """Update the rows by ``share`` times what waits."""
        states = optimizer.state_of(self.table)
        kernels.update_rows(self.table, *states, *self.take(), self._scratch, share=share, **optimizer.update_settings)
