"""A Ray cluster of one machine, and the processes that runs on Ray start."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import psutil
from conftest import ROOT

from gru4rec.scale.ray_driver import end_session


@dataclass(frozen=True)
class Cluster:
    """Where it answers, and the session of its processes."""

    address: str
    session: int


@contextmanager
def cluster(n_cpus: int) -> Iterator[Cluster]:
    """Start a head node as its users do. All its processes are killed in the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="g4r-", dir="/tmp") as folder, tempfile.TemporaryFile() as said:
        command = [
            sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}",
            f"--num-cpus={n_cpus}", f"--temp-dir={folder}", "--object-store-memory=100000000",
            "--include-dashboard=false", "--disable-usage-stats",
        ]  # fmt: skip
        head = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True, cwd=ROOT)
        try:
            wait_until(lambda: "Ray runtime started" in _text(said), head, said)
            yield Cluster(f"127.0.0.1:{port}", head.pid)
        finally:
            end_session(head.pid)
            head.wait()


def wait_until(condition: Callable[[], object], process: subprocess.Popen[bytes], said: IO[bytes]) -> None:
    """Wait while a process lives; what it said is in the failure."""
    until = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, _text(said)
        assert time.monotonic() < until, _text(said)
        time.sleep(0.01)


def session_of(command: int) -> int:
    """Return the session that a command began for Ray."""
    children = psutil.Process(command).children()
    return next(os.getsid(child.pid) for child in children if os.getsid(child.pid) != os.getsid(command))


def of_session(session: int, title: str = "") -> list[psutil.Process]:
    """Return the living processes of a session that have a text in their title."""
    found = []
    for process in psutil.process_iter():
        try:
            is_of = os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE
            if is_of and title in " ".join(process.cmdline()):
                found.append(process)
        except (OSError, psutil.Error):
            continue
    return found


def _text(said: IO[bytes]) -> str:
    said.seek(0)
    return said.read().decode(errors="replace")
