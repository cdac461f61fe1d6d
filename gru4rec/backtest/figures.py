"""The figures of a backtest: a policy has its colour, marker and dash in all of them."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gru4rec.backtest.job import POLICIES
from gru4rec.pages.svg import INK, DrawnFigure, svg_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LIGHT = {"retrain": "#1d63c6", "update": "#c24a06", "stale": "#66707a"}
DARK = {"retrain": "#83c8fb", "update": "#f9b02e", "stale": "#9aa4ae"}
"""Colours on white and on black; each stands out from the page by 3:1."""

_DRAWN = {"retrain": "#01f000", "update": "#01f001", "stale": "#01f002"}
"""Placeholders that are drawn; in the SVG variables of the page stand in their stead."""

_MARKERS = {"retrain": "o", "update": "s", "stale": "^"}
_DASHES: dict[str, tuple[float, ...]] = {"retrain": (), "update": (5, 1.5), "stale": (1.2, 1.2)}

Row = Mapping[str, Any]


def figures_of(results: Mapping[str, Any]) -> list[DrawnFigure]:
    """Draw quality, cost and new items over the windows."""
    k, windows = str(results["plan"]["cutoffs"][0]), results["windows"]
    per_window: list[tuple[str, str, Callable[[Row], float | None]]] = [
        (
            f"MRR@{k}",
            "Over all targets of the part that follows; one that the model does not know is a miss.",
            lambda row: row["all"]["mrr"][k],
        ),
        (
            f"Recall@{k}",
            "Over all targets, as above.",
            lambda row: row["all"]["recall"][k],
        ),
        (
            "Targets that the model knows",
            "Share of all targets; the rest are items that came later, or follow no item it knows.",
            lambda row: row["n_known"] / row["n_targets"],
        ),
        (
            f"Recall@{k} of new items",
            "Over the targets that are items new in the window's part, those that the model does not know included.",
            lambda row: row["new"]["recall"][k],
        ),
        (
            "Lists with a new item",
            f"Share of lists of {k} that hold an item new in the window's part.",
            lambda row: row["new"]["share_of_lists"][k],
        ),
    ]
    figures = [
        _figure(title, f"backtest{place}", caption, partial(_lines, windows=windows, value=value))
        for place, (title, caption, value) in enumerate(per_window)
    ]
    cost = _figure("Cost", "backtest-cost", "Seconds to make the window's model.", lambda axes: _bars(axes, windows))
    return [*figures[:2], cost, *figures[2:]]


def swatch(policy: str) -> str:
    """Return an SVG of 36 x 12 units that shows a policy's line as the figures do."""
    dashes = " ".join(f"{1.8 * length:.1f}" for length in _DASHES[policy]) or "none"
    shape = {"o": "M18 2a4 4 0 1 0 .01 0Z", "s": "M14.5 2.5h7v7h-7Z", "^": "M18 1.5l4.5 8.5h-9Z"}[_MARKERS[policy]]
    colour = f"var(--{policy})"
    return (
        f'<svg class="swatch" viewBox="0 0 36 12" aria-hidden="true"><path d="M1 6H35" stroke="{colour}" '
        f'stroke-width="1.8" stroke-dasharray="{dashes}"/><path d="{shape}" fill="{colour}"/></svg>'
    )


def _figure(title: str, name: str, caption: str, draw: Callable[[Axes], None]) -> DrawnFigure:
    colours = {_DRAWN[policy]: f"var(--{policy})" for policy in POLICIES}
    svg = svg_of(draw, name, size_inches=(4.8, 2.9), colours=colours)
    return DrawnFigure(title, svg.replace("<svg ", f'<svg aria-label="{html.escape(title)}" ', 1), caption)


def _lines(axes: Axes, windows: Sequence[Row], value: Callable[[Row], float | None]) -> None:
    numbers = [window["window"] for window in windows]
    for policy in reversed(POLICIES):
        values = [value(window["policies"][policy]) for window in windows]
        axes.plot(
            numbers, [np.nan if one is None else one for one in values], color=_DRAWN[policy], linewidth=1.6,
            linestyle=(0, _DASHES[policy]) if _DASHES[policy] else "-", marker=_MARKERS[policy], markersize=5.5,
            markeredgewidth=0, clip_on=False,
        )  # fmt: skip
    axes.set(xlabel="window", ylim=(0, axes.get_ylim()[1] or 1))
    _whole_windows(axes, numbers)


def _bars(axes: Axes, windows: Sequence[Row]) -> None:
    numbers, width = np.array([window["window"] for window in windows]), 0.36
    for place, policy in enumerate(("retrain", "update")):
        seconds = [window["policies"][policy]["seconds"] for window in windows]
        at = numbers + (place - 0.5) * width
        axes.bar(at, seconds, width * 0.94, color=_DRAWN[policy])
        if len(numbers) <= 6:
            for x, height in zip(at, seconds, strict=True):
                axes.annotate(f"{height:.3g}", (x, height), (0, 2), textcoords="offset points", ha="center",
                              fontsize=8, color=INK)  # fmt: skip
    axes.set(xlabel="window", ylabel="seconds", ylim=(0, None))
    axes.margins(y=0.1)
    _whole_windows(axes, numbers)


def _whole_windows(axes: Axes, numbers: Sequence[int] | np.ndarray) -> None:
    axes.set_xlim(numbers[0] - 0.5, numbers[-1] + 0.5)
    axes.set_xticks(numbers[:: math.ceil(len(numbers) / 12)])
