"""Adagrad with momentum against a slow loop, number by number."""

from __future__ import annotations

import copy
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from gru4rec.errors import ConfigError
from gru4rec.train.optim import IndexedAdagradM


def slow_update(w: float, gradients: list[float], lr: float, momentum: float, eps: float) -> float:
    accumulated = velocity = 0.0
    for g in gradients:
        accumulated += g * g
        velocity = momentum * velocity - lr * g / math.sqrt(accumulated + eps)
        w += velocity
    return w


@pytest.mark.parametrize("momentum", [0.0, 0.3])
def test_dense_step_equals_slow_loop(momentum: float) -> None:
    weight = torch.nn.Parameter(torch.tensor([0.5, -1.0], dtype=torch.float64))
    optimizer = IndexedAdagradM([weight], lr=0.1, momentum=momentum, eps=1e-6)
    gradients = [[1.0, 0.0], [-2.0, 0.5], [0.25, 3.0]]
    for gradient in gradients:
        weight.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
    for place, start in enumerate([0.5, -1.0]):
        expected = slow_update(start, [gradient[place] for gradient in gradients], 0.1, momentum, 1e-6)
        assert weight[place].item() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("momentum", [0.0, 0.3])
def test_row_step_sums_equal_rows_first_and_leaves_other_rows_alone(momentum: float) -> None:
    table = torch.arange(8, dtype=torch.float64).view(4, 2).clone()
    optimizer = IndexedAdagradM([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=momentum)
    steps = [
        ([2, 0, 2], [[1.0, 2.0], [3.0, 4.0], [10.0, 20.0]]),
        ([2], [[-5.0, 1.0]]),
        ([0, 0], [[1.0, 1.0], [1.0, -1.0]]),
    ]
    for rows, gradient in steps:
        optimizer.step_rows(table, torch.tensor(rows), torch.tensor(gradient, dtype=torch.float64))
    expected = np.arange(8.0).reshape(4, 2)
    # row 2: 1 + 10, then -5; row 0 only in the first and the last step, its velocity untouched in between
    for row, column, gradients in [(2, 0, [11, -5]), (2, 1, [22, 1]), (0, 0, [3, 2]), (0, 1, [4, 0])]:
        expected[row, column] = slow_update(expected[row, column], gradients, 0.1, momentum, 1e-6)
    np.testing.assert_allclose(table, expected, rtol=1e-14)


def test_settings_of_the_parameter_group_are_the_ones_used() -> None:
    weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = IndexedAdagradM([weight], lr=0.1)
    optimizer.param_groups[0]["lr"] = 0.5  # what a learning-rate scheduler does
    weight.grad = torch.ones(1, dtype=torch.float64)
    optimizer.step()
    assert weight.item() == pytest.approx(-0.5 / math.sqrt(1 + 1e-6))


def test_weights_without_gradient_stay() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    IndexedAdagradM([weight], lr=0.1).step()
    assert weight.tolist() == [1.0, 1.0]


def test_state_of_item_rows_survives_saving() -> None:
    tables = [torch.nn.Parameter(torch.zeros(3, 1), requires_grad=False) for _ in range(2)]
    first, second = (IndexedAdagradM([table], lr=0.1, momentum=0.5) for table in tables)
    rows, gradient = torch.tensor([1]), torch.ones(1, 1)
    first.step_rows(tables[0], rows, gradient)
    tables[1].copy_(tables[0])
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for optimizer, table in zip((first, second), tables, strict=True):
        optimizer.step_rows(table, rows, gradient)
    assert torch.equal(*tables)
    assert tables[0][1].item() != -0.1


def test_closure_is_refused() -> None:
    with pytest.raises(TypeError, match="takes no closure"):
        IndexedAdagradM([torch.nn.Parameter(torch.ones(1))]).step(lambda: 0.0)


def test_second_group_of_weights_is_refused() -> None:
    optimizer = IndexedAdagradM([torch.zeros(2)])
    with pytest.raises(ConfigError, match="one group of settings"):
        optimizer.add_param_group({"params": [torch.zeros(2)]})


def test_training_does_not_load_the_compiler_of_torch() -> None:
    code = (
        "import sys, pandas as pd; from gru4rec import GRU4Rec;"
        "log = pd.DataFrame({'SessionId': [1, 1, 2, 2], 'ItemId': [1, 2, 2, 1], 'Time': [1, 2, 3, 4]});"
        "GRU4Rec(device='cpu', layers=[4], n_epochs=1, n_sample=4).fit(log);"
        "print('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
