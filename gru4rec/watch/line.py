"""The machine in a few words, for the end of a line about progress."""

from __future__ import annotations

from collections.abc import Mapping

from gru4rec.watch.figures import number_of, numbers_of

GB = 1e9


def machine_line(sample: Mapping[str, object]) -> str:
    """Say what a sample of :class:`~gru4rec.watch.machine.MachineWatch` says; what it lacks is left out.

    Example:
        >>> machine_line({"process_share": 0.98, "core_shares": [0.9, 0.2], "process_resident_bytes": 6e8,
        ...               "memory_total_bytes": 2e10, "memory_available_bytes": 1.18e10, "gpu_use_shares": []})
        'cpu 1.0 of 2, memory 0.6 GB (machine 41%)'
    """
    own, resident = number_of(sample, "process_share"), number_of(sample, "process_resident_bytes")
    cores, full = numbers_of(sample, "core_shares"), memory_frac(sample)
    parts = [f"cpu {own:.1f} of {len(cores)}"] if own is not None else []
    machine = f"machine {full:.0%}" if full is not None else ""
    if resident is not None:
        parts.append(f"memory {resident / GB:.1f} GB" + (f" ({machine})" if machine else ""))
    elif machine:
        parts.append(f"memory of the {machine}")
    return ", ".join(parts + _gpus(sample))


def memory_frac(sample: Mapping[str, object]) -> float | None:
    """Return how full the machine's memory is, 0 to 1."""
    total, available = number_of(sample, "memory_total_bytes"), number_of(sample, "memory_available_bytes")
    return 1 - available / total if total and available is not None else None


def _gpus(sample: Mapping[str, object]) -> list[str]:
    shares, used = numbers_of(sample, "gpu_use_shares"), numbers_of(sample, "gpu_memory_used_bytes")
    if not shares:
        return []
    memory = f" {'/'.join(f'{n_bytes / GB:.1f}' for n_bytes in used)} GB" if used else ""
    return [f"gpu {'/'.join(f'{share:.0%}' for share in shares)}{memory}"]
