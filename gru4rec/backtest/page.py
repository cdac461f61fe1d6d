"""A backtest as one HTML page that loads nothing from anywhere. Same results, same page.

Needs jinja2 and matplotlib, which are imported when a page is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gru4rec.backtest.figures import DARK, LIGHT, figures_of, swatch
from gru4rec.backtest.folder import FORMAT
from gru4rec.backtest.job import FORMAT_VERSION, POLICIES, TITLES
from gru4rec.backtest.output import verdict
from gru4rec.compare.spelling import duration, moment, number
from gru4rec.errors import DataError
from gru4rec.pages.file import check_html, generator, write_html
from gru4rec.pages.values import value_text

COMMAND = "gru4rec backtest"


def check_page(path: str | Path) -> None:
    """Make sure that a page can be made, and written there; leaves nothing behind.

    Raises:
        ConfigError: A library is missing, or the file there is no page of a backtest.
        DataError: The folder is missing or locked, or the path is no file.
    """
    check_html(path, command=COMMAND)


def write_page(results: Mapping[str, Any], path: str | Path) -> None:
    """Write the page; a file of that name is replaced whole or not at all.

    Raises:
        ConfigError: A library is missing, or the file there is no page of a backtest.
        DataError: The path cannot be written, or the results are of another format.
    """
    check_page(path)
    write_html(page_of(results), path)


def page_of(results: Mapping[str, Any]) -> str:
    """Return the page's text.

    Raises:
        DataError: The results are not those of a backtest, or of a version that this one does not know.
    """
    import jinja2

    found = results.get("format"), results.get("format_version")
    if found != (FORMAT, FORMAT_VERSION):
        raise DataError(
            f"cannot show results of format {found[0]!r}, version {found[1]!r}: this version of gru4rec shows "
            f"{FORMAT!r}, version {FORMAT_VERSION}. Give what gru4rec backtest wrote, or install the version that did"
        )
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "number": number, "duration": duration, "moment": moment, "value": _value, "count": "{:,}".format,
    }  # fmt: skip
    template = Path(__file__).with_name("report.html.jinja").read_text(encoding="utf-8")
    n = len(results["windows"])
    means = {
        policy: {**row, "seconds": row["seconds"] / n}
        for policy, row in results["summary"].items()
        if policy in POLICIES
    }
    return environment.from_string(template).render(
        results=results,
        generator=generator(COMMAND),
        colours={"light": LIGHT, "dark": DARK},
        k=str(results["plan"]["cutoffs"][0]),
        policies=POLICIES,
        titles=TITLES,
        swatches={policy: swatch(policy) for policy in POLICIES},
        verdict=verdict(results),
        means=means,
        figures=figures_of(results),
    )


def _value(value: Any) -> str:
    """Write a setting; a product of two settings without the digits that rounding left.

    Example:
        >>> _value(0.2 * 0.7), _value([100]), _value(True)
        ('0.14', '[100]', 'true')
    """
    return f"{value:.6g}" if isinstance(value, float) else value_text(value)
