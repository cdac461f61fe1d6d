"""Item matrices larger than a GPU: they stay in host memory, and the rows that some steps touch visit the GPU.

The steps are those of :class:`gru4rec.train.gpu_step.GPUStep`, on small matrices that hold the rows of one chunk of
steps; rows, accumulators and velocities come before it and go back after it, popular items once for all its steps. So
results are those of training with all rows on the GPU, to the last bit. Dimensions: N items, U touched items, D row
size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gru4rec.data.batches import SessionDataIterator
from gru4rec.model.network import GRU4RecModel
from gru4rec.train.gpu_plan import Chunk, chunk_steps
from gru4rec.train.gpu_step import GPUStep, steps_between_updates
from gru4rec.train.optim import IndexedAdagradM

VISITING_BYTES = 1 << 30
"""What the rows that visit the GPU may take there, and once more in host memory; one update's rows at least."""


class HostTablesStep(GPUStep):
    """A GPU's step for a model that is not on the GPU; see :class:`GPUStep`.

    Weights on the host are those of training at the ends of epochs.

    Args:
        model: Weights, trained in place; on the host, its generator on ``device``.
        optimizer: Holds accumulators and momentum, on the host. Its settings are read when an epoch begins.
        log_support_N: Log of each item's training events, for the logq correction.
        device: Where the steps run.
        n_lanes: Lanes of the schedule.
        n_steps: Steps of an epoch, if known.
        **options: As for :class:`GPUStep`.
    """

    def __init__(
        self,
        model: GRU4RecModel,
        optimizer: IndexedAdagradM,
        log_support_N: Tensor,
        *,
        device: torch.device,
        n_lanes: int,
        n_steps: int | None = None,
        **options: Any,
    ) -> None:
        settings = model.settings
        assert settings.n_sample != "all"
        rows_a_step = 2 * n_lanes + settings.n_sample
        max_steps = VISITING_BYTES // (rows_a_step * bytes_a_row(model, optimizer))
        longest = chunk_steps(steps_between_updates(settings, n_steps), max_steps)
        n_rows = min(model.n_items, longest * rows_a_step)
        self._visitors = VisitingRows(model, optimizer, log_support_N, n_rows=n_rows, device=device)
        super().__init__(
            self._visitors.model, self._visitors.optimizer, self._visitors.log_support,
            n_lanes=n_lanes, n_steps=n_steps, max_steps=max_steps, **options,
        )  # fmt: skip

    def epoch(self, batches: SessionDataIterator, first_step: int = 0) -> Iterator[Tensor]:
        """See :class:`GPUStep`."""
        self._visitors.bring_network()
        yield from super().epoch(batches, first_step)
        with self._at_work():
            self._visitors.send_home()
        self._visitors.send_network_home()

    def _ready(self, chunk: Chunk) -> Chunk:
        """Rename the items while the GPU still works on the chunk before; then change the rows that are there."""
        n_lanes_items = chunk.lanes[1:3].size
        item_idx = np.concatenate([chunk.lanes[1:3].reshape(-1), chunk.negatives.reshape(-1)])
        touched, row = self._visitors.named_by_row(item_idx)
        self._visitors.send_home()
        self._visitors.bring(touched)
        lanes = chunk.lanes.copy()
        lanes[1:3] = row[:n_lanes_items].reshape(2, -1)
        return Chunk(chunk.n_steps, lanes, row[n_lanes_items:].reshape(chunk.negatives.shape))


