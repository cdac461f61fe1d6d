"""The training loop: epochs of mini-batches, a report for each, and a stop where the loss is no longer a number."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gru4rec.data.batches import SessionDataIterator
from gru4rec.errors import DivergedError
from gru4rec.train.step import Step

_CHECK_EVERY = 256
"""Steps between looks at the losses, so that a GPU is not made to wait for each one."""


@dataclass(frozen=True)
class EpochReport:
    """What one epoch did.

    Attributes:
        epoch: Counts from 1.
        loss: Mean over steps of the step's loss, weighted by its active lanes.
        seconds: Wall time.
        n_steps: Mini-batches.
        n_events: Targets.
    """

    epoch: int
    loss: float
    seconds: float
    n_steps: int
    n_events: int

    def __str__(self) -> str:
        """Format the line that users of the historical program read and parse."""
        speed = f"[{self.n_steps / self.seconds:.2f} mb/s | {self.n_events / self.seconds:.0f} e/s]"
        return f"Epoch{self.epoch} --> loss: {self.loss:.6f} \t({self.seconds:.2f}s) \t{speed}"


def train(
    step: Step,
    batches: SessionDataIterator,
    *,
    n_epochs: int,
    on_epoch: Callable[[EpochReport], None],
    on_step: Callable[[int], None] | None = None,
) -> list[EpochReport]:
    """Run all epochs.

    Args:
        step: Trains on one batch.
        batches: Iterated once per epoch.
        n_epochs: Passes over the batches.
        on_epoch: Called with each epoch's report.
        on_step: Called after each step with the number of events it trained on.

    Returns:
        The reports, one per epoch.

    Raises:
        DivergedError: A loss that is not finite; it names the epoch and the step. The weights are then of no use.
    """
    reports = []
    for epoch in range(1, n_epochs + 1):
        started = time.perf_counter()
        losses = _LossMeter(epoch)
        step.start_epoch()
        for batch in batches:
            losses.add(step(batch), len(batch.lanes))
            if on_step is not None:
                on_step(len(batch.lanes))
        step.end_epoch()
        loss = losses.mean()
        seconds = max(time.perf_counter() - started, 1e-9)
        reports.append(EpochReport(epoch, loss, seconds, losses.n_steps, losses.n_events))
        on_epoch(reports[-1])
    return reports


class _LossMeter:
    """Collects step losses without reading them one by one; stops the run at the first that is not finite."""

    def __init__(self, epoch: int) -> None:
        self.n_steps = 0
        self.n_events = 0
        self._epoch = epoch
        self._weighted_sum = 0.0
        self._unread: list[Tensor] = []
        self._unread_weights: list[int] = []

    def add(self, loss: Tensor, n_lanes: int) -> None:
        self._unread.append(loss)
        self._unread_weights.append(n_lanes)
        if len(self._unread) == _CHECK_EVERY:
            self._read()

    def mean(self) -> float:
        self._read()
        return self._weighted_sum / self.n_events

    def _read(self) -> None:
        if not self._unread:
            return
        for loss, n_lanes in zip(torch.stack(self._unread).tolist(), self._unread_weights, strict=True):
            self.n_steps += 1
            if not math.isfinite(loss):
                raise DivergedError(
                    f"training diverged: the loss is {loss} at epoch {self._epoch}, step {self.n_steps}. "
                    "Lower learning_rate or momentum, or raise dropout or bpreg"
                )
            self._weighted_sum += loss * n_lanes
            self.n_events += n_lanes
        self._unread, self._unread_weights = [], []
