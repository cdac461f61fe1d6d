"""Run folders written by hand, as the contract says: settings, lines about steps, a line an epoch."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

N_EVENTS = 100_000
GONE_PID = 2**22 + 1  # above the greatest that Linux gives out


def sample(**more: Any) -> dict[str, Any]:
    """A machine of two cores on which all is well: the run has one core, the other is idle."""
    return {
        "interval_s": 1.0, "process_share": 1.0, "core_shares": [1.0, 0.05], "io_wait_share": 0.0, "load": 1.1,
        "process_resident_bytes": 600_000_000, "major_faults_per_s": 0.0, "memory_used_bytes": 10_000_000_000,
        "memory_total_bytes": 25_000_000_000, "memory_available_bytes": 15_000_000_000, "swap_used_bytes": 0,
        "swap_pages_per_s": 0.0, "gpu_use_shares": [], "gpu_memory_used_bytes": [], "gpu_memory_total_bytes": [],
        "gpu_temperatures_c": [], "gpu_powers_w": [], **more,
    }  # fmt: skip


def lines_of_epoch(epoch: int, *, n_lines: int = 4, recall: float | None = 0.3, **machine: Any) -> list[dict[str, Any]]:
    """Four lines of 25,000 events, a second each; the epoch's own where it has a recall."""
    common = {"epoch": epoch, "events_per_second": 25_000.0, "gradient_norm": 0.5, "weight_norm": 40.0}
    at = [(epoch - 1) * 4 + line for line in range(1, n_lines + 1)]
    lines = [
        {
            "kind": "steps",
            "step": 250 * n,
            "time": float(n),
            "loss": 6 - 0.1 * n,
            "machine": sample(**machine),
            **common,
        }
        for n in at
    ]
    if n_lines == 4:
        validation = None if recall is None else {"recall@20": recall, "mrr@20": recall / 4}
        lines.append({**lines[-1], "kind": "epoch", "validation": validation})
    return lines


def write_config(folder: Path, **config: Any) -> None:
    values = {
        "command": ["gru4rec", "train", "log.tsv"], "settings": {"batch_size": 100}, "train": "log.tsv",
        "pid": GONE_PID, "started": "2026-11-24T20:00:00+00:00", "n_epochs": 10, "n_events": N_EVENTS,
        "status": "finished", "host": socket.gethostname(), **config,
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    partial = folder / "config.part"
    partial.write_text(json.dumps(values))
    partial.replace(folder / "config.json")


def write_lines(folder: Path, lines: list[dict[str, Any]], *, torn: str = "") -> None:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + torn)


def write_run(folder: Path, *, recalls: list[float], n_more: int = 0, **config: Any) -> Path:
    """Epochs with these recalls, then so many lines of the next one."""
    write_config(folder, **config)
    lines = [line for place, recall in enumerate(recalls) for line in lines_of_epoch(place + 1, recall=recall)]
    write_lines(folder, lines + lines_of_epoch(len(recalls) + 1, n_lines=n_more))
    return folder
