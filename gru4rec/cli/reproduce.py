"""``gru4rec reproduce``: from the raw files of a public log to PASS or FAIL beside the published numbers."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gru4rec.cli.common import (
    add_device_option,
    add_engine_options,
    add_output_options,
    add_threads_option,
    progress,
    say,
)
from gru4rec.evaluate.ranks import TIE_MODES

HELP = "prepare a public log, train with its published settings, compare with the published numbers"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument(
        "dataset", metavar="DATASET", help="rsc15, yoochoose, rees46, coveo, retailrocket or diginetica"
    )
    parser.add_argument("raw", metavar="FOLDER", help="folder of its raw files, named as their owner names them")
    parser.add_argument(
        "-o", "--output", metavar="DIR", required=True, help="gets logs, models and report; goes on where it stopped"
    )
    parser.add_argument(
        "--seeds", metavar="N", type=int, nargs="+", default=[], help="train once for each (once, without a seed)"
    )
    parser.add_argument(
        "--n_epochs", metavar="N", type=int, help="train so many epochs, as a trial that is compared with nothing (10)"
    )
    parser.add_argument(
        "-e",
        "--eval_type",
        choices=TIE_MODES,
        default="standard",
        help="what equal scores do to a rank; all but standard are compared with nothing (standard)",
    )
    add_device_option(parser)
    add_threads_option(parser)
    add_engine_options(parser)
    add_output_options(parser)


def run(args: argparse.Namespace) -> int:
    """Carry the command out; 0 for PASS, also within 5%, else 1."""
    from gru4rec.reproduce.job import Plan, Watch, reproduce

    plan = Plan(
        dataset=args.dataset,
        raw=Path(args.raw),
        folder=Path(args.output),
        seeds=tuple(args.seeds),
        n_epochs=args.n_epochs,
        eval_type=args.eval_type,
        device=args.device,
        threads=args.threads,
        engine=args.engine,
        precision=args.precision,
    )
    watch = Watch(tell=lambda message: say(args, message), stage=lambda name, n_rows: progress(args, name, n_rows or 0))
    report = reproduce(plan, watch=watch)
    print(json.dumps(report) if args.json else "\n".join(_lines(report)), flush=True)
    return 0 if report["verdict"].startswith("PASS") else 1


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    """Tell the report to people; the verdict comes last."""
    seeds = [run["seed"] for run in report["runs"] if run["seed"] is not None]
    yield (
        f"{report['dataset']}: {report['n_targets']:,} events ranked among all {report['n_items']:,} items, "
        f"tie mode {report['eval_type']}{', mean over seeds ' if seeds else ''}{' '.join(map(str, seeds))}"
    )
    yield f"published: {report['source']}"
    yield from _counts(report["counts"])
    yield f"{'metric':<12}{'published':>10}{'here':>10}{'deviation':>11}{'difference':>12}  verdict"
    for row in report["metrics"]:
        deviation = "" if row["deviation"] is None else f"{row['deviation']:.4f}"
        yield (
            f"{row['metric']:<12}{row['published']:>10.4f}{row['here']:>10.4f}{deviation:>11}"
            f"{row['difference_frac']:>+12.2%}  {row['verdict']}"
        )
    yield f"{report['verdict']}: {report['reason']}"


def _counts(rows: list[Mapping[str, Any]]) -> Iterator[str]:
    for row in rows:
        here = "the same" if row["published"] == row["here"] else f"here {row['here']:,}"
        yield f"{row['part']} {row['count']} {row['published']:,}: {here}"
