"""Pages as files: replaced whole or not at all, and only where a page of the same command stands.

Pages need jinja2 and matplotlib, which are looked for when a page is asked for.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from gru4rec.errors import ConfigError, DataError

HEAD_BYTES = 1_000
"""Of a page; they hold what :func:`generator` returns."""


def generator(command: str) -> str:
    """Return the element that stands in the head of every page a command writes. Only such a file is replaced.

    Example:
        >>> generator("gru4rec doctor")
        '<meta name="generator" content="gru4rec doctor">'
    """
    return f'<meta name="generator" content="{command}">'


def check_html(path: str | Path, *, command: str) -> None:
    """Make sure that a page can be made, and written there; leaves nothing behind.

    Args:
        path: Where the page shall be.
        command: Who writes it, such as ``gru4rec doctor``.

    Raises:
        ConfigError: A library is missing, the name is not one of a page, or the file there is not the command's page.
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
    if path.exists() and not _is_own(path, command):
        raise ConfigError(f"{name} is there, and is no page that {command} wrote. Remove it, or give -o another")
    _partial(path).unlink()


def write_html(text: str, path: str | Path) -> None:
    """Write a page; a file of that name is replaced whole or not at all.

    Raises:
        DataError: The path cannot be written.
    """
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


def _is_own(path: Path, command: str) -> bool:
    """Tell whether a file is a page of the command, by what its head says."""
    try:
        with open(path, "rb") as file:
            return generator(command).encode() in file.read(HEAD_BYTES)
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
