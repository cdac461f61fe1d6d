"""A made-up shop of a hundred items, and the command lines of the tests over it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import doors

from gru4rec.cli.tune import paropt
from gru4rec.data.simulate import ShopSettings, simulate_shop
from gru4rec.data.simulated_logs import write_logs

SPACE = """{"name": "layers", "dtype": "int", "values": [4, 12], "step": 4}
{"name": "learning_rate", "dtype": "float", "values": [0.05, 0.3], "step": 0.05}
"""
FIXED = "n_epochs=1,n_sample=16,batch_size=16"


def write_shop(folder: Path) -> None:
    """Write train.tsv and valid.tsv, and a search space."""
    paths = write_logs(simulate_shop(ShopSettings(seed=5, n_items=100, n_categories=10, n_sessions=600)), folder)
    paths["train_tr"].replace(folder / "train.tsv")
    paths["train_valid"].replace(folder / "valid.tsv")
    (folder / "space.json").write_text(SPACE)


def words(shop: Path, run_dir: Path | None, *flags: Any, fixed: str = FIXED, space: Path | None = None) -> list[str]:
    """Return a command line, without the program."""
    logs = [shop / "train.tsv", shop / "valid.tsv"]
    given = [*logs, "-opf", space or shop / "space.json", "-d", "cpu", "--threads", "1"]
    given += ["--run-dir", run_dir] if run_dir else []
    return [str(word) for word in (*given, *flags, *(["-fp", fixed] if fixed else []))]


def call(argv: Sequence[Any]) -> tuple[Any, str, str]:
    """Run paropt.py in this process and return (exit status, standard output, standard error)."""
    return doors.call(paropt, argv)


def study_of(run_dir: Path) -> dict[str, Any]:
    """Read study.json."""
    found: dict[str, Any] = json.loads((run_dir / "study.json").read_text())
    return found


def by_place(run_dir: Path) -> dict[int, tuple[str, Any, Any]]:
    """Return state, settings and value of the trial that counts, by its place."""
    return {
        row["place"]: (row["state"], row["settings"], row["value"])
        for row in study_of(run_dir)["trials"]
        if row["state"] != "lost"
    }
