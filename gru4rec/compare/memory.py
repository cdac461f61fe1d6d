"""The most memory a piece of work took, where the system says so."""

from __future__ import annotations

import re
from pathlib import Path

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


class PeakMemory:
    """Measures the peak of this process's resident memory above what it held at the start.

    Linux keeps the peak, and forgets it when told so; elsewhere ``n_bytes`` is None.
    """

    def __init__(self) -> None:
        self._start = None
        try:
            _CLEAR.write_text("5")
            self._start = _peak_bytes()
        except OSError:
            pass

    def n_bytes(self) -> int | None:
        """Return the bytes since the start, None where unknown."""
        peak = _peak_bytes()
        return None if peak is None or self._start is None else max(peak - self._start, 0)


def _peak_bytes() -> int | None:
    try:
        found = re.search(r"VmHWM:\s*(\d+) kB", _STATUS.read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None
