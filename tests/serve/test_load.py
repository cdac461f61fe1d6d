"""The load generator of the benchmarks: what it says of a service whose behaviour is known."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from benchmarks.serve_load import Load, LoadProcess, Plan, poisson_times, post, send
from benchmarks.serve_process import free_port

LATE_MS = 40.0
"""What a busy machine may add to a time that is known."""


class KnownService:
    """Answers as the path says: /wait/MS, /status/CODE, /close (answer, then end), /drop (end), /mute, /stall/MS.

    ``/stall`` stops the whole service for a while, as a long computation in its event loop would.
    """

    def __init__(self) -> None:
        self.port = 0
        self.n_connections = 0
        self.asked: list[tuple[str, bytes]] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))
        self._is_up, self._is_over = threading.Event(), asyncio.Event()

    def __enter__(self) -> KnownService:
        self._thread.start()
        assert self._is_up.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._is_over.set)
        self._thread.join()
        self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._is_up.set()
        await self._is_over.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.n_connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
                path = head.split()[1].decode()
                self.asked.append((path, await reader.readexactly(size)))
                if not await self._answered(path, writer):
                    break
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    async def _answered(self, path: str, writer: asyncio.StreamWriter) -> bool:
        """Answer; return whether the connection goes on."""
        _, kind, *number = path.split("/")
        if kind == "drop":
            return False
        if kind == "mute":
            await self._is_over.wait()
            return False
        if kind == "wait":
            await asyncio.sleep(int(number[0]) / 1000)
        if kind == "stall":
            time.sleep(int(number[0]) / 1000)
        status = number[0] if kind == "status" else "200"
        close = "connection: close\r\n" if kind == "close" else ""
        body = f"answer to {path}"
        writer.write(f"HTTP/1.1 {status} X\r\n{close}content-length: {len(body)}\r\n\r\n{body}".encode())
        return kind != "close"


@pytest.fixture
def service() -> Iterator[KnownService]:
    with KnownService() as service:
        yield service


def every(gap_s: float, n: int) -> np.ndarray:
    return gap_s * np.arange(n)


def asks(*paths: str) -> list[bytes]:
    return [post(path) for path in paths]


def test_open_loop_known_delay_is_the_latency(service: KnownService) -> None:
    load = send(Plan(service.port, asks("/wait/20", "/wait/80"), every(0.01, 100)))
    assert load.statuses(load.due_s >= 0) == {"200": 100}
    for first, delay_ms in ((0, 20.0), (1, 80.0)):
        latency_ms = load.latency_ms[first::2]
        assert latency_ms.min() >= delay_ms
        assert np.median(latency_ms) <= delay_ms + LATE_MS
    summary = load.summary(warm_up_s=0.5)
    assert summary["n_requests"] == 50
    assert 20 <= summary["p50_ms"] <= summary["p90_ms"]
    assert 80 <= summary["p90_ms"] <= summary["p99_ms"] <= summary["max_ms"] == load.latency_ms[50:].max()
    assert summary["due_per_s"] == pytest.approx(50 / 0.49)
    assert summary["lag_p50_ms"] < LATE_MS
    assert 0 < summary["sender_cpu_p"] < 80


def test_open_loop_stall_shows_in_all_requests_that_were_due_meanwhile(service: KnownService) -> None:
    """One request each 10 ms; the 50th stalls the service for 500 ms, so the one due t ms later waits 500 - t."""
    paths = ["/wait/0"] * 50 + ["/stall/500"] + ["/wait/0"] * 99
    load = send(Plan(service.port, asks(*paths), every(0.01, 150)))
    assert load.statuses(load.due_s >= 0) == {"200": 150}
    expected_ms = np.r_[np.zeros(50), 500 - 10 * np.arange(50), np.zeros(50)]
    assert (load.latency_ms >= expected_ms - 1).all()
    assert np.median(load.latency_ms - expected_ms) < LATE_MS
    assert (load.latency_ms > 300).sum() >= 20
    assert (load.due_s == every(0.01, 150)).all()
    assert np.percentile(load.lag_ms, 90) < 100, "the sender kept its times: the service was late, not the sender"


def test_closed_loop_hides_that_stall(service: KnownService) -> None:
    """What open loop is for: two callers wait out the stall, and all other requests never came."""
    paths = ["/wait/10"] * 50 + ["/stall/500"] + ["/wait/10"] * 99
    load = send(Plan(service.port, asks(*paths), n_connections=2))
    assert load.statuses(load.due_s >= 0) == {"200": 150}
    assert 1 <= (load.latency_ms > 300).sum() <= 2


def test_closed_loop_rate_is_callers_by_delay(service: KnownService) -> None:
    """Four callers at 50 ms each: at most 80 a second."""
    load = send(Plan(service.port, asks("/wait/50"), n_connections=4, seconds=1.5))
    assert service.n_connections == load.n_opened == 4
    assert 80 * (50 / (50 + LATE_MS)) <= load.summary(warm_up_s=0.5)["per_s"] <= 80 * 1.1
    assert load.due_s.max() < 1.5 <= load.done_s.max()


def test_closed_loop_sends_each_request_once_and_in_order(service: KnownService) -> None:
    load = send(Plan(service.port, [post(f"/wait/{n % 3}", b"%d" % n) for n in range(30)], n_connections=1))
    assert service.asked == [(f"/wait/{n % 3}", b"%d" % n) for n in range(30)]
    assert (np.diff(load.sent_s) > 0).all()
    assert (load.done_s[:-1] <= load.due_s[1:]).all()


def test_statuses_failures_and_bodies_are_those_of_each_request(service: KnownService) -> None:
    paths = ["/status/200", "/status/429", "/drop/0", "/status/503", "/close/0", "/mute/0"]
    load = send(Plan(service.port, asks(*paths), every(0.02, 60), patience_s=0.5, keep_bodies=True))
    assert load.statuses(load.due_s >= 0) == {"200": 20, "429": 10, "503": 10, "lost": 10, "unanswered": 10}
    for index, (status, body) in enumerate(zip(load.status.tolist(), load.bodies, strict=True)):
        path = paths[index % 6]
        assert body == (b"" if path in ("/drop/0", "/mute/0") else f"answer to {path}".encode())
        assert status == {0: 200, 1: 429, 2: -2, 3: 503, 4: 200, 5: -3}[index % 6]
    assert np.isinf(load.latency_ms[2::6]).all()
    assert np.isnan(load.done_s[5::6]).all()
    assert np.isfinite(load.summary()["max_ms"]), "only answers of 200 have a latency"


def test_connections_grow_with_what_is_busy_and_no_further_than_the_limit(service: KnownService) -> None:
    """One request each 10 ms that takes 95 ms keeps ten busy; with three of them the others wait for a connection."""
    free = send(Plan(service.port, asks("/wait/95"), every(0.01, 100)))
    assert 10 <= free.n_opened <= 30
    few = send(Plan(service.port, asks("/wait/95"), every(0.01, 30), n_connections=3))
    assert few.n_opened == 3
    assert few.latency_ms.max() >= 10 * 95 - 290 - 1, "the last is due after 290 ms, and the tenth of its connection"
    assert np.median(few.lag_ms) < 100
    assert few.sent_s[-1] - few.due_s[-1] >= 0.5


def test_connection_that_was_idle_for_long_is_not_used_again(service: KnownService) -> None:
    """Services close idle connections; a request that meets one just then would count as lost."""
    load = send(Plan(service.port, asks("/wait/0"), np.array([0.0, 0.5, 2.7])))
    assert load.statuses(load.due_s >= 0) == {"200": 3}
    assert service.n_connections == load.n_opened == 2


def test_long_results_come_back_whole(service: KnownService, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight megabytes through a pipe, also where Python does not buffer its output and a write may be cut short."""
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    path = "/wait/0/" + 8000 * "x"
    load = send(Plan(service.port, asks(path) * 1000, n_connections=8, keep_bodies=True))
    assert load.bodies == [f"answer to {path}".encode()] * 1000


