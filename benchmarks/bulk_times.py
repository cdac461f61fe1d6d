"""Lists in bulk: ``gru4rec batch`` without Ray and on a Ray of this machine, whole processes in turn.

``python benchmarks/bulk_times.py`` writes a session map of 5 million made-up sessions and a model of 10,000 items with
64 hidden units and made-up weights. It writes their lists with one thread, with one for each core, on Ray with one
worker for each core, and on Ray again while a worker is killed; compares all outputs row by row, and prints sessions/s,
processor time, which says the same on a machine with other work, and the most memory of all processes of a run, taken
twice a second: PSS, which counts what processes share once.
The results go to benchmarks/results/bulk_MACHINE_DATE.json and .md, beside other sizes of the day.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as papq
import torch
from rich.console import Console

from benchmarks.machine import commit, machine, slug
from benchmarks.serve_shop import Shop
from benchmarks.tables import Column, Part, Row
from benchmarks.timing import Setup
from benchmarks.workload import ROOT
from gru4rec.data.session_map import write_session_map
from gru4rec.data.sessions import Sessions

_N_CORES = len(os.sched_getaffinity(0))
_WAYS = {
    "1 thread": ("--threads", "1"),
    f"{_N_CORES} threads": ("--threads", str(_N_CORES)),
    f"Ray, {_N_CORES} workers": ("--ray", "--ray-workers", str(_N_CORES)),
}
"""Flags by the name that results have for them; the second way is what is taken by itself."""
_DEFAULT, _ON_RAY = list(_WAYS)[1:]
_KILLED = f"{_ON_RAY}, one killed"
_SESSIONS_TO_KILL = 50_000
"""A worker is killed once there is a part for so many sessions, which is about midway."""
_COLUMNS = [
    Column("sessions", "n_sessions", ","),
    Column("way", "way"),
    Column("runs", "n_runs"),
    Column("s", "seconds", ".1f"),
    Column("sessions/s", "sessions_per_s", ",.0f"),
    Column("x the default", "x_default", ".2f"),
    Column("CPU s", "cpu_s", ".0f"),
    Column("x the default", "x_default_cpu", ".2f"),
    Column("peak of all processes, MB", "peak_mb", ",.0f"),
    Column("largest process, MB", "largest_mb", ",.0f"),
    Column("processes", "n_processes"),
    Column("output", "output"),
]


@dataclass(frozen=True)
class Run:
    """A whole command: wall time from its start to its end, processor time of all its processes, memory in bytes."""

    seconds: float
    cpu_s: float
    peak_bytes: int
    largest_bytes: int
    n_processes: int


def main() -> None:
    arguments = _parser().parse_args()
    started = datetime.now(UTC)
    load = [round(value, 2) for value in os.getloadavg()]
    setup = Setup(torch.device("cpu"), (_N_CORES,))
    description = machine(setup)
    path = arguments.out / f"bulk_{slug(setup)}_{started.date().isoformat()}"
    rows = [row for row in _earlier_rows(path, description) if row["n_sessions"] not in arguments.sessions]
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="gru4rec-bulk-") as name:
        shop = Shop.build(Path(name), arguments.items, arguments.hidden)
        for n_sessions in arguments.sessions:
            log = _write_log(shop, n_sessions, Path(name))
            rows += [{**row, "load_average": load} for row in _measure(shop, log, n_sessions, arguments.runs)]
    rows.sort(key=lambda row: int(row["n_sessions"]))
    part = Part(
        f"Lists in bulk, {arguments.items:,} items, {arguments.hidden} hidden units, {_N_CORES} cores",
        "Whole processes in turn, from their start to their end: medians of runs, and the median of their ratios to "
        "the default of the same round, in seconds and in processor time of all processes. Lists of 20, one a session, "
        "to one Parquet file. Memory: the most that all processes of a run held together (PSS, twice a second), and "
        "that one of them did. Every output was compared with the first, row by row.",
        _COLUMNS,
        rows,
    )
    Console(width=190).print(part.rich())
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": description, "commit": commit(), "load_average": load, "rows": rows}
    path.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")
    lines = [f"# {path.name}", "", *(f"- {key}: {value}" for key, value in description.items()), "", part.markdown()]
    command = f"python benchmarks/bulk_times.py {' '.join(sys.argv[1:])}".strip()
    lines.append(f"Commit {content['commit']}, load average at the start {load}. `{command}`\n")
    path.with_suffix(".md").write_text("\n".join(lines))
    print(f"written: {path}.json and .md")


def _earlier_rows(path: Path, description: dict[str, Any]) -> list[Row]:
    file = path.with_suffix(".json")
    earlier = json.loads(file.read_text()) if file.exists() else {"machine": None}
    return list(earlier["rows"]) if earlier["machine"] == description else []


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", metavar="N", type=int, nargs="+", default=[5_000_000], help="sizes of the logs")
    parser.add_argument("--items", metavar="N", type=int, default=10_000, help="of the catalogue (10,000)")
    parser.add_argument("--hidden", metavar="N", type=int, default=64, help="units of the model (64)")
    parser.add_argument("--runs", metavar="N", type=int, default=1, help="of each way, in turn (1)")
    parser.add_argument("--folder", metavar="DIR", help="where to put temporary files ($TMPDIR)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the results")
    return parser


def _write_log(shop: Shop, n_sessions: int, folder: Path) -> Path:
    """Write sessions of the shop as a session map; items by popularity, lengths geometric, as everywhere in it."""
    rng = np.random.default_rng(1)
    lengths = np.minimum(rng.geometric(1 / 4, n_sessions), 50)
    items = shop.recommender.items
    clicks = shop.clicks(int(lengths.sum()), rng) - items.item_ids[0].as_py()
    path = folder / f"{n_sessions}.sessions"
    offsets = np.r_[0, np.cumsum(lengths)]
    write_session_map(Sessions(clicks.astype(np.int32), offsets, np.arange(n_sessions), items, "made up"), path)
    return path


def _measure(shop: Shop, log: Path, n_sessions: int, n_runs: int) -> list[Row]:
    runs: dict[str, list[Run]] = {way: [] for way in [*_WAYS, _KILLED]}
    first = log.with_name("first.parquet")
    for number in range(n_runs):
        for way in runs:
            if way == _KILLED and number:
                continue
            output = log.with_name("output.parquet") if first.exists() else first
            flags = _WAYS[_ON_RAY if way == _KILLED else way]
            command = ["batch", str(shop.path), str(log), "-o", str(output), "-q", *flags]
            runs[way].append(_run(command, kill_at=n_sessions // _SESSIONS_TO_KILL if way == _KILLED else 0))
            print(f"{n_sessions:,} sessions, {way}: {runs[way][-1]}", flush=True)
            if output != first:
                _check_same(first, output)
                output.unlink()
    first.unlink()
    return [_row(way, measured, runs[_DEFAULT], n_sessions) for way, measured in runs.items()]


def _row(way: str, measured: list[Run], default: list[Run], n_sessions: int) -> Row:
    seconds = statistics.median(run.seconds for run in measured)
    return {
        "n_sessions": n_sessions,
        "way": way,
        "n_runs": len(measured),
        "seconds": seconds,
        "sessions_per_s": n_sessions / seconds,
        "cpu_s": statistics.median(run.cpu_s for run in measured),
        "x_default_cpu": statistics.median(
            other.cpu_s / run.cpu_s for run, other in zip(measured, default, strict=False)
        ),
        "x_default": statistics.median(
            other.seconds / run.seconds for run, other in zip(measured, default, strict=False)
        ),
        "peak_mb": max(run.peak_bytes for run in measured) / 1e6,
        "largest_mb": max(run.largest_bytes for run in measured) / 1e6,
        "n_processes": max(run.n_processes for run in measured),
        "output": "equal",
        "runs": [run.seconds for run in measured],
    }


def _run(command: list[str], *, kill_at: int) -> Run:
    """Run a command and look at its processes; kill a worker once ``kill_at`` parts of its output are there."""
    started = time.perf_counter()
    main_process = subprocess.Popen(
        [sys.executable, "-c", "from gru4rec.cli.main import command; command()", *command],
        start_new_session=True,  # as Ray has one: Linux shares a busy machine out among sessions
    )
    cpu_s: dict[int, float] = {}
    peak = largest = n_processes = 0
    while main_process.poll() is None:
        sizes = _sizes(main_process.pid, cpu_s)
        peak, largest = max(peak, sum(sizes)), max([largest, *sizes])
        n_processes = max(n_processes, len(sizes))
        if kill_at and len(list(Path(f"{command[4]}.parts").glob("parts/part-*"))) >= kill_at:
            next(process for process in _family(main_process.pid) if "PartWriter" in _title(process)).kill()
            kill_at = 0
        time.sleep(0.5)
    assert main_process.returncode == 0
    assert not kill_at
    return Run(time.perf_counter() - started, sum(cpu_s.values()), peak, largest, n_processes)


def _family(parent: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(parent)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _sizes(parent: int, cpu_s: dict[int, float]) -> list[int]:
    """Return the memory of all processes, and note the processor time that each has taken so far."""
    sizes = []
    for process in _family(parent):
        try:
            sizes.append(process.memory_full_info().pss)
            cpu_s[process.pid] = sum(process.cpu_times()[:2])
        except psutil.Error:
            continue
    return sizes


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _check_same(left: Path, right: Path) -> None:
    """Compare two outputs row by row, some row groups at a time."""
    files: list[Any] = [papq.ParquetFile(path) for path in (left, right)]
    for one, other in zip(*(file.iter_batches(batch_size=100_000) for file in files), strict=True):
        assert one.equals(other)


if __name__ == "__main__":
    main()
