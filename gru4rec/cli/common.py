"""What all commands share: options, exit statuses, what goes to standard output and what to standard error.

Standard output carries results only: the lines users know, or JSON lines. Everything said on the way (device, counts,
progress) goes to standard error and is silent with ``--quiet``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from gru4rec.config import ENGINES, PRECISIONS, TABLES
from gru4rec.errors import GRU4RecError
from gru4rec.evaluate.ranks import TIE_MODES

if TYPE_CHECKING:
    from gru4rec.data.files import Columns
    from gru4rec.train.loop import EpochReport

SAMPLE_STORE_SIZE = 10_000_000
"""Negatives drawn at once, where nothing else is asked for."""


def guarded(command: Callable[[], int]) -> int:
    """Run a command; turn our errors into one message on standard error and the exit status that belongs to it."""
    try:
        return command()
    except GRU4RecError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_status
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not re.search("alloc|out of memory|overflowed", str(error)):
            raise
        print(
            "MemoryError: the model does not fit into memory. Lower layers, embedding, n_sample or batch_size",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, such as head, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def add_column_options(parser: argparse.ArgumentParser) -> Any:
    """Add the names of a log's columns and the leave to unpickle; return the group they are in."""
    group = parser.add_argument_group("reading logs")
    group.add_argument("-ik", "--item_key", metavar="NAME", default="ItemId", help="column of item ids (ItemId)")
    group.add_argument(
        "-sk", "--session_key", metavar="NAME", default="SessionId", help="column of session ids (SessionId)"
    )
    group.add_argument("-tk", "--time_key", metavar="NAME", default="Time", help="column of times (Time)")
    group.add_argument(
        "--trust-pickle", action="store_true", help="read pickled pandas frames; that can execute code in the file"
    )
    return group


def add_log_options(parser: argparse.ArgumentParser) -> None:
    """Add how logs are read, and the cache of what was read."""
    add_cache_option(add_column_options(parser))


def add_cache_option(group: Any) -> None:
    """Add ``--cache``."""
    group.add_argument(
        "--cache",
        metavar="DIR",
        default=os.environ.get("GRU4REC_CACHE"),
        help="keep what was read in this folder, and open it from there next time ($GRU4REC_CACHE, else none)",
    )


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """Add ``-d``."""
    parser.add_argument(
        "-d", "--device", metavar="D", default="auto", help="auto (CUDA, else the CPU), cpu or cuda:N (auto)"
    )


def add_threads_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--threads``."""
    parser.add_argument(
        "--threads", metavar="N", type=positive, help="CPU threads (one for small models, else one for each core)"
    )


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--engine`` and ``--precision``: how training computes."""
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="auto",
        help="fast, or plain: the readable step, same numbers up to rounding (auto: fast)",
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="of training's matrix products; bf16 is faster on large layers, tf32 on NVIDIA GPUs (float32)",
    )


def add_tables_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--tables``: where item matrices are while a GPU trains."""
    parser.add_argument(
        "--tables",
        choices=TABLES,
        default="device",
        help="host: item matrices larger than the GPU stay in host memory, rows visit the GPU; same numbers (device)",
    )


def positive(text: str) -> int:
    """Read a flag's whole number of at least 1."""
    return whole_number(text, at_least=1)


def whole_number(text: str, *, at_least: int = 0) -> int:
    """Read a flag's whole number.

    Raises:
        ArgumentTypeError: It is none, or too small.
    """
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if number < at_least:
        raise argparse.ArgumentTypeError(f"{text} is below {at_least}")
    return number


def add_measure_options(parser: argparse.ArgumentParser) -> None:
    """Add the list lengths and the tie mode of an evaluation."""
    parser.add_argument(
        "-m",
        "--measure",
        metavar="K",
        type=int,
        nargs="+",
        default=[20],
        help="list lengths of Recall@K and MRR@K (20)",
    )
    parser.add_argument(
        "-e",
        "--eval_type",
        choices=TIE_MODES,
        default="standard",
        help="what equal scores do to a rank (standard)",
    )


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--json`` and ``--quiet``."""
    parser.add_argument("--json", action="store_true", help="print JSON lines for machines")
    add_quiet_option(parser)


def add_quiet_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--quiet``."""
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing on standard error but errors")


def add_store_option(parser: argparse.ArgumentParser) -> None:
    """Add the size of the negative store."""
    parser.add_argument(
        "-ss", "--sample_store_size", metavar="N", type=int, default=SAMPLE_STORE_SIZE,
        help=f"negatives drawn at once ({SAMPLE_STORE_SIZE})",
    )  # fmt: skip


def add_job_options(parser: argparse.ArgumentParser) -> None:
    """Add what every command that reads logs and measures takes."""
    add_measure_options(parser)
    add_device_option(parser)
    add_threads_option(parser)
    add_output_options(parser)
    add_log_options(parser)


def columns_of(args: argparse.Namespace) -> Columns:
    """Return the column names that were asked for."""
    from gru4rec.data.files import Columns

    return Columns(session_key=args.session_key, item_key=args.item_key, time_key=args.time_key)


