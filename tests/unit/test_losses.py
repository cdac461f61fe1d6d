"""Both losses against slow loops and arithmetic by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gru4rec.errors import ShapeError
from gru4rec.model.losses import bpr_max_loss, cross_entropy_loss, elu, softmax_over_negatives

SCORES = torch.tensor([[1.0, -2.0, 0.5, 3.0], [0.0, 2.0, -1.0, 0.25]], dtype=torch.float64)


def slow_softmax(values: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in values)
    return [math.exp(value) / total for value in values]


def test_cross_entropy_equals_slow_loop() -> None:
    expected = -sum(math.log(slow_softmax(row)[lane]) for lane, row in enumerate(SCORES.tolist()))
    assert cross_entropy_loss(SCORES).item() == pytest.approx(expected, rel=1e-14)


def test_cross_entropy_with_logq_subtracts_it_from_every_column() -> None:
    log_p = [0.1, 0.7, 1.3, -0.2]
    corrected = [[score - 0.5 * log_p[column] for column, score in enumerate(row)] for row in SCORES.tolist()]
    expected = -sum(math.log(slow_softmax(row)[lane]) for lane, row in enumerate(corrected))
    found = cross_entropy_loss(SCORES, log_p_M=torch.tensor(log_p, dtype=torch.float64), logq=0.5)
    assert found.item() == pytest.approx(expected, rel=1e-14)


def test_cross_entropy_of_a_hopeless_target_is_large_but_finite() -> None:
    loss = cross_entropy_loss(torch.tensor([[-1000.0, 1000.0]]))
    assert loss.item() == pytest.approx(-math.log(1e-24), rel=1e-6)


def test_bpr_max_equals_slow_loop() -> None:
    expected = 0.0
    for lane, row in enumerate(SCORES.tolist()):
        negatives = [score for column, score in enumerate(row) if column != lane]
        weights = slow_softmax(negatives)
        beaten = sum(w / (1 + math.exp(score - row[lane])) for w, score in zip(weights, negatives, strict=True))
        penalty = sum(w * score**2 for w, score in zip(weights, negatives, strict=True))
        expected += -math.log(beaten) + 0.7 * penalty
    assert bpr_max_loss(SCORES, bpreg=0.7).item() == pytest.approx(expected, rel=1e-13)


def test_bpr_max_penalty_does_not_count_the_target() -> None:
    high_target = torch.tensor([[9.0, 0.0, 0.0]], dtype=torch.float64)
    # sigma(9 - 0) for both negatives, no penalty since their scores are 0
    assert bpr_max_loss(high_target, bpreg=5.0).item() == pytest.approx(math.log(1 + math.exp(-9)), rel=1e-12)


def test_softmax_over_negatives_subtracts_a_maximum_in_which_the_target_counts_as_zero() -> None:
    weights = softmax_over_negatives(torch.tensor([[500.0, -800.0, -801.0]]))
    # the maximum is 0 (the target's), so both weights underflow to 0 / 0: recorded runs behave so
    assert torch.isnan(weights).any()
    weights = softmax_over_negatives(torch.tensor([[500.0, -8.0, -9.0]], dtype=torch.float64))
    assert weights[0].tolist() == pytest.approx([0.0, 1 / (1 + math.exp(-1)), math.exp(-1) / (1 + math.exp(-1))])


@pytest.mark.parametrize("loss", [cross_entropy_loss, bpr_max_loss])
def test_loss_gradient_equals_finite_differences(loss) -> None:
    assert torch.autograd.gradcheck(lambda scores: loss(scores), SCORES.clone().requires_grad_())


@pytest.mark.parametrize("loss", [cross_entropy_loss, bpr_max_loss])
def test_loss_with_fewer_columns_than_lanes_is_refused(loss) -> None:
    with pytest.raises(ShapeError, match="3 lanes but only 2 score columns"):
        loss(torch.zeros(3, 2))


def test_cross_entropy_with_logq_but_no_weights_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"logq=1\.0 needs one log weight for each of the 4 columns"):
        cross_entropy_loss(SCORES, logq=1.0)


def test_elu_is_linear_above_zero_and_saturates_below() -> None:
    values = torch.tensor([3.0, 0.0, -1.0, -50.0], dtype=torch.float64)
    expected = [3.0, 0.0, 0.7 * (math.exp(-1) - 1), -0.7]
    np.testing.assert_allclose(elu(values, elu_param=0.7), expected, rtol=1e-12)
    assert elu(values, elu_param=0.0) is values
