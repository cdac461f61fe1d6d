"""One mini-batch, fast: gradients by hand into buffers that are made once, rows updated while they are in cache.

It computes what :class:`gru4rec.train.step.PlainStep` does, sums taken in another order. Dimensions: A lanes that are
not empty, S sampled negatives, M = A + S score columns, H hidden units of a layer, D numbers of an item's row.
"""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from gru4rec.config import Precision
from gru4rec.data.batches import Batch
from gru4rec.model.network import GRU4RecModel
from gru4rec.train.kernels import torch_ops
from gru4rec.train.layers import layers_of
from gru4rec.train.optim import IndexedAdagradM
from gru4rec.train.products import Products
from gru4rec.train.step import BatchStep


def cpu_kernels() -> ModuleType:
    """Return the compiled kernels, or the ones in torch where Numba is not installed."""
    try:
        return importlib.import_module("gru4rec.train.kernels.compiled")
    except ImportError:
        return torch_ops


class RowGradients:
    """Gradients of the rows of one item matrix that wait for its update, in the order they came.

    Args:
        table: Item matrix (N, D).
        n_rows: Rows at most.
        scratch: Int32 (N,) of zeros, shared by the matrices of a model.
    """

    def __init__(self, table: Tensor, n_rows: int, scratch: Tensor) -> None:
        self.table = table
        self._item_idx = torch.empty(n_rows, dtype=torch.int32)
        self._gradient = table.new_empty(n_rows, table.shape[1])
        self._scratch = scratch
        self._n_waiting = 0

    def add(self, n_rows: int) -> tuple[Tensor, Tensor]:
        """Return places to fill with the item indices (n_rows,) and gradients (n_rows, D) of some more rows."""
        rows = slice(self._n_waiting, self._n_waiting + n_rows)
        self._n_waiting = rows.stop
        return self._item_idx[rows], self._gradient[rows]

    def apply(self, kernels: ModuleType, optimizer: IndexedAdagradM, share: float) -> None:
        """Update the rows by ``share`` times their gradients."""
        accumulator, velocity = optimizer.state_of(self.table)
        kernels.update_rows(
            self.table,
            accumulator,
            velocity,
            self._item_idx[: self._n_waiting],
            self._gradient[: self._n_waiting],
            self._scratch,
            share=share,
            **optimizer.update_settings,
        )
        self._n_waiting = 0


class _Buffers:
    """What a step of ``n_lanes`` lanes writes to, besides the layers' own."""

    def __init__(self, model: GRU4RecModel, n_lanes: int, n_sample: int) -> None:
        layers, n_columns = model.settings.layers, n_lanes + n_sample
        new = model.Wy.weight.new_zeros
        n_input = model.input_table.weight.shape[1]
        self.input, self.input_uniform = new(n_lanes, n_input), torch.empty(n_lanes, n_input)
        self.state, self.next_state, self.d_out = ([new(n_lanes, size) for size in layers] for _ in range(3))
        self.uniform = [torch.empty(n_lanes, size) for size in layers]
        self.rows = new(n_columns, layers[-1])
        self.scores, self.offset, self.target = new(n_lanes, n_columns), new(n_columns), torch.arange(n_lanes)


