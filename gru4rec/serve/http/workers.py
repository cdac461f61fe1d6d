"""The processes of a service: one that serves, or several behind one socket that are watched and replaced.

Signals: TERM and INT end the service after everything accepted was answered, a second one at once; HUP reads the model
files again.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Any

import uvicorn

from gru4rec.errors import ConfigError, GRU4RecError
from gru4rec.serve.settings import ServeSettings

_KEEP_ALIVE_S = 75
_BACKLOG = 2048
_REST_S = 5.0
"""Before a worker is started in the place of one that could not start."""
_HELD = {signal.SIGHUP}
"""Held back until there is something to be read again: a HUP ends a process that does not know it yet."""
_OBJECTS_A_COLLECTION = 20_000
"""Requests leave no cycles behind, and looking for some after each 700 new objects, as is the default, takes a tenth of
the event loop's time under load."""
_SWITCH_S = 0.001
"""How long the event loop waits for the scoring thread to let it run Python; five times that is the default."""
logger = logging.getLogger("gru4rec.serve.workers")


def serve(settings: ServeSettings, host: str, port: int, on_ready: Callable[[], None] = lambda: None) -> int:
    """Serve until told to end; return the exit status.

    Args:
        settings: Of all processes.
        host: Address to listen on.
        port: Likewise.
        on_ready: Called once the model is loaded and requests may come.

    Raises:
        ConfigError: The address cannot be listened on.
        GRU4RecError: The model or the catalogue cannot be used.
    """
    from gru4rec.serve.http.observe import log_json_lines

    log_json_lines(quiet=settings.quiet, access_log=settings.access_log)
    signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    with listening(host, port) as listener:
        if settings.n_workers == 1:
            return _serve_here(settings, listener, on_ready)
        with tempfile.TemporaryDirectory(prefix="gru4rec-metrics-") as folder:
            return Supervisor(replace(settings, metrics_dir=folder), listener, on_ready).run()


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        ConfigError: The address is taken, forbidden or none.
    """
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        if listener is not None:
            listener.close()
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot listen on {host} port {port}: {reason}. Choose another --port or --host") from None
    listener.setblocking(False)
    return listener


class _Server(uvicorn.Server):
    """A uvicorn server that goes on answering for a moment after it was told to end, so that nothing is cut off."""

    def __init__(self, config: uvicorn.Config, service: Any, drain_s: float) -> None:
        super().__init__(config)
        self._service, self._drain_s = service, drain_s
        self._tasks: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and listen to HUP."""
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        self._loop.add_signal_handler(signal.SIGHUP, self._reload)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)
        addresses = [listener.getsockname() for listener in sockets or []]
        logger.info("serving", extra={"address": addresses[0][:2], "pid": os.getpid()})

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Tell load balancers to look elsewhere, and end soon; at once when told again."""
        if self._service.is_draining or not self.started:
            super().handle_exit(sig, frame)
            return
        self._service.is_draining = True
        logger.info("ending", extra={"drain_s": self._drain_s})
        self._loop.call_soon_threadsafe(self._loop.call_later, self._drain_s, self._end)

    def _end(self) -> None:
        self.should_exit = True

    def _reload(self) -> None:
        async def reload() -> None:
            with contextlib.suppress(GRU4RecError):  # it was logged, and the old model stays
                await self._service.reload()

        task = self._loop.create_task(reload())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _serve_here(settings: ServeSettings, listener: socket.socket, on_ready: Callable[[], None]) -> int:
    """Load the model and serve in this process."""
    import torch

    from gru4rec.serve.http.app import make_app
    from gru4rec.serve.http.heads import heads_at

    torch.set_num_threads(1)
    sys.setswitchinterval(_SWITCH_S)
    gc.set_threshold(_OBJECTS_A_COLLECTION)
    app, door, service = make_app(settings)
    service.load()
    config = uvicorn.Config(
        app,
        http=heads_at(door),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody asks who asks
        lifespan="on",
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(settings.limits.answer_s + settings.limits.body_s)),
    )
    on_ready()
    _Server(config, service, settings.drain_s).run([listener])
    return 0


# --- several processes ---


@dataclass
class _Worker:
    """A process and what it has to say: ``None`` once it is ready, or why it could not start."""

    process: SpawnProcess
    says: Connection
    is_ready: bool = False


def _work(settings: ServeSettings, listener: socket.socket, says: Connection) -> None:
    """Serve in a worker, until told to end or left alone."""
    from gru4rec.serve.http.observe import log_json_lines

    assert settings.metrics_dir is not None
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = settings.metrics_dir
    log_json_lines(quiet=settings.quiet, access_log=settings.access_log)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _serve_here(settings, listener, lambda: says.send(None))
    except GRU4RecError as error:
        says.send(str(error))
        sys.exit(error.exit_status)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


class Supervisor:
    """Starts workers, replaces those that die, and passes signals on.

    Args:
        settings: Of each worker.
        listener: The socket they share.
        on_ready: Called once the first of them is ready.
    """

    def __init__(self, settings: ServeSettings, listener: socket.socket, on_ready: Callable[[], None]) -> None:
        self._settings, self._listener, self._on_ready = settings, listener, on_ready
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        self._starts_at: list[float] = []
        self._is_up, self._is_ending = False, False
        self._woken, self._wake = multiprocessing.Pipe(duplex=False)

    def run(self) -> int:
        """Run until told to end; return the exit status.

        Raises:
            ConfigError: The first worker could not start, and why.
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._pass_on)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)
        self._starts_at = [time.monotonic()]
        while not self._is_ending:
            self._start_due()
            self._wait()
            self._bury()
            if not self._starts_at and self._workers and all(worker.is_ready for worker in self._workers):
                n_missing = self._settings.n_workers - len(self._workers)
                self._starts_at += [time.monotonic()] * n_missing  # the others, once the first one stands
        for worker in self._workers:
            worker.process.join()
        return 0

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self._is_ending = self._is_ending or number != signal.SIGHUP
        for worker in self._workers:
            if worker.process.is_alive() and worker.process.pid is not None:
                os.kill(worker.process.pid, signal.SIGHUP if number == signal.SIGHUP else signal.SIGTERM)
        self._wake.send(None)

    def _start_due(self) -> None:
        now = time.monotonic()
        for at in [at for at in self._starts_at if at <= now]:
            self._starts_at.remove(at)
            hears, says = self._context.Pipe(duplex=False)
            process = self._context.Process(target=_work, args=(self._settings, self._listener, says))
            signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)  # a new process begins with what is held here
            process.start()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)
            says.close()
            self._workers.append(_Worker(process, hears))

    def _wait(self) -> None:
        """Wait until a worker says something or dies, a signal comes, or a worker is to be started."""
        starting = [worker for worker in self._workers if not worker.is_ready]
        sentinels = [worker.process.sentinel for worker in self._workers]
        left_s = min(self._starts_at) - time.monotonic() if self._starts_at else None
        ready = multiprocessing.connection.wait(
            [self._woken, *sentinels, *(worker.says for worker in starting)],
            None if left_s is None else max(0.0, left_s),
        )
        if self._woken in ready:
            self._woken.recv()
        for worker in [worker for worker in starting if worker.says in ready]:
            with contextlib.suppress(EOFError):
                said = worker.says.recv()
                worker.is_ready = said is None
                if said is not None:
                    self._could_not_start(worker, said)
                elif not self._is_up:
                    self._is_up = True
                    self._on_ready()

    def _could_not_start(self, worker: _Worker, why: str) -> None:
        """Give up where no worker stands; otherwise those that do go on, and it is tried again."""
        if not any(each.is_ready for each in self._workers):
            worker.process.join()
            raise ConfigError(why)
        logger.error("a worker could not start", extra={"error": why})

    def _bury(self) -> None:
        """Forget workers that died, and see to it that others come in their places."""
        from prometheus_client.multiprocess import mark_process_dead

        for worker in [each for each in self._workers if not each.process.is_alive()]:
            self._workers.remove(worker)
            mark_process_dead(worker.process.pid, self._settings.metrics_dir)  # type: ignore[no-untyped-call]
            if not self._is_ending:
                logger.error(
                    "a worker died and is replaced",
                    extra={"pid": worker.process.pid, "exit_status": worker.process.exitcode},
                )
                self._starts_at.append(time.monotonic() + (0.0 if worker.is_ready else _REST_S))
