"""What a process and its machine are doing, measured between two calls. Knows nothing of training.

A share counts cores: 1.0 is one core kept busy. A figure that this system does not give is None. Processor time comes
in ticks of 10 ms on most systems, so samples less than a second apart are rough.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gru4rec.watch.gpus import GPU_FIELDS, Gpus

Sample = dict[str, float | list[float] | None]

FIELDS = {
    "interval_s": "seconds that the rates and shares of this sample are about; the monotonic clock",
    "process_share": "processor time of the process and its descendants a second, 1.0 = one core; /proc/PID/stat",
    "core_shares": "busy share of each core, 0 to 1, time waiting for a disk not counted; /proc/stat",
    "io_wait_share": "cores that idle while a disk works for them, 1.0 = one core; /proc/stat, Linux only",
    "load": "mean number of processes that ran or wanted to, over the last minute; /proc/loadavg",
    "process_resident_bytes": "memory of the process that is in RAM, without its descendants; /proc/PID/statm",
    "major_faults_per_s": "times a second the process waited for a page from disk; /proc/PID/stat, Linux only",
    "memory_used_bytes": "total less available; /proc/meminfo",
    "memory_total_bytes": "RAM of the machine; /proc/meminfo",
    "memory_available_bytes": "RAM that processes could still get without swapping; /proc/meminfo",
    "swap_used_bytes": "swap space in use; /proc/meminfo",
    "swap_pages_per_s": "pages of 4096 bytes swapped in and out a second, by all processes; /proc/vmstat",
    **GPU_FIELDS,
}
"""What a sample holds: each figure's unit, and its source on Linux (elsewhere psutil asks the system)."""

_SWAP_PAGE_BYTES = 4096
_HAS_PROC = sys.platform == "linux"


class MachineWatch:
    """Measures a process, its descendants and the machine, as often as it is asked to.

    It has no thread: a sample is about the time since the one before, the first since the watch was made.

    Args:
        pid: The process; this one where none is given.

    Example:
        >>> watch = MachineWatch()
        >>> sample = watch.sample()
        >>> sample.keys() == FIELDS.keys()
        True
    """

    def __init__(self, pid: int | None = None) -> None:
        import psutil  # type: ignore[import-untyped, import-not-found, unused-ignore]  # late: train and help start fast

        self._psutil: Any = psutil
        self._gpus = Gpus()
        try:
            self._process: Any = psutil.Process(pid)
        except psutil.Error:
            self._process = None
        self._before = self._read()

    def sample(self) -> Sample:
        """Measure what happened since the call before.

        Returns:
            The figures that :data:`FIELDS` describes. Those of a process that has ended are None.
        """
        before, now = self._before, self._read()
        self._before = now
        interval_s = max(now.at_s - before.at_s, 1e-6)
        cores = [_core(old, new) for old, new in zip(before.cores, now.cores, strict=False)]
        memory, swap = self._psutil.virtual_memory(), now.swap
        return {
            "interval_s": interval_s,
            "process_share": _rate(before.process_s, now.process_s, interval_s),
            "core_shares": [busy for busy, _ in cores],
            "io_wait_share": sum(waiting for _, waiting in cores) if _HAS_PROC else None,
            "load": self._psutil.getloadavg()[0],
            "process_resident_bytes": now.resident_bytes,
            "major_faults_per_s": _rate(before.major_faults, now.major_faults, interval_s),
            "memory_used_bytes": memory.total - memory.available,
            "memory_total_bytes": memory.total,
            "memory_available_bytes": memory.available,
            "swap_used_bytes": swap.used,
            "swap_pages_per_s": ((swap.sin + swap.sout) - (before.swap.sin + before.swap.sout))
            / _SWAP_PAGE_BYTES
            / interval_s,
            **self._gpus.sample(),
        }

    def _read(self) -> _Counters:
        process_s, resident_bytes, faults = self._process_counters()
        cores = self._psutil.cpu_times(percpu=True)
        return _Counters(time.monotonic(), process_s, resident_bytes, faults, cores, self._psutil.swap_memory())

    def _process_counters(self) -> tuple[float | None, float | None, float | None]:
        """Return processor seconds, resident bytes and major faults; None for each once the process is gone."""
        if self._process is None or not self._process.is_running():
            return None, None, None
        try:
            with self._process.oneshot():
                seconds, resident = sum(self._process.cpu_times()[:4]), float(self._process.memory_info().rss)
            for child in self._descendants():
                try:
                    seconds += sum(child.cpu_times()[:4])
                except self._psutil.Error:  # it has just ended; its time is with its parent's now
                    continue
            return seconds, resident, _major_faults(self._process.pid)
        except self._psutil.Error:
            return None, None, None

    def _descendants(self) -> list[Any]:
        """Return the descendants; Linux has a list, elsewhere all processes have to be gone through."""
        if not Path(f"/proc/self/task/{os.getpid()}/children").exists():
            return list(self._process.children(recursive=True))
        found: list[Any] = []
        parents = [self._process.pid]
        while parents:
            for pid in _children(parents.pop()):
                try:
                    found.append(self._psutil.Process(pid))
                except self._psutil.Error:
                    continue
                parents.append(pid)
        return found


@dataclass(frozen=True)
class _Counters:
    """Counts that only grow, at one time; a process's seconds are its own and those of all that descend from it."""

    at_s: float
    process_s: float | None
    resident_bytes: float | None
    major_faults: float | None
    cores: Any
    swap: Any


def _rate(before: float | None, now: float | None, interval_s: float) -> float | None:
    """Return the growth a second; one that was lost with an orphan is no growth."""
    return None if before is None or now is None else max(0.0, now - before) / interval_s


def _core(before: Any, now: Any) -> tuple[float, float]:
    """Return the shares of a core's time that it was busy, and that it waited for a disk."""
    spent = {name: max(0.0, getattr(now, name) - getattr(before, name)) for name in now._fields}
    total = sum(spent.values()) - spent.get("guest", 0.0) - spent.get("guest_nice", 0.0)  # they are in user and nice
    waiting = spent.get("iowait", 0.0)
    return ((total - spent["idle"] - waiting) / total, waiting / total) if total > 0 else (0.0, 0.0)


def _children(pid: int) -> list[int]:
    """Return the processes that any thread of a process started."""
    children = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
                children += [int(word) for word in file.read().split()]
    except OSError:  # a thread, or the process, has just ended
        pass
    return children


def _major_faults(pid: int) -> float | None:
    if not _HAS_PROC:
        return None
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return float(stat.rpartition(")")[2].split()[9])  # a name may hold spaces; this is field 12, majflt
