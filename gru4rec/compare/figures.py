"""The figures of a comparison. A model has its colour, marker and dash in all of them, and the number of its rank."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gru4rec.pages.svg import INK, DrawnFigure, plain_ticks, svg_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LIGHT = ("#1d63c6", "#e0560a", "#0d5b38", "#a62f83", "#3399ee", "#541000", "#789910", "#002277", "#9955ff", "#d67684",
         "#697ca0", "#a8200f")  # fmt: skip
DARK = ("#83c8fb", "#f9b02e", "#36ab7c", "#d364d7", "#a3f8ff", "#b34d2b", "#dddd66", "#5465dc", "#b997ff", "#ffbbcc",
        "#84acae", "#ff5555")  # fmt: skip
"""Colours on white and on black, in the order in which they are given out. Each stands out from the page (3:1), and
from the others also for readers who see no red, no green or no blue, the first six most."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
DASHES: tuple[tuple[float, ...], ...] = ((), (4, 1.5), (6, 1.5, 1, 1.5), (1, 1.2))
"""In widths of the line: on, off, ... Six models are solid, whose colours differ most, then six have each dash."""

NAMES = {"recall": "Recall", "mrr": "MRR", "ndcg": "NDCG", "map": "MAP"}

SIZE_INCHES = (4.8, 3.1)
LINE_WIDTH = 1.5
MAX_TICK_LETTERS = 16, 44
"""In one label, and below one axis."""


