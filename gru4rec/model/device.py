"""Which device to run on."""

from __future__ import annotations

import torch

from gru4rec.errors import DeviceError


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
    if device is None or device.type not in ("cpu", "cuda"):
        raise DeviceError(f"unknown device {name!r}. Choose auto, cpu or cuda:N")
    if device.type == "cuda":
        n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= n_devices:
            raise DeviceError(
                f"device {name!r} is not on this machine, which has {n_devices} CUDA devices. Use -d cpu or -d auto"
            )
    return device
