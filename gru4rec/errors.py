"""The exceptions gru4rec raises. Each message says what was wrong, where, and what to do.

The library raises; only ``gru4rec.cli`` prints a message and picks an exit status.
"""

from __future__ import annotations


class GRU4RecError(Exception):
    """Base of every error that gru4rec raises on purpose.

    Attributes:
        exit_status: What a command exits with when this error ends it.
    """

    exit_status = 2


class DataError(GRU4RecError):
    """A log, a data frame or a list of sessions cannot be used as it is."""


class ConfigError(GRU4RecError):
    """A setting, a parameter string, a parameter file or a call's argument is wrong."""


class DeviceError(GRU4RecError):
    """The device that was asked for is not on this machine."""


class ModelFileError(GRU4RecError):
    """A model file is missing, damaged, foreign, or newer than this version reads."""


class ShapeError(GRU4RecError):
    """Tensors of a call do not fit each other."""


class DivergedError(GRU4RecError):
    """Training met a loss that is not finite, or a model marked so was asked for results.

    Exit status 1: the input was usable, the run failed.
    """

    exit_status = 1


class StoppedError(GRU4RecError):
    """A run was told to stop by a signal, and can go on from its checkpoint.

    Args:
        message: Where it stopped and how to go on.
        signal_number: What it was told by; the exit status is 128 more, as shells have it.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_status = 128 + signal_number
