"""What feeds a recorded run to the program, and what listens to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor

from gru4rec.data.batches import SessionDataIterator
from gru4rec.train.step import Step


class RecordedNegatives:
    """Hands out the negatives of a recorded run."""

    def __init__(self, negatives_TS: np.ndarray) -> None:
        self._negatives_TS = negatives_TS
        self.n_sample = negatives_TS.shape[1]
        self.n_taken = 0

    def next(self) -> np.ndarray:
        self.n_taken += 1
        return self._negatives_TS[self.n_taken - 1]


class WatchedStep:
    """Hands on a step's losses and keeps them."""

    def __init__(self, step: Step, losses: list[float]) -> None:
        self._step, self._losses = step, losses

    def epoch(self, batches: SessionDataIterator, first_step: int = 0) -> Iterator[Tensor]:
        for losses_C in self._step.epoch(batches, first_step):
            self._losses.extend(losses_C.tolist())
            yield losses_C

    def state(self) -> list[Tensor] | None:
        return self._step.state()

    def restore(self, hidden: Sequence[Tensor]) -> None:
        self._step.restore(hidden)


def own_weights(shapes: dict[str, list[int]]) -> dict[str, np.ndarray]:
    """Draw the weights of cases with initialisation "own", as the recordings' description says."""
    rng = np.random.RandomState(7)
    weights = {}
    for name, shape in shapes.items():
        weights[name] = np.zeros(shape, dtype=np.float32)
        if len(shape) == 2 and shape[1] > 1:
            bound = np.sqrt(6 / (shape[0] + shape[1]))
            weights[name] = rng.uniform(-bound, bound, shape).astype(np.float32)
    return weights
