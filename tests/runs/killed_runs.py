"""Trains in a run folder, in children that are killed without warning, until one comes to the end.

``python killed_runs.py '{"folder": ..., "settings": {...}, "engine": ..., "seed": ..., "n_kills": ...}'`` prints how
many children were killed. Children are forked, so that none loads torch again.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gru4rec.api import GRU4Rec
from gru4rec.data.sessions import Sessions
from gru4rec.data.vocabulary import Vocabulary
from gru4rec.runs.folder import RunFolder
from gru4rec.runs.recorder import Pace, RunRecorder
from gru4rec.runs.validation import Validation

N_ITEMS = 60


def sessions_of(seed: int, n_sessions: int) -> Sessions:
    """Sessions of a few hundred clicks in all."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, 9, n_sessions)
    offsets = np.r_[0, np.cumsum(lengths)]
    item_idx = np.r_[np.arange(N_ITEMS), rng.integers(0, N_ITEMS, offsets[-1] - N_ITEMS)].astype(np.int32)
    return Sessions(
        item_idx=item_idx, offsets=offsets, start_time=np.arange(n_sessions), items=Vocabulary(np.arange(N_ITEMS)),
        source=f"log {seed}",
    )  # fmt: skip


def train_in(folder: Path, settings: dict[str, Any], engine: Any, patience: int) -> None:
    """Train, or go on training, in a folder."""
    torch.set_num_threads(1)
    gru = GRU4Rec(device="cpu", **settings)
    run = RunFolder(folder, {"settings": settings, "engine": engine}, resume=True)
    recorder = RunRecorder(
        run, gru, pace=Pace(log_steps=7, checkpoint_steps=3),
        validation=Validation(sessions_of(2, 60), patience=patience),
    )  # fmt: skip
    gru.fit(sessions_of(1, 400), recorder=recorder, engine=engine, threads=1, on_epoch=lambda report: None)
    gru.savemodel(run.model)
    run.set_status("finished")
    run.close()


def main() -> None:
    """Kill children until enough were killed, then let one train to the end."""
    task = json.loads(sys.argv[1])
    arguments = Path(task["folder"]), task["settings"], task["engine"], task["patience"]
    warm_up = GRU4Rec(device="cpu", **{**task["settings"], "n_epochs": 1})
    warm_up.fit(sessions_of(1, 30), engine=task["engine"], threads=1, on_epoch=lambda report: None)
    moments = random.Random(task["seed"])
    n_killed = 0
    while True:
        child = os.fork()
        if child == 0:
            train_in(*arguments)
            os._exit(0)
        if n_killed < task["n_kills"]:
            time.sleep(moments.uniform(0.02, 0.25))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            n_killed += 1
        elif status:
            sys.exit(f"a child failed with status {status}")
        else:
            break
    print(n_killed)


if __name__ == "__main__":
    main()
