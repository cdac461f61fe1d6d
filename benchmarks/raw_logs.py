"""Made-up raw logs of any size: visitors who come back, in time order, as integer and as text ids.

``python benchmarks/raw_logs.py FOLDER N_EVENTS`` writes ``integers_N.csv`` and ``texts_N.csv``: visitor, item, time.
A visitor has four sessions on average within thirty days, a session four events; popularity is skewed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import polars as pl

START_S = 1_600_000_000
DAYS = 30
_ROWS_AT_ONCE = 2_000_000


def write_raw_logs(folder: Path, n_events: int, *, seed: int = 1) -> dict[str, Path]:
    """Write the same log twice; return the paths of ``integers`` and ``texts``."""
    visitor, item, time = _events(n_events, seed)
    paths = {kind: folder / f"{kind}_{n_events}.csv" for kind in ("integers", "texts")}
    with open(paths["integers"], "wb") as integers, open(paths["texts"], "wb") as texts:
        for start in range(0, n_events, _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            frame = pl.DataFrame({"visitor": visitor[rows] * 7 + 100_003, "item": item[rows] * 13, "time": time[rows]})
            integers.write(frame.write_csv(include_header=not start).encode())
            visitor_text = pl.format("v{}", pl.col("visitor") * 2_654_435_761 % 2**32)  # no order left in the ids
            as_text = frame.with_columns(visitor=visitor_text, item=pl.format("sku{}", pl.col("item")))
            texts.write(as_text.write_csv(include_header=not start).encode())
    return paths


def _events(n_events: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    n_sessions = n_events // 3 + 1
    lengths = np.minimum(rng.geometric(0.25, n_sessions), 200)
    session = np.repeat(np.arange(n_sessions, dtype=np.int32), lengths)[:n_events]
    assert len(session) == n_events
    first = np.flatnonzero(np.diff(session, prepend=-1))
    since_start = np.cumsum(1 + rng.exponential(60, n_events).astype(np.int64))
    since_start -= since_start[first][session]
    time = START_S + rng.integers(0, DAYS * 86_400, n_sessions)[session] + since_start
    item = (max(1_000, n_events // 200) * rng.random(n_events) ** 3).astype(np.int64)
    visitor = rng.integers(0, n_sessions // 4 + 1, n_sessions)[session]
    order = np.argsort(time, kind="stable")
    return visitor[order], item[order], time[order]


if __name__ == "__main__":
    for path in write_raw_logs(Path(sys.argv[1]), int(float(sys.argv[2]))).values():
        print(path)
