"""How worker processes start: from one that has loaded everything once, and has neither threads nor a GPU to share.

Loads nothing itself, so that this happens while the program reads its logs.
"""

from __future__ import annotations

import multiprocessing
import signal
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, SpawnContext


def worker_context() -> ForkServerContext | SpawnContext:
    """Return how to start processes; where none can be forked, each loads for itself."""
    if "forkserver" in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("forkserver")
    return multiprocessing.get_context("spawn")


def prepare_workers() -> None:
    """Begin to load what workers need, in a process of its own."""
    if isinstance(worker_context(), ForkServerContext):
        multiprocessing.set_forkserver_preload(["gru4rec.tune.worker"])
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C is for this program, not for that
        try:
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
