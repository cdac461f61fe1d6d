"""The process that sends a plan's requests: ``python -m benchmarks.serve_sender``, a pickled plan at standard input.

Writes a line with the time at which it begins, and then, pickled, what became of the requests. One event loop over
keep-alive connections, as many as are busy at once; a thread keeps the time, because it sleeps more finely than an
event loop does.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import pickle
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import cast

import httptools
import numpy as np
import uvloop

from benchmarks.serve_load import LOST, REFUSED, UNANSWERED, Load, Plan

_BEGINS_IN_S = 0.05
_IDLE_S = 2.0
"""A connection that was idle for longer is not used again: services close such, maybe just now."""
_PAUSE_S = 0.05
"""Before a caller of a closed loop who was turned away, or failed, comes back."""


def main() -> None:
    plan: Plan = pickle.load(sys.stdin.buffer)
    gc.disable()
    sys.setswitchinterval(0.0005)  # so that the loop does not keep the clock's thread from its times

    def tell(started: float) -> None:
        print(started, flush=True)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        load = runner.run(Sender(plan).run(tell))
    # Standard output may be unbuffered, and then a large write may be cut short.
    with open(sys.stdout.fileno(), "wb", closefd=False) as results:
        pickle.dump(load, results)


class Sender:
    """Sends a plan's requests, and notes what becomes of them."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._due: list[float] = []
        self._taken: list[float] = []
        self._sent: list[float] = []
        self._done: list[float] = []
        self._status: list[int] = []
        self._bodies: list[bytes] = []
        self._pool = _Pool(plan.port, plan.n_connections, self._write, self._finish)
        self._n_unfinished = 0
        self._all_finished = asyncio.Event()
        self._started = 0.0

    async def run(self, tell: Callable[[float], None]) -> Load:
        """Send all requests and wait for their answers.

        Args:
            tell: Called with the time at which the first may be due.
        """
        cpu_before_s = time.process_time()
        self._started = time.monotonic() + _BEGINS_IN_S
        tell(self._started)
        await asyncio.sleep(_BEGINS_IN_S)
        longest_s = self._begin()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if longest_s is None else longest_s + self._plan.patience_s):
                await self._all_finished.wait()
        times = (np.array(column) for column in (self._due, self._taken, self._sent, self._done))
        cpu_s = time.process_time() - cpu_before_s
        status = np.array(self._status, dtype=np.int16)
        return Load(self._started, *times, status, self._bodies, self._pool.n_opened, cpu_s)

    def _begin(self) -> float | None:
        """Let the first requests come; return for how many seconds there will be more, where that is known."""
        plan = self._plan
        if plan.due_s is None:
            n_callers = plan.n_connections
            self._n_unfinished = min(n_callers, len(plan.requests)) if plan.seconds is None else n_callers
            for _ in range(self._n_unfinished):
                self._come(self._now_s())
            return plan.seconds
        self._n_unfinished = len(plan.due_s)
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._keep_time, args=(loop, plan.due_s.tolist()), daemon=True).start()
        return float(plan.due_s[-1])

    def _keep_time(self, loop: asyncio.AbstractEventLoop, due_s: list[float]) -> None:
        """Tell the loop of each request when it is due; in a thread of its own."""
        for due in due_s:
            left_s = due - self._now_s()
            if left_s > 0:
                time.sleep(left_s)
            loop.call_soon_threadsafe(self._come, due)

    def _now_s(self) -> float:
        return time.monotonic() - self._started

    def _come(self, due: float) -> None:
        """Take a request that is due."""
        index = len(self._due)
        self._due.append(due)
        self._taken.append(self._now_s())
        self._sent.append(np.nan)
        self._done.append(np.nan)
        self._status.append(UNANSWERED)
        if self._plan.keep_bodies:
            self._bodies.append(b"")
        self._pool.ask(index)

    def _write(self, connection: _Connection, index: int) -> None:
        self._sent[index] = self._now_s()
        connection.write(index, self._plan.requests[index % len(self._plan.requests)])

    def _finish(self, index: int, status: int, body: bytes) -> None:
        self._done[index] = self._now_s()
        self._status[index] = status
        if self._plan.keep_bodies:
            self._bodies[index] = body
        if self._plan.due_s is not None:
            self._end_one()
        elif status == 200:
            self._caller_is_ready()
        else:
            asyncio.get_running_loop().call_later(_PAUSE_S, self._caller_is_ready)

    def _caller_is_ready(self) -> None:
        plan, now_s = self._plan, self._now_s()
        has_more = len(self._due) < len(plan.requests) if plan.seconds is None else now_s < plan.seconds
        if has_more:
            self._come(now_s)
        else:
            self._end_one()

    def _end_one(self) -> None:
        self._n_unfinished -= 1
        if not self._n_unfinished:
            self._all_finished.set()


