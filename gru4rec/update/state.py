"""The optimiser's state in an update: set before the first step, or estimated where a model was saved without."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from gru4rec.api import GRU4Rec
from gru4rec.bundle import ACCUMULATOR, VELOCITY, Bundle
from gru4rec.config import setting_values
from gru4rec.data.sessions import Sessions
from gru4rec.train.loop import EpochReport, Position, Training

_NO_STEP = 1e-30
"""A learning rate at which no float32 weight moves, but squared gradients add up."""


class CarriedState:
    """Sets accumulators and velocities where training begins; see :class:`gru4rec.train.loop.Recorder`.

    Args:
        state: By name as in :class:`gru4rec.bundle.Bundle`. Velocities are 0 where it has none, and are left out where
            training has no momentum.
    """

    def __init__(self, state: Mapping[str, np.ndarray]) -> None:
        self._state = state

    def begin(self, training: Training) -> Position:
        """Set the state; training begins at its first step."""
        for name, weight in training.model.named_parameters():
            accumulator, velocity = training.optimizer.state_of(weight)
            accumulator.copy_(torch.from_numpy(self._state[ACCUMULATOR + name]))
            if velocity is not None and VELOCITY + name in self._state:
                velocity.copy_(torch.from_numpy(self._state[VELOCITY + name]))
        return Position()

    def after_steps(self, step: int, position: Callable[[], Position]) -> None:
        """Do nothing."""

    def after_epoch(self, report: EpochReport) -> bool:
        """Go on."""
        return True


def estimated_state(learner: GRU4Rec, log: Sessions, before: Bundle, **how: Any) -> dict[str, np.ndarray]:
    """Return accumulators such as training would have left, from one pass over a log in which no weight moves.

    The squared gradients of the pass are multiplied by the events that the model was trained on, over those of the
    pass. What is seen less often than a training event each gets what one event adds on average.

    Args:
        learner: Has the update's settings.
        log: What the update trains on.
        before: The model.
        **how: More of :meth:`GRU4Rec.fit`, the initial weights among it.
    """
    settings = setting_values(learner.settings) | {"n_epochs": 1, "learning_rate": _NO_STEP, "momentum": 0}
    still = GRU4Rec(device=learner.device, dtype=learner.dtype, **settings)
    still.fit(log, on_epoch=lambda report: None, keep_state=True, **how)
    assert still.training_state is not None
    n_events = int(before.support.sum()) * max(before.n_epochs_done, 1)
    return {name: array * (n_events / log.n_events) for name, array in still.training_state.items()}
