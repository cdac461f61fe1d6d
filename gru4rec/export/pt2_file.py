"""PyTorch's own export files (.pt2): written whole, opened with torch alone, told how their check went.

Opening one executes what is pickled in it, as PyTorch warns; what it says of itself is read first, without that.
"""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gru4rec.export.about import ABOUT, ITEM_IDS, VERIFIED, Step, damaged, read_about, write_export
from gru4rec.export.step_graph import StepGraph, StepModel

SUFFIX = ".pt2"
"""torch.export.load opens no file of another name."""


def write_pt2(model: StepModel, path: str | Path) -> None:
    """Write a model's step graph.

    Raises:
        DataError: The path cannot be written.
    """
    any_batch = {0: torch.export.Dim("B")}
    layers = model.about.layers
    example = (torch.zeros(2, dtype=torch.int64), [torch.zeros(2, n_hidden) for n_hidden in layers])
    program = torch.export.export(
        StepGraph(model.network, model.about.k),
        example,
        dynamic_shapes=(any_batch, [any_batch] * len(layers)),
        strict=False,
    )
    _save(program, path, model.about.texts(model.items))


class Pt2File:
    """An exported .pt2 file, ready to take clicks.

    Attributes:
        about: What it says of itself.
        item_ids: In item-index order.
        runtime: What runs it, with its version.

    Raises:
        ModelFileError: It is damaged, or no export.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = path
        self._texts = _texts(path)
        self.about, self.item_ids = read_about(self._texts, path)
        self.runtime = f"torch {torch.__version__}"
        self._program = _program(path)
        self._run = self._program.module()

    @torch.no_grad()
    def step(self, item_idx: np.ndarray, state: Sequence[np.ndarray]) -> Step:
        """Run one step; see :class:`~gru4rec.export.step_graph.StepGraph`."""
        next_state, top_idx, scores = self._run(torch.from_numpy(item_idx), [torch.from_numpy(each) for each in state])
        top_ids = [[self.item_ids[item] for item in row] for row in top_idx.tolist()]
        return Step([each.numpy() for each in next_state], top_idx.numpy(), scores.numpy(), top_ids)

    def record(self, verified: Mapping[str, Any]) -> None:
        """Write the outcome of a check into the file.

        Raises:
            DataError: It cannot be written.
        """
        _save(self._program, self._path, {**self._texts, VERIFIED: json.dumps(verified)})


def _texts(path: str | Path) -> dict[str, str]:
    """Read the texts of a file, and check all that is in it against its checksums."""
    try:
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
            if wrong is not None:
                raise zipfile.BadZipFile(f"the checksum of {wrong} does not fit")
            by_name = {name.rsplit("/", 1)[-1]: name for name in archive.namelist() if "/extra/" in name}
            return {
                name: archive.read(by_name[name]).decode() for name in (ABOUT, ITEM_IDS, VERIFIED) if name in by_name
            }
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise damaged(path, error) from None


def _program(path: str | Path) -> torch.export.ExportedProgram:
    log = logging.getLogger("torch.export")
    level = log.level
    log.setLevel(logging.CRITICAL)  # what goes wrong is said once, by us, not with a traceback
    try:
        with open(path, "rb") as file:
            return torch.export.load(file)
    except Exception:  # whatever its reader of many formats meets
        raise damaged(path, f"PyTorch {torch.__version__} cannot read the program in it") from None
    finally:
        log.setLevel(level)


def _save(program: torch.export.ExportedProgram, path: str | Path, texts: dict[str, str]) -> None:
    def write(partial: Path) -> None:
        with open(partial, "wb") as file:
            torch.export.save(program, file, extra_files=texts)

    write_export(path, write)
