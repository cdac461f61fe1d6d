"""One mini-batch, plainly: the definition that any faster step is checked against.

Gather the touched rows, forward, loss, backward by autograd, update. Dimensions: B lanes, A of them not empty, S
sampled negatives, M = A + S score columns, or one for every item.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from gru4rec.data.batches import Batch, SessionDataIterator
from gru4rec.model.network import GRU4RecModel, StepRows, TouchedRows
from gru4rec.train.optim import IndexedAdagradM

LossFunction = Callable[..., Tensor]
"""(scores_AM before the final activation, column_idx_M) -> the sum of the lanes' losses.

Column a is lane a's target; where every item has one column, ``target_A=`` says which it is.
"""


class Step(Protocol):
    """What the training loop calls."""

    def epoch(self, batches: SessionDataIterator, first_step: int = 0) -> Iterator[Tensor]:
        """Train on all batches once. Yields the losses of the next steps, (C,) with any number C of steps at a time.

        A step's loss is the sum over its lanes divided by the nominal batch size.

        Args:
            batches: Of the epoch.
            first_step: Where to go on, after :meth:`restore`; 0 starts the epoch.
        """

    def state(self) -> list[Tensor] | None:
        """Return the lanes' hidden states after the last step, (B, H) for each layer.

        None where they would not do to go on: while gradients wait, and on a GPU that runs ahead.
        """

    def restore(self, hidden: Sequence[Tensor]) -> None:
        """Go on from such states."""


class BatchStep(ABC):
    """A step that is handed one batch at a time."""

    def epoch(self, batches: SessionDataIterator, first_step: int = 0) -> Iterator[Tensor]:
        """See :class:`Step`."""
        if first_step == 0:
            self.start_epoch()
        for batch in batches.from_step(first_step):
            yield self(batch).reshape(1)
        self.end_epoch()

    @abstractmethod
    def start_epoch(self) -> None:
        """Forget every lane's hidden state."""

    @abstractmethod
    def __call__(self, batch: Batch) -> Tensor:
        """Train on one batch. Returns the scalar loss: the sum over lanes divided by the nominal batch size."""

    @abstractmethod
    def end_epoch(self) -> None:
        """Apply what gradient accumulation still holds."""

    @abstractmethod
    def state(self) -> list[Tensor] | None:
        """See :class:`Step`."""

    @abstractmethod
    def restore(self, hidden: Sequence[Tensor]) -> None:
        """See :class:`Step`."""


class PlainStep(BatchStep):
    """The readable step.

    Args:
        model: Weights, trained in place.
        optimizer: Holds accumulators and momentum.
        loss_function: Of the scores and the columns' item indices.
        n_lanes: Lanes of the schedule.
        batch_size: Nominal batch size, what losses are divided by; at least ``n_lanes``.
    """

    def __init__(
        self,
        model: GRU4RecModel,
        optimizer: IndexedAdagradM,
        loss_function: LossFunction,
        *,
        n_lanes: int,
        batch_size: int,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.loss_function = loss_function
        self.n_lanes = n_lanes
        self.batch_size = batch_size
        n_columns = model.n_items if model.settings.n_sample == "all" else 0
        self._all_items = torch.arange(n_columns, device=model.device)
        self._grad_accumulation = model.settings.grad_accumulation
        self._waiting: list[TouchedRows] = []
        self._n_waiting = 0
        self._state = model.zero_state(n_lanes)

    def start_epoch(self) -> None:
        """Forget every lane's hidden state."""
        self._state = self.model.zero_state(self.n_lanes)

    def __call__(self, batch: Batch) -> Tensor:
        """Train on one batch; see :class:`BatchStep`."""
        self.model.train()  # a callback may have scored with the model since the last step
        device = self.model.device
        lanes = torch.as_tensor(batch.lanes, device=device)
        input_idx = torch.as_tensor(batch.input_idx, device=device).long()
        targets, negatives = (torch.as_tensor(idx, device=device) for idx in (batch.target_idx, batch.negative_idx))
        is_sampled = self.model.settings.n_sample != "all"
        column_idx = torch.cat([targets, negatives]).long() if is_sampled else self._all_items
        going_on = torch.as_tensor(~batch.resets, device=device).unsqueeze(1)
        rows = self.model.gather(input_idx, column_idx)

        scores_AM, new_state = self.model(rows, [hidden[lanes] * going_on for hidden in self._state])
        where = {} if is_sampled else {"target_A": targets.long()}
        loss = self.loss_function(scores_AM, column_idx, **where) / self.batch_size
        torch.autograd.backward(loss)

        for hidden, new_hidden in zip(self._state, new_state, strict=True):
            hidden[lanes] = new_hidden.detach()
        self._accumulate(rows)
        return loss.detach()

    def end_epoch(self) -> None:
        """Apply what gradient accumulation still holds."""
        if self._n_waiting:
            self._apply()

    def state(self) -> list[Tensor] | None:
        """See :class:`Step`."""
        return None if self._n_waiting else [hidden.clone() for hidden in self._state]

    def restore(self, hidden: Sequence[Tensor]) -> None:
        """See :class:`Step`."""
        for own, restored in zip(self._state, hidden, strict=True):
            own.copy_(restored)

    def _accumulate(self, rows: StepRows) -> None:
        self._waiting.extend(rows)
        self._n_waiting += 1
        if self._n_waiting == self._grad_accumulation:
            self._apply()

    def _apply(self) -> None:
        """Update each weight once with the waiting gradients' sum over grad_accumulation, also when fewer wait."""
        share = 1 / self._grad_accumulation
        for weight in self.model.dense_parameters():
            assert weight.grad is not None
            weight.grad *= share
        self.optimizer.step()
        self.optimizer.zero_grad()
        for table in {id(touched.table): touched.table for touched in self._waiting}.values():
            parts = [touched for touched in self._waiting if touched.table is table]
            gradient = torch.cat([part.rows.grad for part in parts if part.rows.grad is not None]) * share
            self.optimizer.step_rows(table, torch.cat([part.item_idx for part in parts]), gradient)
        self._waiting, self._n_waiting = [], 0
