"""Scores the sessions of concurrent requests together, in one thread, while the event loop reads and answers others.

The thread takes what waits, without waiting for more unless told to. A long session is read a few clicks at a time, so
that it does not hold up those behind it.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from gru4rec.evaluate.evaluator import State
from gru4rec.serve.recommender import Filters, Recommendations, Recommender
from gru4rec.serve.turn_cost import TurnCost

_STEPS_A_TURN = 16
_SHARE_OF_NEWEST = 0.05
"""Weight of the newest answer in the running mean of how late the event loop is."""
_WAYS = 2
"""A request waits for the event loop on its way out, which is measured, and on its way in, which nobody sees."""


class BusyError(Exception):
    """More waits than can be answered in time.

    Attributes:
        wait_s: Estimated seconds of that work.
    """

    def __init__(self, wait_s: float) -> None:
        super().__init__(f"about {wait_s:.1f} s of work is waiting")
        self.wait_s = wait_s


class TooLateError(Exception):
    """A request waited longer than anyone would have waited for its answer."""


@dataclass(frozen=True)
class Scored:
    """What came out for a session.

    Attributes:
        found: Its list.
        state: After all clicks, of one session.
        is_popular: Whether no item of the session was known.
    """

    found: Recommendations
    state: State
    is_popular: bool


@dataclass
class Turn:
    """What a turn of the thread took.

    Attributes:
        n_sessions: Sessions that were in it.
        wait_s: How long each finished session had waited for its first turn.
        read_s: Spent on reading clicks.
        search_s: Spent on finding lists.
    """

    n_sessions: int
    wait_s: list[float]
    read_s: float
    search_s: float


@dataclass(eq=False)
class Task:
    """A session to be scored.

    Attributes:
        recommender: By which model.
        clicks: Item indices to be read, oldest first.
        seen: Item indices of the whole session.
        filters: What its list is to hold.
        state: Before ``clicks``; None: a session without events.
        deadline: By ``time.monotonic``; later nobody waits.
        answer: Where the answer goes.
        arrived: When it began to wait.
        n_read: Clicks that were read.
        left: When it left the thread.
    """

    recommender: Recommender
    clicks: np.ndarray
    seen: np.ndarray
    filters: Filters
    state: State | None
    deadline: float
    answer: asyncio.Future[Scored | Exception] | None = None
    arrived: float = field(default_factory=time.monotonic)
    n_read: int = 0
    left: float = 0.0

    @property
    def n_turns(self) -> int:
        """Turns that it needs."""
        return max(1, -(-len(self.clicks) // _STEPS_A_TURN))


class Batcher:
    """A thread that scores, and the queue before it.

    Args:
        batch_sessions: Sessions that are scored at once.
        batch_wait_s: How long the thread waits for more of them once there is one, in seconds.
        longest_wait_s: Estimated wait above which sessions are refused.
        on_turn: Told of every turn, in the thread.
    """

    def __init__(
        self,
        *,
        batch_sessions: int = 64,
        batch_wait_s: float = 0.0,
        longest_wait_s: float = 0.1,
        on_turn: Callable[[Turn], None] = lambda turn: None,
    ) -> None:
        self._most, self._wait_s, self._longest_wait_s = batch_sessions, batch_wait_s, longest_wait_s
        self._on_turn = on_turn
        self._queue: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._cost = TurnCost(0.0)
        self._n_waiting, self._n_turns = 0, 0
        self._loop_s = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="scoring", daemon=True)

    @property
    def n_waiting(self) -> int:
        """Sessions that were accepted and are not answered."""
        return self._n_waiting

    @property
    def wait_s(self) -> float:
        """Estimated seconds for which those that wait would keep another one waiting: for the thread, and the loop."""
        if not self._n_waiting:
            return 0.0
        turns_s = self._cost.wait_s(self._n_waiting, self._n_turns / self._n_waiting, self._most)
        return turns_s + _WAYS * self._loop_s

    def expect(self, alone_s: float) -> None:
        """Say what a turn of one session will take, until that is known from those that were scored."""
        self._cost = TurnCost(alone_s)

    def start(self) -> None:
        """Start the thread; answers go to the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """Answer what waits, then end the thread."""
        self._queue.put(None)
        self._thread.join()

    def check_room(self) -> None:
        """Refuse work that could not be done in time.

        Raises:
            BusyError: Too much waits.
        """
        if self.wait_s > self._longest_wait_s:
            raise BusyError(self.wait_s)

    async def score(self, tasks: Sequence[Task]) -> list[Scored]:
        """Score the sessions of one request.

        Raises:
            TooLateError: One of them waited beyond its deadline.
        """
        assert self._loop is not None, "start comes first"
        n_turns = sum(task.n_turns for task in tasks)
        self._n_waiting += len(tasks)
        self._n_turns += n_turns
        try:
            for task in tasks:
                task.answer = self._loop.create_future()
                self._queue.put(task)
            scored = [_scored(await task.answer) for task in tasks if task.answer is not None]
            late_s = time.monotonic() - max((task.left for task in tasks), default=time.monotonic())
            self._loop_s += _SHARE_OF_NEWEST * (late_s - self._loop_s)
            return scored
        finally:
            self._n_waiting -= len(tasks)
            self._n_turns -= n_turns

    # --- in the thread ---

    def _run(self) -> None:
        active: list[Task] = []
        is_ending = False
        while active or not is_ending:
            taken = self._taken(self._most - len(active), may_wait=not active)
            is_ending = is_ending or None in taken
            active += [task for task in taken if task is not None]
            active = self._turn(active)

    def _taken(self, room: int, *, may_wait: bool) -> list[Task | None]:
        """Take what waits, as much as there is room for; wait for the first only where there is nothing to do."""
        taken: list[Task | None] = [self._queue.get()] if may_wait else []
        until = time.monotonic() + self._wait_s
        while len(taken) < room:
            try:
                left_s = until - time.monotonic() if may_wait else 0.0
                taken.append(self._queue.get(timeout=left_s) if left_s > 0 else self._queue.get_nowait())
            except queue.Empty:
                break
        return taken

    def _turn(self, active: list[Task]) -> list[Task]:
        """Read some clicks of each session, list those that are read to the end, and return the others."""
        started, cost = time.monotonic(), self._cost
        late = [task for task in active if started > task.deadline]
        active = [task for task in active if started <= task.deadline]
        answers: list[tuple[Task, Scored | Exception]] = [(task, TooLateError()) for task in late]
        turn = Turn(len(active), [], 0.0, 0.0)
        for recommender in {id(task.recommender): task.recommender for task in active}.values():
            group = [task for task in active if task.recommender is recommender]
            try:
                answers += self._answered(recommender, group, turn)
            except Exception as error:  # whatever it is, no request may wait for ever
                answers += [(task, error) for task in group]
        if active:
            cost.note(len(active), time.monotonic() - started)
            self._on_turn(turn)
        for task, _ in answers:
            task.left = time.monotonic()
        if answers and self._loop is not None:
            self._loop.call_soon_threadsafe(_deliver, answers)
        done = {id(task) for task, _ in answers}
        return [task for task in active if id(task) not in done]

    def _answered(self, recommender: Recommender, group: list[Task], turn: Turn) -> list[tuple[Task, Scored]]:
        started = time.monotonic()
        turn.wait_s += [started - task.arrived for task in group if not task.n_read]
        _read_on(recommender, group)
        read = time.monotonic()
        turn.read_s += read - started
        ready = [task for task in group if task.n_read == len(task.clicks)]
        if not ready:
            return []
        state = _together(recommender, ready)
        seen, filters = [task.seen for task in ready], [task.filters for task in ready]
        lists = recommender.lists(state, seen, [0] * len(ready), filters)
        turn.search_s += time.monotonic() - read
        return [
            (task, Scored(found, tuple(part[row : row + 1] for part in state), not len(task.seen)))
            for row, (task, found) in enumerate(zip(ready, lists, strict=True))
        ]


