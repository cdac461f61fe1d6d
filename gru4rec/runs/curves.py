"""Metrics of a run as TensorBoard events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gru4rec.errors import ConfigError

_SCALARS = ("loss", "events_per_second", "gradient_norm", "weight_norm")


class Curves:
    """Writes every line of metrics as TensorBoard events.

    Args:
        folder: Made where it is missing.

    Raises:
        ConfigError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ConfigError(
                "--tensorboard needs tensorboard, which is missing. Run: pip install 'gru4rec[tensorboard]'"
            ) from None
        self._folder, self._writer_of = folder, SummaryWriter
        self._writer: Any = None
        self._from_step: int | None = None

    def go_on(self, step: int) -> None:
        """Hide what a run that was cut short wrote after a step."""
        self._from_step = step + 1

    def add(self, line: dict[str, Any]) -> None:
        """Write a line of metrics."""
        if self._writer is None:
            self._writer = self._writer_of(str(self._folder), purge_step=self._from_step)
        for name in _SCALARS:
            self._writer.add_scalar(f"{line['kind']}/{name}", line[name], line["step"])
        for name, value in (line.get("validation") or {}).items():
            self._writer.add_scalar(f"validation/{name}", value, line["step"])
        self._writer.flush()

    def close(self) -> None:
        """Close the files."""
        if self._writer is not None:
            self._writer.close()
