"""The score columns of a hand-written step: loss, gradients, and the update of the output matrix and the biases.

Dimensions: A lanes that are not empty, S sampled negatives, N items, M columns: A + S with sampling (targets first),
else the items of one block. H hidden units.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Protocol

import torch
from torch import Tensor

from gru4rec.config import HyperParameters
from gru4rec.model.losses import elu
from gru4rec.model.network import GRU4RecModel
from gru4rec.train.lane_sums import LaneSums
from gru4rec.train.optim import IndexedAdagradM
from gru4rec.train.products import Products
from gru4rec.train.rows import RowGradients

BLOCK_SCORES = 2**17
"""Scores of a block of items: half a megabyte in float32, which stays in cache."""
MIN_BLOCK = 256
"""Items of a block at least."""
KEPT_SCORES = 2**23
"""Up to so many scores of all items are kept for the gradient; beyond, they are computed twice."""


class Columns(Protocol):
    """What a step asks of its score columns.

    Attributes:
        shared_inputs: Where the gradients of input rows go if they are rows of the output matrix.
    """

    shared_inputs: RowGradients

    def resize(self, n_lanes: int) -> None:
        """Use so many lanes from now on."""

    def score(
        self, hidden: Tensor, target_idx: Tensor, negative_idx: Tensor, input_idx: Tensor, d_hidden: Tensor
    ) -> Tensor:
        """Return the step's loss; set ``d_hidden`` (A, H) to the gradient of ``hidden``, and keep the columns' own.

        Args:
            hidden: (A, H), the last layer's output.
            target_idx: Int32 (A,).
            negative_idx: Int32 (S,).
            input_idx: Int32 (A,).
            d_hidden: (A, H).
        """

    def apply(self, share: float) -> None:
        """Update the output matrix and the biases by ``share`` times the gradients since the last call."""


def loss_and_gradients(
    settings: HyperParameters,
    kernels: ModuleType,
    products: Products,
    hidden: Tensor,
    rows: Tensor,
    loss_arguments: tuple[Tensor, Tensor, Tensor, float, Tensor],
    d_rows: Tensor,
    d_hidden: Tensor,
) -> Tensor:
    """Score a step's columns; returns the loss.

    Args:
        settings: The loss is read from here.
        kernels: Element-wise parts, with the functions of ``kernels.torch_ops``.
        products: Matrix products.
        hidden: (A, H), the last layer's output.
        rows: (M, H), the columns' rows of the output matrix.
        loss_arguments: Of the loss kernel: scores (A, M), a buffer; offset (M,); target (A,); share; d_offset (M,).
        d_rows: (M, H) becomes the gradient of ``rows``.
        d_hidden: (A, H) becomes the gradient of ``hidden``.
    """
    scores, hidden, rows = loss_arguments[0], products.factor(hidden), products.factor(rows)
    products.into(scores, hidden, rows.T)
    if settings.loss == "cross-entropy":
        loss: Tensor = kernels.cross_entropy(*loss_arguments)
    else:
        loss = kernels.bpr_max(*loss_arguments, elu_param=settings.elu_param, bpreg=settings.bpreg)
    d_scores = products.factor(scores)
    products.into(d_rows, d_scores.T, hidden)
    products.into(d_hidden, d_scores, rows)
    return loss


def own_scores(hidden: Tensor, rows: Tensor, offset: Tensor, products: Products, elu_param: float) -> Tensor:
    """Return each lane's score of its own row (A,), of rounded factors as those of whole blocks are.

    Args:
        hidden: (A, H), a factor of ``products``.
        rows: (A, H).
        offset: (A,), added to the scores before the final activation.
        products: Rounds the rows.
        elu_param: Of the final activation; 0: there is none.
    """
    rows = products.factor(rows).to(offset.dtype)
    return elu((hidden.to(offset.dtype) * rows).sum(dim=1) + offset, elu_param=elu_param)


class SampledColumns:
    """Targets of the step, then sampled negatives.

    Args:
        model: Weights, trained in place.
        optimizer: Holds accumulators and momentum.
        kernels: Element-wise parts, with the functions of ``kernels.torch_ops``.
        products: Matrix products.
        n_lanes: Lanes at most.
        share: One over the nominal batch size.
        scratch_N: Int32 (N,) of zeros, for :class:`RowGradients`.
        log_support_N: Log of each item's training events, for the logq correction.
    """

    def __init__(
        self,
        model: GRU4RecModel,
        optimizer: IndexedAdagradM,
        kernels: ModuleType,
        products: Products,
        *,
        n_lanes: int,
        share: float,
        scratch_N: Tensor,
        log_support_N: Tensor,
    ) -> None:
        self._model, self._optimizer, self._settings = model, optimizer, model.settings
        self._kernels, self._products, self._share = kernels, products, share
        self._log_support_N = log_support_N if model.settings.corrects_sampling else None
        assert model.settings.n_sample != "all"
        self._n_sample: int = model.settings.n_sample
        n_columns = n_lanes + self._n_sample
        n_shared = n_lanes if model.input_table is model.Wy else 0
        self.shared_inputs = RowGradients(model.Wy.weight, n_columns + n_shared, scratch_N)
        self._biases = RowGradients(model.By.weight, n_columns, scratch_N)

    def resize(self, n_lanes: int) -> None:
        """Use so many lanes from now on."""
        weight, n_columns = self._model.Wy.weight, n_lanes + self._n_sample
        self._rows = weight.new_empty(n_columns, weight.shape[1])
        self._scores, self._offset = weight.new_empty(n_lanes, n_columns), weight.new_empty(n_columns)
        self._target = torch.arange(n_lanes, device=weight.device)

    def score(
        self, hidden: Tensor, target_idx: Tensor, negative_idx: Tensor, input_idx: Tensor, d_hidden: Tensor
    ) -> Tensor:
        """See :class:`Columns`."""
        settings, kernels, products, biases = self._settings, self._kernels, self._products, self._model.By.weight
        n_lanes, n_columns = self._scores.shape
        column_idx, d_rows = self.shared_inputs.add(n_columns)
        column_idx[:n_lanes], column_idx[n_lanes:] = target_idx, negative_idx
        bias_idx, d_bias = self._biases.add(n_columns)
        bias_idx.copy_(column_idx)
        offset, log_support_N, logq = self._offset, self._log_support_N, settings.logq
        kernels.column_offset(biases, target_idx, log_support_N, logq, offset[:n_lanes])
        kernels.column_offset(biases, negative_idx, log_support_N, logq * settings.sample_alpha, offset[n_lanes:])

        kernels.gather(self._model.Wy.weight, column_idx, self._rows)
        arguments = self._scores, offset, self._target, self._share, d_bias[:, 0]
        return loss_and_gradients(settings, kernels, products, hidden, self._rows, arguments, d_rows, d_hidden)

    def apply(self, share: float) -> None:
        """See :class:`Columns`."""
        self.shared_inputs.apply(self._kernels, self._optimizer, share)
        self._biases.apply(self._kernels, self._optimizer, share)


class AllItems:
    """Every item once, nothing sampled (``n_sample=all``).

    Scores are computed in blocks of items, so that memory does not grow with lanes x items: once for each lane's sums
    over all items, once for the gradient. A block's rows are updated as soon as their gradient is known; those that
    are input vectors too wait for that part of theirs. With gradient accumulation a gradient of all rows waits instead.

    Args:
        model: Weights, trained in place.
        optimizer: Holds accumulators and momentum.
        kernels: Element-wise parts, with the functions of ``kernels.torch_ops``.
        products: Matrix products.
        n_lanes: Lanes at most.
        share: One over the nominal batch size.
        scratch_N: Int32 (N,) of zeros, for :class:`RowGradients`.
    """

    def __init__(
        self,
        model: GRU4RecModel,
        optimizer: IndexedAdagradM,
        kernels: ModuleType,
        products: Products,
        *,
        n_lanes: int,
        share: float,
        scratch_N: Tensor,
    ) -> None:
        self._model, self._optimizer, self._settings = model, optimizer, model.settings
        self._kernels, self._products, self._share = kernels, products, share
        self._is_shared = model.input_table is model.Wy
        self._elu_param = model.settings.elu_param if model.settings.loss == "bpr-max" else 0.0
        self.shared_inputs = RowGradients(model.Wy.weight, 2 * n_lanes * self._is_shared, scratch_N)
        tables = (model.Wy.weight, model.By.weight)
        self._waiting = [torch.zeros_like(table) for table in tables] if model.settings.grad_accumulation > 1 else []

    def resize(self, n_lanes: int) -> None:
        """Use so many lanes from now on."""
        n_items, weight = self._model.n_items, self._model.Wy.weight
        self._width = min(n_items, max(MIN_BLOCK, BLOCK_SCORES // n_lanes))
        self._keeps_scores = n_lanes * n_items <= KEPT_SCORES
        n_buffers = -(-n_items // self._width) if self._keeps_scores else 1
        self._scores = [weight.new_empty(n_lanes * self._width) for _ in range(n_buffers)]
        self._d_rows, self._d_bias = weight.new_empty(self._width, weight.shape[1]), weight.new_empty(self._width)

    def score(
        self, hidden: Tensor, target_idx: Tensor, negative_idx: Tensor, input_idx: Tensor, d_hidden: Tensor
    ) -> Tensor:
        """See :class:`Columns`."""
        weight = self._model.Wy.weight
        target, low_hidden = target_idx.long(), self._products.factor(hidden)
        lanes = LaneSums(self._settings, self._kernels, self._own_scores(low_hidden, target), self._share)
        for items, scores in self._blocks(len(hidden)):
            self._fill(scores, low_hidden, items)
            lanes.see(scores, target - items.start)
        self._complete(lanes)
        loss = lanes.loss()

        held = _HeldRows(self._model, self._optimizer, input_idx) if self._is_shared and not self._waiting else None
        d_hidden.zero_()
        for items, scores in self._blocks(len(hidden)):
            if not self._keeps_scores:
                self._fill(scores, low_hidden, items)
            d_bias = self._d_bias[: scores.shape[1]]
            lanes.gradient(scores, target - items.start, d_bias)
            d_scores = self._products.factor(scores)
            self._products.add_to(d_hidden, d_scores, weight[items])
            self._keep(items, d_scores.T, low_hidden, d_bias, held)
        if held is not None:
            held.release(self.shared_inputs)
        return loss

    def apply(self, share: float) -> None:
        """See :class:`Columns`."""
        if not self._waiting:
            self.shared_inputs.apply(self._kernels, self._optimizer, share)
            return
        item_idx, gradient = self.shared_inputs.take()
        self._waiting[0].index_add_(0, item_idx, gradient)
        for table, waiting in zip((self._model.Wy.weight, self._model.By.weight), self._waiting, strict=True):
            self._update(table, slice(None), waiting, share)
            waiting.zero_()

    def _own_scores(self, hidden: Tensor, target: Tensor) -> Tensor:
        """Return each lane's score of its target (A,), final activation included."""
        rows, bias = self._model.Wy.weight.index_select(0, target), self._model.By.weight[:, 0].index_select(0, target)
        return own_scores(hidden, rows, bias, self._products, self._elu_param)

    def _complete(self, lanes: LaneSums) -> None:
        """Take in what other columns than these add to the lanes' sums: there are none."""

    def _blocks(self, n_lanes: int) -> Iterator[tuple[slice, Tensor]]:
        """Yield the items of each block and its scores' buffer (A, M)."""
        for number, start in enumerate(range(0, self._model.n_items, self._width)):
            items = slice(start, min(start + self._width, self._model.n_items))
            buffer = self._scores[number if self._keeps_scores else 0]
            yield items, buffer[: n_lanes * (items.stop - start)].view(n_lanes, -1)

    def _fill(self, scores: Tensor, hidden: Tensor, items: slice) -> None:
        """Compute a block's scores, final activation included."""
        self._products.into(scores, hidden, self._model.Wy.weight[items].T)
        self._kernels.activate(scores, self._model.By.weight[items, 0], self._elu_param)

    def _keep(self, items: slice, d_scores_T: Tensor, hidden: Tensor, d_bias: Tensor, held: _HeldRows | None) -> None:
        """Apply a block's gradient, or add it to what waits."""
        if self._waiting:
            self._products.add_to(self._waiting[0][items], d_scores_T, hidden)
            self._waiting[1][items, 0] += d_bias
            return
        d_rows = self._d_rows[: len(d_bias)]
        self._products.into(d_rows, d_scores_T, hidden)
        if held is not None:
            held.note(items, d_rows)
        self._update(self._model.Wy.weight, items, d_rows)
        self._update(self._model.By.weight, items, d_bias.unsqueeze(1))

    def _update(self, table: Tensor, items: slice, gradient: Tensor, share: float = 1.0) -> None:
        accumulator, velocity = self._optimizer.state_of(table)
        velocity_block = None if velocity is None else velocity[items]
        self._kernels.update_dense(
            table[items], accumulator[items], velocity_block, gradient, share=share, **self._optimizer.update_settings
        )


