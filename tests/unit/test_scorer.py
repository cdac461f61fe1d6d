"""Scores that do not depend on the batch in float64 either, and weights that are not numbers."""

from __future__ import annotations

import math

import pytest
import torch

from gru4rec.config import hyper_parameters
from gru4rec.errors import DivergedError
from gru4rec.model.initial import initialise
from gru4rec.model.network import GRU4RecModel
from gru4rec.model.scorer import GRUScorer


def made_up_model(n_items: int) -> GRU4RecModel:
    model = GRU4RecModel(n_items, hyper_parameters({"layers": [16]}))
    initialise(model, seed=1)
    return model


@pytest.mark.parametrize("n_sessions", [33, 47, 63])
def test_scores_in_float64_are_the_same_bits_in_any_batch(n_sessions: int) -> None:
    scorer = GRUScorer(made_up_model(700).double())
    items = list(range(n_sessions))
    state = scorer.advance(scorer.start(n_sessions), items)
    scores = scorer.score_block(state, 100, 612)
    for row in (0, n_sessions - 1):
        alone = scorer.advance(scorer.start(1), [items[row]])
        assert torch.equal(state[0][row], alone[0][0])
        assert torch.equal(scores[row], scorer.score_block(alone, 100, 612)[0])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["Wy.weight", "By.weight", "G.0.bias_hh"])
def test_weight_that_is_not_a_finite_number_is_refused(name: str, value: float) -> None:
    model = made_up_model(50)
    with torch.no_grad():
        model.state_dict()[name].flatten()[7] = value
    with pytest.raises(DivergedError, match=f"{name} holds numbers that are not finite"):
        GRUScorer(model)


def test_huge_weights_are_finite() -> None:
    model = made_up_model(50)
    model.Wy.weight.fill_(3e38)  # their sum is not
    GRUScorer(model)
