"""What NVIDIA GPUs are doing. A machine without one, without its driver or its library, has none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

GPU_FIELDS = {
    "gpu_use_shares": "share of the last moments (up to 1 s) in which each GPU computed, 0 to 1; NVML",
    "gpu_memory_used_bytes": "memory in use on each GPU; NVML",
    "gpu_memory_total_bytes": "memory of each GPU; NVML",
    "gpu_temperatures_c": "degrees Celsius of each GPU; NVML",
    "gpu_powers_w": "watts that each GPU draws; NVML",
}
"""Figures of a sample: a list with an entry a GPU, none where there is none, None where a GPU does not tell."""


class Gpus:
    """The NVIDIA GPUs that the driver shows, all of them: ``CUDA_VISIBLE_DEVICES`` is not looked at."""

    def __init__(self) -> None:
        self._handles: list[Any] = []
        self._library: Any = None
        try:
            import pynvml  # type: ignore[import-untyped, import-not-found, unused-ignore]

            pynvml.nvmlInit()
            self._handles = [pynvml.nvmlDeviceGetHandleByIndex(place) for place in range(pynvml.nvmlDeviceGetCount())]
            self._library = pynvml
        except Exception:  # NVML has an error a cause, and an old library fails in ways of its own: no GPU to show
            self._handles = []

    def sample(self) -> dict[str, float | list[float] | None]:
        """Return the figures that :data:`GPU_FIELDS` describes, as they are now."""
        nvml = self._library
        memories = self._all(lambda gpu: nvml.nvmlDeviceGetMemoryInfo(gpu))
        return {
            "gpu_use_shares": self._all(lambda gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100),
            "gpu_memory_used_bytes": memories and [memory.used for memory in memories],
            "gpu_memory_total_bytes": memories and [memory.total for memory in memories],
            "gpu_temperatures_c": self._all(lambda gpu: nvml.nvmlDeviceGetTemperature(gpu, 0)),  # 0: the GPU's sensor
            "gpu_powers_w": self._all(lambda gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000),
        }

    def _all(self, figure: Callable[[Any], Any]) -> list[Any] | None:
        try:
            return [figure(gpu) for gpu in self._handles]
        except Exception:  # one that this GPU does not tell, or a GPU that was lost
            return None