@dataclass(frozen=True)
class Shown:
    """A model as the page shows it.

    Attributes:
        place: Place in the results, which its looks come from.
        rank: Rank by the primary metric, from 1; None for a model that failed.
        model: What the results say of it.
    """

    place: int
    rank: int | None
    model: dict[str, Any]

    @property
    def colour(self) -> str:
        """The placeholder that is drawn; in the SVG a variable of the page stands in its stead."""
        return f"#01f0{self.place % len(LIGHT):02x}"

    @property
    def marker(self) -> str:
        """Matplotlib's name of the marker; models of one colour differ in it."""
        return MARKERS[(self.place + self.place // len(LIGHT)) % len(MARKERS)]

    @property
    def dash(self) -> tuple[float, ...]:
        """Lengths on and off, in widths of the line; none for a solid line."""
        return DASHES[self.place // 6 % len(DASHES)]

    @property
    def line(self) -> dict[str, Any]:
        """How matplotlib draws the model's line."""
        return {"color": self.colour, "linestyle": (0, self.dash) if self.dash else "-", "linewidth": LINE_WIDTH,
                "marker": self.marker, "markersize": 5, "markeredgewidth": 0}  # fmt: skip


def swatch(shown: Shown) -> str:
    """Return a ``<symbol>`` of 36 x 12 units that shows a model's line and marker as the figures do."""
    from matplotlib.markers import MarkerStyle

    style = MarkerStyle(shown.marker)
    path = style.get_path().transformed(style.get_transform())
    letters = {1: "M", 2: "L", 3: "Q", 4: "C", 79: "Z"}
    shape = "".join(
        letters[int(code)] + ("" if code == 79 else " ".join(f"{7.5 * value:.2f}" for value in points * _flips(points)))
        for points, code in path.iter_segments()
    )
    colour, dashes = (
        f"var(--model-{shown.place % len(LIGHT)})",
        " ".join(f"{1.8 * length:.1f}" for length in shown.dash),
    )
    return (
        f'<symbol id="swatch-{shown.place}" viewBox="0 0 36 12">'
        f'<path d="M1 6H35" stroke="{colour}" stroke-width="1.8" stroke-dasharray="{dashes or "none"}"/>'
        f'<path d="{shape}" fill="{colour}" transform="translate(18 6)"/></symbol>'
    )


def _flips(points: np.ndarray) -> np.ndarray:
    """Return 1 for each x and -1 for each y: matplotlib's y points up."""
    return np.resize([1.0, -1.0], len(points))


def metric_figures(models: Sequence[Shown], metrics: Iterable[str]) -> list[DrawnFigure]:
    """Draw each of the metrics by the length of the list."""
    if not models:
        return []
    return [_figure(f"{NAMES[metric]} by list length", f"k-{metric}", _by_k, models, metric) for metric in metrics]


def speed_figures(models: Sequence[Shown], metric: str, k: int) -> list[DrawnFigure]:
    """Draw the primary metric against speed and against the time of training."""
    planned = (
        ("Quality and speed", "targets_per_s", "targets scored in a second", "Up is better, right is faster."),
        ("Quality and training time", "train_s", "seconds of training", "Up is better, left is cheaper."),
    )
    return [
        _figure(title, key, _against, models, key, label, metric, k, caption=caption)
        for title, key, label, caption in planned
        if any((shown.model["cost"][key] or 0) > 0 for shown in models)
    ]


def slice_figures(models: Sequence[Shown], kind: str, name: str, k: int) -> list[DrawnFigure]:
    """Draw recall and MRR in the slices of one kind.

    Args:
        models: Those that did not fail.
        kind: A key of their ``slices``.
        name: Begins the figures' ids.
        k: List length of the slices' metrics.
    """
    return [
        _figure(f"{NAMES[metric]}@{k} by {kind}", f"{name}-{metric}", _by_slice, models, kind, metric, k)
        for metric in ("recall", "mrr")
    ]


def curve_figure(shown: Shown) -> DrawnFigure:
    """Draw the training loss of a model by epoch, a line a seed."""
    return _figure("Training loss", f"curve{shown.place}", _curves, shown)


def tuning_figure(shown: Shown, primary: str) -> DrawnFigure:
    """Draw the value of each trial, and the best so far."""
    return _figure("Trials", f"tuning{shown.place}", _trials, shown, primary)


def _figure(title: str, name: str, draw: Callable[..., None], *args: Any, caption: str = "") -> DrawnFigure:
    """Let ``draw`` draw, given axes and ``args``."""
    colours = {f"#01f0{place:02x}": f"var(--model-{place})" for place in range(len(LIGHT))}
    svg = svg_of(lambda axes: draw(axes, *args), name, size_inches=SIZE_INCHES, colours=colours)
    return DrawnFigure(title, svg.replace("<svg ", f'<svg aria-label="{html.escape(title)}" ', 1), caption)


def _by_k(axes: Axes, models: Sequence[Shown], metric: str) -> None:
    for shown in models:
        points = [(int(k), at["value"], at["low"], at["high"]) for k, at in shown.model["metrics"][metric].items()]
        k_K, value_K, low_K, high_K = np.array(sorted(points)).T
        axes.fill_between(k_K, low_K, high_K, color=shown.colour, alpha=0.13, linewidth=0)
        axes.plot(k_K, value_K, **shown.line)
    axes.set_xscale("log")
    plain_ticks(axes, "{:.3g}".format)
    axes.set_xticks(k_K, [f"{k:.0f}" for k in k_K], minor=False)
    axes.set_xticks([], minor=True)
    axes.set(xlabel="k", ylabel=f"{NAMES[metric]}@k", ylim=(0, None))
    _name_ends(axes, [(k_K[-1], shown.model["metrics"][metric][f"{k_K[-1]:.0f}"]["value"], str(shown.rank), shown)
                      for shown in models])  # fmt: skip


def _against(axes: Axes, models: Sequence[Shown], key: str, label: str, metric: str, k: int) -> None:
    from matplotlib.ticker import LogLocator

    drawn = [shown for shown in models if (shown.model["cost"][key] or 0) > 0]
    axes.set_xscale("log")
    plain_ticks(axes, "{:.3g}".format, _power)
    for shown in drawn:
        x, at = shown.model["cost"][key], shown.model["metrics"][metric][str(k)]
        axes.vlines(x, at["low"], at["high"], color=shown.colour, linewidth=1.2)
        axes.plot(x, at["value"], color=shown.colour, marker=shown.marker, markersize=7, markeredgewidth=0)
    costs = [shown.model["cost"][key] for shown in drawn]
    ratio = max(costs) / min(costs)
    room = max(ratio**0.1, 1.6)  # so that at least one of 1, 2, 5 times a power of ten is in sight
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if ratio < 30 else (1.0,)))
    axes.set(xlabel=label, ylabel=f"{NAMES[metric]}@{k}", xlim=(min(costs) / room, max(costs) * room))
    x_low, x_high = np.log(axes.get_xlim())
    y_low, y_high = axes.get_ylim()
    taken = [((np.log(shown.model["cost"][key]) - x_low) / (x_high - x_low) * 300,
              (shown.model["metrics"][metric][str(k)]["value"] - y_low) / (y_high - y_low) * 180)
             for shown in drawn]  # fmt: skip
    for shown, (x, y) in zip(drawn, list(taken), strict=True):
        places = [(9, 0), (-9, 0), (9, 8), (-9, 8), (9, -8), (-9, -8), (18, 0), (-18, 0)]
        right, up = max(places, key=lambda step: min(_distance(x + step[0], y + step[1], taken), 11.0))
        taken.append((x + right, y + up))
        axes.annotate(str(shown.rank), (shown.model["cost"][key], shown.model["metrics"][metric][str(k)]["value"]),
                      (right, up), textcoords="offset points", ha="center", va="center", fontsize=8.5)  # fmt: skip


def _power(value: float) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:.6g}"


