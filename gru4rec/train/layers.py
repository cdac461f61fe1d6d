"""GRU layers with hand-written gradients, on buffers that are made once.

A layer runs forward, keeps what the way back needs in its buffers, and runs backward once. Its weights are those of the
model's cell, read and later updated in place. Dimensions: B lanes, E input vector size, H hidden units.
"""

from __future__ import annotations

from types import ModuleType
from typing import Protocol

import torch
from torch import Tensor, nn

from gru4rec.model.network import GRUCell, GRUEmbedding, ResetBeforeGRUCell
from gru4rec.train.products import Products


class DenseWeight:
    """A weight that every step touches as a whole, and its gradient.

    Attributes:
        parameter: The model's own parameter, the optimiser's key.
        value: The same memory, without autograd.
        gradient: What the steps since the last update add up to.
    """

    def __init__(self, parameter: nn.Parameter) -> None:
        self.parameter = parameter
        self.value = parameter.detach()
        self.gradient = torch.zeros_like(self.value)
        self._is_new = True

    def add_product(self, products: Products, left: Tensor, right: Tensor) -> None:
        """Add left @ right to the gradient."""
        if self._is_new:
            products.into(self.gradient, left, right)
        else:
            products.add_to(self.gradient, left, right)
        self._is_new = False

    def start_anew(self) -> None:
        """Forget the gradient. That of a matrix is written over by its next product: no need to fill it with zeros."""
        self._is_new = True
        if self.gradient.dim() == 1:
            self.gradient.zero_()


class Layer(Protocol):
    """One GRU layer of a hand-written step."""

    weights: list[DenseWeight]

    def resize(self, n_lanes: int) -> None:
        """Use so many lanes from now on; called before the first step."""

    def forward(self, x: Tensor, hidden: Tensor, out: Tensor) -> None:
        """Compute ``out`` (B, H), the state after the step, from the input and the state before; keeps all three."""

    def backward(self, d_out: Tensor, d_x: Tensor | None) -> None:
        """Add to the weights' gradients; ``d_x`` becomes the input's gradient, None where nobody needs it."""


class ResetAfterLayer:
    """Hand-written :class:`gru4rec.model.network.GRUCell`.

    Args:
        cell: The model's cell.
        kernels: Element-wise parts, with the functions of ``kernels.torch_ops``.
        products: Matrix products.
    """

    def __init__(self, cell: GRUCell, kernels: ModuleType, products: Products) -> None:
        self.weights = [DenseWeight(p) for p in (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)]
        self._kernels, self._products = kernels, products

    def resize(self, n_lanes: int) -> None:
        """Use so many lanes from now on; called before the first step."""
        weight_ih = self.weights[0].value
        self._gates_x, self._gates_h = (weight_ih.new_empty(n_lanes, len(weight_ih)) for _ in range(2))

    def forward(self, x: Tensor, hidden: Tensor, out: Tensor) -> None:
        """See :class:`Layer`."""
        weight_ih, weight_hh, bias_ih, bias_hh = (weight.value for weight in self.weights)
        self._x, self._hidden = x, hidden
        self._products.into(self._gates_x, x, weight_ih.T)
        self._products.into(self._gates_h, hidden, weight_hh.T)
        self._kernels.reset_after_forward(self._gates_x, self._gates_h, bias_ih, bias_hh, hidden, out)

    def backward(self, d_out: Tensor, d_x: Tensor | None) -> None:
        """See :class:`Layer`."""
        weight_ih, weight_hh, bias_ih, bias_hh = self.weights
        self._kernels.reset_after_backward(
            d_out, self._hidden, self._gates_x, self._gates_h, bias_ih.gradient, bias_hh.gradient
        )
        weight_ih.add_product(self._products, self._gates_x.T, self._x)
        weight_hh.add_product(self._products, self._gates_h.T, self._hidden)
        if d_x is not None:
            self._products.into(d_x, self._gates_x, weight_ih.value)


class ResetBeforeLayer:
    """Hand-written reset-before cells: ``ResetBeforeGRUCell``, and ``GRUEmbedding``, whose input is the gates' rows.

    Args:
        cell: The model's cell.
        kernels: Element-wise parts, with the functions of ``kernels.torch_ops``.
        products: Matrix products.
    """

    def __init__(self, cell: ResetBeforeGRUCell | GRUEmbedding, kernels: ModuleType, products: Products) -> None:
        self._recurrent = [DenseWeight(parameter) for parameter in (cell.Wrz0, cell.Wh0, cell.Bh0)]
        self._weight_ih = DenseWeight(cell.weight_ih) if isinstance(cell, ResetBeforeGRUCell) else None
        self.weights = [*self._recurrent, *([] if self._weight_ih is None else [self._weight_ih])]
        self._kernels, self._products = kernels, products

    def resize(self, n_lanes: int) -> None:
        """Use so many lanes from now on; called before the first step."""
        candidate = self._recurrent[1].value
        sizes = (len(candidate) * factor for factor in (3, 2, 1, 1))
        buffers = (candidate.new_empty(n_lanes, size) for size in sizes)
        self._gates_x, self._gates_h, self._reset_hidden, self._candidate = buffers

    def forward(self, x: Tensor, hidden: Tensor, out: Tensor) -> None:
        """See :class:`Layer`."""
        reset_update, candidate, bias = (weight.value for weight in self._recurrent)
        self._x, self._hidden = x, hidden
        if self._weight_ih is None:
            self._gates_x.copy_(x)
        else:
            self._products.into(self._gates_x, x, self._weight_ih.value.T)
        self._products.into(self._gates_h, hidden, reset_update)
        self._kernels.reset_before_gates(self._gates_x, self._gates_h, bias, hidden, self._reset_hidden)
        self._products.into(self._candidate, self._reset_hidden, candidate)
        self._kernels.reset_before_output(self._gates_x, self._candidate, hidden, out)

    def backward(self, d_out: Tensor, d_x: Tensor | None) -> None:
        """See :class:`Layer`."""
        reset_update, candidate, bias = self._recurrent
        hidden, d_candidate = self._hidden, self._candidate
        self._kernels.reset_before_output_backward(d_out, hidden, self._gates_x, d_candidate)
        candidate.add_product(self._products, self._reset_hidden.T, d_candidate)
        self._products.into(self._reset_hidden, d_candidate, candidate.value.T)
        self._kernels.reset_before_gates_backward(
            self._reset_hidden, hidden, self._gates_x, self._gates_h, bias.gradient
        )
        reset_update.add_product(self._products, hidden.T, self._gates_h)
        if self._weight_ih is None:
            if d_x is not None:
                d_x.copy_(self._gates_x)
            return
        self._weight_ih.add_product(self._products, self._gates_x.T, self._x)
        if d_x is not None:
            self._products.into(d_x, self._gates_x, self._weight_ih.value)


def layers_of(cells: list[nn.Module], kernels: ModuleType, products: Products) -> list[Layer]:
    """Return the hand-written form of a model's cells, in order."""
    layers: list[Layer] = []
    for cell in cells:
        if isinstance(cell, GRUCell):
            layers.append(ResetAfterLayer(cell, kernels, products))
        else:
            assert isinstance(cell, ResetBeforeGRUCell | GRUEmbedding)
            layers.append(ResetBeforeLayer(cell, kernels, products))
    return layers
