"""How much memory a piece of work added to this process, where the system says so."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import re
from pathlib import Path

import pyarrow as pa

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


class AddedMemory:
    """Measures the peak of this process's resident memory above what it held at the start.

    What earlier work left free is given back to the system first, so that it does not hide what this work needs. Linux
    keeps the peak, and forgets it when told so; elsewhere ``n_bytes`` is None.
    """

    def __init__(self) -> None:
        self._start = None
        _give_back()
        with contextlib.suppress(OSError):
            _CLEAR.write_text("5")
            self._start = _peak_bytes()

    def n_bytes(self) -> int | None:
        """Return the bytes since the start, None where unknown."""
        peak = _peak_bytes()
        return None if peak is None or self._start is None else max(peak - self._start, 0)


def _give_back() -> None:
    """Give memory that nothing uses back to the system, as far as its allocators can be told to."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    with contextlib.suppress(AttributeError, OSError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)


def _peak_bytes() -> int | None:
    try:
        found = re.search(r"VmHWM:\s*(\d+) kB", _STATUS.read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None