def test_nobody_listens_every_request_is_refused() -> None:
    load = send(Plan(free_port(), asks("/wait/0"), every(0.01, 20)))
    assert load.statuses(load.due_s >= 0) == {"refused": 20}
    assert np.isnan(load.sent_s).all()
    assert load.summary()["p99_ms"] == np.inf


def test_load_process_begins_at_once_and_goes_on_beside_us(service: KnownService) -> None:
    process = LoadProcess(Plan(service.port, asks("/wait/0"), every(0.01, 50)))
    assert 0 <= process.started - time.monotonic() + 1 <= 1.1
    time.sleep(max(0.0, process.started + 0.25 - time.monotonic()))
    n_so_far = len(service.asked)
    load = process.result()
    assert 10 <= n_so_far <= 40
    assert len(service.asked) == 50
    assert load.started == process.started


def load_of(due_s: list[float], done_s: list[float], status: list[int], **given: Any) -> Load:
    due, done = np.array(due_s), np.array(done_s)
    return Load(0.0, due, due, due, done, np.array(status), [], n_opened=1, cpu_s=0.5, **given)


def test_summary_is_that_of_arithmetic() -> None:
    """Five after the warm-up of 1 s: latencies 10, 20, 30 ms; a 429 and a lost one count as requests only.

    Due from 1 s to 2 s: 5 a second. Three answers of 200 ended in that second, one of them due before it.
    """
    load = load_of(
        [0.5, 0.99, 1.0, 1.25, 1.5, 1.75, 2.0],
        [0.6, 1.01, 1.01, 1.27, 1.51, 1.80, 2.03],
        [200, 200, 200, 200, 429, -2, 200],
    )
    summary = load.summary(warm_up_s=1.0)
    assert summary["n_requests"] == 5
    assert summary["due_per_s"] == 5.0
    assert summary["per_s"] == 3.0
    assert (summary["p50_ms"], summary["max_ms"]) == pytest.approx((20.0, 30.0))
    assert summary["p90_ms"] == pytest.approx(28.0)  # at place 1.8 of 10, 20, 30
    assert summary["statuses"] == {"lost": 1, "200": 3, "429": 1}
    assert summary["sender_cpu_p"] == pytest.approx(100 * 0.5 / 2.03)


def test_poisson_times_have_the_rate_and_the_spread_of_chance() -> None:
    """A hundred seconds at 50 a second: counts a second have mean 50 and variance 50; gaps are exponential."""
    due_s = poisson_times(50, 100, seed=3)
    assert (np.diff(due_s) >= 0).all()
    assert due_s[-1] < 100
    counts = np.bincount(due_s.astype(int), minlength=100)
    assert 48 < counts.mean() < 52
    assert 30 < counts.var() < 75
    assert np.mean(np.diff(due_s) > 0.02) == pytest.approx(np.exp(-1), abs=0.03)
    assert not np.array_equal(due_s[:10], poisson_times(50, 100, seed=4)[:10])


def test_post_is_a_whole_request() -> None:
    assert post("/a", b"{}", authorization="Bearer x") == (
        b"POST /a HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: 2\r\n"
        b"authorization: Bearer x\r\n\r\n{}"
    )