class _HeldRows:
    """Rows of the output matrix that are input vectors too: put back after the blocks' updates, to be updated once.

    Args:
        model: Its output matrix is held.
        optimizer: Its accumulators and velocities of these rows are held too.
        input_idx: Int32 (A,), may repeat.
    """

    def __init__(self, model: GRU4RecModel, optimizer: IndexedAdagradM, input_idx: Tensor) -> None:
        self._item_idx = torch.unique(input_idx.long())
        parts = (model.Wy.weight, *optimizer.state_of(model.Wy.weight))
        self._before = [(part, part.index_select(0, self._item_idx)) for part in parts if part is not None]
        self._gradient = torch.empty_like(self._before[0][1])

    def note(self, items: slice, d_rows: Tensor) -> None:
        """Keep the gradient of the held rows that are in a block."""
        is_here = (self._item_idx >= items.start) & (self._item_idx < items.stop)
        self._gradient[is_here] = d_rows[self._item_idx[is_here] - items.start]

    def release(self, rows: RowGradients) -> None:
        """Put the rows back as they were, and hand on their gradients."""
        for part, before in self._before:
            part.index_copy_(0, self._item_idx, before)
        item_idx, gradient = rows.add(len(self._item_idx))
        item_idx.copy_(self._item_idx)
        gradient.copy_(self._gradient)