def _distance(x: float, y: float, others: Iterable[tuple[float, float]]) -> float:
    return min(math.hypot(x - other_x, y - other_y) for other_x, other_y in others)


def parts_of(shown: Shown, kind: str) -> list[dict[str, Any]]:
    """Return a model's slices of a kind."""
    parts: list[dict[str, Any]] = shown.model["slices"].get(kind, [])
    return parts


def slice_names(models: Sequence[Shown], kind: str) -> list[str]:
    """Return the slices of a kind, in the order of the first model that has each."""
    return list(dict.fromkeys(part["slice"] for shown in models for part in parts_of(shown, kind)))


def _by_slice(axes: Axes, models: Sequence[Shown], kind: str, metric: str, k: int) -> None:
    names = slice_names(models, kind)
    step = min(0.5 / max(len(models), 1), 0.08)
    ends = []
    for place, shown in enumerate(models):
        parts = {part["slice"]: part[metric] for part in parts_of(shown, kind)}
        found = [(x, parts[name]) for x, name in enumerate(names) if name in parts]
        if not found:
            continue
        x_P = np.array([x for x, _ in found]) + step * (place - (len(models) - 1) / 2)
        value_P, low_P, high_P = (np.array([at[key] for _, at in found]) for key in ("value", "low", "high"))
        axes.vlines(x_P, low_P, high_P, color=shown.colour, alpha=0.45, linewidth=1)
        axes.plot(x_P, value_P, **shown.line | {"markersize": 4 if len(names) < 12 else 2.5, "linewidth": 1.1})
        ends.append((len(names) - 1 + 0.3, value_P[-1], str(shown.rank), shown))
    n_events = {part["slice"]: part["n_events"] for shown in models for part in parts_of(shown, kind)}
    labels = ["\n".join([*_lines(name), f"{n_events[name]:,}"]) for name in names]
    widths = [max(map(len, label.split("\n"))) for label in labels]
    all_fit = sum(width + 2 for width in widths) <= MAX_TICK_LETTERS[1]
    every = 1 if all_fit else -(-len(names) * (max(widths) + 1) // MAX_TICK_LETTERS[1])
    axes.set_xticks(range(0, len(names), every), labels[::every], fontsize=8.5)
    axes.set(
        xlabel=f"{_short(kind, 40)}; below it, events",
        ylabel=f"{NAMES[metric]}@{k}",
        xlim=(-0.5, len(names) - 0.5),
        ylim=(0, None),
    )
    _name_ends(axes, ends)


def _lines(name: str) -> list[str]:
    """Break a slice's name before what is in brackets."""
    return "\n(".join(map(_short, name.split(" (", 1))).split("\n")


def _short(text: str, n_letters: int = MAX_TICK_LETTERS[0]) -> str:
    return text if len(text) <= n_letters else text[: n_letters - 1] + "…"


def _curves(axes: Axes, shown: Shown) -> None:
    ends = []
    for seed, epochs in shown.model["curves"].items():
        epoch_E, loss_E = [epoch["epoch"] for epoch in epochs], [epoch["loss"] for epoch in epochs]
        axes.plot(epoch_E, loss_E, **shown.line | {"linewidth": 1.2, "markersize": 4})
        ends.append((epoch_E[-1], loss_E[-1], str(seed), shown))
    _whole_ticks(axes)
    axes.set(xlabel="epoch", ylabel="loss")
    _name_ends(axes, ends)


def _trials(axes: Axes, shown: Shown, primary: str) -> None:
    tuning = shown.model["tuning"]
    finished = [trial for trial in tuning["trials"] if trial["value"] is not None]
    failed = [trial["number"] + 1 for trial in tuning["trials"] if trial["value"] is None]
    number_R, value_R = [trial["number"] + 1 for trial in finished], [trial["value"] for trial in finished]
    axes.plot(number_R, value_R, linestyle="", marker="o", markersize=4, color=shown.colour, alpha=0.7)
    if finished:
        axes.step(number_R, np.maximum.accumulate(value_R), where="post", color=shown.colour, linewidth=LINE_WIDTH)
    for trial in finished:
        if trial["number"] == tuning["best"]:
            axes.plot(trial["number"] + 1, trial["value"], "o", markersize=10, markerfacecolor="none", color=INK)
    axes.plot(failed, np.zeros(len(failed)), "x", color=INK, transform=axes.get_xaxis_transform(), clip_on=False)
    _whole_ticks(axes)
    axes.set(xlabel="trial", ylabel=f"{primary}, validation")


def _whole_ticks(axes: Axes) -> None:
    """Write whole numbers below the axis, also where it shows a single one."""
    from matplotlib.ticker import MaxNLocator

    low, high = axes.get_xlim()
    if high - low < 1:
        axes.set_xlim((low + high) / 2 - 1, (low + high) / 2 + 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _name_ends(axes: Axes, ends: Sequence[tuple[float, float, str, Shown]]) -> None:
    """Write a label to the right of the last point of each line, moved up or down where two would overlap."""
    low, high = axes.get_ylim()
    for y, (last_x, _, label, _) in _spread(sorted(ends, key=lambda end: end[1]), (low, high)):
        axes.annotate(label, (last_x, y), (7, 0), textcoords="offset points", va="center", fontsize=8.5,
                      annotation_clip=False)  # fmt: skip


def _spread(
    ends: Sequence[tuple[float, float, str, Shown]], limits: tuple[float, float]
) -> Iterator[tuple[float, tuple[float, float, str, Shown]]]:
    """Yield heights that are at least a line of text apart, near those that rise in ``ends``."""
    gap = (limits[1] - limits[0]) * 0.052
    heights = [end[1] for end in ends]
    for _ in range(60):  # neighbours that are too near push each other away
        for below in range(len(heights) - 1):
            lack = gap - (heights[below + 1] - heights[below])
            if lack > 1e-9:
                heights[below] -= lack / 2
                heights[below + 1] += lack / 2
    lift = max(limits[0] - heights[0], 0.0) if heights else 0.0
    yield from zip((height + lift for height in heights), ends, strict=True)
