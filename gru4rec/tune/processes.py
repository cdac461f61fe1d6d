"""How worker processes start: from one that has loaded everything once, and has neither threads nor a GPU to share.

Loads nothing itself, so that this happens while the program reads its logs.
"""

from __future__ import annotations

import multiprocessing
import signal
import tempfile
from multiprocessing import forkserver, util
from multiprocessing.context import ForkServerContext, SpawnContext

_LONGEST_TEMPORARY = 60
"""Bytes of a temporary folder's path with room for a socket's name, which may have 107 in all."""


def worker_context() -> ForkServerContext | SpawnContext:
    """Return how to start processes; where none can be forked, each loads for itself."""
    if "forkserver" in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("forkserver")
    return multiprocessing.get_context("spawn")


def prepare_workers() -> None:
    """Begin to load what workers need, in a process of its own."""
    if isinstance(worker_context(), ForkServerContext):
        multiprocessing.set_forkserver_preload(["gru4rec.tune.worker"])
        _choose_folder_of_sockets()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C is for this program, not for that
        try:
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _choose_folder_of_sockets() -> None:
    """Have Python's sockets lie in /tmp where ``TMPDIR`` is too long for them, as that of a scheduler's job may be."""
    before = tempfile.gettempdir()
    if len(before.encode()) <= _LONGEST_TEMPORARY:
        return
    tempfile.tempdir = "/tmp"
    try:
        util.get_temp_dir()  # is asked for the folder once, and keeps to it
    finally:
        tempfile.tempdir = before
