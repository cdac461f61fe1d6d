"""The temporary folder of a program that leaves nothing, and those that killed programs left beside it.

The place is shared with other users and programs: what is removed carries our mark, and is this user's.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gru4rec.errors import DataError

_PREFIX, _MARK = ".gru4rec-join-", "gru4rec-join.lock"


@contextlib.contextmanager
def no_folder() -> Iterator[Path]:
    """Make a folder for the logs of a program that leaves nothing; it is removed after the block.

    So are those that this user's programs left when they were killed.

    Raises:
        DataError: It cannot be made.
    """
    try:
        parent = Path(tempfile.gettempdir())
        for left in parent.glob(f"{_PREFIX}*"):
            with contextlib.suppress(OSError), _left_mark(left):
                shutil.rmtree(left)
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    except OSError as error:
        raise DataError(f"cannot make a temporary folder: {error.strerror}. Set TMPDIR to a folder with room") from None
    try:
        with _new_mark(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _new_mark(folder: Path) -> Iterator[None]:
    """Mark a folder as ours, and in use while the block runs."""
    import fcntl

    unlocked = folder / f"{_MARK}.new"
    with open(unlocked, "x") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        unlocked.rename(folder / _MARK)  # so that nobody finds it without its lock
        yield


@contextlib.contextmanager
def _left_mark(folder: Path) -> Iterator[None]:
    """Hold the mark of a folder that a killed program of this user left; nothing is made, and no link followed.

    Raises:
        OSError: It is in use, another's, or not marked at all.
    """
    import fcntl

    with contextlib.ExitStack() as stack:
        inside = _opened(stack, folder, os.O_RDONLY | os.O_DIRECTORY)
        mark = _opened(stack, _MARK, os.O_RDWR | os.O_NONBLOCK, inside)  # opening a FIFO would wait for its writer
        owners = {os.fstat(each).st_uid for each in (inside, mark)}
        if not stat.S_ISREG(os.fstat(mark).st_mode) or owners != {os.getuid()}:
            raise PermissionError(folder)
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _opened(stack: contextlib.ExitStack, path: str | Path, flags: int, folder: int | None = None) -> int:
    opened = os.open(path, os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=folder)
    stack.callback(os.close, opened)
    return opened
