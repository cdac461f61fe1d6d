"""The optimiser's state in an update, set before the first step."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from gru4rec.bundle import ACCUMULATOR, VELOCITY
from gru4rec.train.loop import EpochReport, Position, Training


class CarriedState:
    """Sets accumulators and velocities where training begins; see :class:`gru4rec.train.loop.Recorder`.

    Args:
        state: By name as in :class:`gru4rec.bundle.Bundle`; what it lacks is 0. Velocities are left out where training
            has no momentum.
    """

    def __init__(self, state: Mapping[str, np.ndarray]) -> None:
        self._state = state

    def begin(self, training: Training) -> Position:
        """Set the state; training begins at its first step."""
        for name, weight in training.model.named_parameters():
            for kind, tensor in zip((ACCUMULATOR, VELOCITY), training.optimizer.state_of(weight), strict=True):
                if tensor is not None and kind + name in self._state:
                    tensor.copy_(torch.from_numpy(self._state[kind + name]))
        return Position()

    def after_steps(self, step: int, position: Callable[[], Position]) -> None:
        """Do nothing."""

    def after_epoch(self, report: EpochReport) -> bool:
        """Go on."""
        return True
