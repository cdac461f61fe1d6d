"""A comparison as one HTML page that loads nothing from anywhere: who is best and how sure that is, first.

It is made from a dictionary that JSON can hold, so a page can be made again from the file of a comparison. Same
dictionary, same page. Needs jinja2 and matplotlib, which are imported when a page is asked for.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

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
from gru4rec.errors import DataError
from gru4rec.pages.file import check_html, generator, write_html
from gru4rec.prepare.times import Clock, unit_of

COMMAND = "gru4rec compare"

FORMAT, FORMAT_VERSION = "gru4rec-comparison", 1

SEVERITIES = ("error", "warning", "note", "good")
"""Gravest first."""

MINUS, NONE = "\u2212", "\u2013"
"""Typographic minus, and the dash that stands for no value."""

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
        "moment": moment, "value": value_text, "hash": _hash,
    }  # fmt: skip
    template = Path(__file__).with_name("report.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        results=results,
        generator=generator(COMMAND),
        colours={"light": LIGHT, "dark": DARK},
        severities=SEVERITIES,
        names=NAMES,
        lists=LISTS,
        roles=ROLES,
        log_rows=LOG_ROWS,
        rounding=ROUNDING,
        metric=metric,
        k=k,
        primary=f"{NAMES[metric]}@{k}",
        alpha=_alpha(results),
        level=f"{100 * results['protocol']['level']:g} %",
        verdict=verdict(results, isolated),
        models=models,
        ranked=ranked,
        who={shown.model["name"]: shown for shown in models},
        to_best={shown.model["name"]: _lead(results, shown, ranked[0]) for shown in ranked[1:]},
        best=primaries[0] if primaries else None,
        place=_scale(primaries),
        swatches=[swatch(shown) for shown in models],
        spread=_tie_spread(ranked),
        tie_modes=next((list(shown.model["ties"]["modes"]) for shown in ranked if shown.model["ties"]), []),
        tie_columns=_tie_columns(ranked),
        list_k=_list_k(ranked, k),
        slices=_slices(ranked, k),
        metric_figures=metric_figures(ranked),
        speed_figures=speed_figures(ranked, metric, k),
        curves=[(shown, curve_figure(shown)) for shown in ranked if shown.model["curves"]],
        tunings=[(shown, tuning_figure(shown, f"{NAMES[metric]}@{k}")) for shown in ranked if shown.model["tuning"]],
    )


def _check_format(results: dict[str, Any]) -> None:
    found = results.get("format"), results.get("format_version")
    if found != (FORMAT, FORMAT_VERSION):
        raise DataError(
            f"cannot show results of format {found[0]!r}, version {found[1]!r}: this version of gru4rec shows "
            f"{FORMAT!r}, version {FORMAT_VERSION}. Give what gru4rec compare wrote, or install the version that did"
        )


def standings(results: dict[str, Any]) -> list[Shown]:
    """Return the models, the best by the primary metric first, those that failed last."""
    metric, k = results["protocol"]["primary"]
    places = range(len(results["models"]))
    failed = [place for place in places if results["models"][place]["error"] is not None]
    done = sorted(
        set(places) - set(failed),
        key=lambda place: (-results["models"][place]["metrics"][metric][str(k)]["value"], place),
    )
    return [
        *(Shown(place, rank, results["models"][place]) for rank, place in enumerate(done, start=1)),
        *(Shown(place, None, results["models"][place]) for place in failed),
    ]


def verdict(results: dict[str, Any], spell: Callable[[str], str] = str) -> str:
    """Say in one sentence which model is best, and whether that is certain.

    Args:
        results: Of a comparison.
        spell: Writes the name of a model.
    """
    models = standings(results)
    ranked = [shown for shown in models if shown.rank is not None]
    names = [spell(shown.model["name"]) for shown in models]
    failed = names[len(ranked) :]
    failures = f"; {_listed(failed)} failed" if failed else ""
    if not ranked:
        return f"Nothing can be compared: {_listed(failed)} failed."
    metric, k = results["protocol"]["primary"]
    best = ranked[0].model["metrics"][metric][str(k)]
    said = (
        f"{NAMES[metric]}@{k} {number(best['value'])} ({100 * results['protocol']['level']:g} % interval "
        f"{number(best['low'])} to {number(best['high'])})"
    )
    if len(ranked) == 1:
        return f"{names[0]} has {said}, and there is no other model to compare it with{failures}."
    return f"{names[0]} is best, with {said}, {_certainty(results, ranked, names)}{failures}."


def _certainty(results: dict[str, Any], ranked: Sequence[Shown], names: Sequence[str]) -> str:
    """Say whether the best is told apart from the second, and from whom else it is not."""
    leads = [_lead(results, shown, ranked[0]) for shown in ranked[1:]]
    if leads[0] is None:
        return f"but its difference from {names[1]} was not tested"
    lead, p = number(-leads[0]["difference"]), leads[0]["p_adjusted"]
    tested = f"p {probability(p, sign=True)} after Holm's correction"
    alpha = _alpha(results)
    near = [name for name, other in zip(names[1:], leads, strict=False) if other and other["p_adjusted"] >= alpha]
    if p < alpha:
        others = f", unlike that over {_listed(near)}" if near else ""
        return f"and its lead of {lead} over {names[1]} is significant ({tested}){others}"
    others = f"; nor from {_listed(near[1:], 'or')}" if near[1:] else ""
    return (
        f"but its lead of {lead} over {names[1]} is not significant ({tested}): this log does not tell it from "
        f"{names[1]}{others}"
    )


def _alpha(results: dict[str, Any]) -> float:
    """Return the greatest p-value that is not significant."""
    return round(1 - float(results["protocol"]["level"]), 10)


def _listed(names: Sequence[str], word: str = "and") -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"


def isolated(name: str) -> str:
    """Wrap a name in marks that keep its direction of writing from turning its surroundings."""
    return f"\u2068{name}\u2069"


def _lead(results: dict[str, Any], shown: Shown, best: Shown) -> dict[str, float] | None:
    """Return the test of a model against the best, differences as seen from the model; None if there is none."""
    metric, k = results["protocol"]["primary"]
    names = shown.model["name"], best.model["name"]
    for pair in results["pairs"]:
        if (pair["metric"], pair["k"]) == (metric, k) and {pair["a"], pair["b"]} == set(names):
            sign = 1 if pair["a"] == names[0] else -1
            return {"difference": sign * pair["difference"], "p_adjusted": pair["p_adjusted"]}
    return None


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


def number(value: float | None, digits: int = 4) -> str:
    """Write a number with a fixed count of digits, and a real minus; a dash where there is none.

    Example:
        >>> number(0.51239), number(-0.00001), number(-0.5, 2) == MINUS + "0.50", number(None) == NONE
        ('0.5124', '0.0000', True, True)
    """
    if value is None or not math.isfinite(value):
        return NONE
    return f"{value:,.{digits}f}".replace("-", MINUS) if round(value, digits) else f"{0:.{digits}f}"


def probability(value: float, *, sign: bool = False) -> str:
    """Write a p-value, with its sign where asked for.

    Example:
        >>> probability(0.0421), probability(0.0421, sign=True), probability(0.00004)
        ('0.042', '= 0.042', '< 0.001')
    """
    return "< 0.001" if value < 0.001 else f"{'= ' if sign else ''}{value:.3f}"


def duration(seconds: float | None) -> str:
    """Say a duration in the unit that suits it; a dash where there is none.

    Example:
        >>> duration(0.0213), duration(12.34), duration(150), duration(9_000)
        ('0.021 s', '12 s', '2.5 min', '2.5 h')
    """
    if seconds is None:
        return NONE
    if seconds < 99.5:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.1f} min" if seconds < 6_000 else f"{seconds / 3_600:,.1f} h"


def size(n_bytes: int | None) -> str:
    """Say how large something is; a dash where that is not known.

    Example:
        >>> size(900), size(12_345_678)
        ('900 B', '12 MB')
    """
    if n_bytes is None:
        return NONE
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= scale:
            return f"{n_bytes / scale:,.{0 if n_bytes >= 10 * scale else 1}f} {unit}"
    return f"{n_bytes} B"


def moment(time: float) -> str:
    """Say when an event was, where the size of its time tells the unit.

    Example:
        >>> moment(1_767_225_600), moment(17)
        ('2026-01-01 00:00:00', '17')
    """
    return Clock(unit_of(np.array([time]))).moment(time)


def value_text(value: Any) -> str:
    """Write a setting as JSON does, text without its quotes."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _hash(script: str) -> str:
    """Return the hash by which the page allows its own script, and no other, to run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(str(script).encode()).digest()).decode()
