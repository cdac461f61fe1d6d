"""A comparison nobody ran: ten models with names that try to break a page, one of them failed."""

from __future__ import annotations

from typing import Any

import numpy as np

K = [1, 5, 10, 20]
FAILED = "Crashed & burnt"
BEST = "GRU4Rec <b>fast</b>"
NAMES = [
    "Popularity",
    "V-SkNN",
    BEST,
    '"><script>alert("name")</script>',
    "نموذج عربي (RTL)",
    "🛒 emoji-Markov",
    "S-SkNN 'quoted' $x_1$ & co",
    "averylongnamewithoutanyplacetobreakitthatgoesonandonandon-v2.13",
    FAILED,
    "_item kNN",
]
ROLES = ("train", "test", "train_tr", "train_valid")
ITEM = '"/><img src=x onerror=alert(1)>'
LONG_ITEM = "sku-" + "0123456789abcdef" * 8


def made_up(
    *,
    n_models: int = 10,
    n_days: int = 14,
    n_examples: int = 6,
    candidates: int | None = None,
    targets: str = "next",
    modes_differ: bool = True,
    lead_is_sure: bool = True,
) -> dict[str, Any]:
    """Return the results of a comparison, the same ones for the same arguments.

    Args:
        n_models: Beyond ten, names are plain.
        n_days: Slices by day.
        n_examples: Sessions shown with every model's list.
        candidates: Sampled items a target was ranked among, None for all.
        targets: ``remaining`` has no tie modes.
        modes_differ: Some model's metrics depend on the tie mode.
        lead_is_sure: The best is told apart from the second.
    """
    rng = np.random.default_rng(7)
    names = (NAMES + [f"model {place}" for place in range(n_models)])[:n_models]
    models = [_model(name, place, n_days, targets, modes_differ, rng) for place, name in enumerate(names)]
    done = [model["name"] for model in models if model["error"] is None]
    return {
        "format": "gru4rec-comparison",
        "format_version": 2,
        "title": "Shop <clicks>, spring & summer",
        "made": "2026-11-24 10:00 UTC",
        "gru4rec_version": "3.1.0",
        "versions": {"python": "3.11.7", "torch": "2.13.0", "numpy": "2.4.6", "numba": "0.68.1"},
        "machine": {"cpu": "Xeon (made up)", "n_cores": 2, "threads": 1, "device": "cpu", "memory_gb": 25.3},
        "command": "gru4rec compare shop.toml -o out",
        "plan": '[data]\ntrain = "train.tsv"\ntest = "</pre><script>plan()</script>.tsv"\n' + "# " + "x" * 200,
        "protocol": {
            "targets": targets, "tie_mode": "conservative", "k": K, "primary": ["recall", 20], "seed": 42,
            "n_resamples": 2000, "n_permutations": 10000, "level": 0.95, "candidates": candidates, "n_trials": 12,
            "valid_rule": "the last day of the training log",
            "test_use": "The test log was read once, after every setting was fixed.",
        },
        "data": [_log(role, place) for place, role in enumerate(ROLES)],
        "models": models,
        "pairs": _pairs(models, done, lead_is_sure),
        "checks": [
            {"severity": "good", "title": "Planted pattern is learnt", "detail": "Recall@1 is 0.98.", "model": BEST},
            {"severity": "note", "title": "Few events", "detail": "Slice 9+ has 12 events.", "model": None},
            {"severity": "warning", "title": "Slow", "detail": "It took <i>long</i>.", "model": NAMES[4]},
            {"severity": "error", "title": "Beaten by chance", "detail": "Worse than random lists.", "model": None},
            {"severity": "good", "title": "No leak", "detail": "No test session stands in training.", "model": None},
        ],
        "examples": [_example(place, done, rng) for place in range(n_examples)],
    }  # fmt: skip


def _log(role: str, place: int) -> dict[str, Any]:
    return {
        "role": role, "path": f"data/{role} & more.tsv",
        "part": {2: "first part", 3: "last part"}.get(place), "n_events": 123_456 - place, "n_sessions": 23_456 - place,
        "n_items": 3_456 - place, "first_start": 1_767_225_600 + 86_400 * place, "last_start": 1_769_904_000,
        "n_unknown_events": 71 + place, "n_unknown_items": 41 + place, "n_lost_sessions": 31 + place,
        "n_single_event_sessions": 21 + place, "mean_length": 5.26 + place,
        "digest": f"{place}" * 64 if role in ("train", "test") else None,
    }  # fmt: skip


def _interval(value: float, half: float) -> dict[str, float]:
    return {"value": round(value, 6), "low": round(max(value - half, 0.0), 6), "high": round(value + half, 6)}


