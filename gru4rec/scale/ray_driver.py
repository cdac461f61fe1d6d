"""The process that talks to Ray: ``python -m gru4rec.scale.ray_driver``, a child of the command.

Ray takes over the signals, the environment and the output of the process that it is used in, so it gets one of its own.
What is to be done comes pickled on standard input, which stays open: when it ends, be it that the command was killed,
so does everything that was started here. What is done goes, as JSON lines, to the file descriptor that is the only
argument; what Ray says goes to standard error.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil  # type: ignore[import-untyped, import-not-found, unused-ignore]

from gru4rec.scale.ray_worker import PartWriter

_OBJECT_STORE_BYTES = 100 << 20
"""Of a Ray that is started here: what goes through it is numbers of parts."""
_RETRIES = 3
"""Times that a part is tried again whose worker died: one that needs too much memory would kill every worker."""


_ROUNDS = 6
"""Times that processes are looked for and killed: one may start another meanwhile."""


@dataclass(frozen=True)
class RayOrder:
    """What the process is to do.

    Attributes:
        task: What workers are told, a pickled ``RayTask``.
        parts: (part, first session, session after the last) of those that are to be written.
        address: Of the cluster to join; None: start one here.
        n_workers: Worker processes; None: one for each CPU of the cluster.
        scratch: Folder of what a Ray that is started here keeps on disk; removed in the end.
    """

    task: bytes
    parts: Sequence[tuple[int, int, int]]
    address: str | None
    n_workers: int | None
    scratch: Path


def main() -> None:
    """Do what comes on standard input; then wait for its end."""
    order: RayOrder = pickle.load(sys.stdin.buffer)  # from the parent process
    watch = threading.Thread(target=_end_with_parent, args=(order.scratch,), daemon=True)
    watch.start()
    os.set_inheritable(int(sys.argv[1]), False)
    with open(int(sys.argv[1]), "w", encoding="utf-8") as answers:
        try:
            _carry_out(order, answers)
        except Exception as error:  # Ray raises many kinds
            _tell(answers, failed=_in_a_line(error))
        watch.join()


def end_session(session: int, *, but: int | None = None) -> None:
    """Kill all processes of a session: that is how a Ray that was started in it ends at once.

    Args:
        session: Its id, that of the process that began it.
        but: A process that is left alone.
    """
    for _ in range(_ROUNDS):
        found = [process for process in psutil.process_iter() if process.pid != but and _is_of(process, session)]
        if not found:
            return
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(found, timeout=5)


def _is_of(process: psutil.Process, session: int) -> bool:
    try:
        return os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, psutil.Error):
        return False


def _end_with_parent(scratch: Path) -> None:
    sys.stdin.buffer.read()
    end_session(os.getsid(0), but=os.getpid())
    shutil.rmtree(scratch, ignore_errors=True)
    os._exit(0)


def _carry_out(order: RayOrder, answers: IO[str]) -> None:
    import ray
    import ray.data

    if order.address is None:
        ray.init(
            "local", num_cpus=order.n_workers, include_dashboard=False, log_to_driver=False,
            object_store_memory=_OBJECT_STORE_BYTES, _temp_dir=str(order.scratch),
        )  # fmt: skip
    else:
        ray.init(order.address, log_to_driver=False)
    there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    n_workers = min(order.n_workers or max(1, int(there.get("CPU", 1))), len(order.parts))
    _tell(answers, n_workers=n_workers)
    ray.data.DataContext.get_current().enable_progress_bars = False
    asked = [dict(zip(("part", "first", "stop"), numbers, strict=True)) for numbers in order.parts]
    done = ray.data.from_items(asked, override_num_blocks=len(asked)).map_batches(
        PartWriter,
        fn_constructor_args=(order.task,),
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(size=n_workers, max_tasks_in_flight_per_actor=2),
        num_cpus=1,
        max_restarts=-1,
        max_task_retries=_RETRIES,
    )
    for row in done.iter_rows():
        _tell(answers, **row)
    if order.address is not None:
        ray.shutdown()
    _tell(answers, finished=True)


def _tell(answers: IO[str], **values: Any) -> None:
    print(json.dumps(values), file=answers, flush=True)


def _in_a_line(error: Exception) -> str:
    """Return what an error says; of one that was raised in a worker, its last line, as the rest is where."""
    import ray

    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    return lines[-1] if isinstance(error, ray.exceptions.RayTaskError) else f"{type(error).__name__}: {lines[0]}"


if __name__ == "__main__":
    main()
