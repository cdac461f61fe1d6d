"""The report as one HTML page that loads nothing from anywhere: findings first, then numbers and figures.

Needs jinja2 and matplotlib, which are imported when a page is asked for.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from gru4rec import __version__
from gru4rec.doctor.examine import Report
from gru4rec.doctor.findings import SEVERITIES
from gru4rec.doctor.text import number_lines, verdict
from gru4rec.pages.file import check_html, write_html

COMMAND = "gru4rec doctor"
"""Stands in the head of the page too, whose template names its generator."""


def check_page(path: str | Path) -> None:
    """Make sure that a page can be made, and written there; leaves nothing behind.

    Raises:
        ConfigError: A library is missing, the name is not one of a page, or the file there is not a page of the doctor.
        DataError: The folder is missing or locked, or the path is no file.
    """
    check_html(path, command=COMMAND)


def write_page(report: Report, path: str | Path) -> None:
    """Write the page; a file of that name is replaced whole or not at all.

    Raises:
        ConfigError: A library is missing.
        DataError: The path cannot be written.
    """
    check_page(path)
    write_html(page_of(report), path)


def _sizes(report: Report) -> list[str]:
    """Say how large the files are that were read; nothing of tables."""
    files = [Path(log) for log in (report.log, report.test) if log is not None]
    return [f"{file.name}: {file.stat().st_size / 1e6:,.2f} MB" for file in files if file.is_file()]


def page_of(report: Report) -> str:
    """Return the page's text."""
    import jinja2

    from gru4rec.doctor.figures import figures_of

    template = Path(__file__).with_name("page.html.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(template).render(
        report=report,
        name=Path(report.log).name,
        made=" · ".join([f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", f"gru4rec {__version__}", *_sizes(report)]),
        verdict=verdict(report),
        severities=[severity for severity in SEVERITIES if report.counts[severity]],
        numbers=list(number_lines(report)),
        figures=figures_of(report),
    )