def _model(
    name: str, place: int, n_days: int, targets: str, modes_differ: bool, rng: np.random.Generator
) -> dict[str, Any]:
    has_seeds, has_epochs = place % 3 == 2, place % 3 == 2
    base: dict[str, Any] = {
        "name": name, "kind": "gru4rec" if has_epochs else "vsknn" if place % 3 else "pop",
        "settings": {"layers": [100], "loss": "cross-entropy", "note": "<u>&\"'", "k": 100 + place, "logq": None},
        "command": f"gru4rec train train.tsv -ps 'layers=100,place={place}' -s 'model {place}.gru4rec'",
        "seeds": [1, 2, 3] if has_seeds else [],
        "error": None,
    }  # fmt: skip
    if name == FAILED:
        return base | {"error": "DivergedError: loss is nan in epoch 2 <oops>"}
    quality = 0.05 if place == 0 else 0.62 if name == BEST else 0.40 + 0.021 * place
    shapes = {"recall": [0.35, 0.7, 0.86, 1.0], "mrr": [0.35, 0.47, 0.49, 0.5], "ndcg": [0.35, 0.54, 0.6, 0.64]}
    shapes["map"] = shapes["mrr"]
    metrics = {
        metric: {
            str(k): _interval(quality * share, 0.011) | {
                "deviation": 0.0031 if has_seeds else None,
                "by_seed": [quality * share + step for step in (-0.003, 0.0, 0.003)] if has_seeds else [],
            }
            for k, share in zip(K, shape, strict=True)
        }
        for metric, shape in shapes.items()
    }  # fmt: skip

    def slices(labels: list[str], tilt: float) -> list[dict[str, Any]]:
        return [
            {"slice": label, "n_events": 4_000 // (at + 1),
             "recall": _interval(quality * (1 + tilt * at / len(labels)) + rng.normal(0, 0.008), 0.012),
             "mrr": _interval(quality * 0.5 * (1 + tilt * at / len(labels)), 0.01)}
            for at, label in enumerate(labels)
        ]  # fmt: skip

    shift = 0.06 if modes_differ and place == 0 else 0.00001
    modes = ("conservative", "median", "standard", "tiebreaking", "no_dedupe")
    return base | {
        "metrics": metrics,
        "lists": {
            "coverage": {"20": 0.1 + 0.07 * place}, "gini": {"20": 0.95 - 0.03 * place},
            "average_popularity": {"20": 0.004 - 0.0003 * place}, "novelty": {"20": 7.5 + 0.3 * place},
            "repeat_rate": {"20": 0.02 * place},
        },
        "ties": None if targets == "remaining" else {
            "share_tied": 0.2 if place == 0 else 0.0,
            "modes": {mode: {"recall": {"20": quality + shift * at}, "mrr": {"20": quality / 2 + shift * at}}
                      for at, mode in enumerate(modes)},
        },
        "slices": {
            "position in session": slices([*"12345678", "9+"], 0.3),
            "session length": slices(["2", "3-5", "6-10", "11+"], -0.2),
            "item support": slices(["head", "middle", "tail"], -0.8),
            "target clicked before": slices(["no", "yes"], 0.5),
            "day <b>UTC</b>": slices([f"2026-02-{day + 1:02d}" for day in range(n_days)], -0.1),
        },
        "curves": {
            str(seed): [{"epoch": n, "loss": 7 * 0.8**n + 0.1 * seed, "seconds": 12.5} for n in range(1, 11)]
            for seed in base["seeds"]
        } if has_epochs else {},
        "tuning": {
            "trials": [
                {"number": n, "settings": {"lr": 0.01 * (n + 1), "layers": [64]}, "value": quality * (0.8 + 0.015 * n),
                 "seconds": 30.0 + n, "status": "finished", "error": None}
                if n != 5 else
                {"number": n, "settings": {"lr": 9.0, "layers": [64]}, "value": None, "seconds": 1.0,
                 "status": "failed", "error": "DivergedError: <nan>"}
                for n in range(12)
            ],
            "best": 11,
        } if place in (1, 2) else None,
        "cost": {
            "train_s": None if place == 3 else 0.0 if place == 0 else 2.1 * 3.0**place,
            "load_s": 0.3 if place == 3 else None, "evaluate_s": 3.3 + place,
            "targets_per_s": 90_000 / 1.8**place, "train_threads": 1, "evaluate_threads": 1,
            "model_bytes": 54_321 * (place + 1) ** 3,
            "added_bytes": None if place == 1 else 700_000_000 + 10**7 * place,
        },
    }  # fmt: skip


def _pairs(models: list[dict[str, Any]], done: list[str], lead_is_sure: bool) -> list[dict[str, Any]]:
    """Return the best against all others; some as (other, best)."""
    by_name = {model["name"]: model for model in models}
    value = {name: by_name[name]["metrics"]["recall"]["20"]["value"] for name in done}
    order = sorted(done, key=lambda name: -value[name])
    pairs = []
    for metric in ("recall", "mrr"):
        for place, other in enumerate(order[1:]):
            difference = (value[order[0]] - value[other]) * (1 if metric == "recall" else 0.5)
            p = 0.0001 if place else 0.0123 if lead_is_sure else 0.21
            pair = {"a": order[0], "b": other, "metric": metric, "k": 20, "difference": difference,
                    "low": difference - 0.006, "high": difference + 0.006,
                    "p_value": p / 2, "p_adjusted": p}  # fmt: skip
            if place % 2:
                pair |= {"a": other, "b": order[0], "difference": -difference, "low": -difference - 0.006,
                         "high": -difference + 0.006}  # fmt: skip
            pairs.append(pair)
    return pairs


def _example(place: int, names: list[str], rng: np.random.Generator) -> dict[str, Any]:
    ids = [f"item-{number}" for number in range(400, 440)]
    ids[0], ids[1] = ITEM, LONG_ITEM
    target = ids[place % 40]
    lists = {name: [ids[at] for at in rng.permutation(40)[:10]] for name in names}
    ranks = {name: got.index(target) + 1 if target in got else 57 for name, got in lists.items()}
    session = [ids[at] for at in rng.permutation(40)[: 2 + place % 7]]
    return {"session": session, "target": target, "lists": lists, "ranks": ranks}
