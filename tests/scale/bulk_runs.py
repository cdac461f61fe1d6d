"""Made-up logs and models for tests of lists in bulk, and the command in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as papq
from conftest import ROOT

from gru4rec.cli.main import main
from gru4rec.data.vocabulary import Vocabulary

N_ITEMS = 40
UNKNOWN = 999


def made_up(n_sessions: int, seed: int) -> list[list[int]]:
    """Sessions of 1 to 9 clicks on the items 100, 101, ..., one in ten of them unknown to the model."""
    rng = np.random.default_rng(seed)
    items = np.r_[100 + np.arange(N_ITEMS), [UNKNOWN] * 4]
    return [rng.choice(items, rng.integers(1, 10)).tolist() for _ in range(n_sessions)]


def rows_of(sessions: list[list[int]], seed: int) -> list[tuple[int, int, int]]:
    """Rows of a log in an order of its own; session s has the id 5000 - s and begins at 10 s // 3: some at once."""
    rows = [(5000 - s, item, 10 * s // 3 + at) for s, clicks in enumerate(sessions) for at, item in enumerate(clicks)]
    return [rows[place] for place in np.random.default_rng(seed).permutation(len(rows))]


def write_log(path: Path, rows: list[tuple[Any, Any, int]], names: str = "SessionId\tItemId\tTime") -> Path:
    path.write_text("\n".join([names, *("\t".join(map(str, row)) for row in rows)]) + "\n")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = papq.read_table(path).to_pylist()
    return rows


def vocabulary_of(pattern: str) -> Vocabulary:
    ids = [pattern.format(100 + number) for number in range(N_ITEMS)]
    return Vocabulary([int(item_id) for item_id in ids] if pattern == "{}" else ids)


def batch(*args: Any) -> int:
    return main(["batch", "-q", *map(str, args)])


SMALL_PARTS = """
import sys
import torch
from gru4rec.scale import bulk_folder, bulk_job
torch.set_num_threads(1)
n_clicks = int(sys.argv[1])
bulk_job.clicks_a_part = lambda k, n_items: n_clicks
bulk_folder._GROUP_BYTES = 200_000
from gru4rec.cli.main import command
sys.argv = ["gru4rec", *sys.argv[2:]]
command()
"""


def started(n_clicks_a_part: int, *args: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SMALL_PARTS, str(n_clicks_a_part), "batch", *map(str, args)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def n_done(output: Path) -> int:
    return len(list(output.with_name(f"{output.name}.parts").glob("parts/part-*.parquet")))


def wait_for(output: Path, n_parts: int, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 60
    while n_done(output) < n_parts:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.002)
