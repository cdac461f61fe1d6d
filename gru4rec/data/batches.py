"""Session-parallel mini-batches: which lane reads which event at which step.

The schedule depends on the data and the number of lanes alone, so it is computed once and serves every epoch, and
evaluation too. Dimensions: T steps of an epoch, B lanes, S sampled negatives.
"""

from __future__ import annotations

import heapq
import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from gru4rec.data.sessions import Sessions
from gru4rec.errors import ConfigError, DataError

_BLOCK_PAIRS = 1 << 16
"""Pairs that are laid out, or read, at once: little enough to stay in cache."""

_SESSIONS_AT_ONCE = 1 << 17
"""Sessions that are handed out at once: 15 MB of Python numbers."""

_MAX_BYTES_IN_MEMORY = 1 << 30
"""Larger schedules lie in a temporary file."""


@dataclass(frozen=True)
class LaneSchedule:
    """Which lane reads which event at which step: P pairs of input and target, step by step, in lane order.

    Memory follows the log, whatever one long session does: 7 bytes a pair (11 above 2^31 events; 2 more above 65,536
    lanes). The arrays of a schedule above 1 GiB lie in temporary files, in the folder that ``TMPDIR`` names. No name
    leads to them (Windows: one does while they are in use), and their room is free again once the schedule is no
    longer used, however the program ends.

    Attributes:
        position_P: Int32 (P,), int64 above 2^31 events: the place in ``Sessions.item_idx`` of the input event; its
            target is the next place.
        lane_P: Uint16 (P,), int32 above 65,536 lanes: the lane that reads it. A lane is missing from a step only
            after the last session was handed out.
        resets_P: Bool (P,), the input event is its session's first.
        lane_steps_B: Int64 (B,), for how many steps the lanes last, the shortest first.
    """

    position_P: np.ndarray
    lane_P: np.ndarray
    resets_P: np.ndarray
    lane_steps_B: np.ndarray

    @classmethod
    def build(cls, sessions: Sessions, batch_size: int) -> LaneSchedule:
        """Lay the sessions of two or more events into lanes.

        Lane b starts with the b-th session; a lane that is done takes the next unused session, lanes that are done at
        the same step in lane order. With fewer sessions than ``batch_size`` only that many lanes exist.

        Raises:
            ConfigError: ``batch_size`` is below 1.
            DataError: No session has two events, or the schedule is too large for memory and the temporary folder.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size} leaves no lane. Give 1 or more")
        sessions.check_offsets()
        sessions.check_predictable()
        n_lanes = min(batch_size, sessions.n_sessions - sessions.n_single_event_sessions)
        position_P, lane_P, resets_P = _zeros(
            sessions.n_targets,
            np.int32 if sessions.n_events <= 1 << 31 else np.int64,
            np.uint16 if n_lanes <= 1 << 16 else np.int32,
            np.bool_,
        )
        # An event's origin is its position less its step: the same for all of a session, and higher for a lane's next.
        end_B = _hand_out(sessions, n_lanes, origin_P=position_P, starts_P=resets_P)
        schedule = cls(position_P, lane_P, resets_P, np.sort(end_B))
        origin_B = np.zeros(n_lanes, dtype=position_P.dtype)
        for step, pairs, shape in schedule.blocks():
            lanes = np.flatnonzero(end_B > step)
            block = position_P[pairs].reshape(shape)
            np.maximum(block[0], origin_B[lanes], out=block[0])
            np.maximum.accumulate(block, axis=0, out=block)
            origin_B[lanes] = block[-1]
            block += np.arange(step, step + len(block), dtype=block.dtype)[:, np.newaxis]
            lane_P[pairs].reshape(shape)[:] = lanes
        return schedule

    @property
    def n_lanes(self) -> int:
        """Lanes B, at most ``batch_size``."""
        return len(self.lane_steps_B)

    @property
    def n_steps(self) -> int:
        """Steps T of one epoch."""
        return int(self.lane_steps_B[-1])

    @property
    def n_active_T(self) -> np.ndarray:
        """Int64 (T,), lanes that are not empty; never rises."""
        return np.repeat(np.arange(self.n_lanes, 0, -1), np.diff(self.lane_steps_B, prepend=0))

    @property
    def ends_T(self) -> np.ndarray:
        """Int64 (T,), where each step's pairs end."""
        return np.cumsum(self.n_active_T)

    def blocks(self, first_step: int = 0) -> Iterator[tuple[int, slice, tuple[int, int]]]:
        """Cut an epoch, from a step on, into runs of steps that the same lanes are active in.

        Yields:
            The run's first step, its pairs, and the shape (steps, active lanes) that these pairs have as a table.
        """
        step = start = 0
        for n_active, end in zip(range(self.n_lanes, 0, -1), self.lane_steps_B.tolist(), strict=True):
            n_skipped = max(0, min(end, first_step) - step)
            step, start = step + n_skipped, start + n_skipped * n_active
            while step < end:
                n_steps = min(end - step, max(1, _BLOCK_PAIRS // n_active))
                stop = start + n_steps * n_active
                yield step, slice(start, stop), (n_steps, n_active)
                step, start = step + n_steps, stop


def _hand_out(sessions: Sessions, n_lanes: int, *, origin_P: np.ndarray, starts_P: np.ndarray) -> np.ndarray:
    """Give each session, in order, the lane that becomes free first (the lowest one among equals).

    A session starts at a step before which every lane was active, and lower lanes still are: its first pair's place is
    step x lanes + lane. So one number says when a lane becomes free, which lane that is, and where to write.

    Args:
        sessions: Those of one event get no lane.
        n_lanes: Lanes B.
        origin_P: Gets, at the place of each session's first pair, the event's position less its step.
        starts_P: Gets True there.

    Returns:
        Int64 (B,), the step at which each lane becomes free for good.
    """
    free = list(range(n_lanes))
    for chunk in range(0, sessions.n_sessions, _SESSIONS_AT_ONCE):
        offsets = sessions.offsets[chunk : chunk + _SESSIONS_AT_ONCE + 1]
        n_pairs = np.diff(offsets) - 1
        usable = n_pairs > 0
        places = []
        for pairs in n_pairs[usable].tolist():
            places.append(free[0])
            heapq.heapreplace(free, free[0] + pairs * n_lanes)
        place = np.array(places, dtype=np.int64)
        origin_P[place] = offsets[:-1][usable] - place // n_lanes
        starts_P[place] = True
    end, lane = np.divmod(np.array(free), n_lanes)
    return end[np.argsort(lane)]


def _zeros(n: int, *dtypes: type[np.generic]) -> list[np.ndarray]:
    """Return arrays (n,) of zeros, in temporary files where they are too large for memory together."""
    n_bytes = n * sum(np.dtype(dtype).itemsize for dtype in dtypes)
    if n_bytes <= _MAX_BYTES_IN_MEMORY:
        return [np.zeros(n, dtype) for dtype in dtypes]
    try:
        return [_zeros_in_file(n, np.dtype(dtype)) for dtype in dtypes]
    except OSError as error:
        raise DataError(
            f"no room for the {n_bytes / 1e9:.1f} GB that say which lane reads which of {n:,} events when, in the "
            f"temporary folder {tempfile.tempdir}: {error}. Free some, or name another folder in TMPDIR"
        ) from error


def _zeros_in_file(n: int, dtype: np.dtype[Any]) -> np.ndarray:
    """Return an array whose temporary file goes with it; every byte is written, so that a full disk shows here."""
    n_bytes, piece = n * dtype.itemsize, bytes(1 << 20)
    with tempfile.TemporaryFile(prefix="gru4rec-") as file:
        for start in range(0, n_bytes, len(piece)):
            file.write(piece[: n_bytes - start])
        return np.memmap(file, dtype, mode="r+", shape=(n,)).view(np.ndarray)  # outlives the closed file


@dataclass(frozen=True)
class Batch:
    """One step's events of the lanes that are not empty (A of the B lanes, in lane order).

    Attributes:
        lanes: Int32 (A,), which lanes these are.
        position: Int32 or int64 (A,), as in the schedule: place of each lane's newest event in ``Sessions.item_idx``.
        input_idx: Int32 (A,), item index of each lane's newest event.
        target_idx: Int32 (A,), item index of the event that follows.
        resets: Bool (A,), the lane starts a session, so its hidden state is zero.
        negative_idx: Int32 (S,), sampled negatives shared by all lanes; empty in evaluation.
    """

    lanes: np.ndarray
    position: np.ndarray
    input_idx: np.ndarray
    target_idx: np.ndarray
    resets: np.ndarray
    negative_idx: np.ndarray


class Negatives(Protocol):
    """Whatever hands out one step's negatives, int32 (S,) at each call: a SampleStore, or a recording of one."""

    @property
    def n_sample(self) -> int:
        """Negatives S per step."""

    def next(self) -> np.ndarray:
        """Return the next step's negatives, int32 (S,)."""


class SessionDataIterator:
    """The batches of one epoch, in order; iterating again gives the same lanes and fresh negatives.

    Args:
        sessions: What to iterate over.
        batch_size: Number of lanes B.
        negatives: Where each step's negatives come from. None, as in evaluation: there are none, and no step is left
            out.

    Attributes:
        schedule: Which lane reads which event at which step, as flat arrays.
        n_lanes: Lanes in use, at most ``batch_size``.
        n_steps: Steps of one epoch. With a store of zero negatives the epoch ends where a single lane is left, since
            that lane has nothing to be compared with.
        n_events: Targets of one epoch.

    Raises:
        DataError: No session gives a step.
    """

    def __init__(self, sessions: Sessions, *, batch_size: int, negatives: Negatives | None = None) -> None:
        self.sessions = sessions
        self.batch_size = batch_size
        self.negatives = negatives
        self.schedule = LaneSchedule.build(sessions, batch_size)
        self.n_lanes = self.schedule.n_lanes
        self.n_steps = self.schedule.n_steps
        if negatives is not None and negatives.n_sample == 0:
            self.n_steps = int(self.schedule.lane_steps_B[:-1].max(initial=0))
        if not self.n_steps:
            raise DataError(
                f"{sessions.source} has one session to train on, and n_sample=0 leaves no negative. Raise n_sample"
            )
        self.n_events = int(np.minimum(self.schedule.lane_steps_B, self.n_steps).sum())

    def __len__(self) -> int:
        return self.n_steps

    def __iter__(self) -> Iterator[Batch]:
        return self.from_step(0)

    def from_step(self, first_step: int) -> Iterator[Batch]:
        """Yield the batches from a step of the epoch on, counted from 0; negatives go on where they are."""
        no_negatives = np.empty(0, dtype=np.int32)
        events = itertools.islice(self._events(first_step), max(0, self.n_steps - first_step))
        for lanes, position, input_idx, target_idx, resets in events:
            negative_idx = no_negatives if self.negatives is None else self.negatives.next()
            yield Batch(lanes, position, input_idx, target_idx, resets, negative_idx)

    def _events(self, first_step: int) -> Iterator[tuple[np.ndarray, ...]]:
        """Read the events of many steps at once, and hand them out step by step."""
        items_at = self.sessions.items_at
        for _step, pairs, shape in self.schedule.blocks(first_step):
            position = self.schedule.position_P[pairs]
            lanes = self.schedule.lane_P[pairs].astype(np.int32)
            columns = (lanes, position, items_at(position), items_at(position + 1), self.schedule.resets_P[pairs])
            yield from zip(*(column.reshape(shape) for column in columns), strict=True)
