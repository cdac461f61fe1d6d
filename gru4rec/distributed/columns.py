"""The score columns that one process holds, for the lanes of all processes.

Each lane's loss is put together from the sums over each process's columns, so that item matrices stay where they are.
Dimensions: A lanes that are not empty, of all processes, H hidden units, M columns of this process.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, Protocol

import torch
from torch import Tensor

from gru4rec.distributed.group import Group
from gru4rec.model.network import GRU4RecModel
from gru4rec.train.columns import AllItems, Columns, own_scores
from gru4rec.train.lane_sums import LaneSums
from gru4rec.train.optim import IndexedAdagradM
from gru4rec.train.products import Products
from gru4rec.train.rows import RowGradients


class OwnColumns(Columns, Protocol):
    """Columns of one process. Items are named by rows of its matrices, -1 for those that other processes hold.

    ``score`` sets ``d_hidden`` to these columns' part of the gradient; its ``negative_idx`` and ``input_idx`` are of
    items that are held.

    Attributes:
        targets: For ``score``: each lane's target row (A, H), and what is added to its score (A,).
    """

    targets: tuple[Tensor, Tensor]


class ShardedAllItems(AllItems):
    """Every item that the process holds, nothing sampled.

    Args:
        *parts: As for :class:`AllItems`.
        group: The processes.
        **options: As for :class:`AllItems`.
    """

    targets: tuple[Tensor, Tensor]

    def __init__(self, *parts: Any, group: Group, **options: Any) -> None:
        super().__init__(*parts, **options)
        self._group = group

    def _own_scores(self, hidden: Tensor, target: Tensor) -> Tensor:
        return own_scores(hidden, *self.targets, self._products, self._elu_param)

    def _complete(self, lanes: LaneSums) -> None:
        lanes.merge(self._group.gather(lanes.values))


class ShardedSampledColumns:
    """Those of the step's targets and negatives that the process holds.

    Args:
        model: Its item matrices hold this process's rows.
        optimizer: Holds accumulators and momentum.
        kernels: Element-wise parts, with the functions of ``kernels.torch_ops``.
        products: Matrix products.
        n_lanes: Lanes at most, of all processes.
        share: One over the nominal batch size.
        scratch: Int32 (rows,) of zeros, for :class:`RowGradients`.
        log_support: Log of each held item's training events, for the logq correction.
        group: The processes.
    """

    targets: tuple[Tensor, Tensor]

    def __init__(
        self,
        model: GRU4RecModel,
        optimizer: IndexedAdagradM,
        kernels: ModuleType,
        products: Products,
        *,
        n_lanes: int,
        share: float,
        scratch: Tensor,
        log_support: Tensor,
        group: Group,
    ) -> None:
        self._model, self._optimizer, self._settings, self._group = model, optimizer, model.settings, group
        self._kernels, self._products, self._share = kernels, products, share
        self._log_support = log_support if model.settings.corrects_sampling else None
        self._elu_param = model.settings.elu_param if model.settings.loss == "bpr-max" else 0.0
        assert model.settings.n_sample != "all"
        n_columns = n_lanes + model.settings.n_sample
        n_shared = n_lanes if model.input_table is model.Wy else 0
        self.shared_inputs = RowGradients(model.Wy.weight, n_columns + n_shared, scratch)
        self._biases = RowGradients(model.By.weight, n_columns, scratch)
        weight = model.Wy.weight
        self._rows, self._scores = weight.new_empty(n_columns, weight.shape[1]), weight.new_empty(n_lanes * n_columns)
        self._offset = weight.new_empty(n_columns)

    def resize(self, n_lanes: int) -> None:
        """Use so many lanes from now on: buffers are large enough for all."""

    def score(
        self, hidden: Tensor, target_idx: Tensor, negative_idx: Tensor, input_idx: Tensor, d_hidden: Tensor
    ) -> Tensor:
        """See :class:`OwnColumns`."""
        kernels, products, logq = self._kernels, self._products, self._settings.logq
        lane_of_target = torch.nonzero(target_idx >= 0)[:, 0]
        held_targets = target_idx.index_select(0, lane_of_target)
        n_targets, n_columns = len(held_targets), len(held_targets) + len(negative_idx)
        column_idx, d_rows = self.shared_inputs.add(n_columns)
        torch.cat([held_targets, negative_idx], out=column_idx)
        bias_idx, d_bias = self._biases.add(n_columns)
        bias_idx.copy_(column_idx)
        offset, rows = self._offset[:n_columns], self._rows[:n_columns]
        scales = (logq, logq * self._settings.sample_alpha)
        for part, scale in zip((slice(n_targets), slice(n_targets, n_columns)), scales, strict=True):
            kernels.column_offset(self._model.By.weight, column_idx[part], self._log_support, scale, offset[part])
        kernels.gather(self._model.Wy.weight, column_idx, rows)

        place = target_idx.new_full((len(hidden),), -1, dtype=torch.int64)
        place[lane_of_target] = torch.arange(n_targets, device=place.device)
        scores = self._scores[: len(hidden) * n_columns].view(len(hidden), n_columns)
        low_hidden, low_rows = products.factor(hidden), products.factor(rows)
        products.into(scores, low_hidden, low_rows.T)
        kernels.activate(scores, offset, self._elu_param)
        own = own_scores(low_hidden, *self.targets, products, self._elu_param)
        lanes = LaneSums(self._settings, kernels, own, self._share)
        if n_columns:
            lanes.see(scores, place)
        lanes.merge(self._group.gather(lanes.values))
        loss = lanes.loss()
        lanes.gradient(scores, place, d_bias[:, 0])
        d_scores = products.factor(scores)
        products.into(d_rows, d_scores.T, low_hidden)
        products.into(d_hidden, d_scores, low_rows)
        return loss

    def apply(self, share: float) -> None:
        """See :class:`gru4rec.train.columns.Columns`."""
        self.shared_inputs.apply(self._kernels, self._optimizer, share)
        self._biases.apply(self._kernels, self._optimizer, share)
