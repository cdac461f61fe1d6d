"""The plain step: state, resets, empty lanes, nominal batch size, gradient accumulation."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from gru4rec.config import hyper_parameters
from gru4rec.data.batches import Batch
from gru4rec.model.initial import initialise
from gru4rec.model.losses import cross_entropy_loss
from gru4rec.model.network import GRU4RecModel
from gru4rec.train.optim import IndexedAdagradM
from gru4rec.train.step import PlainStep


def batch(inputs: list[int], targets: list[int], *, lanes: list[int] | None = None, resets: list[bool] | None = None):
    n = len(inputs)
    return Batch(
        lanes=np.array(lanes if lanes is not None else range(n)),
        position=np.arange(n),
        input_idx=np.array(inputs, dtype=np.int32),
        target_idx=np.array(targets, dtype=np.int32),
        resets=np.array(resets if resets is not None else [False] * n),
        negative_idx=np.array([5, 6, 0], dtype=np.int32),
    )


def make_step(n_lanes: int = 2, batch_size: int = 2, momentum: float = 0.2, **settings: object) -> PlainStep:
    torch.manual_seed(0)
    model = GRU4RecModel(8, hyper_parameters({"layers": [3], **settings})).double().train()
    initialise(model, seed=5)
    optimizer = IndexedAdagradM(model.dense_parameters(), lr=0.3, momentum=momentum)
    return PlainStep(
        model, optimizer, lambda scores, _columns: cross_entropy_loss(scores), n_lanes=n_lanes, batch_size=batch_size
    )


def weights(step: PlainStep) -> dict[str, torch.Tensor]:
    return copy.deepcopy(step.model.state_dict())


def loss_and_gradients(model: GRU4RecModel, one: Batch, state: list[torch.Tensor], batch_size: int):
    """Full gradients of every weight, item matrices included, by autograd on the whole tables."""
    names = dict(model.named_parameters())
    tables = {name: parameter.detach().clone().requires_grad_() for name, parameter in names.items()}

    def forward() -> torch.Tensor:
        columns = torch.as_tensor(np.concatenate([one.target_idx, one.negative_idx])).long()
        hidden = torch.nn.functional.linear(
            tables["Wy.weight"][one.input_idx.astype(int)], tables["G.0.weight_ih"], tables["G.0.bias_ih"]
        )
        recurrent = torch.nn.functional.linear(state[0], tables["G.0.weight_hh"], tables["G.0.bias_hh"])
        rx, zx, nx = hidden.chunk(3, 1)
        rh, zh, nh = recurrent.chunk(3, 1)
        r, z = torch.sigmoid(rx + rh), torch.sigmoid(zx + zh)
        new = (1 - z) * torch.tanh(nx + r * nh) + z * state[0]
        scores = new @ tables["Wy.weight"][columns].T + tables["By.weight"][columns].T
        return cross_entropy_loss(scores) / batch_size, new.detach()

    loss, new_state = forward()
    loss.backward()
    return loss.item(), {name: table.grad for name, table in tables.items()}, [new_state]


def apply_adagrad(weight: torch.Tensor, gradient: torch.Tensor, lr: float = 0.3) -> torch.Tensor:
    """The first Adagrad update of a weight; where the gradient is 0 nothing moves."""
    return weight - lr * gradient / torch.sqrt(gradient**2 + 1e-6)


def test_one_step_equals_full_autograd_and_first_adagrad_update() -> None:
    step = make_step(batch_size=5)
    before, one = weights(step), batch([1, 2], [3, 1])
    loss, gradients, _ = loss_and_gradients(step.model, one, step.model.zero_state(2), batch_size=5)
    assert step(one).item() == pytest.approx(loss, rel=1e-12)
    for name, weight in weights(step).items():
        torch.testing.assert_close(weight, apply_adagrad(before[name], gradients[name]), rtol=1e-11, atol=1e-13)


def test_state_is_carried_per_lane_and_reset_where_a_session_starts() -> None:
    step, frozen = make_step(), make_step()
    first, second = batch([1, 2], [3, 1]), batch([3, 4], [2, 7], resets=[False, True])
    _, _, state = loss_and_gradients(frozen.model, first, frozen.model.zero_state(2), 2)
    step(first)
    state[0][1] = 0  # lane 1 starts a session
    expected, _, _ = loss_and_gradients(step.model, second, state, 2)
    assert step(second).item() == pytest.approx(expected, rel=1e-11)


def test_start_epoch_forgets_the_state() -> None:
    step = make_step()
    step(batch([1, 2], [3, 1]))
    step.start_epoch()
    one = batch([3, 4], [2, 7])
    expected, _, _ = loss_and_gradients(step.model, one, step.model.zero_state(2), 2)
    assert step(one).item() == pytest.approx(expected, rel=1e-11)


def test_empty_lanes_give_no_loss_and_are_nobodys_negatives() -> None:
    step = make_step(n_lanes=3, batch_size=3)
    step(batch([1, 2, 4], [3, 1, 2]))
    # lane 1 is empty now: its old state and target play no part
    reference = copy.deepcopy(step._state)
    one = batch([4], [7], lanes=[2])
    expected, gradients, _ = loss_and_gradients(step.model, one, [reference[0][[2]]], batch_size=3)
    before = weights(step)
    assert step(one).item() == pytest.approx(expected, rel=1e-11)
    untouched = [row for row in range(8) if row not in (4, 7, 5, 6, 0)]
    assert torch.equal(weights(step)["Wy.weight"][untouched], before["Wy.weight"][untouched])
    assert not gradients["Wy.weight"][untouched].any()
    assert torch.equal(step._state[0][:2], reference[0][:2])


@pytest.mark.parametrize("n_steps", [3, 2])
def test_accumulation_applies_the_mean_gradient_once_and_the_rest_of_an_epoch(n_steps: int) -> None:
    """With a = 3: after 3 steps, or after 2 at the end of the epoch, sum of the steps' gradients / 3."""
    step = make_step(momentum=0.0, grad_accumulation=3)
    before = weights(step)
    batches = [batch([1, 2], [3, 1]), batch([3, 1], [2, 2]), batch([2, 2], [4, 3])][:n_steps]
    state, total = step.model.zero_state(2), None
    for one in batches:
        _, gradients, state = loss_and_gradients(step.model, one, state, 2)
        total = gradients if total is None else {name: total[name] + gradients[name] for name in total}
    assert total is not None
    for number, one in enumerate(batches, 1):
        step(one)
        if number < 3:
            assert all(torch.equal(weight, before[name]) for name, weight in weights(step).items())
    step.end_epoch()
    for name, weight in weights(step).items():
        torch.testing.assert_close(weight, apply_adagrad(before[name], total[name] / 3), rtol=1e-10, atol=1e-12)


def test_end_epoch_without_waiting_gradients_changes_nothing() -> None:
    step = make_step(grad_accumulation=2)
    step(batch([1, 2], [3, 1]))
    step(batch([1, 2], [3, 1]))
    before = weights(step)
    step.end_epoch()
    assert all(torch.equal(weight, before[name]) for name, weight in weights(step).items())
