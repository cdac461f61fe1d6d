"""The network: input vectors, GRU layers, output scores. Knows settings and sizes; no data, loss or optimiser.

Item matrices stay out of autograd. A step gathers the rows it touches as leaf tensors (:class:`TouchedRows`), takes
their gradients densely, and the optimiser updates those rows alone.

Dimensions: B lanes, M score columns, N items, E input vector size, H hidden units of a layer. ``state`` is the list of
the layers' hidden states, each (B, H).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gru4rec.config import HyperParameters

State = Sequence[Tensor]


class GRUCell(nn.Module):
    """GRU layer whose reset gate acts after the recurrent product, gates stacked as reset, update, candidate.

    h' = (1 - z) n + z h with n = tanh(W_in x + b_in + r (W_hn h + b_hn)): the cell of ``torch.nn.GRUCell``.
    """

    def __init__(self, n_input: int, n_hidden: int) -> None:
        super().__init__()
        self.weight_ih = nn.Parameter(torch.zeros(3 * n_hidden, n_input))
        self.weight_hh = nn.Parameter(torch.zeros(3 * n_hidden, n_hidden))
        self.bias_ih = nn.Parameter(torch.zeros(3 * n_hidden))
        self.bias_hh = nn.Parameter(torch.zeros(3 * n_hidden))

    def forward(self, input_BE: Tensor, hidden_BH: Tensor) -> Tensor:
        """Return the new hidden state (B, H)."""
        reset_x, update_x, candidate_x = nn.functional.linear(input_BE, self.weight_ih, self.bias_ih).chunk(3, dim=1)
        reset_h, update_h, candidate_h = nn.functional.linear(hidden_BH, self.weight_hh, self.bias_hh).chunk(3, dim=1)
        reset_BH = torch.sigmoid(reset_x + reset_h)
        update_BH = torch.sigmoid(update_x + update_h)
        candidate_BH = torch.tanh(candidate_x + reset_BH * candidate_h)
        return (1 - update_BH) * candidate_BH + update_BH * hidden_BH


class _ResetBeforeGRU(nn.Module):
    """Recurrent part of a GRU whose reset gate acts on the state before the product (the ICLR 2016 cell).

    h' = (1 - z) h + z n with n = tanh(a + (r h) W_h). Note that z has the opposite sense of :class:`GRUCell`.
    """

    def __init__(self, n_hidden: int) -> None:
        super().__init__()
        self.Wrz0 = nn.Parameter(torch.zeros(n_hidden, 2 * n_hidden))
        self.Wh0 = nn.Parameter(torch.zeros(n_hidden, n_hidden))
        self.Bh0 = nn.Parameter(torch.zeros(3 * n_hidden))

    def _recur(self, gates_BG: Tensor, hidden_BH: Tensor) -> Tensor:
        """Return (B, H) from the input's part of the gates (B, 3 H), stacked as candidate, reset, update."""
        candidate_x, reset_x, update_x = (gates_BG + self.Bh0).chunk(3, dim=1)
        reset_h, update_h = (hidden_BH @ self.Wrz0).chunk(2, dim=1)
        reset_BH = torch.sigmoid(reset_x + reset_h)
        update_BH = torch.sigmoid(update_x + update_h)
        candidate_BH = torch.tanh(candidate_x + (reset_BH * hidden_BH) @ self.Wh0)
        return (1 - update_BH) * hidden_BH + update_BH * candidate_BH


class ResetBeforeGRUCell(_ResetBeforeGRU):
    """Reset-before GRU layer with a dense input; ``weight_ih`` (3 H, E) is stacked as candidate, reset, update."""

    def __init__(self, n_input: int, n_hidden: int) -> None:
        super().__init__(n_hidden)
        self.weight_ih = nn.Parameter(torch.zeros(3 * n_hidden, n_input))

    def forward(self, input_BE: Tensor, hidden_BH: Tensor) -> Tensor:
        """Return the new hidden state (B, H)."""
        return self._recur(nn.functional.linear(input_BE, self.weight_ih), hidden_BH)


class GRUEmbedding(_ResetBeforeGRU):
    """First layer for one-hot input: each item has a row (3 H) in place of an input product."""

    def __init__(self, n_items: int, n_hidden: int) -> None:
        super().__init__(n_hidden)
        self.Wx0 = _item_table(n_items, 3 * n_hidden)

    def forward(self, rows_BG: Tensor, hidden_BH: Tensor) -> Tensor:
        """Return the new hidden state (B, H) from the items' rows (B, 3 H)."""
        return self._recur(rows_BG, hidden_BH)


@dataclass
class TouchedRows:
    """Rows of one item matrix that a step reads, as a leaf of autograd.

    Attributes:
        table: The item matrix (N, D).
        item_idx: Int64 (R,), may repeat.
        rows: Float (R, D), a copy of those rows.
    """

    table: Tensor
    item_idx: Tensor
    rows: Tensor

    @classmethod
    def gather(cls, table: nn.Embedding, item_idx: Tensor) -> TouchedRows:
        """Copy the rows; they ask for a gradient while autograd is on."""
        rows = table.weight.detach().index_select(0, item_idx)
        return cls(table.weight, item_idx, rows.requires_grad_(torch.is_grad_enabled()))


