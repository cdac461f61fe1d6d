"""A comparison as one HTML page that loads nothing from anywhere: who is best and how sure that is, first.

It is made from a dictionary that JSON can hold, so a page can be made again from the file of a comparison. Same
dictionary, same page. Needs jinja2 and matplotlib, which are imported when a page is asked for.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import Any

from gru4rec.compare.figures import (
    DARK,
    LIGHT,
    NAMES,
    Shown,
    curve_figure,
    metric_figures,
    parts_of,
    slice_figures,
    slice_names,
    speed_figures,
    swatch,
    tuning_figure,
)
from gru4rec.compare.spelling import duration, moment, number, probability, rank_text, size
from gru4rec.compare.verdict import alpha, isolated, lead_of, standings, told_apart, verdict
from gru4rec.errors import DataError
from gru4rec.pages.file import check_html, generator, write_html
from gru4rec.pages.values import value_text

COMMAND = "gru4rec compare"

FORMAT, FORMAT_VERSION = "gru4rec-comparison", 2

SEVERITIES = ("error", "warning", "note", "good")
"""Gravest first."""

ROUNDING = 5e-5
"""Half of the last digit that the page shows of a metric."""

LISTS = {
    "coverage": ("Coverage", "share of all items that stand in at least one list"),
    "gini": ("Gini", "how unevenly items are shown: 0 all alike, near 1 a few take every place"),
    "average_popularity": ("Popularity", "share of the training events that a listed item has, on average"),
    "novelty": ("Novelty", "surprise of a listed item in bits, on average: one more bit, half as popular"),
    "repeat_rate": ("Repeats", "share of listed items that the session had clicked before"),
}
"""Column and explanation of each measure of lists."""

ROLES = {"train": "Training", "test": "Test", "train_tr": "Tuning: trained on", "train_valid": "Tuning: validated on"}


LOG_ROWS = (
    ("Events", "n_events", "count"), ("Sessions", "n_sessions", "count"), ("Items", "n_items", "count"),
    ("Mean session length", "mean_length", "number"), ("First session starts", "first_start", "moment"),
    ("Last session starts", "last_start", "moment"), ("Events of unknown items, dropped", "n_unknown_events", "count"),
    ("Unknown items", "n_unknown_items", "count"), ("Sessions lost by it", "n_lost_sessions", "count"),
    ("Sessions of one event", "n_single_event_sessions", "count"),
)  # fmt: skip
"""Title, key and filter of what the page tells of each log."""


def check_page(path: str | Path) -> None:
    """Make sure that a page can be made, and written there; leaves nothing behind.

    Raises:
        ConfigError: A library is missing, the name is not one of a page, or the file there is no page of a comparison.
        DataError: The folder is missing or locked, or the path is no file.
    """
    check_html(path, command=COMMAND)


def write_page(results: dict[str, Any], path: str | Path) -> None:
    """Write the page; a file of that name is replaced whole or not at all.

    Raises:
        ConfigError: A library is missing, or the file there is no page of a comparison.
        DataError: The path cannot be written, or the results are of another format.
    """
    check_page(path)
    write_html(page_of(results), path)


def page_of(results: dict[str, Any]) -> str:
    """Return the page's text.

    Raises:
        DataError: The results are not those of a comparison, or of a version that this one does not know.
    """
    import jinja2

    _check_format(results)
    models = standings(results)
    ranked = [shown for shown in models if shown.rank is not None]
    metric, k = results["protocol"]["primary"]
    primaries = [shown.model["metrics"][metric][str(k)] for shown in ranked]
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "number": number, "probability": probability, "duration": duration, "size": size, "count": "{:,}".format,
        "moment": moment, "value": value_text, "rank": rank_text, "hash": _hash, "file_name": _file_name,
    }  # fmt: skip
    template = Path(__file__).with_name("report.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        results=results,
        generator=generator(COMMAND),
        colours={"light": LIGHT, "dark": DARK},
        severities=SEVERITIES,
        names=_names(results),
        all_names=NAMES,
        lists=LISTS,
        roles=ROLES,
        log_rows=LOG_ROWS,
        rounding=ROUNDING,
        metric=metric,
        k=k,
        primary=f"{NAMES[metric]}@{k}",
        alpha=alpha(results),
        told_apart=lambda p_adjusted: told_apart(results, p_adjusted),
        level=f"{100 * results['protocol']['level']:g} %",
        verdict=verdict(results, isolated),
        models=models,
        ranked=ranked,
        who={shown.model["name"]: shown for shown in models},
        to_best={shown.model["name"]: lead_of(results, shown, ranked[0]) for shown in ranked[1:]},
        best=primaries[0] if primaries else None,
        place=_scale(primaries),
        swatches=[swatch(shown) for shown in models],
        spread=_tie_spread(ranked),
        tie_modes=next((list(shown.model["ties"]["modes"]) for shown in ranked if shown.model["ties"]), []),
        tie_columns=_tie_columns(ranked),
        list_k=_list_k(ranked, k),
        memory_known=any(shown.model["cost"]["added_bytes"] is not None for shown in ranked),
        fewer_trials=any(
            len(shown.model["tuning"]["trials"]) < results["protocol"]["n_trials"]
            for shown in ranked
            if shown.model["tuning"]
        ),
        slices=_slices(ranked, k),
        metric_figures=metric_figures(ranked, _names(results)),
        speed_figures=speed_figures(ranked, metric, k),
        curves=[(shown, curve_figure(shown)) for shown in ranked if shown.model["curves"]],
        tunings=[(shown, tuning_figure(shown, f"{NAMES[metric]}@{k}")) for shown in ranked if shown.model["tuning"]],
    )


def _names(results: dict[str, Any]) -> dict[str, str]:
    """Return the metrics that are shown: without MAP where it is MRR, as a target is one item, and not the primary."""
    protocol = results["protocol"]
    is_twin = protocol["targets"] == "next" and protocol["primary"][0] != "map"
    return {key: title for key, title in NAMES.items() if not (is_twin and key == "map")}


def _file_name(log: dict[str, Any]) -> str:
    """Return what a log is called where its whole path would be too long."""
    name = PurePath(log["path"]).name or log["path"]
    return name if log["part"] is None else f"{name} ({log['part']})"


def _check_format(results: dict[str, Any]) -> None:
    found = results.get("format"), results.get("format_version")
    if found != (FORMAT, FORMAT_VERSION):
        raise DataError(
            f"cannot show results of format {found[0]!r}, version {found[1]!r}: this version of gru4rec shows "
            f"{FORMAT!r}, version {FORMAT_VERSION}. Give what gru4rec compare wrote, or install the version that did"
        )


def _scale(intervals: Sequence[dict[str, float]]) -> Callable[[float], str]:
    """Return what turns a value into a horizontal place, for an attribute of SVG.

    Models below half of the best are off the scale, so that they do not push the others together: all their values
    are at its left end.
    """
    greatest = max((at["value"] for at in intervals), default=1.0)
    near = [at for at in intervals if at["value"] >= greatest / 2]
    low = min((at["low"] for at in near), default=0.0)
    width = max((at["high"] for at in near), default=1.0) - low or 1.0
    return lambda value: f"{4 + 92 * max(value - low, 0.0) / width:.2f}%"


def _tie_spread(ranked: Sequence[Shown]) -> float | None:
    """Return the most by which a metric differs between tie modes; None where ties were not looked at."""
    by_mode = [shown.model["ties"]["modes"] for shown in ranked if shown.model["ties"] is not None]
    if not by_mode:
        return None
    spread: float = max(
        max(values) - min(values)
        for modes in by_mode
        for metric in ("recall", "mrr")
        for k in next(iter(modes.values()))[metric]
        for values in [[mode[metric][k] for mode in modes.values()]]
    )
    return spread


def _tie_columns(ranked: Sequence[Shown]) -> list[tuple[str, str]]:
    """Return metric and list length of what is told by tie mode."""
    for shown in ranked:
        if shown.model["ties"] is not None:
            by_metric = next(iter(shown.model["ties"]["modes"].values()))
            return [(metric, k) for metric in ("recall", "mrr") for k in by_metric[metric]]
    return []


def _list_k(ranked: Sequence[Shown], k: int) -> str:
    """Return the length of the lists that were measured: the primary one, where it was."""
    lengths = ranked[0].model["lists"]["coverage"] if ranked else {}
    return str(k) if str(k) in lengths or not lengths else max(lengths, key=int)


def _slices(ranked: Sequence[Shown], k: int) -> list[dict[str, Any]]:
    """Return the kinds of slices with their figures, and cells by model and slice."""
    kinds = list(dict.fromkeys(kind for shown in ranked for kind, parts in shown.model["slices"].items() if parts))
    return [
        {
            "kind": kind,
            "names": slice_names(ranked, kind),
            "n_events": {part["slice"]: part["n_events"] for shown in ranked for part in parts_of(shown, kind)},
            "cells": {shown.model["name"]: {part["slice"]: part for part in parts_of(shown, kind)} for shown in ranked},
            "figures": slice_figures(ranked, kind, f"slice{place}", k),
        }
        for place, kind in enumerate(kinds)
    ]


def _hash(script: str) -> str:
    """Return the hash by which the page allows its own script, and no other, to run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(str(script).encode()).digest()).decode()
