"""One mini-batch, fast: gradients by hand into buffers that are made once, rows updated while they are in cache.

It computes what :class:`gru4rec.train.step.PlainStep` does, sums taken in another order. Dimensions: A lanes that are
not empty, H hidden units of a layer.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from gru4rec.config import Precision
from gru4rec.data.batches import Batch
from gru4rec.jit import HAVE_NUMBA
from gru4rec.model.network import GRU4RecModel
from gru4rec.train.columns import AllItems, Columns, SampledColumns
from gru4rec.train.kernels import torch_ops
from gru4rec.train.layers import layers_of
from gru4rec.train.optim import IndexedAdagradM
from gru4rec.train.products import Products, gpu_products
from gru4rec.train.rows import RowGradients
from gru4rec.train.step import BatchStep

_log = logging.getLogger("gru4rec")


def cpu_kernels() -> ModuleType:
    """Return the compiled kernels, or the ones in torch where Numba is not installed."""
    if HAVE_NUMBA:
        return importlib.import_module("gru4rec.train.kernels.compiled")
    _log.warning("Numba is not installed: training is several times slower. pip install numba")
    return torch_ops


class _Buffers:
    """What the layers of a step of ``n_lanes`` lanes read and write."""

    def __init__(self, model: GRU4RecModel, n_lanes: int) -> None:
        layers, n_input, new = model.settings.layers, model.input_table.weight.shape[1], model.Wy.weight.new_zeros
        self.input = new(n_lanes, n_input)
        self.state, self.next_state, self.d_out = ([new(n_lanes, size) for size in layers] for _ in range(3))
        self.input_uniform, *self.uniform = (
            torch.empty(n_lanes, size, device=model.device) for size in (n_input, *layers)
        )


class FastStep(BatchStep):
    """The fast step on a CPU; without sampling also on a GPU.

    Args:
        model: Weights, trained in place.
        optimizer: Holds accumulators and momentum.
        log_support_N: Log of each item's training events, for the logq correction.
        n_lanes: Lanes of the schedule.
        batch_size: Nominal batch size, what losses are divided by; at least ``n_lanes``.
        precision: Of the matrix products.
        kernels: Element-wise parts; the compiled ones if None, or on a GPU those in torch.
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
        self.model, self.optimizer, self._n_lanes = model, optimizer, n_lanes
        if kernels is None:
            kernels = cpu_kernels() if model.device.type == "cpu" else torch_ops
        self._kernels, settings = kernels, model.settings
        self._precision, products = precision, Products(precision)
        cells = [*([] if model.GE is None else [model.GE]), *model.G]
        self._layers = layers_of(cells, n_lanes, kernels, products)
        self._dropouts = [settings.dropout_p_hidden] * len(cells)
        self._input_dropout = settings.dropout_p_embed
        if model.GE is not None:
            self._dropouts[0], self._input_dropout = self._input_dropout, 0.0
        common = model, optimizer, kernels, products
        scratch_N = torch.zeros(model.n_items, dtype=torch.int32, device=model.device)
        self._columns: Columns
        if settings.n_sample == "all":
            self._columns = AllItems(*common, n_lanes=n_lanes, share=1 / batch_size, scratch_N=scratch_N)
        else:
            self._columns = SampledColumns(
                *common, n_lanes=n_lanes, share=1 / batch_size, scratch_N=scratch_N, log_support_N=log_support_N
            )
        self._is_shared = model.input_table is model.Wy
        self._inputs = self._columns.shared_inputs
        if not self._is_shared:
            self._inputs = RowGradients(model.input_table.weight, n_lanes, scratch_N)
        self._n_waiting = 0
        self.start_epoch()

    def start_epoch(self) -> None:
        """Forget every lane's hidden state."""
        self._use_lanes(np.arange(self._n_lanes))

    def __call__(self, batch: Batch) -> Tensor:
        """Train on one batch; see :class:`BatchStep`."""
        with contextlib.nullcontext() if self.model.device.type == "cpu" else gpu_products(self._precision):
            return self._train(batch)

    def _train(self, batch: Batch) -> Tensor:
        if len(batch.lanes) < len(self._lanes):  # a lane that is empty stays empty
            state, kept = self._buffers.state, np.searchsorted(self._lanes, batch.lanes)
            self._use_lanes(batch.lanes)
            for hidden, before in zip(self._buffers.state, state, strict=True):
                hidden.copy_(before[kept])
        buffers, resets = self._buffers, torch.from_numpy(np.flatnonzero(batch.resets))
        for hidden in buffers.state:
            hidden.index_fill_(0, resets.to(hidden.device), 0)
        input_idx, target_idx, negative_idx = (
            torch.from_numpy(idx).to(self.model.device)
            for idx in (batch.input_idx, batch.target_idx, batch.negative_idx)
        )
        self._forward(input_idx)
        loss = self._columns.score(buffers.next_state[-1], target_idx, negative_idx, input_idx, buffers.d_out[-1])
        self._backward(input_idx)
        buffers.state, buffers.next_state = buffers.next_state, buffers.state
        self._n_waiting += 1
        if self._n_waiting == self.model.settings.grad_accumulation:
            self._apply()
        return loss

    def end_epoch(self) -> None:
        """Apply what gradient accumulation still holds."""
        if self._n_waiting:
            self._apply()

    def _use_lanes(self, lanes: np.ndarray) -> None:
        """Make buffers for so many lanes; their state is zeros."""
        self._lanes = lanes
        self._buffers = _Buffers(self.model, len(lanes))
        self._columns.resize(len(lanes))
        for layer in self._layers:
            layer.resize(len(lanes))

    def _forward(self, input_idx: Tensor) -> None:
        """Gather the input vectors and run the layers."""
        buffers = self._buffers
        self._kernels.gather(self.model.input_table.weight, input_idx, buffers.input)
        self._drop(buffers.input, buffers.input_uniform, self._input_dropout)
        x = buffers.input
        for layer, hidden, out, uniform, dropout in zip(
            self._layers, buffers.state, buffers.next_state, buffers.uniform, self._dropouts, strict=True
        ):
            layer.forward(x, hidden, out)
            self._drop(out, uniform, dropout)
            x = out

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
        share = 1 / self.model.settings.grad_accumulation
        for layer in self._layers:
            for weight in layer.weights:
                accumulator, velocity = self.optimizer.state_of(weight.parameter)
                arguments = weight.value, accumulator, velocity, weight.gradient
                self._kernels.update_dense(*arguments, share=share, **self.optimizer.update_settings)
                weight.start_anew()
        self._columns.apply(share)
        if not self._is_shared:
            self._inputs.apply(self._kernels, self.optimizer, share)
        self._n_waiting = 0
