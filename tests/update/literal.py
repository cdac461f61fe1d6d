"""What an update does, by slow loops over lists: what the tests compare with."""

from __future__ import annotations

from typing import Any

import numpy as np
from conftest import make_sessions

from gru4rec import GRU4Rec, Sessions, Vocabulary

OLD = [[0, 1, 2], [1, 2, 3], [3, 0], [2, 1, 0, 3], [0, 2]]
"""Item ids are 0 to 3."""

NEW = [[0, 9, 1], [9, 8, 9], [2, 9, 9, 3], [7, 7], [1, 3], [8]]
"""9 stands beside 0 1 and 2 3 and, alone with 8, in the second; 8 and 7 stand beside no known item."""

SMALL: dict[str, Any] = {
    "layers": [6], "n_sample": 8, "batch_size": 2, "n_epochs": 2, "momentum": 0.1, "seed": 5, "device": "cpu",
}  # fmt: skip


def log_of(lists: list[list[int]], source: str = "made-up sessions") -> Sessions:
    """Sessions of such item ids in a vocabulary of their own, in the order of first appearance."""
    ids = list(dict.fromkeys(item for events in lists for item in events))
    sessions = make_sessions([[ids.index(item) for item in events] for events in lists])
    return Sessions(sessions.item_idx, sessions.offsets, sessions.start_time, Vocabulary(ids), source)


def trained(lists: list[list[int]] = OLD, *, keep_state: bool = True, **settings: Any) -> GRU4Rec:
    return GRU4Rec(**{**SMALL, **settings}).fit(log_of(lists), keep_state=keep_state, on_epoch=lambda report: None)


def rows_by_loop(table: np.ndarray, known: list[Any], new: list[Any], lists: list[list[Any]], support: Any) -> list:
    """The rows of new items, as docs/update.md has them."""
    rows = []
    for item in new:
        around = [table[known.index(event)] for events in lists if item in events for event in events if event in known]
        if not around:
            around = [table[place] for place in range(len(known)) for _ in range(int(support[place]))]
        rows.append(np.mean(np.array(around, dtype=np.float64), axis=0))
    return rows
