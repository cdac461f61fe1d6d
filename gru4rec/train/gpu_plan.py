"""What the steps of a GPU read, laid out on the device for many steps at once: rows of integers of one width.

Dimensions: B lanes, S sampled negatives, M = B + S score columns, W steps between two updates ("a unit"), U units.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gru4rec.data.batches import SessionDataIterator

CHUNK_STEPS = 256
"""Steps that are laid out at once, at most."""

CHUNK_NUMBERS = 1 << 22
"""Integers that are laid out at once, at most: 16 MiB."""


class Chunk(NamedTuple):
    """What some steps read, as it comes from the log.

    Attributes:
        n_steps: Steps.
        lanes: Int32 (4, P), for each lane that is not empty: step x B + lane, input item, target item, going on.
        negatives: Int32 (C, S), zeros for steps that fill up an epoch's last unit.
    """

    n_steps: int
    lanes: np.ndarray
    negatives: np.ndarray


def chunk_steps(n_waiting: int, max_steps: int | None = None) -> int:
    """Return how many steps are laid out at once, at most: whole units, one at least.

    Args:
        n_waiting: Steps between two updates.
        max_steps: Not more than these; None: ``CHUNK_STEPS``.
    """
    return n_waiting * max(1, min(CHUNK_STEPS, CHUNK_STEPS if max_steps is None else max_steps) // n_waiting)


class ChunkPlan:
    """The next steps, a row for each unit.

    A lane that is empty has target -1, reads item 0 and starts anew at every step; its column is left out. Steps that
    fill up an epoch's last unit have only such lanes, but leave no column out: nothing comes of them.

    Args:
        n_items: Rows of an item matrix.
        n_lanes: Lanes of the schedule.
        n_sample: Negatives of a step.
        n_waiting: Steps between two updates.
        is_shared: Whether input vectors are rows of the output matrix.
        device: Where the steps run.
        max_steps: Steps that are laid out at once, at most; None: ``CHUNK_STEPS``.

    Attributes:
        n_steps: Steps that are laid out at once.
        input_idx: Int32 (W, B), and so on for the unit that was read last: item of each lane's input.
        going_on: Int32 (W, B), 0 where a lane starts a session, else 1.
        target: Int32 (W, B), a lane's target column, or -1.
        is_left_out: Int32 (W, B), 1 for a target's column that does not count.
        column_idx: Int32 (W, M), item of each column, targets first.
        outputs: Int32 (3, W M), order, item_idx and count for ``torch_ops.update_segments`` of the columns' rows; where
            inputs are shared (3, W M + W B), with their rows after those of all columns.
        inputs: Int32 (3, W B), the same for the inputs' rows where they are not shared.
    """

    def __init__(
        self,
        *,
        n_items: int,
        n_lanes: int,
        n_sample: int,
        n_waiting: int,
        is_shared: bool,
        device: torch.device,
        max_steps: int | None = None,
    ) -> None:
        self._n_items, self._n_lanes, self._n_sample, self._n_waiting = n_items, n_lanes, n_sample, n_waiting
        self._is_shared, self._device = is_shared, device
        n_columns, n_inputs = n_waiting * (n_lanes + n_sample), n_waiting * n_lanes
        lanes = (n_waiting, n_lanes)
        shapes = [lanes, lanes, lanes, lanes, (n_waiting, n_lanes + n_sample)]
        shapes += [(3, n_columns + n_inputs)] if is_shared else [(3, n_columns), (3, n_inputs)]
        sizes = [math.prod(shape) for shape in shapes]
        n_units = max(1, min(chunk_steps(n_waiting, max_steps) // n_waiting, CHUNK_NUMBERS // sum(sizes)))
        self.n_steps = n_units * n_waiting
        self._rows = torch.zeros(n_units, sum(sizes), dtype=torch.int32, device=device)
        self._row = torch.zeros(1, sum(sizes), dtype=torch.int32, device=device)
        fields = [field.view(shape) for field, shape in zip(torch.split(self._row[0], sizes), shapes, strict=True)]
        self.input_idx, self.going_on, self.target, self.is_left_out, self.column_idx, self.outputs = fields[:6]
        self.inputs = fields[-1]

    def read(self, unit: Tensor) -> None:
        """Set the attributes to those of a unit, int64 (1,) on the device."""
        torch.index_select(self._rows, 0, unit, out=self._row)

    def take(self, batches: SessionDataIterator, first: int, ends_T: np.ndarray) -> Chunk:
        """Read the steps from ``first`` on, as many as are laid out at once.

        Args:
            batches: The epoch.
            first: A step.
            ends_T: As in its schedule.
        """
        schedule, items_at = batches.schedule, batches.sessions.items_at
        start = int(ends_T[first - 1]) if first else 0
        ends = ends_T[first : min(first + self.n_steps, batches.n_steps)]
        n_active, pairs = np.diff(ends, prepend=start), slice(start, int(ends[-1]))
        position = schedule.position_P[pairs]
        place = np.repeat(np.arange(len(n_active)) * self._n_lanes, n_active) + schedule.lane_P[pairs]
        lanes = np.empty((4, len(place)), dtype=np.int32)
        lanes[:] = place, items_at(position), items_at(position + 1), ~schedule.resets_P[pairs]
        negatives = np.zeros((-(-len(n_active) // self._n_waiting) * self._n_waiting, self._n_sample), dtype=np.int32)
        if batches.negatives is not None:
            for negatives_S in negatives[: len(n_active)]:
                negatives_S[:] = batches.negatives.next()
        return Chunk(len(n_active), lanes, negatives)

    def lay_out(self, chunk: Chunk) -> None:
        """Lay out the steps of a chunk on the device; the program does not wait for it."""
        self._lay_out(self._sent(chunk.lanes), self._sent(chunk.negatives))

    def clear(self) -> None:
        """Lay out one unit of nothing but empty lanes."""
        new = self._rows.new_zeros
        self._lay_out(new(4, 0), new(self._n_waiting, self._n_sample))

    def _sent(self, numbers: np.ndarray) -> Tensor:
        """Return an array on the device; the program does not wait for it."""
        tensor = torch.from_numpy(numbers)
        return tensor.pin_memory().to(self._device, non_blocking=True) if self._device.type == "cuda" else tensor

    def _lay_out(self, lanes_4P: Tensor, negatives_CS: Tensor) -> None:
        """Write rows of C steps.

        Args:
            lanes_4P: See :class:`Chunk`.
            negatives_CS: See :class:`Chunk`.
        """
        n_lanes, n_items = self._n_lanes, self._n_items
        dense = lanes_4P.new_zeros(4, len(negatives_CS) * n_lanes)
        place = lanes_4P[0].long()
        lanes_4P[0] = 1
        dense.index_copy_(1, place, lanes_4P)
        active, input_idx, target_idx, going_on = dense.view(4, -1, n_lanes)
        is_active = active > 0
        is_step = is_active.any(dim=1, keepdim=True)
        target = torch.where(is_active, torch.arange(n_lanes, dtype=torch.int32, device=self._device), -1)
        column_idx = torch.cat([target_idx, negatives_CS], dim=1)
        is_column = torch.cat([is_active, is_step.expand_as(negatives_CS)], dim=1)
        rows = [input_idx, going_on, target, (is_step & ~is_active).int(), column_idx]
        n_units = len(negatives_CS) // self._n_waiting
        touched = [
            item_idx.masked_fill(~is_touched, n_items).view(n_units, -1)
            for item_idx, is_touched in ((column_idx, is_column), (input_idx, is_active))
        ]
        for item_idx in [torch.cat(touched, dim=1)] if self._is_shared else touched:
            rows.append(segments(item_idx, n_items))
        torch.cat([part.reshape(n_units, -1) for part in rows], dim=1, out=self._rows[:n_units])


def segments(item_idx_UR: Tensor, n_items: int) -> Tensor:
    """Sort the touched rows of each of U updates by item; see :func:`gru4rec.train.kernels.torch_ops.update_segments`.

    Args:
        item_idx_UR: Int32 (U, R), ``n_items`` for a row that is not to be touched.
        n_items: Rows N of the item matrix.

    Returns:
        Int32 (U, 3, R): order, item_idx and count.
    """
    item, order = torch.sort(item_idx_UR, dim=1, stable=True)
    is_first = torch.ones_like(item, dtype=torch.bool)
    is_first[:, 1:] = item[:, 1:] != item[:, :-1]
    ends = torch.searchsorted(item, item, right=True, out_int32=True)
    count = (ends - torch.arange(item.shape[1], dtype=torch.int32, device=item.device)) * (is_first & (item < n_items))
    return torch.stack([order.int(), item.clamp(max=n_items - 1), count], dim=1)
