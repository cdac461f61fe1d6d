"""Which process runs a trial: a name of its own among those of all machines, and whether it is known to be gone."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from pathlib import Path


def identity(process: int | None = None) -> str:
    """Return what names a process of this machine, or this one, among those of all machines."""
    return f"{_place()}:{os.getpid() if process is None else process}"


def is_here(worker: str) -> bool:
    """Tell whether a process is, or was, one of this machine."""
    return worker.rpartition(":")[0] == _place()


def is_dead(worker: str) -> bool:
    """Tell whether a process is known to have ended; of one in another place nothing is known."""
    if not is_here(worker):
        return False
    try:
        os.kill(int(worker.rpartition(":")[2]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


@functools.cache
def _place() -> str:
    """Name the machine as booted and the space of its process numbers."""
    parts = []
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    digest = hashlib.blake2b(" ".join(parts).encode(), digest_size=4).hexdigest()
    return f"{os.uname().nodename}/{digest}"
