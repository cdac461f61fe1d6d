"""The page's figures, drawn by matplotlib as SVG text that takes the page's colours and fonts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from gru4rec.doctor.examine import Report
from gru4rec.doctor.findings import percent
from gru4rec.doctor.units import spoken
from gru4rec.pages.svg import INK, DrawnFigure, plain_ticks, svg_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, ORANGE, GREY = "#3d85b8", "#d1782f", "#8a9199"  # readable on white and on black

MAX_POINTS = 400
"""Of a curve; more cannot be seen, and make the page heavy."""


def figures_of(report: Report) -> list[DrawnFigure]:
    """Draw what the report has curves for."""
    return [
        DrawnFigure(title, svg_of(draw, f"fig{place}"), caption)
        for place, (title, caption, draw) in enumerate(_planned(report))
    ]


def _planned(report: Report) -> Iterator[tuple[str, str, Callable[[Axes], None]]]:
    """Yield title, caption and drawing of each figure."""
    curves, numbers = report.curves, report.numbers
    yield (
        "Does order matter?",
        "Measured on the last fifth of sessions. The more the top bar exceeds the middle one, the more the order of "
        "clicks says, which is what a sequential model learns from.",
        lambda axes: _recalls(axes, numbers["sequence"]),
    )
    yield (
        "Session lengths",
        "Share of sessions with at least so many events, both axes logarithmic. A smooth fall is usual; a flat tail "
        "far to the right is a few very long sessions, often programs.",
        lambda axes: _at_least(axes, curves["lengths"], "events in the session", "sessions with as many"),
    )
    yield (
        "Events per item",
        "Events of each item, the most popular first, both axes logarithmic. Left of where the curve crosses the "
        "dashed line at 5, items have enough events to be learnt.",
        lambda axes: _supports(axes, curves["support"]),
    )
    if "gap_histogram" in curves:
        yield (
            "Time between clicks",
            "Gaps within sessions, on a logarithmic axis. One hill is one visit; a second hill at hours or days means "
            "that sessions span visits."
            + (f" Dashed: the suggested cut, {numbers['gaps']['suggested_cut']}." if "gap_cut" in curves else ""),
            lambda axes: _gaps(axes, curves["gap_edges"], curves["gap_histogram"], curves.get("gap_cut", ())),
        )
    if len(curves.get("per_day", ())) > 1:
        yield (
            "Events per day",
            "Days in UTC. Weekly waves are usual; a step that lasts, or days of nothing, are "
            "not. The first and the last day are not whole.",
            lambda axes: _days(axes, curves["per_day"], int(curves["first_day"][0])),
        )
    if "first_N" in curves:
        yield (
            "Popularity then and now",
            "One dot an item: its share of clicks in the first quarter of sessions and in the last. On the dashed line "
            "nothing changed; dots at the left edge or the bottom edge are items that came or went.",
            lambda axes: _popularity(axes, curves["first_N"], curves["last_N"]),
        )


def _recalls(axes: Axes, n: dict[str, float]) -> None:
    names = ["popularity", "Markov, shuffled", "Markov, in order"]
    values = [n[f"recall_{key}"] for key in ("popularity", "shuffled", "markov")]
    bars = axes.barh(names, values, color=[GREY, GREY, BLUE], height=0.6)
    axes.bar_label(bars, fmt="%.3f", padding=4, color=INK)
    axes.set_xlim(0, max(*values, 0.01) * 1.15)
    axes.set_xlabel(f"Recall@{n['k']}")


def _at_least(axes: Axes, values: np.ndarray, x_label: str, y_label: str) -> None:
    sizes, counts = np.unique(values, return_counts=True)
    axes.loglog(sizes, np.cumsum(counts[::-1])[::-1] / len(values), color=BLUE, marker=".", markersize=4)
    plain_ticks(axes, percent)
    axes.set(xlabel=x_label, ylabel=y_label)


def _supports(axes: Axes, support: np.ndarray) -> None:
    places = np.unique(np.geomspace(1, len(support), MAX_POINTS).astype(np.int64))
    axes.loglog(places, support[places - 1], color=BLUE)
    plain_ticks(axes)
    axes.axhline(5, color=ORANGE, linestyle="--", linewidth=1)
    axes.set(xlabel="item, by popularity", ylabel="events")


def _gaps(axes: Axes, edges: np.ndarray, histogram: np.ndarray, cut_s: Iterable[float]) -> None:
    axes.bar(edges[:-1], histogram, width=np.diff(edges), align="edge", color=BLUE, linewidth=0)
    for cut in cut_s:
        axes.axvline(cut, color=ORANGE, linestyle="--", linewidth=1.2)
    axes.set_xscale("log")
    marks = [s for s in (0.001, 1, 10, 60, 600, 3_600, 6 * 3_600, 86_400, 7 * 86_400, 30 * 86_400, 365 * 86_400)
             if edges[0] <= s <= edges[-1]]  # fmt: skip
    axes.set_xticks(marks, [spoken(s) for s in marks])
    axes.minorticks_off()
    axes.tick_params(axis="x", labelrotation=30 if len(marks) > 6 else 0)
    axes.set(xlabel="time to the next click", ylabel="gaps")


def _days(axes: Axes, per_day: np.ndarray, first_day: int) -> None:
    """Draw events by day; ``first_day`` counts from 1970."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    width = max(len(per_day) // MAX_POINTS, 1)  # days in one step of the curve
    starts = np.arange(0, len(per_day), width)
    means = np.add.reduceat(per_day, starts) / np.diff(np.r_[starts, len(per_day)])
    axes.stairs(means, first_day + np.r_[starts, len(per_day)], fill=True, color=BLUE)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda day, place: str(np.datetime64(round(day), "D"))))
    axes.set(xlabel="day (UTC)", ylabel="events a day", ylim=(0, None))


def _popularity(axes: Axes, first_N: np.ndarray, last_N: np.ndarray) -> None:
    top = np.argsort(-(first_N + last_N), kind="stable")[: 3 * MAX_POINTS]
    first, last = first_N[top] / max(first_N.sum(), 1), last_N[top] / max(last_N.sum(), 1)
    least = min(1 / max(first_N.sum(), 1), 1 / max(last_N.sum(), 1)) / 2  # stands for none
    axes.loglog(np.maximum(first, least), np.maximum(last, least), ".", color=BLUE, markersize=4, alpha=0.6, mew=0)
    plain_ticks(axes, percent, percent)
    ends = [least, max(first.max(), last.max())]
    axes.plot(ends, ends, color=ORANGE, linestyle="--", linewidth=1)
    axes.set(xlabel="share of clicks, first quarter", ylabel="last quarter")
