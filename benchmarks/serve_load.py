"""Load on an HTTP service of this machine: what is to be sent, and what became of it. Sent by another process.

Open loop: every request has a time at which it is due, whatever has become of those before it, and its latency counts
from there. So a service that stalls is seen to stall by all that came meanwhile. Closed loop: some callers, each of
which sends when it has its answer. Knows bytes and statuses, not what is asked.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
REFUSED, LOST, UNANSWERED = -1, -2, -3
"""In the place of a status: no connection; a connection that ended before the answer; no answer in all the time."""

_NAMES = {REFUSED: "refused", LOST: "lost", UNANSWERED: "unanswered"}


@dataclass(frozen=True)
class Plan:
    """What to send.

    Attributes:
        port: Of the service, on 127.0.0.1.
        requests: Bytes of the requests, taken in order, and from the first again after the last.
        due_s: Open loop: float (n,), ascending, seconds from the start at which each is due. None: closed loop.
        n_connections: Open loop: at most so many. Closed loop: callers.
        seconds: Closed loop: after these nothing more is sent; None: each request once.
        patience_s: How long answers are waited for after the last request was due.
        keep_bodies: Whether the answers' bodies come back too.
    """

    port: int
    requests: Sequence[bytes]
    due_s: np.ndarray | None = None
    n_connections: int = 512
    seconds: float | None = None
    patience_s: float = 10.0
    keep_bodies: bool = False


@dataclass(frozen=True)
class Load:
    """What became of the requests, in the order in which they were due.

    Attributes:
        started: By ``time.monotonic()``, which all processes of a machine share.
        due_s: Seconds from the start. Closed loop: when the caller was ready.
        taken_s: When the sender came to it; later than it was due, the sender is the slow one.
        sent_s: When it was written to a connection; NaN: never.
        done_s: When its answer was complete, or it failed; NaN: neither.
        status: HTTP status, or REFUSED, LOST, UNANSWERED.
        bodies: Of the answers, where they were to be kept.
        n_opened: Connections.
        cpu_s: Processor time of the sender.
    """

    started: float
    due_s: np.ndarray
    taken_s: np.ndarray
    sent_s: np.ndarray
    done_s: np.ndarray
    status: np.ndarray
    bodies: list[bytes] = field(repr=False)
    n_opened: int
    cpu_s: float

    @property
    def latency_ms(self) -> np.ndarray:
        """From when a request was due to the end of its answer; endless where it failed."""
        return np.where(self.status > 0, 1e3 * (self.done_s - self.due_s), np.inf)

    @property
    def lag_ms(self) -> np.ndarray:
        """How late the sender itself was."""
        return 1e3 * (self.taken_s - self.due_s)

    def statuses(self, which: np.ndarray) -> dict[str, int]:
        """Return how often each status came among some requests."""
        values, counts = np.unique(self.status[which], return_counts=True)
        return {_NAMES.get(int(value), str(value)): int(count) for value, count in zip(values, counts, strict=True)}

    def summary(self, *, warm_up_s: float = 0.0) -> dict[str, Any]:
        """Return what a row of results says, without the requests that were due while all warmed up.

        Latencies are those of answers of 200; ``per_s`` is how many of these came a second while requests were due.
        """
        which = self.due_s >= warm_up_s
        good = which & (self.status == 200)
        span_s = float(self.due_s[-1]) - warm_up_s
        came = (self.status == 200) & (self.done_s >= warm_up_s) & (self.done_s <= self.due_s[-1])
        latencies = np.percentile(self.latency_ms[good], [50, 90, 99, 100]) if good.any() else np.full(4, np.inf)
        lags = np.percentile(self.lag_ms[which], [50, 99, 100])
        return {
            "n_requests": int(which.sum()),
            "due_per_s": float(which.sum()) / span_s,
            "per_s": float(came.sum()) / span_s,
            **dict(zip(("p50_ms", "p90_ms", "p99_ms", "max_ms"), latencies.tolist(), strict=True)),
            "statuses": self.statuses(which),
            "n_connections": self.n_opened,
            **dict(zip(("lag_p50_ms", "lag_p99_ms", "lag_max_ms"), lags.tolist(), strict=True)),
            "sender_cpu_p": 100 * self.cpu_s / float(np.nanmax([self.done_s, self.due_s])),
        }


class LoadProcess:
    """A process that sends a plan's requests; they begin as it is made.

    Attributes:
        started: When, by ``time.monotonic()``.
    """

    def __init__(self, plan: Plan) -> None:
        command = [sys.executable, "-m", "benchmarks.serve_sender"]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._results = self._process.stdout
        with self._process.stdin as plans:
            pickle.dump(plan, plans)
        self.started = float(self._results.readline())

    def result(self) -> Load:
        """Wait for the end; return what became of the requests."""
        with self._process, self._results as results:
            load: Load = pickle.loads(results.read())
        return load


def send(plan: Plan) -> Load:
    """Send the requests from another process; return what became of them."""
    return LoadProcess(plan).result()


def poisson_times(rate: float, seconds: float, *, seed: int = 0) -> np.ndarray:
    """Return when requests are due that come independently of each other, ``rate`` a second on average."""
    rng = np.random.default_rng(seed)
    n_requests = rng.poisson(rate * seconds)
    return np.sort(rng.uniform(0, seconds, n_requests))


def post(path: str, body: bytes = b"", **headers: str) -> bytes:
    """Return the bytes of a POST with a JSON body."""
    lines = [
        f"POST {path} HTTP/1.1",
        "host: 127.0.0.1",
        "content-type: application/json",
        f"content-length: {len(body)}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
