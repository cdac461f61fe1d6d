"""Prepare large raw logs: time, events/s and peak memory, beside the same steps in plain pandas.

``python benchmarks/prepare_times.py`` writes logs of 10 million events, with integer and with text ids. It prepares
each with ``gru4rec prepare`` and with plain_pandas.py in turn, whole processes, compares what they wrote, and prints a
table. ``--events 100000000`` does so for 100 million (12 GB of temporary files; pandas is left out above 20 million).
The results go to benchmarks/results/prepare_MACHINE_DATE.json and .md, beside other sizes of the day.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as papq
import torch
from rich.console import Console

from benchmarks.machine import commit, machine, slug
from benchmarks.raw_logs import write_raw_logs
from benchmarks.tables import Column, Part, Row
from benchmarks.timing import Setup
from benchmarks.workload import ROOT

_MOST_FOR_PANDAS = 20_000_000
_PARTS = ("train_full", "test", "train_tr", "train_valid")
_COLUMNS = [
    Column("events", "n_events", ","),
    Column("ids", "ids"),
    Column("file, GB", "file_gb", ".2f"),
    Column("runs", "n_runs"),
    Column("s", "seconds", ".1f"),
    Column("events/s", "events_per_s", ",.0f"),
    Column("peak, GB", "peak_gb", ".2f"),
    Column("pandas, s", "pandas_s", ".1f"),
    Column("pandas peak, GB", "pandas_peak_gb", ".2f"),
    Column("x pandas", "x_pandas", ".2f"),
    Column("to the first step, s", "first_step_s", ".1f"),
    Column("of its events read, MB", "read_mb", ".1f"),
    Column("its events, MB", "map_mb", ".0f"),
]


@dataclass(frozen=True)
class Run:
    """One process: its wall time, and the most memory it held."""

    seconds: float
    peak_gb: float


def main() -> None:
    arguments = _parser().parse_args()
    started = datetime.now(UTC)
    load = [round(value, 2) for value in os.getloadavg()]
    setup = Setup(torch.device("cpu"), (os.cpu_count() or 1,), quick=False)
    description = machine(setup)
    path = arguments.out / f"prepare_{slug(setup)}_{started.date().isoformat()}"
    rows = [row for row in _earlier_rows(path, description) if row["n_events"] not in arguments.events]
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="gru4rec-prepare-") as name:
        for n_events in arguments.events:
            for ids, raw in write_raw_logs(Path(name), n_events).items():
                rows.append({"n_events": n_events, "ids": ids, **_measure(raw, n_events, arguments.runs)})
                raw.unlink()
    rows.sort(key=lambda row: int(row["n_events"]))
    part = Part(
        f"Preparing a raw log, {os.cpu_count()} cores",
        "Whole processes in turn: medians of runs, and the median of their ratios. Sessions are cut at an hour, "
        "repeats dropped, sessions of 2 and items of 5 filtered to a fixpoint, the last day split off twice, four "
        "Parquet files written; pandas writes the same rows. Then, with train_full in the cache, a new process begins "
        "to train on it: the time to its first reported steps, and how much of the events it has read by then.",
        _COLUMNS,
        rows,
    )
    Console(width=190).print(part.rich())
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": description, "commit": commit(), "load_average": load, "rows": rows}
    path.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")
    lines = [f"# {path.name}", "", *(f"- {key}: {value}" for key, value in description.items()), "", part.markdown()]
    command = (
        f"python benchmarks/prepare_times.py --events {' '.join(map(str, arguments.events))} --runs {arguments.runs}"
    )
    lines.append(f"Commit {content['commit']}, load average at the start {load}. `{command}`\n")
    path.with_suffix(".md").write_text("\n".join(lines))
    print(f"written: {path}.json and .md")


def _earlier_rows(path: Path, description: dict[str, Any]) -> list[Row]:
    file = path.with_suffix(".json")
    earlier = json.loads(file.read_text()) if file.exists() else {"machine": None}
    return list(earlier["rows"]) if earlier["machine"] == description else []


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", metavar="N", type=int, nargs="+", default=[10_000_000], help="sizes of the logs")
    parser.add_argument("--runs", metavar="N", type=int, default=3, help="of each program, in turn (3)")
    parser.add_argument("--folder", metavar="DIR", help="where to put temporary files ($TMPDIR)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the results")
    return parser


def _measure(raw: Path, n_events: int, n_runs: int) -> Row:
    ours, pandas, ratios = [], [], []
    with_pandas = n_events <= _MOST_FOR_PANDAS
    out, out_pandas, cache = raw.parent / "ours", raw.parent / "pandas", raw.parent / "cache"
    keys = ["--user_key", "visitor", "--item_key", "item", "--time_key", "time"]
    for _ in range(n_runs):
        for folder in (out, out_pandas):
            shutil.rmtree(folder, ignore_errors=True)
        ours.append(_process("prepare_process", str(raw), "-o", str(out), "--quiet", *keys))
        if with_pandas:
            pandas.append(_process("plain_pandas", str(raw), str(out_pandas)))
            ratios.append(pandas[-1].seconds / ours[-1].seconds)
            _check_same(out, out_pandas)
    seconds = statistics.median(run.seconds for run in ours)
    row: Row = {
        "file_gb": raw.stat().st_size / 1e9,
        "seconds": seconds,
        "events_per_s": n_events / seconds,
        "peak_gb": max(run.peak_gb for run in ours),
        "n_runs": n_runs,
        "runs": [run.seconds for run in ours],
    }
    if with_pandas:
        row |= {
            "pandas_s": statistics.median(run.seconds for run in pandas),
            "pandas_peak_gb": max(run.peak_gb for run in pandas),
            "x_pandas": statistics.median(ratios),
        }
    shutil.rmtree(out)
    _process("prepare_process", str(raw), "-o", str(out), "--quiet", "--cache", str(cache), *keys)
    row |= _first_step(out / "train_full.parquet", cache)
    shutil.rmtree(cache)
    return row


def _process(module: str, *arguments: str) -> Run:
    """Run a module of benchmarks/, whose last line of output is the most memory it held, in bytes."""
    started = time.perf_counter()
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "GRU4REC_CACHE"}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return Run(time.perf_counter() - started, int(done.stdout.split()[-1]) / 1e9)


def _check_same(ours: Path, pandas: Path) -> None:
    for name in _PARTS:
        left, right = (papq.read_table(folder / f"{name}.parquet").to_pandas() for folder in (ours, pandas))
        pd.testing.assert_frame_equal(left, right, check_dtype=False, check_categorical=False)


def _first_step(log: Path, cache: Path) -> Row:
    """Begin to train on a log that is in the cache, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.first_step", str(log), str(cache)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()
