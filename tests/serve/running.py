"""Real processes for the tests of serving: ``gru4rec serve`` and Redis, on free ports, stopped by process id."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

COMMAND = [sys.executable, "-c", "from gru4rec.cli.main import command; command()"]


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Running:
    """A service in a process of its own.

    Args:
        words: After ``gru4rec serve``.
        log: Where its standard error goes.
        env: Environment variables beside this process's.
        cwd: Where it runs; None: here.
    """

    def __init__(self, *words: object, log: Path, env: Mapping[str, str] = {}, cwd: Path | None = None) -> None:
        self.port, self.log = free_port(), log
        command = [*COMMAND, "serve", *map(str, words), "--port", str(self.port)]
        with open(log, "ab") as file:
            self.process = subprocess.Popen(
                command,
                stdout=file,
                stderr=file,
                env=os.environ | {"OMP_NUM_THREADS": "1"} | env,
                cwd=cwd,
                start_new_session=True,
            )
        self._of_thread = threading.local()
        self._connections: list[http.client.HTTPConnection] = []
        until = time.monotonic() + 60
        while not self._is_ready():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < until, self.said()
            time.sleep(0.05)

    @property
    def pid(self) -> int:
        """Of the service, or of what watches its workers."""
        return self.process.pid

    def said(self) -> str:
        """Return what it wrote to standard error."""
        return self.log.read_text()

    def events(self) -> list[dict[str, Any]]:
        """Return its log lines."""
        return [json.loads(line) for line in self.said().splitlines() if line.startswith("{")]

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] = {},
    ) -> tuple[int, Any]:
        """Send a request on this thread's connection; return status and JSON (None where there is none)."""
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection = self._connection()
        try:
            connection.request(method, path, content, dict(headers))
            response = connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            raise
        is_json = response.headers.get_content_type() == "application/json"
        return response.status, json.loads(text) if is_json and text else text.decode() or None

    def recommend(self, session: list[Any], **options: Any) -> dict[str, Any]:
        """Return the answer for a session that is sent whole."""
        status, answer = self.ask("POST", "/v1/recommend", {"session": session, **options})
        assert status == 200, answer
        return dict(answer)

    def click(self, session_id: str, item: Any, **options: Any) -> dict[str, Any]:
        """Return the answer to a click."""
        status, answer = self.ask("POST", f"/v1/sessions/{session_id}/events", {"item": item, **options})
        assert status == 200, answer
        return dict(answer)

    def metric(self, name: str) -> float:
        """Return the sum of a metric's values over its labels."""
        text = self.ask("GET", "/metrics")[1]
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.split("{")[0].split()[0] == name)

    def stop(self) -> int:
        """End it as an operator does; return its exit status."""
        for connection in self._connections:
            connection.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def _connection(self) -> http.client.HTTPConnection:
        if not hasattr(self._of_thread, "connection"):
            self._of_thread.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            self._connections.append(self._of_thread.connection)
        connection: http.client.HTTPConnection = self._of_thread.connection
        return connection

    def _is_ready(self) -> bool:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


@contextmanager
def served(*words: object, log: Path, env: Mapping[str, str] = {}, cwd: Path | None = None) -> Iterator[Running]:
    """Run a service for as long as the block lasts."""
    service = Running(*words, log=log, env=env, cwd=cwd)
    try:
        yield service
    finally:
        service.stop()


class Redis:
    """A Redis without a file, on a port of its own."""

    def __init__(self) -> None:
        self.program = shutil.which("redis-server")
        if self.program is None:
            pytest.skip("no redis-server: apt-get install redis-server")
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        """Start it, and wait until it listens."""
        words = ["--port", str(self.port), "--save", "", "--appendonly", "no", "--bind", "127.0.0.1"]
        self.process = subprocess.Popen([str(self.program), *words], stdout=subprocess.DEVNULL, start_new_session=True)
        until = time.monotonic() + 10
        while time.monotonic() < until:
            with socket.socket() as attempt:
                if attempt.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError("Redis does not listen")

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(10)


@contextmanager
def redis() -> Iterator[Redis]:
    """Run a Redis for as long as the block lasts."""
    server = Redis()
    try:
        yield server
    finally:
        server.stop()
