"""The report as one HTML page that loads nothing from anywhere: findings first, then numbers and figures.

Needs jinja2 and matplotlib, which are imported when a page is asked for.
"""

from __future__ import annotations

import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from gru4rec import __version__
from gru4rec.doctor.examine import Report
from gru4rec.doctor.findings import SEVERITIES
from gru4rec.doctor.text import number_lines, verdict
from gru4rec.errors import ConfigError, DataError

GENERATOR = b'<meta name="generator" content="gru4rec doctor">'
"""Stands in the head of every page, in the first :data:`HEAD_BYTES`. Only such a file is replaced."""

HEAD_BYTES = 1_000


def check_page(path: str | Path) -> None:
    """Make sure that a page can be made, and written there; leaves nothing behind.

    Raises:
        ConfigError: A library is missing, the name is not one of a page, or the file there is not a page of the doctor.
        DataError: The folder is missing or locked, or the path is no file.
    """
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"a page needs {error.name}, which is missing. Run: pip install 'gru4rec[report]'") from None
    name, path = Path(path), Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        raise DataError(f"cannot write {path}: it is not a regular file. Give the path of a page, such as page.html")
    if not {name.suffix.lower(), path.suffix.lower()} <= {".html", ".htm"}:
        raise ConfigError(f"the page {name} needs a name that ends in .html or .htm. Give one, such as page.html")
    if path.exists() and not _is_own(path):
        raise ConfigError(f"{name} is there, and is no page that gru4rec doctor wrote. Remove it, or give -o another")
    _partial(path).unlink()


def write_page(report: Report, path: str | Path) -> None:
    """Write the page; a file of that name is replaced whole or not at all.

    Raises:
        ConfigError: A library is missing.
        DataError: The path cannot be written.
    """
    check_page(path)
    text = page_of(report)
    path = Path(os.path.realpath(path))
    partial = _partial(path)
    try:
        partial.write_text(text, encoding="utf-8")
        partial.chmod(0o644)
        partial.replace(path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}. Free some space, or give another path") from None
    finally:
        partial.unlink(missing_ok=True)


def _is_own(path: Path) -> bool:
    """Tell whether a file is a page of the doctor, by what its head says."""
    try:
        with open(path, "rb") as file:
            return GENERATOR in file.read(HEAD_BYTES)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}. Give another path") from None


def _partial(path: Path) -> Path:
    """Make an empty file beside the page, to be renamed."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}. Give a folder that can be written to") from None
    os.close(handle)
    return Path(name)


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