def same_file(path: str, other: str) -> bool:
    """Tell whether two paths are one file that exists."""
    return os.path.exists(path) and os.path.exists(other) and os.path.samefile(path, other)


def say(args: argparse.Namespace, message: str) -> None:
    """Tell the user something on standard error."""
    if not args.quiet:
        print(message, file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress(args: argparse.Namespace, what: str, n_events: int) -> Iterator[Callable[[int], None]]:
    """Show a live bar with events/s, the time left and the machine while the block runs; only at a terminal."""
    if args.quiet or not sys.stderr.isatty():
        yield lambda n_done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    from gru4rec.watch.line import machine_line
    from gru4rec.watch.machine import MachineWatch

    class Machine(ProgressColumn):
        max_refresh = 1.0
        watch = MachineWatch()

        def render(self, task: Task) -> Text:
            return Text(machine_line(self.watch.sample()), style="dim")

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed or 0:,.0f} e/s")

    shown = Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"), Speed(),
        TimeRemainingColumn(), Machine(), console=Console(stderr=True), transient=True,
        redirect_stdout=sys.stdout.isatty(),  # else rich would send our results to standard error
    )  # fmt: skip
    with shown:
        task = shown.add_task(what, total=n_events)
        yield lambda n_done: shown.advance(task, n_done)


class Output(Protocol):
    """Where results go."""

    def settings(self, values: Mapping[str, Any]) -> None:
        """Show the settings that were given."""

    def epoch(self, report: EpochReport) -> None:
        """Show what an epoch did."""

    def training_time(self, seconds: float) -> None:
        """Show the time of all epochs."""

    def metrics(self, source: str, n_targets: int, recall: Mapping[int, float], mrr: Mapping[int, float]) -> None:
        """Show the metrics on one test log, by k."""

    def intervals(self, source: str, intervals: Mapping[str, Mapping[int, tuple[float, float]]]) -> None:
        """Show the 95% intervals of the metrics on one test log, by metric and k."""

    def primary_metric(self, value: float) -> None:
        """Show the one number that tuners read."""


class TextOutput:
    """The lines users of the historical program know and parse, byte for byte."""

    def settings(self, values: Mapping[str, Any]) -> None:
        """Print a ``SET`` line for each value, in columns."""
        name_width = max((len(name) for name in values), default=0) + 3
        value_width = max((len(str(value)) for value in values.values()), default=0) + 3
        for name, value in values.items():
            print(f"SET   {name:<{name_width}}TO   {value!s:<{value_width}}(type: {type(value)})")

    def epoch(self, report: EpochReport) -> None:
        """Print an epoch's line."""
        print(report, flush=True)

    def training_time(self, seconds: float) -> None:
        """Print the time of all epochs."""
        print(f"Total training time: {seconds:.2f}s", flush=True)

    def metrics(self, source: str, n_targets: int, recall: Mapping[int, float], mrr: Mapping[int, float]) -> None:
        """Print a line for each k."""
        for k in recall:
            print(f"Recall@{k}: {recall[k]:.6f} MRR@{k}: {mrr[k]:.6f}", flush=True)

    def intervals(self, source: str, intervals: Mapping[str, Mapping[int, tuple[float, float]]]) -> None:
        """Print a line for each k."""
        for k in intervals["recall"]:
            (low, high), (mrr_low, mrr_high) = intervals["recall"][k], intervals["mrr"][k]
            print(f"95% intervals: Recall@{k} {low:.6f} to {high:.6f}, MRR@{k} {mrr_low:.6f} to {mrr_high:.6f}")

    def primary_metric(self, value: float) -> None:
        """Print the one number that tuners read."""
        print(f"PRIMARY METRIC: {value}", flush=True)


class JsonOutput:
    """One JSON object a line, its kind under ``event``."""

    def settings(self, values: Mapping[str, Any]) -> None:
        """Print the settings that were given."""
        self._print("settings", **values)

    def epoch(self, report: EpochReport) -> None:
        """Print an epoch's numbers."""
        self._print(
            "epoch", epoch=report.epoch, loss=report.loss, seconds=report.seconds, n_steps=report.n_steps,
            n_events=report.n_events,
        )  # fmt: skip

    def training_time(self, seconds: float) -> None:
        """Print the time of all epochs."""
        self._print("trained", seconds=seconds)

    def metrics(self, source: str, n_targets: int, recall: Mapping[int, float], mrr: Mapping[int, float]) -> None:
        """Print the metrics on one test log."""
        self._print("metrics", test=source, n_targets=n_targets, recall=recall, mrr=mrr)

    def intervals(self, source: str, intervals: Mapping[str, Mapping[int, tuple[float, float]]]) -> None:
        """Print the intervals on one test log."""
        self._print("intervals", test=source, level=0.95, **intervals)

    def primary_metric(self, value: float) -> None:
        """Print the one number that tuners read."""
        self._print("primary_metric", value=value)

    def _print(self, event: str, **values: Any) -> None:
        print(json.dumps({"event": event, **values}), flush=True)


def output_of(args: argparse.Namespace) -> Output:
    """Return where results go, as ``--json`` says."""
    return JsonOutput() if args.json else TextOutput()
