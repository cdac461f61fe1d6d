"""What models cost: reports of fitting and scoring, put together over parts and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Report = dict[str, Any]
"""See :class:`gru4rec.compare.fitting.Fit`; with :func:`scoring` added, all that a model cost."""


def both(model: Report, neighbours: Report) -> Report:
    """Return what the two parts of a hybrid took together."""
    added = [one["added_bytes"] for one in (model, neighbours) if one.get("added_bytes") is not None]
    return {
        "train_s": model["train_s"] + neighbours["train_s"],
        "threads": model.get("threads") if model.get("threads") == neighbours.get("threads") else None,
        "model_bytes": model["model_bytes"] + neighbours["model_bytes"],
        "added_bytes": max(added, default=None),
        "curve": [],
    }


def scoring(arrays: dict[str, np.ndarray]) -> Report:
    """Return what :func:`gru4rec.compare.fitting.measure` took."""
    threads = int(arrays["threads"][0]) if "threads" in arrays else None
    return {"evaluate_s": float(arrays["seconds"][0]), "evaluate_threads": threads}


def cost_of(reports: Sequence[Report], n_targets: int) -> dict[str, Any]:
    """Return what one seed of a model costs: times are means, the rest is the first seed's.

    Args:
        reports: A seed each.
        n_targets: Targets that were scored.
    """
    first, evaluate_s = reports[0], float(np.mean([one["evaluate_s"] for one in reports]))
    is_loaded = first["train_s"] is None
    return {
        "train_s": None if is_loaded else float(np.mean([one["train_s"] for one in reports])),
        "load_s": first["load_s"] if is_loaded else None,
        "evaluate_s": evaluate_s,
        "targets_per_s": n_targets / max(evaluate_s, 1e-9),
        "train_threads": _shared([one.get("threads") for one in reports]),
        "evaluate_threads": _shared([one["evaluate_threads"] for one in reports]),
        "model_bytes": first["model_bytes"],
        "added_bytes": first.get("added_bytes"),
    }


def _shared(values: Sequence[int | None]) -> int | None:
    """Return the value that all have; None where they differ."""
    return values[0] if len(set(values)) == 1 else None
