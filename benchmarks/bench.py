"""Measure speed and memory: ``python benchmarks/bench.py`` (``make bench``), one table a part.

Results go to benchmarks/results/MACHINE_DATE.json and .md, written anew after each part. Parts that an earlier call of
the day measured on the same machine stay.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.evaluation_times import evaluation_times
from benchmarks.machine import commit, machine, slug
from benchmarks.memory import peak_memory
from benchmarks.sampler import sampler_times
from benchmarks.steps import growth, step_times
from benchmarks.tables import Part
from benchmarks.timing import Setup, thread_settings
from benchmarks.workload import ROOT
from gru4rec.model.device import resolve_device

PARTS: dict[str, Callable[[Setup], Part]] = {
    "steps": step_times,
    "evaluation": evaluation_times,
    "growth": growth,
    "memory": peak_memory,
    "sampler": sampler_times,
}
_WIDTH = 190


def main() -> None:
    arguments = _parser().parse_args()
    device = resolve_device(arguments.device)
    threads = tuple(sorted(set(arguments.threads or thread_settings(device))))
    setup = Setup(device, threads, arguments.quick)
    console = Console(width=None if Console().is_terminal else _WIDTH)
    now = datetime.now(UTC)
    name = f"{slug(setup)}_{now.date().isoformat()}" + ("_quick" if setup.quick else "")
    description = machine(setup)
    path = arguments.out / f"{name}.json"
    results: dict[str, Any] = {"machine": description, "quick": setup.quick, "parts": _earlier_parts(path, description)}
    console.print(f"{name}: {', '.join(f'{key} {value}' for key, value in description.items())}")
    for part_name in arguments.parts:
        circumstances: dict[str, Any] = {
            "commit": commit(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "load_average": [round(load, 2) for load in os.getloadavg()],
        }
        started = time.perf_counter()
        part = PARTS[part_name](setup)
        circumstances["seconds"] = round(time.perf_counter() - started, 1)
        results["parts"][part_name] = {**circumstances, "title": part.title, "note": part.note, "rows": part.rows}
        results["parts"][part_name]["markdown"] = part.markdown()
        console.print(part.rich(), f"{part.note}\n{_said(circumstances)}\n")
        _write(path, results)
    console.print(f"written: {path} and {path.with_suffix('.md')}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that everything works: no results")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the results")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    parser.add_argument("--threads", nargs="+", type=int, help="CPU thread settings to measure; default: 1 and all")
    return parser


def _earlier_parts(path: Path, description: dict[str, Any]) -> dict[str, Any]:
    """Return the parts that the file holds already, if the same machine and versions made it."""
    if not path.exists():
        return {}
    earlier = json.loads(path.read_text())
    parts: dict[str, Any] = earlier["parts"] if earlier["machine"] == description else {}
    return parts


def _write(path: Path, results: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")
    lines = [f"# {path.stem}", "", *(f"- {key}: {value}" for key, value in results["machine"].items()), ""]
    for name in PARTS:
        if name in results["parts"]:
            part = results["parts"][name]
            lines += [part["markdown"], f"{_said(part)}. `python benchmarks/bench.py --parts {name}`", ""]
    path.with_suffix(".md").write_text("\n".join(lines))


def _said(circumstances: dict[str, Any]) -> str:
    load = " / ".join(map(str, circumstances["load_average"]))
    return (
        f"Commit {circumstances['commit']}, started {circumstances['started']}, {circumstances['seconds']:.0f} s, "
        f"load average at the start {load} (1, 5, 15 minutes)"
    )


if __name__ == "__main__":
    main()
