"""The network's cells, input modes and dropout against slow loops and torch's own cell."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gru4rec.config import hyper_parameters
from gru4rec.model.initial import initialise
from gru4rec.model.network import GRU4RecModel, GRUCell, ResetBeforeGRUCell

MODES = {
    "shared": {},
    "separate": {"constrained_embedding": False, "embedding": 5},
    "layersize": {"constrained_embedding": False, "embedding": "layersize"},
    "none": {"constrained_embedding": False, "embedding": 0},
}


def make_model(n_items: int = 9, rng: torch.Generator | None = None, **settings: object) -> GRU4RecModel:
    model = GRU4RecModel(n_items, hyper_parameters({"layers": [4], **settings}), rng=rng).double()
    initialise(model, seed=3)
    with torch.no_grad():  # biases that matter
        for number, parameter in enumerate(model.parameters()):
            if parameter.ndim == 1 or parameter.shape[1] == 1:
                parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter) + number / 10)
    return model


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def test_reset_after_cell_equals_torch_cell() -> None:
    cell, oracle = GRUCell(5, 4).double(), torch.nn.GRUCell(5, 4).double()
    cell.load_state_dict(oracle.state_dict())
    inputs, hidden = torch.randn(3, 5, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    torch.testing.assert_close(cell(inputs, hidden), oracle(inputs, hidden), rtol=1e-13, atol=1e-15)


def slow_reset_before(
    gates: np.ndarray, hidden: np.ndarray, wrz: np.ndarray, wh: np.ndarray, bias: np.ndarray
) -> np.ndarray:
    """One lane, unit by unit: gates are stacked as candidate, reset, update."""
    size = len(hidden)
    a, c, d = (gates + bias)[:size], (gates + bias)[size : 2 * size], (gates + bias)[2 * size :]
    reset = sigmoid(c + hidden @ wrz[:, :size])
    update = sigmoid(d + hidden @ wrz[:, size:])
    candidate = np.array(
        [np.tanh(a[j] + sum(reset[i] * hidden[i] * wh[i, j] for i in range(size))) for j in range(size)]
    )
    return (1 - update) * hidden + update * candidate


def test_reset_before_cell_equals_slow_loop() -> None:
    cell = ResetBeforeGRUCell(5, 4).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64))
    inputs, hidden = torch.randn(3, 5, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    weights = {name: parameter.detach().numpy() for name, parameter in cell.named_parameters()}
    for lane in range(3):
        expected = slow_reset_before(
            weights["weight_ih"] @ inputs[lane].numpy(),
            hidden[lane].numpy(),
            weights["Wrz0"],
            weights["Wh0"],
            weights["Bh0"],
        )
        np.testing.assert_allclose(cell(inputs, hidden)[lane].detach(), expected, rtol=1e-12)


def test_mode_none_uses_item_rows_as_gates() -> None:
    model = make_model(**MODES["none"])
    assert model.GE is not None
    hidden = torch.randn(2, 4, dtype=torch.float64)
    rows = model.gather(torch.tensor([7, 2]), torch.tensor([1]))
    (new_hidden,) = model.next_state(rows.inputs.rows, [hidden])
    table = model.GE.Wx0.weight.numpy()
    recurrent = [weight.detach().numpy() for weight in (model.GE.Wrz0, model.GE.Wh0, model.GE.Bh0)]
    for lane, item in enumerate([7, 2]):
        expected = slow_reset_before(table[item], hidden[lane].numpy(), *recurrent)
        np.testing.assert_allclose(new_hidden[lane].detach(), expected, rtol=1e-12)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layers", [[4], [3, 4], [6, 5, 4]])
@pytest.mark.parametrize("variant", ["reset_after", "reset_before"])
def test_scores_are_last_hidden_times_output_rows_plus_bias(mode: str, layers: list[int], variant: str) -> None:
    model = make_model(layers=layers, gru_variant=variant, **MODES[mode])
    columns = torch.tensor([0, 8, 3, 3])
    scores, state = model(model.gather(torch.tensor([1, 5, 1]), columns), model.zero_state(3))
    assert [tuple(part.shape) for part in state] == [(3, size) for size in layers]
    for lane in range(3):
        for column, item in enumerate(columns.tolist()):
            expected = state[-1][lane] @ model.Wy.weight[item] + model.By.weight[item, 0]
            assert scores[lane, column].item() == pytest.approx(expected.item(), rel=1e-12)


def test_layers_feed_one_another() -> None:
    model = make_model(layers=[3, 4], **MODES["separate"])
    assert model.E is not None
    state = [torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)]
    first = model.G[0](model.E.weight[[6, 1]], state[0])
    expected = [first, model.G[1](first, state[1])]
    rows = model.gather(torch.tensor([6, 1]), torch.tensor([0]))
    for found, wanted in zip(model.next_state(rows.inputs.rows, state), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_shared_mode_reads_input_rows_from_the_output_matrix() -> None:
    model = make_model()
    assert model.input_table is model.Wy
    assert model.E is None
    assert model.GE is None


@pytest.mark.parametrize("mode", MODES)
def test_item_matrices_stay_out_of_autograd(mode: str) -> None:
    model = make_model(**MODES[mode])
    rows = model.gather(torch.tensor([1, 2]), torch.tensor([3, 4, 5]))
    scores, _ = model(rows, model.zero_state(2))
    scores.sum().backward()
    assert all(touched.rows.grad is not None and touched.rows.grad.shape == touched.rows.shape for touched in rows)
    tables = [model.Wy, model.By, model.input_table]
    assert all(table.weight.grad is None and not table.weight.requires_grad for table in tables)
    assert {id(parameter) for parameter in model.dense_parameters()}.isdisjoint(id(table.weight) for table in tables)


def dropped_share(values: torch.Tensor) -> float:
    return (values == 0).double().mean().item()


@pytest.mark.parametrize(("mode", "setting"), [("shared", "dropout_p_hidden"), ("none", "dropout_p_embed")])
def test_dropped_out_output_is_the_carried_state_scaled_up(mode: str, setting: str) -> None:
    kept = make_model(layers=[64], **MODES[mode])
    dropped = make_model(layers=[64], rng=torch.Generator().manual_seed(1), **{setting: 0.25}, **MODES[mode]).train()
    rows = kept.gather(torch.arange(9).repeat(20), torch.tensor([0]))
    state = kept.zero_state(180)
    (whole,), (thinned,) = kept.next_state(rows.inputs.rows, state), dropped.next_state(rows.inputs.rows, state)
    assert dropped_share(thinned) == pytest.approx(0.25, abs=0.02)  # 11,520 draws: five standard errors
    np.testing.assert_allclose(thinned[thinned != 0].detach(), (whole / 0.75)[thinned != 0].detach(), rtol=1e-12)


def test_embedding_dropout_acts_on_the_input_vector() -> None:
    model = make_model(layers=[64], rng=torch.Generator().manual_seed(1), dropout_p_embed=0.9).train()
    seen = []
    model.G[0].register_forward_pre_hook(lambda _cell, inputs: seen.append(inputs[0]))
    rows = model.gather(torch.arange(9).repeat(20), torch.tensor([0]))
    (state,) = model.next_state(rows.inputs.rows, model.zero_state(180))
    assert dropped_share(seen[0]) == pytest.approx(0.9, abs=0.02)
    assert dropped_share(state) == 0


def test_hidden_dropout_does_not_touch_the_first_layer_of_mode_none() -> None:
    model = make_model(
        layers=[64, 64], rng=torch.Generator().manual_seed(1), dropout_p_hidden=0.5, **MODES["none"]
    ).train()
    rows = model.gather(torch.arange(9), torch.tensor([0]))
    first, second = model.next_state(rows.inputs.rows, model.zero_state(9))
    assert dropped_share(first) == 0
    assert dropped_share(second) == pytest.approx(0.5, abs=0.1)


def test_no_dropout_in_evaluation_mode() -> None:
    model = make_model(layers=[64], dropout_p_hidden=0.9, dropout_p_embed=0.9).eval()
    rows = model.gather(torch.arange(9), torch.tensor([0]))
    first, second = (model.next_state(rows.inputs.rows, model.zero_state(9))[0] for _ in range(2))
    assert torch.equal(first, second)
    assert dropped_share(first) == 0


def test_dropout_draws_from_its_own_generator() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    model = make_model(dropout_p_hidden=0.5, rng=torch.Generator().manual_seed(1)).train()
    rows = model.gather(torch.arange(9), torch.tensor([0]))
    model.next_state(rows.inputs.rows, model.zero_state(9))
    assert torch.equal(torch.rand(3), expected), "the global generator was used"
