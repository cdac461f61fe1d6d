"""``metrics.jsonl``: a JSON object a line, written as it happens, and cut back to where a checkpoint was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


class MetricsFile:
    """The lines of a run. Where there is no room for one, training goes on, and it is written as soon as there is.

    Args:
        path: Made where it is missing.
        warn: Told once, when lines begin to wait.
    """

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        self._path, self._warn = path, warn
        self._waiting = ""
        self._n_bytes = path.stat().st_size if path.exists() else 0

    @property
    def n_bytes(self) -> int:
        """Length of the file, in bytes, lines that wait included."""
        return self._n_bytes + len(self._waiting)

    def cut(self, n_bytes: int) -> None:
        """Keep the first bytes only: what came later will come again."""
        if self._n_bytes > n_bytes:
            with open(self._path, "r+b") as file:
                file.truncate(n_bytes)
            self._n_bytes = n_bytes

    def add(self, line: dict[str, Any]) -> None:
        """Append a line."""
        had_to_wait = bool(self._waiting)
        self._waiting += json.dumps(line) + "\n"
        try:
            with open(self._path, "ab") as file:
                file.truncate(self._n_bytes)  # what an attempt without room left there
                file.write(self._waiting.encode("ascii"))
        except OSError as error:
            if not had_to_wait:
                self._warn(f"cannot write {self._path}: {error.strerror}. Training goes on; free some room")
            return
        self._n_bytes, self._waiting = self.n_bytes, ""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines that are there whole."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines
