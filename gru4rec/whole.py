"""Files that are replaced whole or not at all. Knows nothing of what is in them."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

from gru4rec.errors import DataError


def write_whole(path: Path, write: Callable[[Path], object], *, advice: str) -> None:
    """Write beside a file under another name, then take the file's name in one move.

    Args:
        path: The file; its folder must exist.
        write: Given the other name, writes the contents there.
        advice: What the message says to do where it fails.

    Raises:
        DataError: The file cannot be written; an old one is as it was.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        write(partial)
        partial.replace(path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}. {advice}") from None
    finally:
        partial.unlink(missing_ok=True)
