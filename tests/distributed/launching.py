"""Starting torchrun, and ending what it started."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parent.parent.parent
HERE = Path(__file__).parent
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    "PYTHONWARNINGS": "ignore",  # torchrun's own
}
ALONE = ("--standalone",)


def words(n_ranks: int, *command: object, how: Sequence[str] = ALONE) -> list[str]:
    """Return a command line that starts ``n_ranks`` processes of a Python file and its arguments."""
    return [
        sys.executable, "-m", "torch.distributed.run", *how, "--nproc-per-node", str(n_ranks), *map(str, command)
    ]  # fmt: skip


@contextlib.contextmanager
def started(line: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Start a command, and kill it and all that it started in the end."""
    process = subprocess.Popen(
        line, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )
    try:
        yield process
    finally:
        for one in (*descendants(process.pid), process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        process.communicate()


def descendants(pid: int) -> list[int]:
    """Return the processes that a process started, and those that they started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    return []


def run(line: Sequence[str], *, timeout: float = 240) -> tuple[int, str, str]:
    """Run a command; returns its status, standard output and standard error."""
    with started(line) as process:
        stdout, stderr = process.communicate(timeout=timeout)
        return process.returncode, stdout, stderr


def fitted(n_ranks: int, jobs: Sequence[dict[str, Any]], folder: Path, **options: Any) -> list[dict[str, Any]]:
    """Carry out jobs of fit_worker.py in so many processes; returns what each came to."""
    asked, answered = folder / f"jobs_{n_ranks}.json", folder / f"results_{n_ranks}.json"
    asked.write_text(json.dumps(list(jobs)))
    status, _, stderr = run(words(n_ranks, HERE / "fit_worker.py", asked, answered), **options)
    assert status == 0, stderr
    results: list[dict[str, Any]] = json.loads(answered.read_text())
    return results
