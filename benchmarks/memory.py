"""Peak memory of training and of imports, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

from benchmarks.tables import Column, Part, Row
from benchmarks.timing import Setup
from benchmarks.workload import ROOT

_ROOM_BYTES = 300_000_000


def peak_memory(setup: Setup) -> Part:
    """Measure both engines' training, and imports, against four item matrices and 300 MB."""
    n_items, n_hidden = (5_000, 16) if setup.quick else (1_000_000, 100)
    rows: list[Row] = []
    for engine in ("fast",) if setup.quick else ("fast", "plain"):
        found = _measure(str(setup.device), n_items, n_hidden, engine)
        limit = 4 * n_items * n_hidden * 4 + _ROOM_BYTES
        if not rows:
            rows.append({"what": "import gru4rec", "peak_mb": _mb(found["import_bytes"])})
            rows.append({"what": "its class GRU4Rec, torch with it", "peak_mb": _mb(found["import_class_bytes"])})
        rows.append(
            {
                "what": f"training, {engine} engine",
                "n_items": n_items,
                "n_hidden": n_hidden,
                "peak_mb": _mb(found["peak_bytes"]),
                "gpu_peak_mb": _mb(found["gpu_peak_bytes"]),
                "limit_mb": _mb(limit),
                "of_limit": (found["gpu_peak_bytes"] or found["peak_bytes"] or 0) / limit,
            }
        )
    return Part(
        title="Peak memory",
        note=(
            "Most memory that a fresh process held. Training: GRU4Rec.fit with momentum, B = 64, S = 2048; "
            "limit: four item matrices and 300 MB (on a GPU: of its own memory)."
        ),
        columns=[
            Column("what", "what"),
            Column("N", "n_items", ",d"),
            Column("H", "n_hidden", "d"),
            Column("peak MB", "peak_mb", ",.0f"),
            Column("GPU peak MB", "gpu_peak_mb", ",.0f"),
            Column("limit MB", "limit_mb", ",.0f"),
            Column("of the limit", "of_limit", ".2f"),
        ],
        rows=rows,
    )


def _measure(device: str, n_items: int, n_hidden: int, engine: str) -> dict[str, int | None]:
    arguments = [device, str(n_items), str(n_hidden), engine]
    command = [sys.executable, "-m", "benchmarks.process_memory", *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, int | None] = json.loads(done.stdout)
    return found


def _mb(n_bytes: int | None) -> float | None:
    return None if n_bytes is None else n_bytes / 1e6
