"""The training loop: epochs of mini-batches, a report for each, and a stop where the loss is no longer a number."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
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
        on_step: Called every now and then with the number of events that steps trained on since.

    Returns:
        The reports, one per epoch.

    Raises:
        DivergedError: A loss that is not finite; it names the epoch and the step. The weights are then of no use.
    """
    reports = []
    for epoch in range(1, n_epochs + 1):
        started = time.perf_counter()
        losses = _LossMeter(epoch, batches.schedule.n_active_T)
        for losses_C in step.epoch(batches):
            n_events = losses.add(losses_C)
            if on_step is not None:
                on_step(n_events)
        loss = losses.mean()
        seconds = max(time.perf_counter() - started, 1e-9)
        reports.append(EpochReport(epoch, loss, seconds, losses.n_steps, losses.n_events))
        on_epoch(reports[-1])
    return reports


class _LossMeter:
    """Collects step losses without reading them one by one; stops the run at the first that is not finite."""

    def __init__(self, epoch: int, n_active_T: np.ndarray) -> None:
        self.n_steps = 0
        self.n_events = 0
        self._epoch = epoch
        self._n_active_T = n_active_T
        self._weighted_sum = 0.0
        self._n_read = 0
        self._unread: list[Tensor] = []

    def add(self, losses_C: Tensor) -> int:
        """Take the next steps' losses; returns the number of their events."""
        n_events = int(self._n_active_T[self.n_steps : self.n_steps + len(losses_C)].sum())
        self.n_steps += len(losses_C)
        self.n_events += n_events
        self._unread.append(losses_C)
        if self.n_steps - self._n_read >= _CHECK_EVERY:
            self._read()
        return n_events

    def mean(self) -> float:
        self._read()
        return self._weighted_sum / self.n_events

    def _read(self) -> None:
        if not self._unread:
            return
        losses_C = torch.cat(self._unread).double().cpu().numpy()
        n_active_C = self._n_active_T[self._n_read : self._n_read + len(losses_C)]
        for step in np.flatnonzero(~np.isfinite(losses_C))[:1]:
            raise DivergedError(
                f"training diverged: the loss is {losses_C[step]} at epoch {self._epoch}, "
                f"step {self._n_read + step + 1}. Lower learning_rate or momentum, or raise dropout or bpreg"
            )
        self._weighted_sum += float(losses_C @ n_active_C)
        self._n_read += len(losses_C)
        self._unread = []
