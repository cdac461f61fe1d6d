"""The network below the scores, by hand: input vectors, dropouts and GRU layers, forward, backward and their update.

Both fast steps run it. Dimensions: B lanes, E input vector size, H hidden units of a layer.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from gru4rec.model.network import GRU4RecModel
from gru4rec.train.layers import layers_of
from gru4rec.train.optim import IndexedAdagradM
from gru4rec.train.products import Products


class LayerStack:
    """Input vectors and GRU layers on buffers of a fixed number of lanes.

    Args:
        model: Weights, trained in place; its generator draws the dropout masks.
        optimizer: Holds accumulators and momentum.
        kernels: Element-wise parts, with the functions of ``kernels.torch_ops``.
        products: Matrix products.
        n_lanes: Lanes to begin with.

    Attributes:
        input: Input vectors (B, E) of the step, dropout included.
        out: Each layer's output (B, H) of the last step, dropout included: the state that the next step starts from.
        d_out: The outputs' gradients, each (B, H); :meth:`backward` starts from the last one.
        dense_updates: For each dense weight its value, accumulator, velocity (None without momentum) and gradient.
    """

    def __init__(
        self,
        model: GRU4RecModel,
        optimizer: IndexedAdagradM,
        kernels: ModuleType,
        products: Products,
        *,
        n_lanes: int,
    ) -> None:
        self._model, self._optimizer, self._kernels = model, optimizer, kernels
        cells = [*([] if model.GE is None else [model.GE]), *model.G]
        self._layers = layers_of(cells, kernels, products)
        self._dropouts = [model.settings.dropout_p_hidden] * len(cells)
        self._input_dropout = model.settings.dropout_p_embed
        if model.GE is not None:
            self._dropouts[0], self._input_dropout = self._input_dropout, 0.0
        self._weights = [weight for layer in self._layers for weight in layer.weights]
        self.dense_updates = [
            (weight.value, *optimizer.state_of(weight.parameter), weight.gradient) for weight in self._weights
        ]
        self.resize(n_lanes)

    def resize(self, n_lanes: int) -> None:
        """Use so many lanes from now on, their state zeros."""
        model, n_input = self._model, self._model.input_table.weight.shape[1]
        sizes, new = model.settings.layers, model.Wy.weight.new_zeros
        self.input = new(n_lanes, n_input)
        self.out, self._state, self.d_out = ([new(n_lanes, size) for size in sizes] for _ in range(3))
        self._input_uniform, *self._uniform = (
            torch.empty(n_lanes, size, device=model.device) for size in (n_input, *sizes)
        )
        for layer in self._layers:
            layer.resize(n_lanes)

    def forget(self) -> None:
        """Set every lane's state to zeros, in place."""
        for out in self.out:
            out.zero_()

    def keep_lanes(self, kept: Tensor) -> None:
        """Go on with some of the lanes.

        Args:
            kept: Int64, which, in order.
        """
        before = self.out
        self.resize(len(kept))
        for out, all_lanes in zip(self.out, before, strict=True):
            torch.index_select(all_lanes, 0, kept, out=out)

    def forward(self, input_idx: Tensor, going_on: Tensor) -> Tensor:
        """Run one step; returns the last layer's output (B, H).

        Args:
            input_idx: (B,), each lane's newest item.
            going_on: (B, 1), 1 or true where a lane's session goes on, 0 or false where one starts.
        """
        self._kernels.gather(self._model.input_table.weight, input_idx, self.input)
        return self.run(going_on)

    def run(self, going_on: Tensor) -> Tensor:
        """Run one step from the vectors in ``input``; see :meth:`forward`."""
        self._drop(self.input, self._input_uniform, self._input_dropout)
        x = self.input
        for layer, state, out, uniform, dropout in zip(
            self._layers, self._state, self.out, self._uniform, self._dropouts, strict=True
        ):
            torch.mul(out, going_on, out=state)
            layer.forward(x, state, out)
            self._drop(out, uniform, dropout)
            x = out
        return x

    def backward(self, d_input: Tensor) -> None:
        """Run the layers backward from the last ``d_out``; ``d_input`` (B, E) becomes the input vectors' gradient."""
        d_x = [d_input, *self.d_out[:-1]]
        for number in reversed(range(len(self._layers))):
            if self._dropouts[number] > 0:
                self._kernels.scale_kept(self.d_out[number], self._uniform[number], self._dropouts[number])
            self._layers[number].backward(self.d_out[number], d_x[number])
        if self._input_dropout > 0:
            self._kernels.scale_kept(d_input, self._input_uniform, self._input_dropout)

    def update(self, share: float) -> None:
        """Update each dense weight by ``share`` times its gradient since the last call."""
        settings = self._optimizer.update_settings
        for arguments in self.dense_updates:
            self._kernels.update_dense(*arguments, share=share, **settings)
        for weight in self._weights:
            weight.start_anew()

    def _drop(self, values: Tensor, uniform: Tensor, probability: float) -> None:
        if probability > 0:
            self._draw(uniform)
            self._kernels.apply_dropout(values, uniform, probability)

    def _draw(self, uniform: Tensor) -> None:
        """Fill ``uniform`` (B, H) with numbers from 0 to 1."""
        torch.rand(uniform.shape, generator=self._model.rng, out=uniform)
