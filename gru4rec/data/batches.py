"""Session-parallel mini-batches: which lane reads which event at which step.

The schedule depends on the data and the number of lanes alone, so it is computed once and serves every epoch, and
evaluation too. Dimensions: T steps of an epoch, B lanes, S sampled negatives.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gru4rec.data.sessions import Sessions
from gru4rec.errors import ConfigError, DataError


@dataclass(frozen=True)
class LaneSchedule:
    """Which lane reads which event at which step: P pairs of input and target, step by step, in lane order.

    Memory follows the log, not steps x lanes: one long session costs no more than its events.

    Attributes:
        position_P: Int64 (P,), the place in ``Sessions.item_idx`` of the input event; its target is the next place.
        lane_P: Int32 (P,), the lane that reads it. A lane is missing from a step only after the last session was handed
            out.
        ends_T: Int64 (T,), where each step's pairs end.
        n_lanes: Lanes, at most ``batch_size``.
    """

    position_P: np.ndarray
    lane_P: np.ndarray
    ends_T: np.ndarray
    n_lanes: int

    @classmethod
    def build(cls, sessions: Sessions, batch_size: int) -> LaneSchedule:
        """Lay the sessions of two or more events into lanes.

        Lane b starts with the b-th session; a lane that is done takes the next unused session, lanes that are done at
        the same step in lane order. With fewer sessions than ``batch_size`` only that many lanes exist.

        Raises:
            ConfigError: ``batch_size`` is below 1.
            DataError: No session has two events.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size} leaves no lane. Give 1 or more")
        sessions.check_predictable()
        usable = np.flatnonzero(sessions.lengths >= 2)
        n_pairs = sessions.lengths[usable] - 1
        lane, first_step = _hand_out(n_pairs, min(batch_size, len(usable)))
        pair = np.arange(n_pairs.sum()) - np.repeat(np.cumsum(n_pairs) - n_pairs, n_pairs)
        step_P = np.repeat(first_step, n_pairs) + pair
        lane_P = np.repeat(lane.astype(np.int32), n_pairs)
        position_P = np.repeat(sessions.offsets[usable], n_pairs) + pair
        order = np.lexsort((lane_P, step_P))
        return cls(position_P[order], lane_P[order], np.cumsum(np.bincount(step_P)), int(lane.max()) + 1)

    @property
    def n_steps(self) -> int:
        """Steps of one epoch."""
        return len(self.ends_T)

    @property
    def n_active_T(self) -> np.ndarray:
        """Int64 (T,), lanes that are not empty; never rises."""
        return np.diff(self.ends_T, prepend=0)

    def step(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the lanes that are not empty at a step, and their positions."""
        pairs = slice(self.ends_T[number - 1] if number else 0, self.ends_T[number])
        return self.lane_P[pairs], self.position_P[pairs]


def _hand_out(n_pairs: np.ndarray, n_lanes: int) -> tuple[np.ndarray, np.ndarray]:
    """Give each session, in order, the lane that becomes free first (the lowest one among equals).

    Returns:
        lane: Int64 (n_sessions,).
        first_step: Int64 (n_sessions,), the step at which the session starts.
    """
    free = [(0, lane) for lane in range(n_lanes)]
    starts = []
    for pairs in n_pairs.tolist():
        step, lane = free[0]
        starts.append((lane, step))
        heapq.heapreplace(free, (step + pairs, lane))
    lane_and_step = np.array(starts, dtype=np.int64)
    return lane_and_step[:, 0], lane_and_step[:, 1]


@dataclass(frozen=True)
class Batch:
    """One step's events of the lanes that are not empty (A of the B lanes, in lane order).

    Attributes:
        lanes: Int32 (A,), which lanes these are.
        position: Int64 (A,), place of each lane's newest event in ``Sessions.item_idx``.
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
            self.n_steps = int(np.count_nonzero(self.schedule.n_active_T >= 2))
        if not self.n_steps:
            raise DataError(
                f"{sessions.source} has one session to train on, and n_sample=0 leaves no negative. Raise n_sample"
            )
        self.n_events = int(self.schedule.n_active_T[: self.n_steps].sum())
        self._starts_session = np.zeros(sessions.n_events, dtype=bool)
        self._starts_session[sessions.offsets[:-1]] = True

    def __len__(self) -> int:
        return self.n_steps

    def __iter__(self) -> Iterator[Batch]:
        no_negatives = np.empty(0, dtype=np.int32)
        for number in range(self.n_steps):
            lanes, position = self.schedule.step(number)
            yield Batch(
                lanes=lanes,
                position=position,
                input_idx=self.sessions.item_idx[position],
                target_idx=self.sessions.item_idx[position + 1],
                resets=self._starts_session[position],
                negative_idx=no_negatives if self.negatives is None else self.negatives.next(),
            )
