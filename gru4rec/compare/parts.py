"""Finished parts of a comparison on disk: what was computed once is read, also after an interruption.

A part is known by a digest of all that decides it; it is there whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gru4rec import __version__
from gru4rec.compare.output import check_folder
from gru4rec.whole import write_whole


class Parts:
    """The folder of finished parts.

    Args:
        folder: Made where it is missing.

    Attributes:
        n_found: Parts that were read.
        n_made: Parts that were computed.

    Raises:
        DataError: The folder cannot be made or written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.n_found = self.n_made = 0
        check_folder(folder)

    def numbers(self, what: Mapping[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return a part that JSON can hold, made where it is not there yet."""
        path = self.path_of(what, "json")
        found = self._read(path, lambda: json.loads(path.read_text(encoding="utf-8")))
        if found is not None:
            return dict(found)
        made = make()
        self._write(path, lambda partial: partial.write_text(json.dumps(made), encoding="utf-8"))
        return made

    def arrays(self, what: Mapping[str, Any], make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Return a part made of arrays."""
        path = self.path_of(what, "npz")

        def read() -> dict[str, np.ndarray]:
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}

        found = self._read(path, read)
        if found is not None:
            return dict(found)
        made = make()

        def write(partial: Path) -> None:
            with open(partial, "wb") as file:
                np.savez(file, **made)  # type: ignore[arg-type]

        self._write(path, write)
        return made

    def path_of(self, what: Mapping[str, Any], suffix: str) -> Path:
        """Return the path of a part; its maker may write it whole by itself, such as a model file."""
        text = json.dumps({"gru4rec": __version__, **what}, sort_keys=True, default=str)
        digest = hashlib.sha256(text.encode()).hexdigest()[:20]
        return self.folder / f"{what['part']}-{digest}.{suffix}"

    def _read(self, path: Path, read: Callable[[], Any]) -> Any:
        """Return what was finished before; None where it was not, or its file is damaged."""
        if not path.is_file():
            return None
        try:
            found = read()
        except (OSError, ValueError, KeyError, EOFError):
            return None
        self.n_found += 1
        return found

    def _write(self, path: Path, write: Callable[[Path], object]) -> None:
        write_whole(path, write, advice="Free some space, then go on")
        self.n_made += 1
