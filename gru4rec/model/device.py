"""Which device to run on, and with how many threads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from gru4rec.config import HyperParameters
from gru4rec.errors import DeviceError

ALL_THREADS = torch.get_num_threads()
"""Threads that torch would use by itself, as cores and OMP_NUM_THREADS say."""

_FLOP_WORTH_A_SECOND_THREAD = 5e8
"""FLOP of a step. Measured (docs/LOG.md): at 0.34e9 a second thread may cost more than it gives, at 0.62e9 it gives."""


def threads_that_help(settings: HyperParameters) -> int:
    """Return how many CPU threads to train with: one for small steps, which more threads only slow down, else all.

    Example:
        >>> threads_that_help(HyperParameters(layers=(100,), batch_size=32))
        1
    """
    n_hidden, n_lanes = max(settings.layers), settings.batch_size
    if settings.n_sample == "all":
        return ALL_THREADS
    flop = 30 * n_lanes * n_hidden**2 + 6 * n_lanes * n_hidden * (n_lanes + settings.n_sample)
    return 1 if flop < _FLOP_WORTH_A_SECOND_THREAD else ALL_THREADS


@contextlib.contextmanager
def cpu_threads(n_threads: int) -> Iterator[None]:
    """Run a block with so many CPU threads, and give back what was set before."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def denormals_flushed() -> Iterator[None]:
    """Run a block with numbers below the normal range (1e-38 in float32) taken as zero; processors are slow at them.

    It holds for this thread and for those that torch starts from it inside; give back what was set before.
    """
    was_on = not bool(torch.tensor([1e-40]).mul_(1.0))
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(was_on)


def resolve_device(name: str) -> torch.device:
    """Return the device that a name stands for.

    Args:
        name: ``auto`` (the first CUDA device, else the CPU), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        DeviceError: The name is none of these, or that device is not on this machine.

    Example:
        >>> resolve_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or str(device) != name or (device.type != "cuda" and name != "cpu"):  # torch wraps cuda:256 to 0
        raise DeviceError(f"unknown device {name!r}. Choose auto, cpu or cuda:N")
    if device.type == "cuda":
        n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= n_devices:
            raise DeviceError(
                f"device {name!r} is not on this machine, which has {n_devices} CUDA devices. Use -d cpu or -d auto"
            )
    return device