def _read_on(recommender: Recommender, group: Sequence[Task]) -> None:
    """Read the next clicks of each session, a few at most."""
    with_clicks = [task for task in group if task.n_read < len(task.clicks)]
    if not with_clicks:
        return
    next_clicks = [task.clicks[task.n_read : task.n_read + _STEPS_A_TURN] for task in with_clicks]
    state = recommender.states_of(next_clicks, _together(recommender, with_clicks))
    for row, (task, clicks) in enumerate(zip(with_clicks, next_clicks, strict=True)):
        task.state = tuple(part[row : row + 1] for part in state)
        task.n_read += len(clicks)


def _together(recommender: Recommender, group: Sequence[Task]) -> State:
    """Return the states of sessions as one, copied."""
    if all(task.state is None for task in group):
        return recommender.start(len(group))
    rows = [recommender.start(1) if task.state is None else task.state for task in group]
    return tuple(torch.cat(parts) for parts in zip(*rows, strict=True))


def _deliver(answers: Sequence[tuple[Task, Scored | Exception]]) -> None:
    """Hand answers over, in the event loop; who has gone away gets none."""
    for task, answer in answers:
        if task.answer is not None and not task.answer.done():
            task.answer.set_result(answer)


def _scored(answer: Scored | Exception) -> Scored:
    if isinstance(answer, Exception):
        raise answer
    return answer
