"""One worker of a Ray cluster: loads the model once, and writes the parts that it is given.

The process that talks to Ray imports this too, and computes nothing: so torch is imported where a worker begins.
"""

from __future__ import annotations

import pickle
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gru4rec import __version__
from gru4rec.errors import ConfigError, DataError, GRU4RecError
from gru4rec.scale.bulk_folder import write_part

if TYPE_CHECKING:
    from gru4rec.scale.bulk_job import BulkJob, BulkRun


@dataclass(frozen=True)
class RayTask:
    """What all workers are told.

    Attributes:
        job: Model, log and options; paths are absolute, and of storage that all machines share.
        folder: The run's folder, where the log is mapped and parts go.
        model_digest: SHA-256 of the model file that the run was begun with.
        version: Of the gru4rec that began it.
    """

    job: BulkJob
    folder: Path
    model_digest: str
    version: str = __version__


class PartWriter:
    """Writes parts; Ray Data makes one in each worker.

    Args:
        task: A :class:`RayTask`, pickled; the same for all.
    """

    def __init__(self, task: bytes) -> None:
        self._task: RayTask = pickle.loads(task)  # from the command
        self._run: BulkRun | None = None

    def __call__(self, asked: dict[str, np.ndarray]) -> dict[str, Any]:
        """Write parts.

        Args:
            asked: ``part``, its number; ``first`` and ``stop``, its first session and the one after its last.

        Returns:
            The same numbers, and what went wrong: the kind of error and its message, or nothing.
        """
        kinds, messages = [], []
        for part, first, stop in zip(*(asked[name].tolist() for name in ("part", "first", "stop")), strict=True):
            kind = message = ""
            try:
                self._write(part, first, stop)
            except GRU4RecError as error:
                kind, message = type(error).__name__, f"worker on {platform.node()}: {error}"
            kinds.append(kind)
            messages.append(message)
        return {"part": asked["part"], "kind": kinds, "message": messages}

    def _write(self, part: int, first: int, stop: int) -> None:
        if self._run is None:
            self._run = self._open()
        write_part(self._task.folder, part, self._run.table(first, stop))

    def _open(self) -> BulkRun:
        import torch

        from gru4rec.scale.bulk_log import digest_of, is_mapped

        torch.set_num_threads(1)
        job, folder, advice = self._task.job, self._task.folder, "Give paths that all machines of the cluster share"
        if self._task.version != __version__:
            raise ConfigError(f"gru4rec is {__version__} here, not {self._task.version}. Install the same everywhere")
        if not is_mapped(job.log, folder):
            raise DataError(f"{job.log} is no session map here, nor is one in {folder}. {advice}")
        if digest_of(job.model) != self._task.model_digest:
            raise DataError(f"{job.model} is another model here. {advice}")
        return job.open(folder)
