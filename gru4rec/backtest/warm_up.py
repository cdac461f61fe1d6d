"""Work that nobody measures, so that what is measured pays for no loading of compiled code."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from gru4rec.api import GRU4Rec
from gru4rec.config import Engine, HyperParameters, Precision, setting_values
from gru4rec.data.sessions import Sessions
from gru4rec.data.vocabulary import Vocabulary
from gru4rec.errors import DivergedError
from gru4rec.update.job import update

_N_SESSIONS, _N_ITEMS = 64, 50


def warm_up(
    settings: HyperParameters, update_training: Mapping[str, Any], *, device: str, threads: int, engine: Engine,
    precision: Precision,
) -> None:  # fmt: skip
    """Train and update a model of these settings on a few made-up sessions, as the first of a process is slower.

    Args:
        settings: What the models are trained with.
        update_training: Settings that updates train with instead.
        device: Where they compute.
        threads: CPU threads.
        engine: Which step trains.
        precision: Of the matrix products.
    """
    item_idx = np.random.default_rng(0).integers(0, _N_ITEMS, 3 * _N_SESSIONS).astype(np.int32)
    old, new = (
        Sessions(item_idx, np.arange(_N_SESSIONS + 1) * 3, np.arange(_N_SESSIONS), Vocabulary(ids), "made-up sessions")
        for ids in (range(_N_ITEMS), range(1, _N_ITEMS + 1))
    )
    how: dict[str, Any] = {
        "threads": threads, "engine": engine, "precision": precision, "on_epoch": lambda report: None,
        "sample_cache_max_size": 10_000,
    }  # fmt: skip
    gru = GRU4Rec(device=device, **{**setting_values(settings), "n_epochs": 1})
    with contextlib.suppress(DivergedError):  # a step size for a log may be too large for so few sessions
        gru.fit(old, keep_state=True, **how)
        update(gru, new, replay=old, tell=lambda message: None, **how, **{**update_training, "n_epochs": 1})