class FastStep(BatchStep):
    """The fast step on a CPU.

    Args:
        model: Weights, trained in place.
        optimizer: Holds accumulators and momentum.
        log_support_N: Log of each item's training events, for the logq correction.
        n_lanes: Lanes of the schedule.
        batch_size: Nominal batch size, what losses are divided by; at least ``n_lanes``.
        precision: Of the matrix products.
        kernels: Element-wise parts; the compiled ones if None.
    """

    def __init__(
        self,
        model: GRU4RecModel,
        optimizer: IndexedAdagradM,
        log_support_N: Tensor,
        *,
        n_lanes: int,
        batch_size: int,
        precision: Precision = "float32",
        kernels: ModuleType | None = None,
    ) -> None:
        self.model, self.optimizer, self.settings = model, optimizer, model.settings
        self._log_support_N = log_support_N if model.settings.logq > 0 else None
        self._n_lanes, self._share = n_lanes, 1 / batch_size
        self._kernels = cpu_kernels() if kernels is None else kernels
        self._products = Products(precision)
        cells = [*([] if model.GE is None else [model.GE]), *model.G]
        self._layers = layers_of(cells, n_lanes, self._kernels, self._products)
        self._dropouts = [self.settings.dropout_p_hidden] * len(cells)
        self._input_dropout = self.settings.dropout_p_embed
        if model.GE is not None:
            self._dropouts[0], self._input_dropout = self._input_dropout, 0.0

        n_waiting, n_columns = self.settings.grad_accumulation, n_lanes + self.settings.n_sample
        scratch_N = torch.zeros(model.n_items, dtype=torch.int32)
        is_shared = model.input_table is model.Wy
        self._outputs = RowGradients(model.Wy.weight, n_waiting * (n_columns + is_shared * n_lanes), scratch_N)
        self._biases = RowGradients(model.By.weight, n_waiting * n_columns, scratch_N)
        self._inputs = self._outputs
        if not is_shared:
            self._inputs = RowGradients(model.input_table.weight, n_waiting * n_lanes, scratch_N)
        self._n_waiting = 0
        self.start_epoch()

    def start_epoch(self) -> None:
        """Forget every lane's hidden state."""
        self._use_lanes(np.arange(self._n_lanes))

    def __call__(self, batch: Batch) -> Tensor:
        """Train on one batch; see :class:`BatchStep`."""
        if len(batch.lanes) < len(self._lanes):  # a lane that is empty stays empty
            state, kept = self._buffers.state, np.searchsorted(self._lanes, batch.lanes)
            self._use_lanes(batch.lanes)
            for hidden, before in zip(self._buffers.state, state, strict=True):
                hidden.copy_(before[kept])
        for hidden in self._buffers.state:
            hidden.numpy()[batch.resets] = 0
        input_idx = torch.from_numpy(batch.input_idx)
        self._forward(input_idx)
        loss = self._score(torch.from_numpy(batch.target_idx), torch.from_numpy(batch.negative_idx))
        self._backward(input_idx)
        self._buffers.state, self._buffers.next_state = self._buffers.next_state, self._buffers.state
        self._n_waiting += 1
        if self._n_waiting == self.settings.grad_accumulation:
            self._apply()
        return loss

    def end_epoch(self) -> None:
        """Apply what gradient accumulation still holds."""
        if self._n_waiting:
            self._apply()

    def _use_lanes(self, lanes: np.ndarray) -> None:
        """Make buffers for so many lanes; their state is zeros."""
        self._lanes = lanes
        self._buffers = _Buffers(self.model, len(lanes), self.settings.n_sample)
        for layer in self._layers:
            layer.resize(len(lanes))

    def _forward(self, input_idx: Tensor) -> None:
        """Gather the input vectors and run the layers."""
        buffers = self._buffers
        torch.index_select(self.model.input_table.weight, 0, input_idx, out=buffers.input)
        self._drop(buffers.input, buffers.input_uniform, self._input_dropout)
        x = buffers.input
        for layer, hidden, out, uniform, dropout in zip(
            self._layers, buffers.state, buffers.next_state, buffers.uniform, self._dropouts, strict=True
        ):
            layer.forward(x, hidden, out)
            self._drop(out, uniform, dropout)
            x = out

    def _score(self, target_idx: Tensor, negative_idx: Tensor) -> Tensor:
        """Return the loss; leave the last layer's gradient in ``d_out`` and the columns' in their row gradients."""
        buffers, kernels, settings, biases = self._buffers, self._kernels, self.settings, self.model.By.weight
        n_lanes, n_columns = buffers.scores.shape
        column_idx, d_rows = self._outputs.add(n_columns)
        column_idx[:n_lanes], column_idx[n_lanes:] = target_idx, negative_idx
        bias_idx, d_bias = self._biases.add(n_columns)
        bias_idx.copy_(column_idx)
        offset, logq = buffers.offset, settings.logq
        kernels.column_offset(biases, target_idx, self._log_support_N, logq, offset[:n_lanes])
        kernels.column_offset(biases, negative_idx, self._log_support_N, logq * settings.sample_alpha, offset[n_lanes:])

        torch.index_select(self.model.Wy.weight, 0, column_idx, out=buffers.rows)
        hidden, rows = self._products.factor(buffers.next_state[-1]), self._products.factor(buffers.rows)
        self._products.into(buffers.scores, hidden, rows.T)
        arguments = buffers.scores, offset, buffers.target, self._share, d_bias[:, 0]
        if settings.loss == "cross-entropy":
            loss: Tensor = kernels.cross_entropy(*arguments)
        else:
            loss = kernels.bpr_max(*arguments, elu_param=settings.elu_param, bpreg=settings.bpreg)
        d_scores = self._products.factor(buffers.scores)
        self._products.into(d_rows, d_scores.T, hidden)
        self._products.into(buffers.d_out[-1], d_scores, rows)
        return loss

    def _backward(self, input_idx: Tensor) -> None:
        """Run the layers backward; leave the input vectors' gradient in their row gradients."""
        buffers = self._buffers
        rows_idx, d_input = self._inputs.add(len(input_idx))
        rows_idx.copy_(input_idx)
        d_x = [d_input, *buffers.d_out[:-1]]
        for number in reversed(range(len(self._layers))):
            if self._dropouts[number] > 0:
                self._kernels.scale_kept(buffers.d_out[number], buffers.uniform[number], self._dropouts[number])
            self._layers[number].backward(buffers.d_out[number], d_x[number])
        if self._input_dropout > 0:
            self._kernels.scale_kept(d_input, buffers.input_uniform, self._input_dropout)

    def _drop(self, values: Tensor, uniform: Tensor, probability: float) -> None:
        if probability > 0:
            torch.rand(uniform.shape, generator=self.model.rng, out=uniform)
            self._kernels.apply_dropout(values, uniform, probability)

    def _apply(self) -> None:
        """Update each weight once with the waiting gradients' sum over grad_accumulation, also when fewer wait."""
        share = 1 / self.settings.grad_accumulation
        for layer in self._layers:
            for weight in layer.weights:
                accumulator, velocity = self.optimizer.state_of(weight.parameter)
                arguments = weight.value, accumulator, velocity, weight.gradient
                self._kernels.update_dense(*arguments, share=share, **self.optimizer.update_settings)
                weight.gradient.zero_()
        self._outputs.apply(self._kernels, self.optimizer, share)
        self._biases.apply(self._kernels, self.optimizer, share)
        if self._inputs is not self._outputs:
            self._inputs.apply(self._kernels, self.optimizer, share)
        self._n_waiting = 0
