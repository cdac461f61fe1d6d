"""``metrics.jsonl``: a JSON object a line, written as it happens, and cut back to where a checkpoint was."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


class MetricsFile:
    """The lines of a run. Where there is no room for one, training goes on, and it is written as soon as there is.

    Args:
        path: Made where it is missing.
        warn: Told once, when lines begin to wait.

    Attributes:
        n_bytes: Length of what is written.
        waiting: Lines that there was no room for.
    """

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        self._path, self._warn = path, warn
        self.waiting = ""
        self.n_bytes = path.stat().st_size if path.exists() else 0

    def go_on(self, n_bytes: int, waiting: str) -> None:
        """Keep the first bytes only, and lines that waited then: what came later will come again.

        Of a file that is shorter, its whole lines are kept.
        """
        kept = min(n_bytes, self.n_bytes)
        if self.n_bytes < n_bytes:
            self._warn(f"{self._path} is shorter than it was at the checkpoint: lines are missing")
            kept = self._path.read_bytes().rfind(b"\n") + 1 if self._path.exists() else 0
        if self.n_bytes > kept:
            with open(self._path, "r+b") as file:
                file.truncate(kept)
        self.n_bytes, self.waiting = kept, waiting

    def add(self, line: dict[str, Any]) -> None:
        """Append a line."""
        had_to_wait = bool(self.waiting)
        self.waiting += json.dumps(line) + "\n"
        try:
            with open(self._path, "ab") as file:
                file.truncate(self.n_bytes)  # what an attempt without room left there
                file.write(self.waiting.encode("ascii"))
                file.flush()
                os.fsync(file.fileno())  # a checkpoint counts on it
        except OSError as error:
            if not had_to_wait:
                self._warn(f"cannot write {self._path}: {error.strerror}. Training goes on; free some room")
            return
        self.n_bytes, self.waiting = self.n_bytes + len(self.waiting), ""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines that are there whole."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines
