"""Measure ``gru4rec serve``: latency, long sessions, saturation, overload and failures, each with a goal.

``python benchmarks/serve.py`` starts real services on free ports and asks them from another process. Results go to
benchmarks/results/serve_MACHINE_DATE.json and .md, written anew after each part; parts that an earlier call of the day
measured on the same machine stay.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.machine import commit, machine, slug
from benchmarks.serve_failures import failures
from benchmarks.serve_latency import latency, long_sessions
from benchmarks.serve_load import ROOT
from benchmarks.serve_parts import Bench
from benchmarks.serve_saturation import overload, saturation
from benchmarks.tables import Part
from benchmarks.timing import Setup

PARTS: dict[str, Callable[[Bench], Part]] = {
    "A": latency,
    "B": long_sessions,
    "C": saturation,
    "D": overload,
    "E": failures,
}
_WIDTH = 200


def main() -> None:
    arguments = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # services and model files go with us
    torch.set_num_threads(1)
    setup = Setup(torch.device("cpu"), (1,), quick=arguments.quick)
    description = machine(setup) | {name: version(name) for name in ("fastapi", "uvicorn", "uvloop", "httptools")}
    name = f"serve_{slug(setup)}_{datetime.now(UTC).date().isoformat()}" + ("_quick" if arguments.quick else "")
    path = arguments.out / f"{name}.json"
    results = {"machine": description, "quick": arguments.quick, "parts": _earlier_parts(path, description)}
    console = Console(width=None if Console().is_terminal else _WIDTH)
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="gru4rec-serve-") as folder:
        seconds, patience_s = (3.0, 0.0) if arguments.quick else (arguments.seconds, arguments.patience)
        bench = Bench(Path(folder), arguments.quick, seconds, patience_s)
        for letter in arguments.parts:
            part, content = _measured(letter, bench)
            results["parts"][letter] = content
            console.print(part.rich(), f"{part.note}\n{_said(content)}\n")
            _write(path, results)
    console.print(f"written: {path} and {path.with_suffix('.md')}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="small and short, to see that everything works: no results"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    parser.add_argument("--seconds", metavar="S", type=float, default=60.0, help="of overload (60)")
    parser.add_argument(
        "--patience",
        metavar="S",
        type=float,
        default=90.0,
        help="wait so long for a quiet moment, and measure again what others disturbed; 0: do not (90)",
    )
    parser.add_argument("--folder", metavar="DIR", help="where to put model files, up to 1 GB ($TMPDIR)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the results")
    return parser


def _measured(letter: str, bench: Bench) -> tuple[Part, dict[str, Any]]:
    content: dict[str, Any] = {
        "commit": commit(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }
    started = time.perf_counter()
    part = PARTS[letter](bench)
    content["seconds"] = round(time.perf_counter() - started, 1)
    flags = " --quick" if bench.quick else f" --patience {bench.patience_s:g}"
    flags += f" --seconds {bench.overload_s:g}" if letter == "D" and not bench.quick else ""
    command = f"python benchmarks/serve.py --parts {letter}{flags}"
    content |= {"command": command, "title": part.title, "note": part.note, "rows": part.rows}
    return part, content | {"markdown": part.markdown()}


def _earlier_parts(path: Path, description: dict[str, Any]) -> dict[str, Any]:
    """Return the parts that the file holds already, if the same machine and versions made it."""
    earlier = json.loads(path.read_text()) if path.exists() else {"machine": None}
    return dict(earlier["parts"]) if earlier["machine"] == description else {}


def _write(path: Path, results: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")
    lines = [f"# {path.stem}", "", *(f"- {key}: {value}" for key, value in results["machine"].items()), ""]
    for letter in PARTS:
        if letter in results["parts"]:
            part = results["parts"][letter]
            lines += [part["markdown"], f"{_said(part)}. `{part['command']}`", ""]
    path.with_suffix(".md").write_text("\n".join(lines))


def _said(content: dict[str, Any]) -> str:
    load = " / ".join(map(str, content["load_average"]))
    return (
        f"Commit {content['commit']}, started {content['started']}, {content['seconds']:.0f} s, load average at the "
        f"start {load} (1, 5, 15 minutes)"
    )


if __name__ == "__main__":
    main()
