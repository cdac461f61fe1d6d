"""Begin to train on a log that is in the cache, and stop: how long that takes, and how much of the events it reads.

``python -m benchmarks.first_step LOG CACHE`` prints JSON; ``gru4rec prepare --cache CACHE`` has put the log there.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from pathlib import Path

from benchmarks.process_memory import peak_bytes
from gru4rec.api import GRU4Rec
from gru4rec.data.session_cache import cached_sessions


class _Stop(Exception):  # noqa: N818
    """The first steps are done."""


def _stop(n_events: int) -> None:
    raise _Stop


def main() -> None:
    log, cache = map(Path, sys.argv[1:])
    started = time.perf_counter()
    sessions = cached_sessions(log, cache=cache)
    opened_s = time.perf_counter() - started
    gru = GRU4Rec(layers=[100], batch_size=32, n_epochs=1, device="cpu")
    with contextlib.suppress(_Stop):
        gru.fit(sessions, on_step=_stop, threads=1)
    found = {
        "open_s": opened_s,
        "first_step_s": time.perf_counter() - started,
        "map_mb": sessions.item_idx.nbytes / 1e6,
        "read_mb": _resident_kb("item_idx") / 1e3,
        "training_peak_gb": peak_bytes() / 1e9,
    }
    print(json.dumps(found))


def _resident_kb(name: str) -> int:
    """Return how much of the mapped files of a name is in this process's memory; 0 where the system does not say."""
    smaps = Path("/proc/self/smaps")
    text = smaps.read_text() if smaps.exists() else ""
    return sum(
        int(kb) for kb in re.findall(rf"^\S+-\S+ \S+ \S+ \S+ \S+ +\S*{name}\S*\n(?:.*\n)*?Rss: +(\d+) kB", text, re.M)
    )


if __name__ == "__main__":
    main()