class _Pool:
    """Connections, opened when all are busy, up to a limit; the one that was idle for longest is used next.

    Args:
        port: Where to.
        most: Connections at a time.
        write: Sends the request of this index over a connection.
        finish: Told of every request's index, status and body.

    Attributes:
        n_opened: Connections so far.
    """

    def __init__(
        self,
        port: int,
        most: int,
        write: Callable[[_Connection, int], None],
        finish: Callable[[int, int, bytes], None],
    ) -> None:
        self._port, self._most, self._write, self._finish = port, most, write, finish
        self._free: deque[_Connection] = deque()
        self._waiting: deque[int] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._n_open = self._n_opening = self.n_opened = 0

    def ask(self, index: int) -> None:
        """Send a request over a free connection, or as soon as there is one."""
        connection = self._fresh()
        if connection is None:
            self._waiting.append(index)
            self._open_another()
        else:
            self._write(connection, index)

    def opened(self, connection: _Connection) -> None:
        self._n_opening -= 1
        self.n_opened += 1
        self.is_free(connection)

    def is_free(self, connection: _Connection) -> None:
        """Use a connection for who waits, or keep it."""
        if self._waiting:
            self._write(connection, self._waiting.popleft())
        else:
            self._free.append(connection)

    def answered(self, connection: _Connection, index: int, status: int, body: bytes, *, stays_open: bool) -> None:
        if stays_open:
            self.is_free(connection)
        else:
            connection.close()
        self._finish(index, status, body)

    def lost(self, connection: _Connection) -> None:
        """A connection has ended; with it the request that was under way on it."""
        self._n_open -= 1
        with contextlib.suppress(ValueError):
            self._free.remove(connection)
        self._open_another()
        if connection.index is not None:
            self._finish(connection.index, LOST, b"")

    def _fresh(self) -> _Connection | None:
        while self._free:
            connection = self._free.popleft()
            if connection.is_fresh:
                return connection
            connection.close()
        return None

    def _open_another(self) -> None:
        """Open a connection where more requests wait than are being opened, and there may be more."""
        if self._n_opening < len(self._waiting) and self._n_open < self._most:
            self._n_open += 1
            self._n_opening += 1
            task = asyncio.get_running_loop().create_task(self._open())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _open(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: _Connection(self), "127.0.0.1", self._port)
        except OSError:
            self._n_open -= 1
            self._n_opening -= 1
            if self._waiting:
                self._finish(self._waiting.popleft(), REFUSED, b"")
            self._open_another()


class _Connection(asyncio.Protocol):
    """A connection and the request that is under way on it.

    Attributes:
        index: Of the request; None: it is free.
        idle_since: By ``time.monotonic()``.
    """

    def __init__(self, pool: _Pool) -> None:
        self._pool = pool
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._body: list[bytes] = []
        self.index: int | None = None
        self.idle_since = 0.0

    def write(self, index: int, request: bytes) -> None:
        assert self._transport is not None
        self.index = index
        self._transport.write(request)

    def close(self) -> None:
        assert self._transport is not None
        self._transport.close()

    @property
    def is_fresh(self) -> bool:
        assert self._transport is not None
        return not self._transport.is_closing() and time.monotonic() - self.idle_since < _IDLE_S

    # --- called by the event loop ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self.idle_since = cast(asyncio.Transport, transport), time.monotonic()
        self._pool.opened(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError:
            raise
        except httptools.HttpParserError:
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._pool.lost(self)

    # --- called by the parser ---

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        index, body = self.index, b"".join(self._body)
        self._body.clear()
        if index is None:  # an answer that nobody asked for, such as a timeout: the end of the connection follows
            return
        self.index, self.idle_since = None, time.monotonic()
        status, stays_open = self._parser.get_status_code(), self._parser.should_keep_alive()
        self._pool.answered(self, index, status, body, stays_open=stays_open)


if __name__ == "__main__":
    main()
