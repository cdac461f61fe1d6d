"""Matplotlib's axes as SVG text that takes the page's colours and fonts. Loads matplotlib when something is drawn."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK = "#010203"
"""Stands for the page's own ink, whatever that is: replaced by ``currentColor`` in the SVG."""

SIZE_INCHES = (5.6, 3.1)


@dataclass(frozen=True)
class DrawnFigure:
    """A figure of a page.

    Attributes:
        title: What is shown.
        svg: An ``<svg>`` element.
        caption: How to read it; may be empty.
    """

    title: str
    svg: str
    caption: str


def svg_of(draw: Callable[[Axes], None], name: str, *, size_inches: tuple[float, float] = SIZE_INCHES,
           colours: Mapping[str, str] | None = None) -> str:  # fmt: skip
    """Draw on new axes and return an SVG element. Text is text: what ``$`` encloses is no formula.

    Args:
        draw: Draws.
        name: Begins every id, so that figures of one page do not share any.
        size_inches: Width and height; in 72 units an inch they are the view box.
        colours: Colours to write for those drawn with, such as a variable of the page's. Beside them :data:`INK`.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style: Any = {
        "svg.fonttype": "none", "svg.hashsalt": name, "font.size": 10, "font.family": "sans-serif",
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": False, "axes.formatter.useoffset": False,
        "text.parse_math": False,
    }  # fmt: skip
    style |= dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK)
    with mpl.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"(Glyph \d+ .* missing|Matplotlib currently does not support)")  # not drawn
        figure = Figure(figsize=size_inches, layout="constrained")
        draw(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    for drawn, written in {INK: "currentColor", **(colours or {})}.items():
        svg = svg.replace(drawn, written)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px system-ui, sans-serif", svg)
    return svg.replace("<svg ", '<svg role="img" ', 1)


def plain_ticks(axes: Axes, of_y: Callable[[float], str] = "{:,.0f}".format,
                of_x: Callable[[float], str] = "{:,.0f}".format) -> None:  # fmt: skip
    """Write 1,000 and 1 % at logarithmic axes, not powers of ten."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    for axis, spell in ((axes.xaxis, of_x), (axes.yaxis, of_y)):
        axis.set_major_formatter(FuncFormatter(lambda value, place, spell=spell: spell(value)))
        axis.set_minor_formatter(NullFormatter())
