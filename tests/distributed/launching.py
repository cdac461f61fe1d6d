"""Starting torchrun, or what it would start, and ending it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
from torch.distributed import TCPStore

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
def started(line: Sequence[str], environment: Mapping[str, str] = ENVIRONMENT) -> Iterator[subprocess.Popen[str]]:
    """Start a command, and kill it and all that it started in the end."""
    process = subprocess.Popen(line, env={**environment}, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
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


@contextlib.contextmanager
def started_together(n_ranks: int, *command: object, **environment: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Start ``n_ranks`` processes of a Python file and its arguments as torchrun does, several seconds sooner."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    common = {
        **ENVIRONMENT, **environment, "WORLD_SIZE": str(n_ranks), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True",
    }  # fmt: skip
    line = [sys.executable, *map(str, command)]
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(started(line, environment={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}))
            for rank in range(n_ranks)
        ]


def ends_of(processes: Sequence[subprocess.Popen[str]], timeout: float = 240) -> list[tuple[int, str, str]]:
    """Wait for processes; returns each one's status, standard output and standard error."""
    with ThreadPoolExecutor(len(processes)) as readers:
        said = list(readers.map(lambda process: process.communicate(timeout=timeout), processes))
    return [(process.returncode, *texts) for process, texts in zip(processes, said, strict=True)]


def together(n_ranks: int, *command: object, timeout: float = 240, **environment: str) -> list[tuple[int, str, str]]:
    """Do both."""
    with started_together(n_ranks, *command, **environment) as processes:
        return ends_of(processes, timeout)


def fitted(n_ranks: int, jobs: Sequence[dict[str, Any]], folder: Path, **options: Any) -> list[dict[str, Any]]:
    """Carry out jobs of fit_worker.py in so many processes; returns what each came to."""
    asked, answered = folder / f"jobs_{n_ranks}.json", folder / f"results_{n_ranks}.json"
    asked.write_text(json.dumps(list(jobs)))
    for status, _, stderr in together(n_ranks, HERE / "fit_worker.py", asked, answered, **options):
        assert status == 0, stderr
    results: list[dict[str, Any]] = json.loads(answered.read_text())
    return results
