"""What each rule of an update is worth: python benchmarks/update_rules.py BACKTEST_DIR LOG [--rule NAME ...].

BACKTEST_DIR is what ``gru4rec backtest LOG -o BACKTEST_DIR --parts N`` left: its settings are used, and its figures of
training anew are what a rule's are divided by. Each rule replaces one of those in docs/update.md, in all windows.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from gru4rec.api import GRU4Rec
from gru4rec.backtest.measure import measure
from gru4rec.backtest.windows import Parts, cut_by_sessions, new_items_of
from gru4rec.data.session_map import load_sessions
from gru4rec.data.sessions import Sessions
from gru4rec.update import growth, job
from gru4rec.update.replay import mixed
from gru4rec.update.settings import UpdateSettings

Rows = Callable[[np.ndarray, Sessions, np.ndarray], tuple[np.ndarray, int]]


def drawn(table_ND: np.ndarray, sessions: Sessions, support_N: np.ndarray) -> tuple[np.ndarray, int]:
    """Rows as training from scratch begins with; biases 0."""
    n_new, size = sessions.items.n_items - len(table_ND), table_ND.shape[1]
    bound = np.sqrt(6 / sum(table_ND.shape)) * (size > 1)
    rows = np.random.default_rng(0).uniform(-bound, bound, (n_new, size))
    return rows.astype(table_ND.dtype), 0


def mean_of_all(table_ND: np.ndarray, sessions: Sessions, support_N: np.ndarray) -> tuple[np.ndarray, int]:
    """Each row the mean of all known ones, by support."""
    row = (support_N / support_N.sum()) @ table_ND
    return np.repeat(row[np.newaxis], sessions.items.n_items - len(table_ND), axis=0).astype(table_ND.dtype), 0


def zero_biases(table_ND: np.ndarray, sessions: Sessions, support_N: np.ndarray) -> tuple[np.ndarray, int]:
    """Rows as documented, biases 0."""
    rows, n_alone = _rows_around(table_ND, sessions, support_N)
    return rows * (table_ND.shape[1] > 1), n_alone


def accumulators_of_zero(state: Any, n_new: int, support_N: np.ndarray) -> dict[str, np.ndarray]:
    """New items' accumulators 0, as in training from scratch."""
    grown = _grown_state(state, n_new, support_N)
    for name in grown:
        if len(grown[name]) == len(state[name]) + n_new:
            grown[name][len(state[name]) :] = 0
    return grown


def old_first(new: Sessions, old: Sessions, chosen: np.ndarray) -> Sessions:
    """All replayed sessions, then all new ones."""
    both = mixed(new, old, chosen)
    is_new = np.argsort(np.r_[np.ones(new.n_sessions, bool), np.zeros(len(chosen), bool)], kind="stable")
    lengths = np.r_[new.lengths, old.lengths[chosen]][is_new]
    item_idx = [old.item_idx[old.offsets[one] : old.offsets[one + 1]] for one in chosen]
    return replace(both, item_idx=np.concatenate([*item_idx, new.item_idx]), offsets=np.r_[0, np.cumsum(lengths)])


_rows_around, _grown_state = growth.rows_around, growth.grown_state

RULES: dict[str, tuple[Any, str, Any] | None] = {
    "as documented": None,
    "rows drawn": (growth, "rows_around", drawn),
    "rows the mean of all": (growth, "rows_around", mean_of_all),
    "biases 0": (growth, "rows_around", zero_biases),
    "accumulators of new items 0": (job, "grown_state", accumulators_of_zero),
    "old sessions first": (job, "mixed", old_first),
    "state anew each time": None,
}


def follow(parts: Parts, first: GRU4Rec, results: dict[str, Any], rule: str) -> str:
    """Update through all windows by a rule; return its line."""
    plan, gru, ratios, seconds = results["plan"], first, [], 0.0
    k, known_settings = str(plan["cutoffs"][0]), plan["settings"]
    other = {name: value for name, value in plan["update_training"].items() if value != known_settings[name]}
    for window in range(1, len(parts) - 1):
        if rule == "state anew each time":
            gru.training_state = None
            other.pop("learning_rate", None)  # the rule for such models
        started = time.process_time()
        gru = job.update(
            gru, parts.part(window), replay=parts.up_to(window), settings=UpdateSettings(**plan["update"]),
            threads=1, on_epoch=lambda report: None, tell=lambda message: None, **other,
        ).gru  # fmt: skip
        seconds += time.process_time() - started
        new_items = new_items_of(parts, window)
        found = measure(gru, parts.part(window + 1), new_items, cutoffs=plan["cutoffs"], ties=plan["ties"])
        anew = results["windows"][window - 1]["policies"]["retrain"]
        ratios.append(
            [found["all"][metric][k] / anew["all"][metric][k] for metric in ("mrr", "recall")]
            + [(found["new"]["recall"][k] or 0) / (anew["new"]["recall"][k] or 1)]
            + [found["new"]["share_of_places"][k] / (anew["new"]["share_of_places"][k] or 1)]
        )
    mean = np.mean(ratios, axis=0)
    return f"| {rule} | {mean[0]:.3f} | {mean[1]:.3f} | {mean[2]:.2f} | {mean[3]:.2f} | {seconds:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backtest", type=Path)
    parser.add_argument("log")
    parser.add_argument("--rule", nargs="+", choices=RULES, default=list(RULES))
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = json.loads((args.backtest / "backtest.json").read_text())
    parts = cut_by_sessions(load_sessions(args.log), len(results["parts"]))
    settings = results["plan"]["settings"]
    first = GRU4Rec(device="cpu", **settings)
    first.fit(parts.up_to(1), threads=1, keep_state=True, on_epoch=lambda report: None)
    print(
        "| rule | MRR | Recall | recall of new items | places of new items | processor s |\n|---|---|---|---|---|---|"
    )
    for rule in args.rule:
        with ExitStack() as patches:
            changed = RULES[rule]
            if changed is not None:
                patches.enter_context(patch.object(changed[0], changed[1], changed[2]))
            copy = GRU4Rec.from_bundle(first.bundle(), "cpu")
            print(follow(parts, copy, results, rule), flush=True)


if __name__ == "__main__":
    main()
