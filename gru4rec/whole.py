"""Files that are replaced whole or not at all, and folders to put them in. Knows nothing of what is in them."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
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
        with contextlib.suppress(OSError):  # such as a name too long, which failed before
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def folder_to_write(folder: Path, *, advice: str) -> Iterator[None]:
    """Make a folder to write to; where the block fails, leave no empty folder behind.

    Args:
        folder: The folder, made with those above it.
        advice: What the message says to do where that fails.

    Raises:
        DataError: The folder cannot be made or written to.
    """
    missing = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    probe = folder / f".{secrets.token_hex(8)}.part"
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise DataError(f"cannot write to {folder}: {error.strerror}. {advice}") from None
        yield
    except BaseException:
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise
