"""What samples of a machine warn of. Knows that the process trains on a log, and nothing else of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gru4rec.watch.figures import number_of, numbers_of
from gru4rec.watch.line import GB, memory_frac

Samples = Sequence[Mapping[str, object]]

SWAP_PAGES_PER_S = 100.0
"""Pages swapped in and out a second above which a machine is short of memory: 0.4 MB/s."""

MEMORY_FULL_FRAC = 0.92
"""How full the machine's memory may be."""

OTHERS_SHARE = 0.3
"""Cores that other processes may use while no core is free."""

FREE_SHARE = 0.15
"""Idle share of all cores below which none is free for the process."""

IO_WAIT_SHARE = 0.2
"""Cores that may wait for a disk while the process has less to do than it could."""

OWN_SHARE_FRAC = 0.6
"""Share of its threads below which a process waits for something."""

GPU_IDLE_SHARE = 0.4
"""Use of the busiest GPU below which it waits for the process."""

ONE_CORE = (0.9, 1.25)
"""Share of a process that one thread holds up."""


def hints(samples: Samples, *, n_threads: int = 1) -> list[str]:
    """Say what slows the process down, as the mean of the samples shows.

    Args:
        samples: What :meth:`gru4rec.watch.machine.MachineWatch.sample` returned, the newest last; missing figures,
            as on other systems or in half a file, warn of nothing.
        n_threads: Threads the process computes with.

    Returns:
        A sentence for each warning: what, how much, what to do. None where all is well.
    """
    swapping, crowded = _swapping(samples), _crowded(samples, n_threads)
    is_explained = swapping is not None or crowded is not None
    waits = None if is_explained else _process_waits(samples, n_threads)
    found = [swapping, _memory_full(samples), crowded, waits, _gpu_waits(samples)]
    return [hint for hint in found if hint is not None]


def _swapping(samples: Samples) -> str | None:
    pages = _mean(samples, "swap_pages_per_s")
    if pages is None or pages <= SWAP_PAGES_PER_S:
        return None
    return (
        f"The machine swaps {pages:,.0f} pages a second, which slows training many times: end other programs, or "
        "lower batch_size, n_sample or --sample_store_size."
    )


def _memory_full(samples: Samples) -> str | None:
    full = memory_frac(samples[-1]) if samples else None
    if full is None or full <= MEMORY_FULL_FRAC:
        return None
    free = number_of(samples[-1], "memory_available_bytes") or 0.0
    return (
        f"The machine's memory is {full:.0%} full, {free / GB:.1f} GB are left: end other programs, or lower "
        "--sample_store_size or batch_size, before the system ends the run."
    )


def _crowded(samples: Samples, n_threads: int) -> str | None:
    own, busy, n_cores = _mean(samples, "process_share"), _busy(samples), _n_cores(samples)
    if own is None or busy is None or not n_cores:
        return None
    others, free = busy - own, n_cores - busy
    if others <= OTHERS_SHARE or free >= FREE_SHARE * n_cores:
        return None
    less = f", or give the run fewer --threads (it has {n_threads})" if n_threads > 1 else ", or run them later"
    return f"Other processes keep {others:.1f} of {n_cores} cores busy and the run gets {own:.1f}: end them{less}."


def _gpu_waits(samples: Samples) -> str | None:
    use, own = _gpu_use(samples), _mean(samples, "process_share")
    if use is None or own is None or use >= GPU_IDLE_SHARE or not ONE_CORE[0] <= own <= ONE_CORE[1]:
        return None
    return (
        f"The GPU is used {use:.0%} while the process keeps one core at 100%: if the run is on the GPU, raise "
        "batch_size or n_sample and use --engine auto; if not, -d auto puts it there."
    )


def _process_waits(samples: Samples, n_threads: int) -> str | None:
    own, disk, use = _mean(samples, "process_share"), _mean(samples, "io_wait_share"), _gpu_use(samples)
    if own is None or own >= OWN_SHARE_FRAC * n_threads or (use is not None and use >= GPU_IDLE_SHARE):
        return None
    doing = f"The process computes on {own:.1f} of the {n_threads} core{'s' * (n_threads > 1)} it could use"
    if disk is not None and disk > IO_WAIT_SHARE:
        return (
            f"{doing}, and {disk:.1f} cores wait for a disk: the log is read too slowly. Put it, or its --cache, on a "
            "faster disk of this machine."
        )
    fewer = " Small models do better with fewer --threads." if n_threads > 1 else ""
    return f"{doing}: it waits, likely for the log. Put the log, or its --cache, on a disk of this machine.{fewer}"


def _mean(samples: Samples, name: str) -> float | None:
    numbers = [number for sample in samples if (number := number_of(sample, name)) is not None]
    return sum(numbers) / len(numbers) if numbers else None


def _busy(samples: Samples) -> float | None:
    shares = [sum(numbers_of(sample, "core_shares")) for sample in samples if numbers_of(sample, "core_shares")]
    return sum(shares) / len(shares) if shares else None


def _n_cores(samples: Samples) -> int:
    return len(numbers_of(samples[-1], "core_shares")) if samples else 0


def _gpu_use(samples: Samples) -> float | None:
    """Return the use of the busiest GPU: which one the process computes on is not known."""
    shares = [max(numbers_of(sample, "gpu_use_shares")) for sample in samples if numbers_of(sample, "gpu_use_shares")]
    return sum(shares) / len(shares) if shares else None
