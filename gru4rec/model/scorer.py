"""The model as a scorer: session states in, scores of a block of items out, the same bits in every batch.

Evaluation, recommendation and serving must agree to the last bit, one session at a time or a thousand. Matrix libraries
sum in another order for small shapes and left-over rows, so every product here has a multiple of ``MIN_ROWS`` rows and
a number of columns that depends on the model alone; then each score depends on its own row and item only.
``tests/property`` checks that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from gru4rec.errors import DivergedError
from gru4rec.model.network import GRU4RecModel

MIN_ROWS = 32
"""Products are filled up with zeros to a multiple of these rows. Other rounding was seen below 16 rows, and in float64
in the last rows of a number that 4 does not divide."""

State = tuple[Tensor, ...]


class GRUScorer:
    """Scores items with a trained model. Weights are read in place: nothing is copied.

    Args:
        model: Switched to evaluation mode at each use.

    Attributes:
        n_items: Items N that are scored.

    Raises:
        DivergedError: A weight is not a finite number.
    """

    def __init__(self, model: GRU4RecModel) -> None:
        check_finite(model)
        self._network = model
        self.n_items = model.n_items

    @property
    def _model(self) -> GRU4RecModel:
        """The network with dropout off; a training step between two calls switches it on."""
        return self._network.eval() if self._network.training else self._network

    @property
    def device(self) -> torch.device:
        """Where states and scores are."""
        return self._network.device

    def start(self, n_sessions: int) -> State:
        """Return the state of sessions without events; it is all zeros."""
        return tuple(self._model.zero_state(n_sessions))

    @torch.no_grad()
    def advance(self, state: State, item_idx: Sequence[int] | np.ndarray) -> State:
        """Return the sessions' states (R, ...) after one more event each: one GRU step.

        Args:
            state: Of R sessions.
            item_idx: (R,), the newest item of each session.
        """
        rows = torch.as_tensor(np.asarray(item_idx, dtype=np.int64), device=self.device)
        return self.advance_by(state, self._model.input_table.weight.index_select(0, rows))

    @torch.no_grad()
    def advance_by(self, state: State, input_RE: Tensor) -> State:
        """Do what :meth:`advance` does, given the newest items' rows of the input matrix."""
        new_state = self._model.next_state(_fill_up(input_RE), [_fill_up(hidden) for hidden in state])
        return tuple(hidden[: len(input_RE)] for hidden in new_state)

    def output_weights(self) -> tuple[Tensor, Tensor]:
        """Return what scores come from: item vectors (N, H) and biases (N,), not copied."""
        return self._model.Wy.weight.detach(), self._model.By.weight.detach()[:, 0]

    def ready(self, state: State) -> State:
        """Return the state: scores come from it alone."""
        return state

    @torch.no_grad()
    def score_block(self, ready: State, start: int, stop: int) -> Tensor:
        """Return scores (R, stop - start) of the items start..stop-1 for R sessions.

        Scores of an item are the same bits in every block that has as many items.
        """
        weight_NH, bias_N = self._model.Wy.weight, self._model.By.weight[:, 0]
        hidden_RH = _fill_up(ready[-1])
        return torch.addmm(bias_N[start:stop], hidden_RH, weight_NH[start:stop].T)[: len(ready[-1])]

    @torch.no_grad()
    def score_items(self, ready: State, item_idx: Sequence[int] | np.ndarray) -> Tensor:
        """Return scores (R, C) of the given C items for R sessions."""
        columns = torch.as_tensor(np.asarray(item_idx, dtype=np.int64), device=self.device)
        weight_CH, bias_C = self._model.Wy.weight.index_select(0, columns), self._model.By.weight[columns, 0]
        return torch.addmm(bias_C, _fill_up(ready[-1]), weight_CH.T)[: len(ready[-1])]


def check_finite(model: GRU4RecModel) -> None:
    """Make sure that all weights are numbers.

    An item whose weights are not would be ranked neither above nor below others, and metrics would look too good.

    Raises:
        DivergedError: A weight is not a finite number.
    """
    for name, weight in model.state_dict().items():
        lowest, highest = torch.aminmax(weight)  # pass NaN on; unlike isfinite, one quick pass and no copy
        if not bool(torch.isfinite(lowest) & torch.isfinite(highest)):
            raise DivergedError(f"{name} holds numbers that are not finite: the model diverged. Train it again")


def _fill_up(values: Tensor) -> Tensor:
    """Add rows of zeros up to a multiple of MIN_ROWS."""
    missing = -len(values) % MIN_ROWS
    return nn.functional.pad(values, (0, 0, 0, missing)) if missing > 0 else values
