"""The report as one HTML page that loads nothing from anywhere: findings first, then numbers and figures.

Needs jinja2 and matplotlib, which are imported when a page is asked for.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from gru4rec.doctor.examine import Report
from gru4rec.doctor.findings import SEVERITIES
from gru4rec.doctor.text import number_lines, verdict
from gru4rec.errors import ConfigError, DataError


def check_page(path: str | Path) -> None:
    """Make sure that a page can be made, and written there; leaves nothing behind.

    Raises:
        ConfigError: A library is missing.
        DataError: The folder is missing or locked, or the path is no file.
    """
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"a page needs {error.name}, which is missing. Run: pip install 'gru4rec[report]'") from None
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        raise DataError(f"cannot write {path}: it is not a regular file. Give the path of a page, such as page.html")
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


def _partial(path: Path) -> Path:
    """Make an empty file beside the page, to be renamed."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}. Give a folder that can be written to") from None
    os.close(handle)
    return Path(name)


def page_of(report: Report) -> str:
    """Return the page's text."""
    import jinja2

    from gru4rec.doctor.figures import figures_of

    template = Path(__file__).with_name("page.html.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(template).render(
        report=report,
        verdict=verdict(report),
        severities=[severity for severity in SEVERITIES if report.counts[severity]],
        numbers=list(number_lines(report)),
        figures=figures_of(report),
    )
