"""The training loop: epochs of mini-batches, a report for each, and a stop where the loss is no longer a number."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from gru4rec.data.batches import SessionDataIterator
from gru4rec.errors import DivergedError
from gru4rec.model.network import GRU4RecModel
from gru4rec.train.optim import IndexedAdagradM
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


@dataclass(frozen=True)
class Position:
    """A place in training, between two steps.

    Attributes:
        epoch: The epoch that goes on, from 1.
        step: Steps of it that are done.
        loss_sum: Sum of their losses, each times its active lanes.
        n_events: Their targets.
        seconds: Wall time of them.
    """

    epoch: int = 1
    step: int = 0
    loss_sum: float = 0.0
    n_events: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Training:
    """All that training changes.

    Attributes:
        model: Its weights, and the generator of dropout masks.
        optimizer: Holds accumulators and momentum.
        step: Holds hidden states.
        batches: Hold the place in the sequence of negatives.
    """

    model: GRU4RecModel
    optimizer: IndexedAdagradM
    step: Step
    batches: SessionDataIterator


class Recorder(Protocol):
    """Who watches a training run, keeps it and brings it back."""

    def begin(self, training: Training) -> Position:
        """Bring everything to where training goes on, and return that place."""

    def after_steps(self, step: int, position: Callable[[], Position]) -> None:
        """Take note that steps were done.

        Args:
            step: How many of the epoch.
            position: Reads the losses, which a GPU has to be waited for, and returns the place.
        """

    def after_epoch(self, report: EpochReport) -> bool:
        """Take note of an epoch; returns whether to go on."""


def train(
    training: Training,
    *,
    n_epochs: int,
    on_epoch: Callable[[EpochReport], None],
    on_step: Callable[[int], None] | None = None,
    start: Position = Position(),  # frozen
    recorder: Recorder | None = None,
) -> list[EpochReport]:
    """Run all epochs.

    Args:
        training: What is trained; its batches are iterated once per epoch.
        n_epochs: Passes over the batches.
        on_epoch: Called with each epoch's report.
        on_step: Called every now and then with the number of events that steps trained on since.
        start: Where to begin; ``training`` is in its state.
        recorder: Is told of steps and epochs, and may end training after one.

    Returns:
        The reports of the epochs that ended in this call.

    Raises:
        DivergedError: A loss that is not finite; it names the epoch and the step. The weights are then of no use.
    """
    reports = []
    for epoch in range(start.epoch, n_epochs + 1):
        losses = _LossMeter(training.batches.schedule.n_active_T, start if epoch == start.epoch else Position(epoch))
        for losses_C in training.step.epoch(training.batches, losses.n_steps):
            n_events = losses.add(losses_C)
            if on_step is not None:
                on_step(n_events)
            if recorder is not None:
                recorder.after_steps(losses.n_steps, losses.position)
        done = losses.position()
        seconds = max(done.seconds, 1e-9)
        reports.append(EpochReport(epoch, done.loss_sum / done.n_events, seconds, done.step, done.n_events))
        on_epoch(reports[-1])
        if recorder is not None and not recorder.after_epoch(reports[-1]):
            break
    return reports


class _LossMeter:
    """Collects step losses without reading them one by one; stops the run at the first that is not finite."""

    def __init__(self, n_active_T: np.ndarray, start: Position) -> None:
        self.n_steps = start.step
        self._n_events = start.n_events
        self._epoch = start.epoch
        self._n_active_T = n_active_T
        self._weighted_sum = start.loss_sum
        self._n_read = start.step
        self._unread: list[Tensor] = []
        self._seconds_before = start.seconds
        self._started = time.perf_counter()

    def add(self, losses_C: Tensor) -> int:
        """Take the next steps' losses; returns the number of their events."""
        n_events = int(self._n_active_T[self.n_steps : self.n_steps + len(losses_C)].sum())
        self.n_steps += len(losses_C)
        self._n_events += n_events
        self._unread.append(losses_C)
        if self.n_steps - self._n_read >= _CHECK_EVERY:
            self._read()
        return n_events

    def position(self) -> Position:
        """Read all losses, and return where training stands."""
        self._read()
        seconds = self._seconds_before + time.perf_counter() - self._started
        return Position(self._epoch, self.n_steps, self._weighted_sum, self._n_events, seconds)

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
        # One after the other, so that the sum does not depend on how many are read at once.
        self._weighted_sum = float(np.add.accumulate(np.r_[self._weighted_sum, losses_C * n_active_C])[-1])
        self._n_read += len(losses_C)
        self._unread = []