@dataclass
class StepRows:
    """All item rows of one step: input vectors of the newest events, output rows and biases of the score columns."""

    inputs: TouchedRows
    outputs: TouchedRows
    biases: TouchedRows

    def __iter__(self) -> Iterator[TouchedRows]:
        return iter((self.inputs, self.outputs, self.biases))


class GRU4RecModel(nn.Module):
    """Embedding, GRU layers and output scores of all three input modes.

    Args:
        n_items: Number of items N.
        settings: Layers, input mode, GRU variant and dropouts are read from here.
        rng: Generator of the dropout masks, on the model's device; only training needs it.

    Attributes:
        Wy: Output item matrix (N, H of the last layer); in input mode ``shared`` the input embedding too.
        By: Output biases (N, 1).
        E: Input embedding (N, E) of mode ``separate``, else None.
        GE: First layer of mode ``none``, else None.
        G: The layers with a dense input.

    All weights start at zero; ``model.initial`` fills them.
    """

    def __init__(self, n_items: int, settings: HyperParameters, *, rng: torch.Generator | None = None) -> None:
        super().__init__()
        self.n_items = n_items
        self.settings = settings
        self.rng = rng
        layers, mode = settings.layers, settings.input_mode
        cell = GRUCell if settings.gru_variant == "reset_after" else ResetBeforeGRUCell
        self.E = _item_table(n_items, settings.embedding_size) if mode == "separate" else None
        self.GE = GRUEmbedding(n_items, layers[0]) if mode == "none" else None
        sizes = layers if self.GE is not None else (settings.embedding_size, *layers)
        self.G = nn.ModuleList(cell(n_input, n_hidden) for n_input, n_hidden in itertools.pairwise(sizes))
        self.Wy = _item_table(n_items, layers[-1])
        self.By = _item_table(n_items, 1)

    @property
    def dtype(self) -> torch.dtype:
        """Number type of all weights."""
        return self.Wy.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.Wy.weight.device

    @property
    def input_table(self) -> nn.Embedding:
        """The item matrix that input vectors are read from."""
        if self.GE is not None:
            return self.GE.Wx0
        return self.Wy if self.E is None else self.E

    def dense_parameters(self) -> list[nn.Parameter]:
        """Return the weights that every step touches as a whole: all but the item matrices."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def zero_state(self, n_lanes: int) -> list[Tensor]:
        """Return the state of sessions that have not begun: zeros (n_lanes, H) for each layer."""
        return [torch.zeros(n_lanes, size, dtype=self.dtype, device=self.device) for size in self.settings.layers]

    def gather(self, input_idx_B: Tensor, column_idx_M: Tensor) -> StepRows:
        """Copy the item rows that one step needs."""
        return StepRows(
            inputs=TouchedRows.gather(self.input_table, input_idx_B),
            outputs=TouchedRows.gather(self.Wy, column_idx_M),
            biases=TouchedRows.gather(self.By, column_idx_M),
        )

    def forward(self, rows: StepRows, state: State) -> tuple[Tensor, list[Tensor]]:
        """Run one step: embedding, GRU layers, output scores.

        Args:
            rows: From :meth:`gather`: input rows (B, E), output rows (M, H), biases (M, 1).
            state: Hidden states before the step.

        Returns:
            scores_BM: Float (B, M), before the final activation.
            state: Hidden states after the step, dropout included.
        """
        new_state = self.next_state(rows.inputs.rows, state)
        scores_BM = torch.addmm(rows.biases.rows.T, new_state[-1], rows.outputs.rows.T)
        return scores_BM, new_state

    def next_state(self, input_BE: Tensor, state: State) -> list[Tensor]:
        """Run the GRU layers on input vectors (in mode ``none``: on the items' rows (B, 3 H))."""
        settings, new_state, states = self.settings, [], list(state)
        if self.GE is None:
            layer_input = self._dropout(input_BE, settings.dropout_p_embed)
        else:
            layer_input = self._dropout(self.GE(input_BE, states.pop(0)), settings.dropout_p_embed)
            new_state.append(layer_input)
        for cell, hidden_BH in zip(self.G, states, strict=True):
            layer_input = self._dropout(cell(layer_input, hidden_BH), settings.dropout_p_hidden)
            new_state.append(layer_input)
        return new_state

    def _dropout(self, values: Tensor, probability: float) -> Tensor:
        """Zero each value with the given probability and scale up the rest, in training only."""
        if not self.training or probability == 0:
            return values
        kept = torch.rand(values.shape, generator=self.rng, dtype=torch.float32, device=values.device) >= probability
        return values * kept / (1 - probability)


def _item_table(n_items: int, size: int) -> nn.Embedding:
    """Return an (n_items, size) matrix of zeros that autograd leaves alone."""
    table = nn.Embedding(n_items, size, _weight=torch.zeros(n_items, size))
    table.weight.requires_grad_(False)
    return table
