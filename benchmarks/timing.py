"""Clocks: candidates measured in turn, each beside what a matrix product reaches at that moment.

Machines that others use drift by the minute. So every round measures all candidates once, a ratio is taken within its
round, and what is reported is the median over the rounds.
"""

from __future__ import annotations

import functools
import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.process_memory import restart_peak, status_bytes
from gru4rec.model.device import ALL_THREADS, cpu_threads, denormals_flushed


@dataclass(frozen=True)
class Setup:
    """How to measure.

    Attributes:
        device: Where models are.
        threads: CPU thread settings to measure in, rising.
        quick: Tiny sizes and few rounds, to see that everything works.
    """

    device: torch.device
    threads: tuple[int, ...]
    quick: bool = False

    @property
    def on_cpu(self) -> bool:
        return self.device.type == "cpu"

    @property
    def n_rounds(self) -> int:
        return 1 if self.quick else 5

    @property
    def matrix_size(self) -> int:
        """Rows and columns of the product that tells the matrix rate."""
        return 256 if self.quick else 1024


def thread_settings(device: torch.device) -> tuple[int, ...]:
    """One thread and all threads; beside a GPU one."""
    return tuple(sorted({1, ALL_THREADS})) if device.type == "cpu" else (1,)


@dataclass(frozen=True)
class Candidate:
    """Something to measure.

    Attributes:
        work: Does it once; returns how many units (steps, targets, draws) that were.
        threads: CPU threads to do it with.
    """

    work: Callable[[], int]
    threads: int


@dataclass(frozen=True)
class Measurement:
    """One run of a candidate: seconds a unit, and the matrix rate just before and after it, in FLOP/s."""

    unit_s: float
    matrix_rate: float


def measure_in_turn(
    candidates: Mapping[str, Candidate], setup: Setup, *, n_rounds: int | None = None
) -> dict[str, list[Measurement]]:
    """Run every candidate once to warm up, then all of them in turn, round by round."""
    measured: dict[str, list[Measurement]] = {name: [] for name in candidates}
    for round_number in range(-1, n_rounds or setup.n_rounds):
        for name, candidate in candidates.items():
            with cpu_threads(candidate.threads), denormals_flushed():
                if round_number < 0:
                    candidate.work()
                    continue
                before = matrix_rate(setup)
                seconds, n_units = timed(candidate.work, setup.device)
                rate = (before + matrix_rate(setup)) / 2
                measured[name].append(Measurement(seconds / n_units, rate))
    return measured


def timed(work: Callable[[], int], device: torch.device) -> tuple[float, int]:
    """Return the seconds that work takes, to the end of what it left on the GPU, and what it returns."""
    gc.disable()
    try:
        synchronise(device)
        started = time.perf_counter()
        n_units = work()
        synchronise(device)
        return time.perf_counter() - started, n_units
    finally:
        gc.enable()


def matrix_rate(setup: Setup) -> float:
    """Return the FLOP/s of a float32 product of two square matrices."""
    size, n_products = setup.matrix_size, (4 if setup.on_cpu else 50)
    left, right, out = _matrices(size, setup.device)

    def multiply() -> int:
        for _ in range(n_products):
            torch.mm(left, right, out=out)
        return n_products

    torch.mm(left, right, out=out)  # wakes the threads
    seconds, _ = timed(multiply, setup.device)
    return n_products * 2 * size**3 / seconds


@functools.cache
def _matrices(size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    left, right = (torch.rand(size, size, generator=rng).to(device) for _ in range(2))
    return left, right, torch.empty_like(left)


def median_ms(measured: list[Measurement]) -> float:
    return 1e3 * statistics.median(m.unit_s for m in measured)


def matrix_ms(measured: list[Measurement], flop: float) -> float:
    """Return how long a unit's matrix products alone take."""
    return 1e3 * statistics.median(flop / m.matrix_rate for m in measured)


def times_matrix(measured: list[Measurement], flop: float) -> float:
    """Return the time as a multiple of that of its matrix products alone."""
    return statistics.median(m.unit_s * m.matrix_rate / flop for m in measured)


def times_faster(measured: list[Measurement], than: list[Measurement]) -> float:
    return statistics.median(slow.unit_s / fast.unit_s for slow, fast in zip(than, measured, strict=True))


def extra_peak_bytes(work: Callable[[], object], device: torch.device) -> int | None:
    """Return how far memory rises while work runs, GPU memory on a GPU; None where the system does not tell."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    if not restart_peak():
        return None
    before = status_bytes("VmRSS")
    work()
    return status_bytes("VmHWM") - before


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
