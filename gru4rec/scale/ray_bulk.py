"""Lists in bulk on Ray: the parts of a run are written by the workers of a cluster, or of a Ray on this machine.

Ray itself runs in a process of its own (:mod:`gru4rec.scale.ray_driver`), which this one starts, listens to and ends.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import pickle
import queue
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil  # type: ignore[import-untyped, import-not-found, unused-ignore]

from gru4rec import errors
from gru4rec.errors import ConfigError, DataError, GRU4RecError
from gru4rec.scale.ray_driver import RayOrder, end_session
from gru4rec.scale.ray_worker import RayTask

_CONNECT_S, _JOIN_S, _END_S, _POLL_S = 5, 60, 10, 0.2
_LONGEST_TEMPORARY = 20
"""Ray puts sockets into its folder, whose paths the system limits to about 100 characters."""


class LostClusterError(GRU4RecError):
    """A Ray that had taken the work is gone.

    Exit status 1: the input was usable, the run failed.
    """

    exit_status = 1


@dataclass(frozen=True)
class OnRay:
    """Where Ray is.

    Attributes:
        address: HOST:PORT of a cluster, or ``auto`` for the one that this machine is part of; None: start one here.
        n_workers: Worker processes, each with one thread; None: one for each CPU.
    """

    address: str | None = None
    n_workers: int | None = None

    def check(self) -> None:
        """Make sure that Ray is there.

        Raises:
            ConfigError: It is not installed, or the address is not one of a cluster.
        """
        if os.name != "posix":
            raise ConfigError("--ray needs Linux or macOS. Leave it out, which gives the same output")
        for needed in ("ray", "pandas"):
            if importlib.util.find_spec(needed) is None:
                raise ConfigError(f"--ray needs {needed}, which is missing. Run: pip install 'gru4rec[ray]'")
        if self.address is None or self.address == "auto":
            return
        host, colon, port = self.address.rpartition(":")
        if "://" in self.address or not (host and colon and port.isdecimal() and 0 < int(port) < 65536):
            raise ConfigError(
                f"{self.address!r} is not the address of a Ray cluster. Give HOST:PORT of its head (port 6379, if none "
                "was chosen), or auto, on a machine of the cluster"
            )
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
        except OSError as error:
            raise ConfigError(
                f"no Ray cluster answers at {self.address} ({error.strerror or error}). Check --ray-address"
            ) from None


def parts_on_ray(
    on_ray: OnRay,
    task: RayTask,
    parts: Sequence[tuple[int, int, int]],
    *,
    check_stop: Callable[[], None],
    tell: Callable[[str], None],
) -> Generator[int]:
    """Write parts on Ray; yield those that are done, in no order.

    Args:
        on_ray: Where.
        task: What workers are told.
        parts: (part, first session, session after the last) of those that are missing.
        check_stop: Called several times a second; may raise, which ends Ray.
        tell: Told in words what comes next.

    Raises:
        GRU4RecError: A worker met it.
        ConfigError: The cluster cannot be joined.
        LostClusterError: Ray ended.
    """
    scratch = _new_scratch()
    order = RayOrder(pickle.dumps(task), parts, on_ray.address, on_ray.n_workers, scratch)
    where = "a Ray on this machine" if on_ray.address is None else f"the Ray cluster at {on_ray.address}"
    tell(f"{'starting' if on_ray.address is None else 'joining'} {where.removeprefix('the ')}")
    with tempfile.TemporaryFile() as said, _driver(order, said) as answers:
        joined, until = False, math.inf if on_ray.address is None else time.monotonic() + _JOIN_S
        while True:
            answer = _next_of(answers, said, check_stop, until)
            if "failed" in answer:
                if joined:
                    raise LostClusterError(
                        f"{where} failed ({answer['failed']}). What is done is kept: --resume goes on"
                    )
                raise ConfigError(
                    f"cannot use {where} ({answer['failed']}). Check that it runs, with the same Ray and Python"
                )
            if "n_workers" in answer:
                joined, until = True, math.inf
                n_workers, n_parts = int(answer["n_workers"]), len(parts)
                tell(
                    f"{n_workers} worker{'s write' * (n_workers > 1) or ' writes'} {n_parts} part{'s' * (n_parts > 1)}"
                )
            elif "finished" in answer:
                return
            elif answer["kind"]:
                raise getattr(errors, answer["kind"], DataError)(answer["message"])
            else:
                yield answer["part"]


def _next_of(
    answers: queue.Queue[dict[str, Any] | None], said: IO[bytes], check_stop: Callable[[], None], until: float
) -> dict[str, Any]:
    """Wait for an answer, until a time at most; that none will come any more is one, too."""
    while time.monotonic() < until:
        check_stop()
        with contextlib.suppress(queue.Empty):
            answer = answers.get(timeout=_POLL_S)
            return {"failed": _last_line(said)} if answer is None else answer
    return {"failed": f"no answer within {_JOIN_S} s"}


@contextlib.contextmanager
def _driver(order: RayOrder, said: IO[bytes]) -> Iterator[queue.Queue[dict[str, Any] | None]]:
    """Start the process that talks to Ray; what it answers is put into the queue, and None at its end."""
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "gru4rec.scale.ray_driver", str(writing)],
        stdin=subprocess.PIPE, stdout=said, stderr=said, pass_fds=[writing], start_new_session=True,
        env=_environment(order),
    )  # fmt: skip
    os.close(writing)
    answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
    reader = threading.Thread(target=_read, args=(reading, answers), daemon=True)
    reader.start()
    assert process.stdin is not None
    try:
        with contextlib.suppress(BrokenPipeError):
            pickle.dump(order, process.stdin)
            process.stdin.flush()
        yield answers
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        until = time.monotonic() + _END_S
        while time.monotonic() < until and psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(_POLL_S / 10)
        end_session(process.pid)  # before it is waited for: until then no other session can have its id
        process.wait()
        reader.join()
        shutil.rmtree(order.scratch, ignore_errors=True)


def _read(reading: int, answers: queue.Queue[dict[str, Any] | None]) -> None:
    with open(reading, encoding="utf-8") as lines:
        for line in lines:
            answers.put(json.loads(line))
    answers.put(None)


def _environment(order: RayOrder) -> dict[str, str]:
    """Return the environment of the process: no usage statistics, no progress bars, no token written to a file."""
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1", "OMP_NUM_THREADS": "1"}
    if order.address is None:
        quiet |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    return quiet | os.environ


def _new_scratch() -> Path:
    folder = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="gru4rec-ray-", dir=folder if len(folder) <= _LONGEST_TEMPORARY else "/tmp"))


def _last_line(said: IO[bytes]) -> str:
    said.seek(0)
    lines = [line.strip() for line in said.read().decode(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "its process ended")
