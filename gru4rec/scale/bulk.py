"""The lists of all sessions of a log, in Parquet: a row for each session, or for each click.

The log is mapped once and worked off in stretches, each of which becomes a part of the output. So memory does not grow
with what is scored, and a run that was ended goes on with the parts that are missing, to the same output. Threads of
this process write the parts, or the workers of a Ray cluster (:mod:`gru4rec.scale.ray_bulk`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from gru4rec.errors import ConfigError, DataError, StoppedError
from gru4rec.scale.bulk_folder import BulkFolder, write_part
from gru4rec.scale.bulk_job import BulkJob, BulkOptions, BulkRun
from gru4rec.scale.ray_bulk import OnRay, parts_on_ray
from gru4rec.scale.ray_worker import RayTask
from gru4rec.serve.settings import SearchChoice

__all__ = ["BulkOptions", "BulkReport", "score_log"]


@dataclass(frozen=True)
class BulkReport:
    """What a run did.

    Attributes:
        output: The file or folder.
        n_sessions: Sessions of the log.
        n_rows: Rows of the output.
        n_popular: Rows without a known click, whose lists are the popular items.
        n_clicks: Clicks of the log.
        n_unknown: Clicks on items that the model does not know.
        n_resumed: Clicks that were done before this run.
        search: How lists were found.
    """

    output: str
    n_sessions: int
    n_rows: int
    n_popular: int
    n_clicks: int
    n_unknown: int
    n_resumed: int
    search: str


def score_log(
    model: str | Path,
    path: str | Path,
    output: str | Path,
    options: BulkOptions,
    *,
    search: SearchChoice = "auto",
    threads: int = 1,
    on_ray: OnRay | None = None,
    resume: bool = False,
    trust_pickle: bool = False,
    tell: Callable[[str], None] = lambda message: None,
    progress: Callable[[int], AbstractContextManager[Callable[[int], None]]] = lambda n_clicks: nullcontext(_ignore),
    stop_signal: Callable[[], int] = lambda: 0,
) -> BulkReport:
    """Write the lists of all sessions of a log.

    Args:
        model: Model file of any kind.
        path: A log, a folder of Parquet files, or a session map, whose sessions are named by their places.
        output: Parquet file, or a folder of Parquet files where it is one or ends with a slash; appears whole at the
            end. Until then, ``OUTPUT.parts`` holds what is done.
        options: What to write.
        search: How lists are found; it changes nothing about them.
        threads: Parts that are computed side by side.
        on_ray: Compute parts there, and not in threads.
        resume: Go on with what ``OUTPUT.parts`` holds.
        trust_pickle: Unpickle a log that is a pickle.
        tell: Told in words what comes next.
        progress: Given the number of all clicks, entered for the work; what it returns is told how many more are done.
        stop_signal: Returns a signal's number once the run is to stop, else 0.

    Raises:
        ModelFileError: The model cannot be used.
        DataError: The log cannot be used, or the output cannot be written.
        ConfigError: An option is wrong, what is to be gone on with is of another run, or Ray cannot be used.
        StoppedError: ``stop_signal`` returned a number; the run can go on.
    """
    if on_ray is not None:
        on_ray.check()
    job = BulkJob(Path(model), Path(path), options, search)
    asked = job.asked()
    _tell_unknown(job, tell)
    folder = BulkFolder(output, asked, resume=resume)

    def check_stop() -> None:
        number = stop_signal()
        if number:
            raise StoppedError(
                f"stopped. {folder.path} holds what is done; the same command with --resume goes on", number
            )

    try:
        tell(f"{'reading' if folder.is_new else 'going on with'} {path}; lists are found by {_in_words(job.kind)}")
        run = job.open(folder.path, trust_pickle=trust_pickle)
        tell(run.summary)
        missing = [part for part in range(run.n_parts) if not folder.has(part, run.n_rows_of(part))]
        n_resumed = run.n_clicks - sum(map(run.n_clicks_of, missing))
        with progress(run.n_clicks) as on_clicks:
            if n_resumed:
                on_clicks(n_resumed)
            if on_ray is None:
                work = _in_threads(run, folder, missing, threads, check_stop)
            else:
                work = _on_ray(on_ray, job, run, folder, missing, check_stop, tell)
            with closing(work) as done:
                for part in done:
                    on_clicks(run.n_clicks_of(part))
        n_rows, n_popular = folder.finish(run.n_parts, run.schema)
    except (DataError, ConfigError):
        folder.discard_unbegun()
        raise
    finally:
        folder.close()
    return BulkReport(
        str(output), run.n_sessions, n_rows, n_popular, run.n_clicks, run.n_unknown, n_resumed, job.kind
    )  # fmt: skip


def _in_threads(
    run: BulkRun, folder: BulkFolder, missing: Sequence[int], n_threads: int, check_stop: Callable[[], None]
) -> Generator[int]:
    """Write parts, so many side by side, each with one thread of its own; yield those that are done."""

    def write(part: int) -> int:
        check_stop()
        write_part(folder.path, part, run.table(*run.sessions_of(part), check_stop))
        return part

    left, running = deque(missing), deque[Future[int]]()
    pool = ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        while left or running:
            while left and len(running) < 2 * n_threads:
                running.append(pool.submit(write, left.popleft()))
            yield running.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _on_ray(
    on_ray: OnRay,
    job: BulkJob,
    run: BulkRun,
    folder: BulkFolder,
    missing: Sequence[int],
    check_stop: Callable[[], None],
    tell: Callable[[str], None],
) -> Generator[int]:
    """Write parts on Ray; yield those that are done."""
    if not missing:
        return
    there = BulkJob(job.model.absolute(), job.log.absolute(), job.options, job.kind)
    task = RayTask(there, folder.path.absolute(), folder.asked["model"])
    parts = [(part, *run.sessions_of(part)) for part in missing]
    yield from parts_on_ray(on_ray, task, parts, check_stop=check_stop, tell=tell)
    lost = [part for part in missing if not folder.has(part, run.n_rows_of(part))]
    if lost:
        raise DataError(
            f"{len(lost)} parts were written, and are not in {folder.path}. Give -o a path that all machines of the "
            "cluster share, and go on with --resume"
        )


def _tell_unknown(job: BulkJob, tell: Callable[[str], None]) -> None:
    for word, given in (("exclude", job.options.exclude), ("allow", job.options.allow or ())):
        n_unknown = len(given) - len(job.recommender.known(given))
        if n_unknown:
            tell(f"{n_unknown} of {len(given)} items to {word} are unknown to the model")


def _ignore(n_clicks: int) -> None:
    pass


def _in_words(found_by: str) -> str:
    return "scoring every item" if found_by == "dense" else f"a scan in {found_by}"
