"""Services in processes of their own, on free ports of this machine: started, watched, stopped by process id."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from benchmarks.serve_load import ROOT

ADMIN_KEY = "key-of-the-benchmark"
"""What opens /admin of the services here."""

_STARTS_IN_S, _ENDS_IN_S = 120.0, 20.0


class Service:
    """A process that listens on a port, until the ``with`` block ends.

    Args:
        command: Starts it; ``{port}`` becomes a free port.
        ready: Path that answers 200 once it is ready; None: it is when it takes connections.

    Attributes:
        port: Where it listens.
        process: Of the command.
    """

    def __init__(self, command: Sequence[str], *, ready: str | None = "/readyz", port: int | None = None) -> None:
        self.port = free_port() if port is None else port
        self._ready = ready
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - open for as long as the process runs
        environment = {**os.environ, "GRU4REC_ADMIN_KEYS": ADMIN_KEY, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        words = [word.format(port=self.port) for word in command]
        self.process = psutil.Popen(words, cwd=ROOT, env=environment, stdout=self._log, stderr=self._log)

    def __enter__(self) -> Self:
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def wait_until_ready(self) -> None:
        """Wait until it answers.

        Raises:
            RuntimeError: It ended, or took too long; with the end of what it wrote.
        """
        until = time.monotonic() + _STARTS_IN_S
        while not self._is_ready():
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{' '.join(self.process.args)} did not get ready: {self.written()[-2000:]}")
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        try:
            if self._ready is None:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return True
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{self._ready}", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def written(self) -> str:
        """Return what it wrote to its standard output and error."""
        self._log.seek(0)
        return self._log.read()

    def stop(self) -> int:
        """End it as a supervisor would; return its exit status."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self.process.terminate()
        try:
            return int(self.process.wait(_ENDS_IN_S) or 0)
        except psutil.TimeoutExpired:
            for process in self._all():
                process.kill()
            return int(self.process.wait() or 0)

    def workers(self) -> list[psutil.Process]:
        """Return the processes that answer: its children, or itself where it has none."""
        children = [child for child in self.process.children() if "resource_tracker" not in " ".join(child.cmdline())]
        return children or [self.process]

    def rss_bytes(self) -> int:
        """Return the memory that it and its workers hold."""
        return sum(process.memory_info().rss for process in self._all())

    def cpu_s(self) -> float:
        """Return the processor time that it and its workers have used."""
        return float(sum(sum(process.cpu_times()[:2]) for process in self._all()))

    def _all(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]

    def ask(self, path: str, question: Any = None, *, method: str | None = None, key: str | None = None) -> Any:
        """Ask once, and return the JSON of the answer; a question is posted as JSON."""
        headers = {"content-type": "application/json"} | ({} if key is None else {"authorization": f"Bearer {key}"})
        data = None if question is None else json.dumps(question).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", data=data, method=method, headers=headers
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())

    @contextlib.contextmanager
    def most_rss(self) -> Iterator[list[int]]:
        """Note, twice a second while the block runs, the memory it holds."""
        ended, noted = threading.Event(), [self.rss_bytes()]

        def watch() -> None:
            while not ended.wait(0.5):
                with contextlib.suppress(psutil.NoSuchProcess):
                    noted.append(self.rss_bytes())

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield noted
        finally:
            ended.set()
            thread.join()


def gru4rec_serve(model: Path, *flags: str) -> Service:
    """Start ``gru4rec serve``."""
    program = Path(sys.executable).parent / "gru4rec"
    return Service([str(program), "serve", str(model), "--port", "{port}", *flags])


def plain_serve(model: Path, handler: str) -> Service:
    """Start the plain service of benchmarks/serve_plain.py."""
    return Service([sys.executable, "-m", "benchmarks.serve_plain", str(model), "{port}", handler])


def redis_server(port: int) -> Service:
    """Start a Redis that keeps nothing on disk."""
    words = ["redis-server", "--bind", "127.0.0.1", "--port", "{port}", "--save", "", "--appendonly", "no"]
    return Service(words, ready=None, port=port)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
