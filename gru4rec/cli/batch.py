"""``gru4rec batch``: the lists of all sessions of a log, in a Parquet file."""

from __future__ import annotations

import argparse
import json
import os
import re
import time
from dataclasses import asdict
from pathlib import Path

from gru4rec.cli.common import add_column_options, add_output_options, columns_of, positive, progress, same_file, say
from gru4rec.errors import ConfigError, DataError
from gru4rec.serve.settings import SEARCH_CHOICES

HELP = "write the lists of all sessions of a log to a Parquet file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("model", metavar="MODEL", help="model file of any kind")
    parser.add_argument(
        "log",
        metavar="SESSIONS",
        help="log: csv, tsv or .parquet, plain or gzip, a folder of .parquet, or a session map",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        required=True,
        help="Parquet file to write; a folder of them, if it ends with /",
    )
    parser.add_argument("--resume", action="store_true", help="go on with a run that did not come to its end")
    parser.add_argument("-k", type=positive, default=20, help="list length (20)")
    parser.add_argument(
        "--every-click", action="store_true", help="a row for each click, and not only for the last one of a session"
    )
    group = parser.add_argument_group("what may be listed")
    group.add_argument("--exclude-seen", action="store_true", help="leave out the items of the session so far")
    group.add_argument("--exclude-current", action="store_true", help="leave out the item of the last click")
    group.add_argument("--exclude", metavar="ITEM", nargs="+", default=[], help="leave out these items")
    group.add_argument("--allow", metavar="FILE", help="list only the items of this text file, an id on each line")
    parser.add_argument(
        "--search",
        choices=SEARCH_CHOICES,
        default="auto",
        help="how lists are found, which are always the same (auto: a scan where it is faster)",
    )
    parser.add_argument("--threads", metavar="N", type=positive, help="CPU threads (one for each core)")
    group = parser.add_argument_group("on Ray (docs/batch.md)")
    group.add_argument("--ray", action="store_true", help="compute in workers of a Ray that is started here, or joined")
    group.add_argument("--ray-address", metavar="ADDRESS", help="join this cluster: HOST:PORT of its head, or auto")
    group.add_argument("--ray-workers", metavar="N", type=positive, help="worker processes (one for each CPU)")
    add_column_options(parser)
    add_output_options(parser)


def run(args: argparse.Namespace) -> int:
    """Carry the command out."""
    _check_flags(args)
    _check_output(args)
    allow = None if args.allow is None else _ids_in(args.allow)
    from gru4rec.data.session_map import is_session_map
    from gru4rec.model.device import ALL_THREADS, cpu_threads
    from gru4rec.runs.signals import StopSignals
    from gru4rec.scale.bulk import BulkOptions, score_log
    from gru4rec.scale.ray_bulk import OnRay

    options = BulkOptions(
        args.k, args.every_click, args.exclude, args.exclude_seen, args.exclude_current, allow, columns_of(args)
    )
    if is_session_map(args.log):
        say(args, f"note: {args.log} is a session map, which holds no session ids: places from 0 stand for them")
    threads, started = args.threads or ALL_THREADS, time.perf_counter()
    with StopSignals() as stop, cpu_threads(threads):
        report = score_log(
            args.model,
            args.log,
            args.output,
            options,
            search=args.search,
            threads=threads,
            on_ray=OnRay(args.ray_address, args.ray_workers) if args.ray else None,
            resume=args.resume,
            trust_pickle=args.trust_pickle,
            tell=lambda message: say(args, message),
            progress=lambda n_clicks: progress(args, "scoring", n_clicks),
            stop_signal=lambda: stop.received,
        )
    seconds = time.perf_counter() - started
    if report.n_unknown:
        say(args, f"{report.n_unknown:,} of {report.n_clicks:,} clicks skipped: the model does not know these items")
    say(args, f"wrote {report.output}: {report.n_rows:,} lists, {report.n_popular:,} of popular items, {seconds:.1f}s")
    if args.json:
        print(json.dumps({**asdict(report), "seconds": seconds}))
    return 0


def _check_flags(args: argparse.Namespace) -> None:
    """Refuse flags that do not go together."""
    for flag, value in (("--ray-address", args.ray_address), ("--ray-workers", args.ray_workers)):
        if value is not None and not args.ray:
            raise ConfigError(f"{flag} is of a run on Ray. Add --ray, or leave {flag} out")
    if args.ray and args.threads is not None:
        raise ConfigError("--threads is of a run without Ray, where workers have one thread. Give --ray-workers")


def _check_output(args: argparse.Namespace) -> None:
    """Refuse an output that would fail or replace what is read, before any work is done."""
    output = Path(args.output)
    for read in (args.model, args.log, args.allow):
        if read is not None and same_file(read, args.output):
            raise ConfigError(f"writing {output} would replace {read}, which is read. Give -o another path")
    log = Path(args.log)
    if log.is_dir() and log.resolve() in output.resolve().parents:
        raise ConfigError(f"{output} would lie in {log}, which is read, and be a part of it. Give -o another path")
    if output.is_dir() and any(output.iterdir()):
        raise ConfigError(f"{output} is a folder that is not empty. Give -o a new one, or the path of a file")
    if args.output.endswith(("/", os.sep)) and output.exists() and not output.is_dir():
        raise ConfigError(f"{args.output} ends like a folder and is a file. Give -o another path")
    if re.search(r"\.(csv|tsv|txt|jsonl?)(\.gz)?$", output.name, flags=re.IGNORECASE):
        raise ConfigError(
            f"{output} is named like a text file, and lists are Parquet. Give -o a name such as OUT.parquet"
        )
    if not output.parent.is_dir():
        raise DataError(f"cannot write {output}: there is no folder {output.parent}. Make it, or give -o another path")
    if not os.access(output.parent, os.W_OK):
        raise DataError(f"cannot write {output}: Permission denied. Check the folder, or give -o another path")


def _ids_in(path: str) -> list[str]:
    """Read the ids of a file, one on each line; empty lines are skipped."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise DataError(f"cannot read --allow {path}: {error.strerror}. Check the path") from None
    except UnicodeDecodeError:
        raise DataError(f"--allow {path} is not UTF-8 text. Give a text file with an id on each line") from None
    ids = [line.strip() for line in lines if line.strip()]
    if not ids:
        raise DataError(f"--allow {path} holds no ids. Give a text file with an id on each line")
    return ids
