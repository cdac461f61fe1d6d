"""The step graph in ONNX, node by node: :class:`~gru4rec.export.step_graph.StepGraph` is the definition.

Written by hand rather than traced: the same graph from every version of PyTorch, each weight once and under the name
that the model file has for it, and text ids, for which PyTorch has no tensors.

Dimensions: B sessions, N items, E input vector size, H hidden units of a layer, K list length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gru4rec.data.vocabulary import Vocabulary
from gru4rec.errors import ConfigError
from gru4rec.export.step_graph import StepModel
from gru4rec.model.network import GRU4RecModel, GRUCell

OPSET, IR_VERSION = 17, 8
"""Of 2022: what all runtimes in use read."""

ITEM_IDX, TOP_IDX, SCORES, TOP_IDS = "item_idx", "top_idx", "scores", "item_ids"

_MOST_BYTES = 2**31 - 2**20
"""Of weights and ids: a protobuf message stays below 2 GiB, and a little of that goes to the nodes."""


def state_name(layer: int) -> str:
    """Return the name of the input that takes a layer's state."""
    return f"state_{layer}"


def next_state_name(layer: int) -> str:
    """Return the name of the output that gives a layer's new state."""
    return f"next_state_{layer}"


def check_size(n_bytes: int) -> None:
    """Make sure that weights and ids fit into one file.

    Raises:
        ConfigError: They do not.
    """
    if n_bytes > _MOST_BYTES:
        raise ConfigError(
            f"weights and item ids take {n_bytes / 2**30:.1f} GiB, and an ONNX file holds less than 2. Export --pt2"
        )


def step_proto(model: StepModel) -> onnx.ModelProto:
    """Build the graph of a model.

    Raises:
        ConfigError: It is larger than an ONNX file can be.
    """
    network, layers = model.network, model.about.layers
    check_size(sum(weight.nbytes for weight in network.state_dict().values()) + model.items.item_ids.nbytes)
    graph = _Graph()
    zero, one = graph.constant("zero", np.int64(0)), graph.constant("one", np.array([1]))
    is_click_B1 = graph.add("Unsqueeze", graph.add("GreaterOrEqual", ITEM_IDX, zero), one)
    _add_weights(graph, network)
    value = graph.add("Gather", _input_table(network), graph.add("Max", ITEM_IDX, zero))
    for layer, n_hidden in enumerate(layers):
        after_BH = _layer(graph, network, layer, value, n_hidden)
        value = graph.add("Where", is_click_B1, after_BH, state_name(layer), to=next_state_name(layer))
    scores_BN = graph.add("Gemm", value, "Wy.weight", "By.weight", transB=1)
    graph.add_split("TopK", scores_BN, graph.constant("k", np.array([model.about.k])), to=[SCORES, TOP_IDX], axis=1)
    graph.add("Gather", _add_ids(graph, model.items), TOP_IDX, to=TOP_IDS)
    return graph.proto(_inputs(layers), _outputs(layers, model.about.k, model.items))


class _Graph:
    """Nodes and constants, as they are added. Values go by their names."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def add(self, op: str, *inputs: str, to: str = "", **attributes: Any) -> str:
        """Add a node of one output, and return the output's name."""
        return self.add_split(op, *inputs, to=[to or f"{op}_{len(self._nodes)}"], **attributes)[0]

    def add_split(self, op: str, *inputs: str, to: Sequence[str], **attributes: Any) -> Sequence[str]:
        """Add a node of several outputs, and return their names."""
        self._nodes.append(helper.make_node(op, inputs, to, name=f"node_{len(self._nodes)}", **attributes))
        return to

    def parts(self, value: str, n_parts: int, size: int) -> Sequence[str]:
        """Cut the columns of a value into parts of one size, and return their names."""
        place = len(self._nodes)
        sizes = self.constant(f"sizes_{place}", np.full(n_parts, size))
        return self.add_split("Split", value, sizes, to=[f"Split_{place}_{part}" for part in range(n_parts)], axis=1)

    def constant(self, name: str, array: np.ndarray | np.generic) -> str:
        """Add an array under its name."""
        self._constants.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def proto(self, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]) -> onnx.ModelProto:
        """Return the model that the nodes make."""
        graph = helper.make_graph(self._nodes, "gru4rec_step", inputs, outputs, self._constants)
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="gru4rec"
        )


