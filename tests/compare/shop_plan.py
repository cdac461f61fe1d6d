"""A small shop and plans over it: what the tests of a comparison share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gru4rec.data.simulate import ShopSettings, simulate_shop
from gru4rec.data.simulated_logs import write_logs

MODELS = """
[[models]]
kind = "pop"
[[models]]
kind = "markov"
[[models]]
kind = "vsknn"
name = "V-SkNN"
[[models]]
kind = "gru4rec"
name = "GRU4Rec"
seeds = [1, 2]
tune = false
settings = { layers = [16], batch_size = 32, n_epochs = 2, learning_rate = 0.2, n_sample = 64 }
[[models]]
kind = "hybrid"
model = "GRU4Rec"
neighbours = "V-SkNN"
"""


def write_shop(folder: Path) -> None:
    """Write train.tsv and test.tsv of a shop of 600 items."""
    write_logs(simulate_shop(ShopSettings(seed=5, n_items=600, n_categories=30, n_sessions=3_000)), folder)


def write_plan(folder: Path, models: str = MODELS, *, evaluation: str = "", tuning: str = "", data: str = "") -> Path:
    """Write a plan over the shop; return its path."""
    path = folder / "plan.toml"
    path.write_text(
        f'[data]\ntrain = "train.tsv"\ntest = "test.tsv"\n{data}\n[evaluation]\nk = [5, 20]\nresamples = 200\n'
        f"permutations = 200\nexamples = 3\n{evaluation}\n[tuning]\n{tuning}\n{models}",
        encoding="utf-8",
    )
    return path


def numbers(results: dict[str, Any]) -> dict[str, Any]:
    """All that the same seed must give again: times and the moment aside."""
    text = json.dumps(results)
    found = json.loads(text)
    found.pop("made")
    for model in found["models"]:
        model.pop("cost")
        for curve in model["curves"].values():
            for epoch in curve:
                epoch.pop("seconds")
        for trial in (model["tuning"] or {"trials": []})["trials"]:
            trial.pop("seconds")
    return found
