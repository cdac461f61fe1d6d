"""Finished parts of a comparison on disk: what was computed once is read, also after an interruption.

A part is known by a digest of all that decides it; it is there whole or not at all, and made again where its file is
damaged.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gru4rec import __version__
from gru4rec.baselines.files import load, save
from gru4rec.compare.fitting import Fit
from gru4rec.compare.output import check_folder
from gru4rec.errors import GRU4RecError
from gru4rec.whole import write_whole

_DAMAGED = (OSError, ValueError, KeyError, EOFError, RecursionError, zipfile.BadZipFile, zlib.error, GRU4RecError)
"""What reading a damaged file raises."""


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
        found: dict[str, Any] | None = self._read(path, lambda: _object_in(path))
        if found is not None:
            return found
        made = make()
        self._write_numbers(path, made)
        return made

    def arrays(self, what: Mapping[str, Any], make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Return a part made of arrays."""
        path = self.path_of(what, "npz")

        def read() -> dict[str, np.ndarray]:
            with open(path, "rb") as whole, np.load(whole, allow_pickle=False) as file:
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

    def fitted(self, what: Mapping[str, Any], make: Callable[[], Fit], *, device: str) -> Fit:
        """Return a fitted model and what fitting it took, each from its file; both are made where one is not there."""
        path, report_path = self.path_of(what, "gru4rec"), self.path_of({**what, "part": "fitting"}, "json")
        found: Fit | None = self._read(report_path, lambda: Fit(load(path, device=device), _object_in(report_path)))
        if found is not None:
            return found
        made = make()
        with contextlib.suppress(OSError):
            report_path.unlink()  # written last, it says that the model is there
        save(made.fitted, path)
        self._write_numbers(report_path, made.report)
        return Fit(load(path, device=device), made.report)

    def path_of(self, what: Mapping[str, Any], suffix: str) -> Path:
        """Return the path of a part."""
        text = json.dumps({"gru4rec": __version__, **what}, sort_keys=True, default=str)
        digest = hashlib.sha256(text.encode()).hexdigest()[:20]
        return self.folder / f"{what['part']}-{digest}.{suffix}"

    def _read(self, path: Path, read: Callable[[], Any]) -> Any:
        """Return what was finished before; None where it was not, or its file is damaged."""
        if not path.is_file():
            return None
        try:
            found = read()
        except _DAMAGED:
            return None
        self.n_found += 1
        return found

    def _write_numbers(self, path: Path, made: dict[str, Any]) -> None:
        self._write(path, lambda partial: partial.write_text(json.dumps(made), encoding="utf-8"))

    def _write(self, path: Path, write: Callable[[Path], object]) -> None:
        write_whole(path, write, advice="Free some space, then go on")
        self.n_made += 1


def _object_in(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        ValueError: Something else is in it.
    """
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no object")
    return found
