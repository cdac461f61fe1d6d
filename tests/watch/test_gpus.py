"""GPUs through NVML, by a stand-in for its library; no GPU, driver or library is no error."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from gru4rec.watch.gpus import GPU_FIELDS
from gru4rec.watch.machine import MachineWatch


def refuse(*_: Any) -> Any:
    raise RuntimeError("NVML: not supported")


def nvml(**more: Any) -> SimpleNamespace:
    """Two GPUs: the first works, the second does not."""
    functions: dict[str, Any] = {
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda place: place,
        "nvmlDeviceGetUtilizationRates": lambda gpu: SimpleNamespace(gpu=[95, 0][gpu], memory=50),
        "nvmlDeviceGetMemoryInfo": lambda gpu: SimpleNamespace(used=[12e9, 1e9][gpu], total=80e9, free=0),
        "nvmlDeviceGetTemperature": lambda gpu, sensor: [63, 30][gpu] if sensor == 0 else refuse(),
        "nvmlDeviceGetPowerUsage": lambda gpu: [312_500, 70_000][gpu],  # milliwatts
    }
    return SimpleNamespace(**functions | more)


def gpu_figures(monkeypatch: pytest.MonkeyPatch, library: Any) -> dict[str, Any]:
    monkeypatch.setitem(sys.modules, "pynvml", library)
    sample = MachineWatch().sample()
    return {name: sample[name] for name in GPU_FIELDS}


@pytest.mark.parametrize("library", [None, nvml(nvmlInit=refuse), nvml(nvmlDeviceGetCount=lambda: 0), object()])
def test_machine_without_gpu_driver_or_library_has_an_empty_list(monkeypatch: pytest.MonkeyPatch, library: Any) -> None:
    assert gpu_figures(monkeypatch, library) == {name: [] for name in GPU_FIELDS}


def test_each_gpu_has_its_figures_in_the_units_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu_figures(monkeypatch, nvml()) == {
        "gpu_use_shares": [0.95, 0.0],
        "gpu_memory_used_bytes": [12e9, 1e9],
        "gpu_memory_total_bytes": [80e9, 80e9],
        "gpu_temperatures_c": [63, 30],
        "gpu_powers_w": [312.5, 70.0],
    }


def test_figure_that_a_gpu_does_not_tell_is_none_and_the_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = gpu_figures(monkeypatch, nvml(nvmlDeviceGetPowerUsage=refuse))
    assert figures["gpu_powers_w"] is None
    assert figures["gpu_use_shares"] == [0.95, 0.0]
