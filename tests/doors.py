"""Running a command in this process."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from typing import Any


def call(door: Callable[[Sequence[str]], int], argv: Sequence[Any]) -> tuple[Any, str, str]:
    """Run a front door in this process and return (exit status, standard output, standard error)."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            status: Any = door([str(word) for word in argv])
        except SystemExit as stop:
            status = stop.code
    return status, stdout.getvalue(), stderr.getvalue()
