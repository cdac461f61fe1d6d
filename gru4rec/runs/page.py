"""``report.html`` of a run: one page that opens without a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from gru4rec.errors import DataError
from gru4rec.pages.file import write_html
from gru4rec.pages.svg import DrawnFigure, svg_of
from gru4rec.pages.values import value_text
from gru4rec.runs.folder import RunFolder
from gru4rec.runs.metrics_file import read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOUR = "#2f6f8f"

Line = dict[str, Any]


def write_report(folder: RunFolder, tell: Callable[[str], None]) -> None:
    """Write the page of a run; say so where it cannot be written, which is no reason to lose the run."""
    try:
        import jinja2  # noqa: F401
        import matplotlib as mpl  # noqa: F401
    except ImportError:
        tell("note: no report.html without matplotlib and jinja2. Run: pip install 'gru4rec[report]'")
        return
    try:
        write_html(_page(folder, read_metrics(folder.metrics)), folder.report)
    except (DataError, OSError) as error:
        tell(f"warning: cannot write {folder.report}: {error}")


def _page(folder: RunFolder, lines: Sequence[Line]) -> str:
    from jinja2 import Environment

    source = files("gru4rec.runs").joinpath("report.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["value"] = value_text
    template = environment.from_string(source)
    epochs = [line for line in lines if line["kind"] == "epoch"]
    return template.render(config=folder.config, epochs=epochs, figures=_figures(lines, epochs), name=folder.path.name,
        metrics=list((epochs[0]["validation"] or {}) if epochs else {}),
    )  # fmt: skip


def _figures(lines: Sequence[Line], epochs: Sequence[Line]) -> list[DrawnFigure]:
    if not lines:
        return []
    shown = [
        ("Loss", "loss", "Mean since the line before; dots are whole epochs."),
        ("Events a second", "events_per_second", "Training alone, without validation."),
        ("Gradient norm", "gradient_norm", "Root of the mean squared norm since the line before."),
        ("Weight norm", "weight_norm", "All weights together."),
    ]
    steps = [line for line in lines if line["kind"] == "steps"]
    drawn = [
        DrawnFigure(title, svg_of(_curve(steps, epochs, key), f"run-{key}"), caption) for title, key, caption in shown
    ]
    if epochs and epochs[0]["validation"]:
        drawn += [
            DrawnFigure(
                name, svg_of(_by_epoch(epochs, name), f"run-{place}"), "On the validation log, after each epoch."
            )
            for place, name in enumerate(epochs[0]["validation"])
        ]
    return drawn


def _curve(steps: Sequence[Line], epochs: Sequence[Line], key: str) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        axes.plot([line["step"] for line in steps], [line[key] for line in steps], color=_COLOUR, linewidth=1.5)
        axes.plot([line["step"] for line in epochs], [line[key] for line in epochs], "o", color=_COLOUR, markersize=4)
        axes.set_xlabel("steps")
        axes.set_ylim(bottom=0 if key != "loss" else None)

    return draw


def _by_epoch(epochs: Sequence[Line], name: str) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        axes.plot(
            [line["epoch"] for line in epochs], [line["validation"][name] for line in epochs], "o-", color=_COLOUR
        )
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    return draw
