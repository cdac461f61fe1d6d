"""One mini-batch on several processes, each with a share of the lanes and of the items.

Lanes are dealt out: a process runs the network for its own. Items are too (:class:`gru4rec.model.shard.Shard`): a
process scores its own columns for all lanes and updates its own rows, so item matrices never move. What moves is a row
for each lane: input and target rows to those who need them, hidden states, sums over columns, gradients. It computes
what :class:`gru4rec.train.fast_step.FastStep` does, sums taken in another order, with any number of processes.

Dimensions: W processes, A lanes that are not empty, of all processes unless said, E input vector size, H hidden units.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gru4rec.config import Precision
from gru4rec.data.batches import Batch
from gru4rec.distributed.columns import OwnColumns, ShardedAllItems, ShardedSampledColumns
from gru4rec.distributed.group import Group
from gru4rec.model.network import GRU4RecModel
from gru4rec.model.shard import Shard
from gru4rec.train.fast_step import cpu_kernels
from gru4rec.train.kernels import torch_ops
from gru4rec.train.optim import IndexedAdagradM
from gru4rec.train.products import Products, gpu_products
from gru4rec.train.rows import RowGradients
from gru4rec.train.stack import LayerStack
from gru4rec.train.step import BatchStep


class ShardedStep(BatchStep):
    """The step of one process.

    Args:
        model: Its item matrices hold the shard's rows; its other weights are the same in all processes.
        optimizer: Holds accumulators and momentum of these.
        group: The processes.
        shard: Which rows.
        log_support: Log of each held item's training events, for the logq correction.
        n_lanes: Lanes of the schedule, of all processes.
        batch_size: Nominal batch size, what losses are divided by; at least ``n_lanes``.
        precision: Of the matrix products.

    Attributes:
        wish: Whether this process wants something; all processes learn of it with the next step.
    """

    def __init__(
        self,
        model: GRU4RecModel,
        optimizer: IndexedAdagradM,
        group: Group,
        shard: Shard,
        log_support: Tensor,
        *,
        n_lanes: int,
        batch_size: int,
        precision: Precision = "float32",
    ) -> None:
        self.model, self.optimizer, self._group, self._shard = model, optimizer, group, shard
        self._n_lanes, self._precision = n_lanes, precision
        self._kernels: ModuleType = cpu_kernels() if model.device.type == "cpu" else torch_ops
        common = model, optimizer, self._kernels, Products(precision)
        self._stack = _OwnLanes(*common, n_lanes=n_lanes)
        table = model.input_table.weight
        scratch = torch.zeros(len(table), dtype=torch.int32, device=model.device)
        self._log_support = log_support
        size: dict[str, Any] = {"n_lanes": n_lanes, "share": 1 / batch_size}
        self._columns: OwnColumns
        if model.settings.n_sample == "all":
            self._columns = ShardedAllItems(*common, **size, scratch_N=scratch, group=group)
        else:
            self._columns = ShardedSampledColumns(
                *common, **size, scratch=scratch, log_support=log_support, group=group
            )
        self._is_shared = model.input_table is model.Wy
        self._inputs = self._columns.shared_inputs if self._is_shared else RowGradients(table, n_lanes, scratch)
        self._gradients = [gradient for *_, gradient in self._stack.dense_updates]
        sizes = [gradient.numel() for gradient in self._gradients]
        # Dense gradients, wishes and input gradients lie side by side, so that one message can carry them.
        self._message = table.new_zeros(sum(sizes) + 1 + n_lanes * table.shape[1])
        n_dense = sum(sizes)
        self._dense, self._wishes = self._message[:n_dense], self._message[n_dense : n_dense + 1]
        self._d_inputs = self._message[n_dense + 1 :]
        self._dense_parts = torch.split(self._dense, sizes)
        self._n_waiting = 0
        self.wish = False
        self.start_epoch()

    @property
    def is_wished(self) -> bool:
        """Whether any process had a wish at the last step; the same answer in all of them."""
        return bool(self._wishes > 0)

    def start_epoch(self) -> None:
        """Forget every lane's hidden state."""
        self._take_lanes(np.arange(self._n_lanes))
        self._stack.resize(len(self._own))

    def __call__(self, batch: Batch) -> Tensor:
        """Train on one batch, the same one in every process; see :class:`BatchStep`."""
        with contextlib.nullcontext() if self.model.device.type == "cpu" else gpu_products(self._precision):
            return self._train(batch)

    def _train(self, batch: Batch) -> Tensor:
        if len(batch.lanes) < len(self._lanes):  # a lane that is empty stays empty
            own_before = self._lanes[self._own]
            self._take_lanes(batch.lanes)
            self._stack.keep_lanes(self._index(np.searchsorted(own_before, self._lanes[self._own])))
        held = [self._shard.held(idx) for idx in (batch.input_idx, batch.target_idx, batch.negative_idx)]
        (input_lane, input_row), (target_lane, target_row), (_, negative_row) = (
            (self._index(place), self._index(row)) for place, row in held
        )
        inputs, targets, offsets = self._fetch(input_lane, input_row, target_lane, target_row)
        self._columns.targets = targets, offsets
        self._stack.all_lanes, self._stack.own = len(self._lanes), self._own_idx
        torch.index_select(inputs, 0, self._own_idx, out=self._stack.input)
        going_on = torch.from_numpy(~batch.resets[self._own]).to(self.model.device).unsqueeze(1)
        hidden = self._of_all_lanes(self._stack.run(going_on))

        target_of_lane = torch.full((len(hidden),), -1, dtype=torch.int32, device=hidden.device)
        target_of_lane[target_lane] = target_row
        d_hidden = torch.empty_like(hidden)
        loss = self._columns.score(hidden, target_of_lane, negative_row, input_row, d_hidden)
        self._group.sum(d_hidden)
        torch.index_select(d_hidden, 0, self._own_idx, out=self._stack.d_out[-1])
        self._learn_below(input_lane, input_row)
        return loss

    def end_epoch(self) -> None:
        """Apply what gradient accumulation still holds."""
        if self._n_waiting:
            torch.cat([gradient.view(-1) for gradient in self._gradients], out=self._dense)
            self._group.sum(self._dense)
            self._apply()

    def state(self) -> list[Tensor] | None:
        """Return all lanes' states; see :class:`gru4rec.train.step.Step`. To be called in all processes."""
        if self._n_waiting:
            return None
        states = []
        own_lanes = self._index(self._lanes[self._own]).long()
        for out in self._stack.out:
            states.append(out.new_zeros(self._n_lanes, out.shape[1]).index_copy_(0, own_lanes, out))
            self._group.sum(states[-1])
        return states

    def restore(self, hidden: Sequence[Tensor]) -> None:
        """Go on from all lanes' states; see :class:`gru4rec.train.step.Step`."""
        self.start_epoch()
        for out, restored in zip(self._stack.out, hidden, strict=True):
            out.copy_(restored[self._own])

    def _take_lanes(self, lanes: np.ndarray) -> None:
        """Go on with the given lanes, and find out which of them are this process's own."""
        n_ranks = self._group.n_ranks
        self._lanes = lanes
        self._own = np.flatnonzero(lanes % n_ranks == self._group.rank)
        self._own_idx = self._index(self._own)
        # Where each lane's row comes to lie once all processes' rows, padded to equal numbers, are one below the other.
        self._padded = -(-self._n_lanes // n_ranks)
        place = np.empty(len(lanes), dtype=np.int64)
        for rank in range(n_ranks):
            of_rank = np.flatnonzero(lanes % n_ranks == rank)
            place[of_rank] = rank * self._padded + np.arange(len(of_rank))
        self._place = self._index(place)
        self._columns.resize(len(lanes))

    def _fetch(
        self, input_lane: Tensor, input_row: Tensor, target_lane: Tensor, target_row: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return all lanes' input rows (A, E), target rows (A, H) and what is added to the targets' scores (A,)."""
        model, (n_input, n_hidden) = self.model, (self.model.input_table.weight.shape[1], self.model.Wy.weight.shape[1])
        rows = model.Wy.weight.new_zeros(len(self._lanes), n_input + n_hidden + 1)
        inputs, targets, offsets = torch.split(rows, [n_input, n_hidden, 1], dim=1)
        inputs.index_copy_(0, input_lane, model.input_table.weight.detach().index_select(0, input_row))
        targets.index_copy_(0, target_lane, model.Wy.weight.index_select(0, target_row))
        offset = model.By.weight.new_empty(len(target_row))
        correction = self._log_support if model.settings.corrects_sampling else None
        self._kernels.column_offset(model.By.weight, target_row, correction, model.settings.logq, offset)
        offsets.index_copy_(0, target_lane, offset.unsqueeze(1))
        self._group.sum(rows)
        return inputs, targets, offsets[:, 0]

    def _of_all_lanes(self, own: Tensor) -> Tensor:
        """Return all lanes' rows (A, H) from those of the own lanes."""
        padded = own.new_zeros(self._padded, own.shape[1])
        padded[: len(own)] = own
        return self._group.gather(padded).view(-1, own.shape[1]).index_select(0, self._place)

    def _learn_below(self, input_lane: Tensor, input_row: Tensor) -> None:
        """Run the network backward, and apply gradients if enough of them wait."""
        n_input = self.model.input_table.weight.shape[1]
        d_own = self._message.new_empty(len(self._own), n_input)
        self._stack.backward(d_own)
        d_inputs = self._d_inputs[: len(self._lanes) * n_input].view(-1, n_input)
        d_inputs.zero_().index_copy_(0, self._own_idx, d_own)
        self._wishes.fill_(float(self.wish))
        self._n_waiting += 1
        is_due = self._n_waiting == self.model.settings.grad_accumulation
        if is_due:
            torch.cat([gradient.view(-1) for gradient in self._gradients], out=self._dense)
        first = 0 if is_due else len(self._dense)
        self._group.sum(self._message[first : len(self._dense) + 1 + d_inputs.numel()])
        rows_idx, rows = self._inputs.add(len(input_row))
        rows_idx.copy_(input_row)
        torch.index_select(d_inputs, 0, input_lane, out=rows)
        if is_due:
            self._apply()

    def _apply(self) -> None:
        """Update each weight once with the waiting gradients' sum over grad_accumulation, also when fewer wait."""
        share = 1 / self.model.settings.grad_accumulation
        for gradient, summed in zip(self._gradients, self._dense_parts, strict=True):
            gradient.view(-1).copy_(summed)
        self._stack.update(share)
        self._columns.apply(share)
        if not self._is_shared:
            self._inputs.apply(self._kernels, self.optimizer, share)
        self._n_waiting = 0

    def _index(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.model.device)


class _OwnLanes(LayerStack):
    """The network for the own lanes; masks are drawn for all lanes, so that they do not depend on who has which.

    Attributes:
        all_lanes: Lanes that are not empty, of all processes.
        own: Int64, which of them are this process's.
    """

    all_lanes: int
    own: Tensor

    def _draw(self, uniform: Tensor) -> None:
        drawn = torch.rand(self.all_lanes, uniform.shape[1], generator=self._model.rng, device=uniform.device)
        torch.index_select(drawn, 0, self.own, out=uniform)
