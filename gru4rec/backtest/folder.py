"""The folder of a backtest: whose it is, what was asked for in it, and that one process works there."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from gru4rec.errors import ConfigError, DataError
from gru4rec.whole import write_whole

FORMAT = "gru4rec-backtest"
PLAN, LOCK = "plan.json", ".lock"
_ADVICE = "Free some space, or give -o another folder"


@contextlib.contextmanager
def taken(folder: Path) -> Iterator[None]:
    """Have a folder to oneself; where the block fails before anything was written, leave nothing behind.

    Args:
        folder: It is there, empty or of a backtest.

    Raises:
        ConfigError: It holds something else, or another process works in it.
        DataError: It cannot be written to.
    """
    if any(not path.name.startswith(".") for path in folder.iterdir()) and not _asked_before(folder):
        raise ConfigError(f"{folder} is not empty, and holds no backtest. Give -o another folder")
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            f"another gru4rec backtest works in {folder}. Wait for it, or give -o another folder"
        ) from None
    except OSError as error:
        raise DataError(f"cannot write to {folder}: {error.strerror}. {_ADVICE}") from None
    try:
        yield
    except BaseException:
        if [path.name for path in folder.iterdir()] == [LOCK]:
            (folder / LOCK).unlink()
        raise
    finally:
        lock.release()


def begin(folder: Path, asked: Mapping[str, Any], tell: Callable[[str], None]) -> None:
    """Note in the folder what is asked for, and say so where it was something else before.

    Args:
        folder: Whose.
        asked: What decides the backtest, as JSON can hold it.
        tell: Called with a line about an earlier, different backtest.

    Raises:
        DataError: The folder cannot be written to.
    """
    asked = {"format": FORMAT, **asked}
    now, before = _flat(asked), _flat(_asked_before(folder))
    changed = [name for name in {**now, **before} if now.get(name) != before.get(name)]
    if before and changed:
        name, shown, more = (
            changed[0],
            changed[0].removeprefix("plan."),
            f" and {len(changed) - 1} more" if len(changed) > 1 else "",
        )
        tell(
            f"note: the results of another backtest in {folder} are replaced: it had {shown}={before.get(name)}, and "
            f"{now.get(name)} is asked for{more}. Its finished parts stay in parts/"
        )
    text = json.dumps(asked, indent=1) + "\n"
    write_whole(folder / PLAN, lambda partial: partial.write_text(text, encoding="utf-8"), advice=_ADVICE)


def _asked_before(folder: Path) -> dict[str, Any]:
    """Return what a backtest in the folder was asked for; nothing where there is none."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        if isinstance(found, dict) and found.get("format") == FORMAT:
            return found
    return {}


def _flat(asked: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in asked.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: json.dumps(value)}
    return flat
