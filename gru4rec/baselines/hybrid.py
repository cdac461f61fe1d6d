"""A model and a session kNN in one: two views of the same session, blended as probabilities.

The model's scores become a softmax at a temperature, the neighbours' scores shares of their sum, and the blend is a
weighted power mean of both: an item that both expect passes one that a single view expects. Both underrate or overrate
items that the session holds already, each in its own way, so the blend is multiplied by a factor for items clicked
last, one before, and so on, which makes their predicted share on a validation log the observed one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gru4rec.baselines.clicks import no_clicks, with_click
from gru4rec.baselines.hybrid_loops import add_shares, times_factors, write_shares
from gru4rec.baselines.settings import HybridSettings
from gru4rec.baselines.sparse import SparseScorer
from gru4rec.errors import ConfigError
from gru4rec.evaluate.evaluator import Scorer, score_blocks

State = tuple[Tensor, ...]


class HybridScorer:
    """Scores items by the blended probability to the power of ``exponent``, in [0, 1] but for the factors.

    Args:
        model: Scores all items, on a CPU.
        neighbours: Scores few.
        settings: How they are blended.

    Raises:
        ConfigError: The two score different catalogues, or the model is on a GPU.
    """

    def __init__(self, model: Scorer, neighbours: SparseScorer, settings: HybridSettings) -> None:
        if model.n_items != neighbours.n_items:
            raise ConfigError(
                f"a hybrid of {model.n_items:,} and {neighbours.n_items:,} items does not fit together. "
                "Fit both parts to the same log"
            )
        n_model = len(model.start(1))
        if model.start(1)[0].device.type != "cpu":
            raise ConfigError("a hybrid blends on the CPU, and the model is on a GPU. Load it with device='cpu'")
        self.model, self.neighbours, self.settings = model, neighbours, settings
        self.n_items = model.n_items
        self.n_model = n_model
        self._factors = np.array(settings.repeat_factors)

    def start(self, n_sessions: int) -> State:
        """Return the state of sessions without events: the model's, the neighbours', the newest clicks."""
        clicks = no_clicks(n_sessions, self.settings.n_clicks)
        return (*self.model.start(n_sessions), *self.neighbours.start(n_sessions), *clicks)

    def advance(self, state: State, item_idx: Sequence[int] | np.ndarray) -> State:
        """Return the sessions' states after one more event each."""
        item_idx = np.asarray(item_idx)
        after = self.model.advance(state[: self.n_model], item_idx)
        return (*after, *self.neighbours.advance(state[self.n_model : -1], item_idx), *with_click(state[-1:], item_idx))

    def ready(self, state: State) -> State:
        """Find the neighbours, and the sum that the model's softmax is divided by."""
        ready = self.model.ready(state[: self.n_model])
        item_RK, score_RK = self.neighbours.said(state[self.n_model : -1])
        share_RK = shares_of(score_RK, self.settings.exponent)
        log_sum_R1 = log_sum_exp(self.model, ready, self.settings.temperature)
        return (*ready, log_sum_R1, item_RK, share_RK * self.settings.neighbour_share, state[-1])

    @torch.no_grad()
    def score_block(self, ready: State, start: int, stop: int) -> Tensor:
        """Return scores (R, stop - start) of items start..stop-1, float64."""
        return self._blended(self.model.score_block(ready[:-4], start, stop), ready, np.arange(start, stop))

    @torch.no_grad()
    def score_items(self, ready: State, item_idx: Sequence[int] | np.ndarray) -> Tensor:
        """Return scores (R, C) of the given C items, float64."""
        return self._blended(self.model.score_items(ready[:-4], item_idx), ready, np.asarray(item_idx))

    def _blended(self, logits_RC: Tensor, ready: State, item_C: np.ndarray) -> Tensor:
        log_sum_R1, item_RK, share_RK, clicks_RL = ready[-4:]
        scores_RC = torch.exp((logits_RC.double() / self.settings.temperature - log_sum_R1) * self.settings.exponent)
        scores_RC *= 1 - self.settings.neighbour_share
        add_shares(item_RK.numpy(), share_RK.numpy(), item_C, scores_RC.numpy())
        times_factors(clicks_RL.numpy(), self._factors, item_C, scores_RC.numpy())
        return scores_RC


def shares_of(score_RK: Tensor, exponent: float) -> Tensor:
    """Turn the neighbours' scores into shares of their sum, to a power; a session without neighbours has none."""
    share_RK = torch.zeros_like(score_RK)
    write_shares(score_RK.numpy(), exponent, share_RK.numpy())
    return share_RK


@torch.no_grad()
def log_sum_exp(model: Scorer, ready: State, temperature: float) -> Tensor:
    """Return float64 (R, 1), the logarithm of the sum of exp(score / temperature) over all items."""
    parts = [
        torch.logsumexp(scores_RC.double() / temperature, dim=1, keepdim=True)
        for _, scores_RC in score_blocks(model, ready)
    ]
    return torch.logsumexp(torch.cat(parts, dim=1), dim=1, keepdim=True)
