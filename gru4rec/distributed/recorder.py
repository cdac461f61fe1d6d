"""A run folder that several processes train in: the first writes, all keep step.

Checkpoints are those of a single process, so that a run goes on with any number of processes, one included.
"""

from __future__ import annotations

import math
import platform
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from gru4rec.distributed.files import Part, read_part, write_parts
from gru4rec.distributed.model import DistributedGRU4Rec
from gru4rec.distributed.step import ShardedStep
from gru4rec.errors import ConfigError, DataError
from gru4rec.runs.folder import RunFolder, RunStatus
from gru4rec.runs.recorder import RunRecorder
from gru4rec.train.checkpoint import (
    ADVICE,
    load_checkpoint,
    metadata_of,
    place_tensors,
    restore_place,
    tensors_of,
)
from gru4rec.train.loop import Position
from gru4rec.whole import write_whole


class FollowedFolder(RunFolder):
    """The folder of a run in a process that only reads it.

    Args:
        path: The folder.
        config: What decides the run's numbers.
    """

    is_ours = False

    def __init__(self, path: str | Path, config: Mapping[str, Any]) -> None:
        self.path, self.config, self.is_new = Path(path), dict(config), False

    def set_status(self, status: RunStatus) -> None:
        """Leave that to the first process."""

    def close(self) -> None:
        """Leave that to the first process."""


class _NoMetrics:
    """Lines that another process writes."""

    n_bytes, waiting = 0, ""

    def go_on(self, n_bytes: int, waiting: str) -> None:
        pass

    def add(self, line: dict[str, Any]) -> None:
        pass


class DistributedRecorder(RunRecorder):
    """Records a run in all its processes; see :class:`gru4rec.runs.recorder.RunRecorder`.

    Whether a checkpoint is due may depend on clocks and signals, which processes do not share. So one that finds it due
    says so with its next step's message, and all take it after that step.

    Args:
        folder: Of the run; a :class:`FollowedFolder` in all processes but the first.
        gru: What is trained.
        **options: As for :class:`RunRecorder`.
    """

    def __init__(self, folder: RunFolder, gru: DistributedGRU4Rec, **options: Any) -> None:
        super().__init__(folder, gru, **options)
        self._group, self._gru_here = gru.group, gru
        self._is_agreed = False
        hosts = self._group.gather(torch.tensor(zlib.crc32(platform.node().encode()), device=self._group.device))
        self._is_here = hosts == hosts[self._group.rank]
        self._n_threads *= int(self._is_here.sum())
        if not self._group.is_first:
            self._metrics = _NoMetrics()  # type: ignore[assignment]

    def received(self) -> int:
        """Return the signal that a process received, 0 if none did."""
        here = torch.tensor(self._stop.received, device=self._group.device)
        return int(self._group.gather(here).max())  # a signal may reach one process before others, or only one

    def _tidy_up(self) -> None:
        if self._group.is_first:
            super()._tidy_up()
        self._group.any(False)  # the others look after the first has tidied up
        seen = torch.tensor([float(self.folder.checkpoint.parent.is_dir()), float(self.folder.checkpoint.exists())])
        gathered = self._group.gather(seen.to(self._group.device))
        if not bool((gathered == gathered[0]).all()):
            raise ConfigError(
                f"not all processes see the run folder {self.folder.path}. Put it on storage that all machines share"
            )

    def _sample(self) -> Mapping[str, object]:
        """Measure what all processes of the run on this machine do: none is a stranger to the others."""
        sample = super()._sample()
        share = sample["process_share"]
        shares = torch.tensor(share if isinstance(share, float) else torch.nan, device=self._group.device)
        total = float(self._group.gather(shares)[self._is_here].sum())
        return {**sample, "process_share": None if math.isnan(total) else total}

    def _load(self, path: Path) -> tuple[Position, Mapping[str, Any]]:
        parts = self._parts()
        checkpoint = load_checkpoint(path, leave_out=parts)
        for name, part in parts.items():
            read_part(path, name, part)
        restore_place(self._training, checkpoint.position, checkpoint.tensors)
        return checkpoint.position, checkpoint.more

    def _save(self, position: Position, hidden: Sequence[torch.Tensor], more: Mapping[str, Any], path: Path) -> None:
        parts = self._parts() | {name: Part(values) for name, values in place_tensors(self._training, hidden).items()}

        def put(path: Path, write: Callable[[Path], None]) -> None:
            def write_for_all(partial: Path) -> None:
                write(partial)
                partial.chmod(0o644)

            write_whole(path, write_for_all, advice=ADVICE)

        write_parts(path, parts, lambda checksums: metadata_of(position, more), self._group, put, DataError)

    def _parts(self) -> dict[str, Part]:
        return {name: self._gru_here.part_of(name, values) for name, values in tensors_of(self._training).items()}

    def _may_keep(self) -> bool:
        step = self._training.step
        assert isinstance(step, ShardedStep)
        if step.is_wished or self._is_due_by_steps():
            self._is_agreed, step.wish = True, False
        elif not self._is_agreed:
            step.wish = self._is_due()
        return self._is_agreed

    def _agreed(self, wanted: bool) -> bool:
        return self._group.any(wanted)

    def _keep(self, position: Position, hidden: list[torch.Tensor], *, ends: bool = False) -> None:
        step = self._training.step
        assert isinstance(step, ShardedStep)
        self._is_agreed = step.wish = False
        super()._keep(position, hidden, ends=ends)

    def _total(self, of_weight: Callable[[torch.Tensor], torch.Tensor]) -> float:
        weights = list(self._training.model.parameters())
        of_tables = torch.stack([of_weight(weight) for weight in weights if not weight.requires_grad]).sum()
        self._group.sum(of_tables)
        of_network = torch.stack([of_weight(weight) for weight in weights if weight.requires_grad]).sum()
        return float(of_tables + of_network)
