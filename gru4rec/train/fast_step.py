"""One mini-batch, fast: gradients by hand into buffers that are made once, rows updated while they are in cache.

It computes what :class:`gru4rec.train.step.PlainStep` does, sums taken in another order. Dimensions: A lanes that are
not empty, H hidden units of a layer.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
from collections.abc import Sequence
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from gru4rec.config import Precision
from gru4rec.data.batches import Batch
from gru4rec.model.network import GRU4RecModel
from gru4rec.train.columns import AllItems, Columns, SampledColumns
from gru4rec.train.kernels import torch_ops
from gru4rec.train.optim import IndexedAdagradM
from gru4rec.train.products import Products, gpu_products
from gru4rec.train.rows import RowGradients
from gru4rec.train.stack import LayerStack
from gru4rec.train.step import BatchStep

_log = logging.getLogger("gru4rec")


def cpu_kernels() -> ModuleType:
    """Return the compiled kernels, or the ones in torch where Numba is not installed."""
    if importlib.util.find_spec("numba") is not None:
        return importlib.import_module("gru4rec.train.kernels.compiled")
    _log.warning("Numba is not installed: training is several times slower. pip install numba")
    return torch_ops


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
        common = model, optimizer, kernels, products
        self._stack = LayerStack(*common, n_lanes=n_lanes)
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
        self._lanes = np.arange(self._n_lanes)
        self._stack.resize(self._n_lanes)
        self._columns.resize(self._n_lanes)

    def __call__(self, batch: Batch) -> Tensor:
        """Train on one batch; see :class:`BatchStep`."""
        with contextlib.nullcontext() if self.model.device.type == "cpu" else gpu_products(self._precision):
            return self._train(batch)

    def _train(self, batch: Batch) -> Tensor:
        device = self.model.device
        if len(batch.lanes) < len(self._lanes):  # a lane that is empty stays empty
            self._stack.keep_lanes(torch.from_numpy(np.searchsorted(self._lanes, batch.lanes)).to(device))
            self._columns.resize(len(batch.lanes))
            self._lanes = batch.lanes
        input_idx, target_idx, negative_idx = (
            torch.from_numpy(idx).to(device) for idx in (batch.input_idx, batch.target_idx, batch.negative_idx)
        )
        hidden = self._stack.forward(input_idx, torch.from_numpy(~batch.resets).to(device).unsqueeze(1))
        loss = self._columns.score(hidden, target_idx, negative_idx, input_idx, self._stack.d_out[-1])
        rows_idx, d_input = self._inputs.add(len(input_idx))
        rows_idx.copy_(input_idx)
        self._stack.backward(d_input)
        self._n_waiting += 1
        if self._n_waiting == self.model.settings.grad_accumulation:
            self._apply()
        return loss

    def end_epoch(self) -> None:
        """Apply what gradient accumulation still holds."""
        if self._n_waiting:
            self._apply()

    def state(self) -> list[Tensor] | None:
        """See :class:`gru4rec.train.step.Step`."""
        if self._n_waiting:
            return None
        lanes = torch.from_numpy(self._lanes).long().to(self.model.device)
        return [out.new_zeros(self._n_lanes, out.shape[1]).index_copy_(0, lanes, out) for out in self._stack.out]

    def restore(self, hidden: Sequence[Tensor]) -> None:
        """See :class:`gru4rec.train.step.Step`."""
        self.start_epoch()
        for out, restored in zip(self._stack.out, hidden, strict=True):
            out.copy_(restored)

    def _apply(self) -> None:
        """Update each weight once with the waiting gradients' sum over grad_accumulation, also when fewer wait."""
        share = 1 / self.model.settings.grad_accumulation
        self._stack.update(share)
        self._columns.apply(share)
        if not self._is_shared:
            self._inputs.apply(self._kernels, self.optimizer, share)
        self._n_waiting = 0