def _add_weights(graph: _Graph, network: GRU4RecModel) -> None:
    for name, weight in network.state_dict().items():
        graph.constant(name, weight[:, 0].numpy() if name == "By.weight" else weight.numpy())


def _add_ids(graph: _Graph, items: Vocabulary) -> str:
    ids = items.item_ids.to_numpy() if items.is_integer else np.array(items.item_ids.to_pylist(), dtype=object)
    return graph.constant("vocabulary", ids)


def _input_table(network: GRU4RecModel) -> str:
    if network.GE is not None:
        return "GE.Wx0.weight"
    return "Wy.weight" if network.E is None else "E.weight"


def _layer(graph: _Graph, network: GRU4RecModel, layer: int, value: str, n_hidden: int) -> str:
    """Add a layer whose input is ``value`` (B, E), or the items' rows (B, 3 H), and return its new state (B, H)."""
    state = state_name(layer)
    if network.GE is not None and layer == 0:
        return _reset_before(graph, "GE", graph.add("Add", value, "GE.Bh0"), state, n_hidden)
    place = layer - (network.GE is not None)
    name = f"G.{place}"
    if isinstance(network.G[place], GRUCell):
        return _reset_after(graph, name, value, state, n_hidden)
    gates_BG = graph.add("Gemm", value, f"{name}.weight_ih", f"{name}.Bh0", transB=1)
    return _reset_before(graph, name, gates_BG, state, n_hidden)


def _reset_after(graph: _Graph, name: str, value: str, state: str, n_hidden: int) -> str:
    """Add the cell of :class:`~gru4rec.model.network.GRUCell`."""
    of_input = graph.add("Gemm", value, f"{name}.weight_ih", f"{name}.bias_ih", transB=1)
    of_state = graph.add("Gemm", state, f"{name}.weight_hh", f"{name}.bias_hh", transB=1)
    reset_x, update_x, candidate_x = graph.parts(of_input, 3, n_hidden)
    reset_h, update_h, candidate_h = graph.parts(of_state, 3, n_hidden)
    reset = graph.add("Sigmoid", graph.add("Add", reset_x, reset_h))
    update = graph.add("Sigmoid", graph.add("Add", update_x, update_h))
    candidate = graph.add("Tanh", graph.add("Add", candidate_x, graph.add("Mul", reset, candidate_h)))
    return _between(graph, candidate, state, update)


def _reset_before(graph: _Graph, name: str, gates: str, state: str, n_hidden: int) -> str:
    """Add the cell of :class:`~gru4rec.model.network.ResetBeforeGRUCell` from the input's part of its gates."""
    candidate_x, reset_x, update_x = graph.parts(gates, 3, n_hidden)
    reset_h, update_h = graph.parts(graph.add("MatMul", state, f"{name}.Wrz0"), 2, n_hidden)
    reset = graph.add("Sigmoid", graph.add("Add", reset_x, reset_h))
    update = graph.add("Sigmoid", graph.add("Add", update_x, update_h))
    of_state = graph.add("MatMul", graph.add("Mul", reset, state), f"{name}.Wh0")
    candidate = graph.add("Tanh", graph.add("Add", candidate_x, of_state))
    return _between(graph, state, candidate, update)


def _between(graph: _Graph, start: str, stop: str, share: str) -> str:
    """Add (1 - share) start + share stop."""
    return graph.add("Add", start, graph.add("Mul", share, graph.add("Sub", stop, start)))


def _inputs(layers: Sequence[int]) -> list[onnx.ValueInfoProto]:
    states = [_value(state_name(layer), TensorProto.FLOAT, size) for layer, size in enumerate(layers)]
    return [_value(ITEM_IDX, TensorProto.INT64), *states]


def _outputs(layers: Sequence[int], k: int, items: Vocabulary) -> list[onnx.ValueInfoProto]:
    states = [_value(next_state_name(layer), TensorProto.FLOAT, size) for layer, size in enumerate(layers)]
    id_type = TensorProto.INT64 if items.is_integer else TensorProto.STRING
    lists = {TOP_IDX: TensorProto.INT64, SCORES: TensorProto.FLOAT, TOP_IDS: id_type}
    return states + [_value(name, number_type, k) for name, number_type in lists.items()]


def _value(name: str, number_type: int, *sizes: int) -> onnx.ValueInfoProto:
    """Describe a value of B rows."""
    return helper.make_tensor_value_info(name, number_type, ["B", *sizes])
