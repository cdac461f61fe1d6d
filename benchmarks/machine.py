"""What a result was measured on, and with."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

import torch

from benchmarks.timing import Setup
from benchmarks.workload import ROOT
from gru4rec import __version__


def machine(setup: Setup) -> dict[str, str | int | float | list[int]]:
    """Describe processor, GPU, threads and versions."""
    description: dict[str, str | int | float | list[int]] = {
        "cpu": cpu_name(),
        "cores": _n_cores(),
        "threads": list(setup.threads),
        "malloc": " ".join(f"{k}={v}" for k, v in sorted(os.environ.items()) if k.startswith("MALLOC_")) or "default",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "gru4rec": __version__,
        **{name: _version(name) for name in ("numpy", "numba", "triton")},
    }
    if setup.device.type == "cuda":
        description |= {"gpu": torch.cuda.get_device_name(setup.device), "cuda": str(torch.version.cuda)}
    return description


def slug(setup: Setup) -> str:
    """Return a short name of the machine for files: amd-epyc-2cores, nvidia-h100."""
    if setup.device.type == "cuda":
        return _words(re.sub(r"\b\d+ ?GB.*", "", torch.cuda.get_device_name(setup.device)))
    name = re.sub(r"\(\w+\)|CPU|Processor|\d+-Core|@.*", "", cpu_name())
    return f"{_words(name)}-{_n_cores()}cores"


def commit() -> str:
    """Return the checked-out commit, with a + where tracked files differ from it; "unknown" outside git."""
    try:
        head = _git("rev-parse", "--short", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def cpu_name() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo"), flags=re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"


def _words(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
