"""Memory of this process.

``python -m benchmarks.process_memory DEVICE N_ITEMS N_HIDDEN ENGINE`` imports the package, trains once and prints, as
JSON, the most memory that the process held after each. So nothing else is imported here at the top.
"""

from __future__ import annotations

import ctypes
import json
import re
import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_bytes() -> int:
    """Return the most memory this process ever held.

    A child's ``ru_maxrss`` starts at what its parent held, so it is only asked where there is no /proc.
    """
    return status_bytes("VmHWM") if _STATUS.exists() else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def restart_peak() -> bool:
    """Let the peak start anew at what the process uses now; False where the system does not offer that."""
    try:
        ctypes.CDLL(None).malloc_trim(0)  # give back what was freed, or it would be used again unseen
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return False
    return True


def status_bytes(name: str) -> int:
    """Return VmRSS (held now) or VmHWM (the peak)."""
    line = re.search(rf"^{name}:\s+(\d+) kB", _STATUS.read_text(), flags=re.MULTILINE)
    assert line is not None
    return int(line[1]) * 1024


def _fit(device: str, n_items: int, n_hidden: int, engine: str) -> dict[str, int | None]:
    """Train an epoch of 30 steps through the class that users call."""
    import gru4rec

    found: dict[str, int | None] = {"import_bytes": peak_bytes()}
    gru4rec.GRU4Rec  # noqa: B018 - the first use loads torch
    found["import_class_bytes"] = peak_bytes()

    import torch

    from benchmarks.workload import ENGINES, Popularity

    name, precision = ENGINES[engine]
    sessions = Popularity(n_items).even_sessions(n_lanes=64, n_steps=30)
    gru = gru4rec.GRU4Rec(device=device, layers=[n_hidden], batch_size=64, momentum=0.2, logq=1.0, n_epochs=1, seed=1)
    gru.fit(sessions, engine=name, precision=precision)
    found["peak_bytes"] = peak_bytes()
    found["gpu_peak_bytes"] = torch.cuda.max_memory_allocated() if device.startswith("cuda") else None
    return found


if __name__ == "__main__":
    print(json.dumps(_fit(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])))
