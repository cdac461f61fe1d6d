"""Draw img/*.png from results of bench.py: ``python benchmarks/figures.py [results.json ...]``."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

ROOT = Path(__file__).parent.parent
Row = dict[str, Any]
# Okabe and Ito's colours, told apart with any kind of colour vision
_COLOURS = {"plain": "#999999", "fast": "#0072B2", "tf32": "#009E73", "bf16": "#D55E00"}
_NAMES = {
    "plain": "plain (float32)",
    "fast": "fast (float32)",
    "tf32": "fast, tf32 products",
    "bf16": "fast, bf16 products",
}
_GROWTH = {"n_lanes": "batch size B", "n_hidden": "layer size H"}
_SPEEDS = {"batches_per_s": "mini-batches / s", "events_per_s": "events / s"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", nargs="*", type=Path, help="default: the newest of each machine")
    parser.add_argument("--out", type=Path, default=ROOT / "img", help="folder of the figures")
    arguments = parser.parse_args()
    paths = arguments.results or newest(ROOT / "benchmarks" / "results")
    if not paths:
        parser.error("no results in benchmarks/results. Run python benchmarks/bench.py, or name a file")
    runs = [json.loads(path.read_text()) for path in paths]
    runs.sort(key=lambda run: "gpu" in run["machine"])
    arguments.out.mkdir(parents=True, exist_ok=True)
    mpl.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True})
    mpl.rcParams.update({"grid.color": "#DDDDDD", "axes.axisbelow": True, "savefig.dpi": 150})
    for loss in ("cross-entropy", "bpr-max"):
        draw_speed(runs, loss, arguments.out / f"training_speed_{loss}.png")
    draw_engines(runs, arguments.out / "engines.png")


def newest(folder: Path) -> list[Path]:
    """Return the last file of each machine; names end in the date."""
    paths = [path for path in sorted(folder.glob("*.json")) if not path.stem.endswith("_quick")]
    return list({path.stem.rsplit("_", 1)[0]: path for path in paths}.values())


def draw_speed(runs: list[dict[str, Any]], loss: str, path: Path) -> None:
    """Draw mini-batches and events per second by batch size and by layer size, a line for each engine and machine."""
    runs = [run for run in runs if "growth" in run["parts"]]
    if not runs:
        return print(f"{path.name}: no results of part growth, not drawn")
    figure, axes = plt.subplots(2, 2, figsize=(10, 7), sharex="col", layout="constrained")
    for column, (grows, label) in enumerate(_GROWTH.items()):
        for run, style in zip(runs, ("-", "--", ":", "-."), strict=False):
            rows = [r for r in run["parts"]["growth"]["rows"] if r["grows"] == grows and r["loss"] == loss]
            for line, (speed, unit) in enumerate(_SPEEDS.items()):
                _draw_lines(axes[line, column], rows, grows, speed, style, machine_name(run))
                axes[line, 0].set_ylabel(unit)
        fixed = "n_hidden" if grows == "n_lanes" else "n_lanes"
        others = f"{'H' if grows == 'n_lanes' else 'B'} = {rows[0][fixed]}, S = {rows[0]['n_sample']:,}"
        axes[0, column].set_title(f"{others}, {rows[0]['n_items']:,} items", fontsize=11)
        axes[1, column].set_xlabel(label)
    figure.suptitle(f"Training speed, {loss}, one GRU layer, CPU threads as fit() takes them", fontweight="bold")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=10)
    _save(figure, path)


def _draw_lines(axis: Axes, rows: list[Row], grows: str, speed: str, style: str, machine: str) -> None:
    sizes = [row[grows] for row in rows]
    for engine, colour in _COLOURS.items():
        if all(f"{engine}_{speed}" in row for row in rows):
            speeds = [row[f"{engine}_{speed}"] for row in rows]
            axis.plot(sizes, speeds, style, color=colour, marker="o", ms=4, label=f"{_NAMES[engine]}, {machine}")
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xticks(sizes, [f"{size}" for size in sizes])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:,.0f}"))
    axis.yaxis.set_minor_locator(NullLocator())


def draw_engines(runs: list[dict[str, Any]], path: Path) -> None:
    """Draw events per second of all engines: a panel for each machine, a group of bars for each parameter file."""
    runs = [run for run in runs if "steps" in run["parts"]]
    if not runs:
        return print(f"{path.name}: no results of part steps, not drawn")
    figure, axes = plt.subplots(len(runs), 1, figsize=(10, 0.6 + 4 * len(runs)), layout="constrained", squeeze=False)
    for axis, run in zip(axes[:, 0], runs, strict=True):
        rows = [row for row in run["parts"]["steps"]["rows"] if row["settings"] not in ("small", "middle", "large")]
        groups = list(dict.fromkeys(row["settings"] for row in rows))
        threads = sorted({row["threads"] for row in rows})
        bars = [(engine, n) for engine in _COLOURS for n in threads if f"{engine}_ms" in rows[0]]
        for number, (engine, n_threads) in enumerate(bars):
            chosen = [row for row in rows if row["threads"] == n_threads]
            _draw_bars(axis, chosen, engine, number, len(bars), _bar_name(engine, n_threads, threads, run))
        labels = []
        for group in groups:
            row = next(row for row in rows if row["settings"] == group)
            labels.append(f"{group}\n{row['loss']}\nB {row['n_lanes']}, H {row['n_hidden']}")
        axis.set_xticks(range(len(groups)), labels)
        axis.tick_params(axis="x", length=0)
        axis.grid(visible=False, axis="x")
        axis.set_ylabel("events / s")
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:,.0f}"))
        axis.set_title(machine_name(run), fontsize=11)
        axis.legend(fontsize=9, ncols=2, frameon=False)
        axis.margins(x=0.02, y=0.25)
    figure.suptitle("Training speed with the settings of paramfiles/ (higher is better)", fontweight="bold")
    _save(figure, path)


def _draw_bars(axis: Axes, rows: list[Row], engine: str, number: int, n_bars: int, name: str) -> None:
    width, hatched = 0.84 / n_bars, "all" in name
    places = [group + (number - (n_bars - 1) / 2) * width for group in range(len(rows))]
    speeds = [row[f"{engine}_events_per_s"] for row in rows]
    pattern = "////" if hatched else None
    axis.bar(places, speeds, width * 0.92, color=_COLOURS[engine], hatch=pattern, edgecolor="white", lw=0, label=name)


def _bar_name(engine: str, n_threads: int, threads: list[int], run: dict[str, Any]) -> str:
    if "gpu" in run["machine"]:
        return _NAMES[engine]
    kind = f"all {n_threads} threads" if n_threads == threads[-1] and len(threads) > 1 else f"{n_threads} thread"
    return f"{_NAMES[engine]}, {kind}"


def machine_name(run: dict[str, Any]) -> str:
    """Return the GPU's name, or the processor's and its cores."""
    machine = run["machine"]
    if "gpu" in machine:
        return re.sub(r" \d+ ?GB.*", "", machine["gpu"])
    return f"{machine['cpu']}, {machine['cores']} cores"


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, facecolor="white", bbox_inches="tight")
    plt.close(figure)
    print(f"written: {path}")


if __name__ == "__main__":
    main()
