"""What several processes bring: speed, memory and traffic of ``gru4rec train`` under torchrun, on one machine.

    python benchmarks/distributed_times.py [--parts memory speed] [--ranks 1 2 4]

Sessions and weights are made up: every lane stays full for some steps. Memory is the peak of each process (VmHWM,
libraries and mapped files included) with reading, training and saving. Traffic is what the loopback device carried,
headers included; in the part on memory the saved model goes over it too.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.console import Console

from benchmarks.machine import commit, machine, slug
from benchmarks.tables import Column, Part, Row
from benchmarks.timing import Setup
from benchmarks.workload import ROOT, Popularity
from gru4rec.data.session_map import write_session_map

_SHARED = {"constrained_embedding": True}
_SHAPES = {  # lanes, hidden units, items, steps, input mode
    "memory": [
        (128, 128, 2_000_000, 60, _SHARED),
        (128, 128, 2_000_000, 60, {"constrained_embedding": False, "embedding": 128}),
    ],
    "speed": [(32, 100, 18_000, 1500, _SHARED), (80, 224, 40_000, 600, _SHARED), (240, 512, 60_000, 100, _SHARED)],
}
_MOMENTUM = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=_SHAPES, default=list(_SHAPES))
    parser.add_argument("--ranks", nargs="+", type=int, default=[1, 2, 4], help="numbers of processes (1 2 4)")
    parser.add_argument("--runs", type=int, default=3, help="of speed; medians are shown (3)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder of results")
    args = parser.parse_args()
    setup = Setup(torch.device("cpu"), (1,), quick=False)
    name = f"distributed_{slug(setup)}_{datetime.now(UTC).date().isoformat()}"
    parts = [_measured(part, args.ranks, args.runs if part == "speed" else 1) for part in args.parts]
    console = Console(width=160)
    for part in parts:
        console.print(part.rich(), f"{part.note}\n")
    about = {"machine": machine(setup), "commit": commit(), "started": datetime.now(UTC).isoformat(timespec="seconds")}
    text = json.dumps({**about, "parts": {part.title: part.rows for part in parts}}, indent=1)
    (args.out / f"{name}.json").write_text(text + "\n")
    lines = [f"# {name}\n", *(f"- {key}: {value}" for key, value in machine(setup).items()), f"- commit: {commit()}\n"]
    (args.out / f"{name}.md").write_text("\n".join([*lines, *(part.markdown() for part in parts)]) + "\n")
    console.print(f"written: {args.out / name}.md")


def _measured(part: str, ranks: list[int], n_runs: int) -> Part:
    rows: list[Row] = []
    for n_lanes, n_hidden, n_items, n_steps, mode in _SHAPES[part]:
        with tempfile.TemporaryDirectory(prefix="gru4rec-distributed-") as folder:
            log = Path(folder) / "log.sessions"
            write_session_map(Popularity(n_items).even_sessions(n_lanes=n_lanes, n_steps=n_steps), log)
            settings = {
                "layers": n_hidden,
                "batch_size": n_lanes,
                "momentum": _MOMENTUM,
                "n_epochs": 1,
                "seed": 1,
                **mode,
            }
            runs = [{n: _run(log, settings, n) for n in (0, *ranks)} for _ in range(n_runs)]
        matrices = "shared" if mode is _SHARED else "separate"
        shape: Row = {"items": n_items, "n_hidden": n_hidden, "n_lanes": n_lanes, "matrices": matrices}
        for n in (0, *ranks):
            row = shape | {"what": "one process" if n == 0 else f"torchrun, {n}"}
            row |= {key: _median(run[n][key] for run in runs) for key in runs[0][n]}
            row["x_alone"] = _median(run[n]["steps_per_s"] / run[0]["steps_per_s"] for run in runs)
            row["x_memory"] = _median(run[n]["peak_mb"] / run[0]["peak_mb"] for run in runs)
            rows.append(row)
    columns = [
        Column("items", "items", ","), Column("lanes", "n_lanes"), Column("H", "n_hidden"),
        Column("inputs", "matrices"), Column("processes", "what"),
        Column("steps/s", "steps_per_s", ".1f"), Column("x one process", "x_alone", ".2f"),
        Column("largest process, MB", "peak_mb", ".0f"), Column("x one process", "x_memory", ".2f"),
        Column("KB a step and process", "kb_a_step", ".0f"),
    ]  # fmt: skip
    note = (
        f"gru4rec train, cross-entropy, 2048 negatives, momentum {_MOMENTUM}, one thread a process, {os.cpu_count()} "
        f"cores, medians of {n_runs}. Memory: peak of the largest process, from start to saved model. Traffic: bytes "
        "over loopback from start to end, by steps and processes."
    )
    return Part(part.capitalize(), note, columns, rows, group="items")


def _run(log: Path, settings: dict[str, Any], n_ranks: int) -> Row:
    """Train and save once; 0 processes: one, without torchrun."""
    flags = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    command = [log, *flags, "-d", "cpu", "--threads", 1, "-o", log.with_name("model.gru4rec"), "--json", "-q"]
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", n_ranks] if n_ranks else []
    words = [sys.executable, *start, *(["--no-python", _gru4rec()] if n_ranks else [_gru4rec()]), "train", *command]
    sent = _loopback_bytes()
    with subprocess.Popen(
        [str(word) for word in words], env=_ENVIRONMENT, stdout=subprocess.PIPE, text=True
    ) as process:
        watch = _Peaks(process.pid, n_ranks)
        watch.start()
        stdout = process.communicate()[0]
        watch.join()
    if process.returncode:
        sys.exit(f"failed: {words}")
    epoch = next(json.loads(line) for line in stdout.splitlines() if '"epoch"' in line)
    kb = (_loopback_bytes() - sent) / 1e3 / epoch["n_steps"] / max(1, n_ranks)
    steps_per_s = epoch["n_steps"] / epoch["seconds"]
    return {
        "steps_per_s": steps_per_s,
        "peak_mb": max(watch.peaks.values()) / 1e6,
        "kb_a_step": kb if n_ranks else None,
    }


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


class _Peaks(threading.Thread):
    """Watches the largest memory of the training processes until they end."""

    def __init__(self, pid: int, n_ranks: int) -> None:
        super().__init__()
        self._pid, self._n_ranks = pid, n_ranks
        self.peaks: dict[int, int] = {}

    def run(self) -> None:
        while psutil.pid_exists(self._pid) and psutil.Process(self._pid).status() != psutil.STATUS_ZOMBIE:
            for pid in self._workers():
                self._note(pid)
            time.sleep(0.01)

    def _workers(self) -> list[int]:
        if not self._n_ranks:
            return [self._pid]
        return [child.pid for child in psutil.Process(self._pid).children()]

    def _note(self, pid: int) -> None:
        try:
            found = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), flags=re.MULTILINE)
        except OSError:
            return
        if found:
            self.peaks[pid] = int(found[1]) * 1024


def _loopback_bytes() -> int:
    found = re.search(r"^\s*lo:\s*(\d+)", Path("/proc/net/dev").read_text(), flags=re.MULTILINE)
    assert found is not None
    return int(found[1])


def _gru4rec() -> str:
    return str(Path(sys.executable).parent / "gru4rec")


_ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


if __name__ == "__main__":
    main()