class VisitingRows:
    """Rows of a model's item matrices on another device than the model's, as a small model, with all that updates need.

    Args:
        model: The whole model, on the host.
        optimizer: Its accumulators and velocities.
        log_support_N: Log of each item's training events.
        n_rows: Rows that there is room for.
        device: Where they visit.

    Attributes:
        model: Of ``n_rows`` items; its generator is the whole model's.
        optimizer: Of that model.
        log_support: (n_rows,).
    """

    def __init__(
        self,
        model: GRU4RecModel,
        optimizer: IndexedAdagradM,
        log_support_N: Tensor,
        *,
        n_rows: int,
        device: torch.device,
    ) -> None:
        self.model = GRU4RecModel(n_rows, model.settings, rng=model.rng).to(device, model.dtype).train()
        self.optimizer = IndexedAdagradM(self.model.parameters(), **optimizer.update_settings)
        self.log_support = log_support_N.new_zeros(n_rows, device=device)
        self._device, self._optimizer_at_home = device, optimizer
        self._rows: list[tuple[Tensor, Tensor, Tensor]] = []  # here, at home, and on the way: in pinned memory
        self._network: list[tuple[Tensor, Tensor]] = []
        for here, at_home in zip(self.model.parameters(), model.parameters(), strict=True):
            parts = (here.detach(), *self.optimizer.state_of(here)), (at_home.detach(), *optimizer.state_of(at_home))
            pairs = [(one, other) for one, other in zip(*parts, strict=True) if one is not None and other is not None]
            if here.requires_grad:
                self._network += pairs
            else:
                self._rows += [(one, other, self._on_the_way(one)) for one, other in pairs]
        self._support = self.log_support, log_support_N, self._on_the_way(self.log_support)
        self._number_N = np.empty(model.n_items, dtype=np.int32)
        self._touched_U: Tensor | None = None

    def named_by_row(self, item_idx: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the items that occur in ``item_idx`` (R,), each once, int64 (U,), and ``item_idx`` as places there."""
        number_N, places = self._number_N, np.arange(len(item_idx), dtype=np.int32)
        number_N[item_idx] = places  # of an item that repeats one place stays
        touched_U = item_idx[number_N[item_idx] == places]
        number_N[touched_U] = places[: len(touched_U)]
        return touched_U.astype(np.int64), number_N[item_idx]

    def bring(self, touched_U: np.ndarray) -> None:
        """Let the rows of some items come; the program does not wait for them."""
        self._touched_U = torch.from_numpy(touched_U)
        for here, at_home, on_the_way in (*self._rows, self._support):
            torch.index_select(at_home, 0, self._touched_U, out=on_the_way[: len(touched_U)])
            here[: len(touched_U)].copy_(on_the_way[: len(touched_U)], non_blocking=True)

    def send_home(self) -> None:
        """Put the rows that came back where they came from, once the steps before are done."""
        if self._touched_U is None:
            return
        for here, _, on_the_way in self._rows:
            on_the_way[: len(self._touched_U)].copy_(here[: len(self._touched_U)], non_blocking=True)
        if self._device.type == "cuda":
            torch.cuda.current_stream().synchronize()
        for _, at_home, on_the_way in self._rows:
            at_home.index_copy_(0, self._touched_U, on_the_way[: len(self._touched_U)])
        self._touched_U = None

    def bring_network(self) -> None:
        """Bring the network's weights, their accumulators and velocities, and the optimiser's settings."""
        self.optimizer.param_groups[0].update(self._optimizer_at_home.update_settings)
        for here, at_home in self._network:
            here.copy_(at_home)

    def send_network_home(self) -> None:
        """Put the network's weights, their accumulators and velocities back."""
        for here, at_home in self._network:
            at_home.copy_(here)

    def _on_the_way(self, here: Tensor) -> Tensor:
        return torch.empty(here.shape, dtype=here.dtype, pin_memory=self._device.type == "cuda")


def bytes_a_row(model: GRU4RecModel, optimizer: IndexedAdagradM) -> int:
    """Return what an item takes in all item matrices, accumulators and velocities."""
    n_copies = 3 if optimizer.update_settings["momentum"] > 0 else 2
    numbers = sum(weight.shape[1] for weight in model.parameters() if not weight.requires_grad)
    return numbers * n_copies * model.Wy.weight.element_size()
