"""``gru4rec prepare``: from raw logs to training and test logs."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gru4rec.cli.common import add_output_options, say
from gru4rec.errors import ConfigError, DataError

if TYPE_CHECKING:
    from gru4rec.prepare.job import Preparation

HELP = "turn raw logs into sessions, split by time: train_full, test, train_tr, train_valid"

_RECIPES = ("yoochoose", "rsc15", "rees46", "coveo", "retailrocket", "diginetica")
_HOUR = "1h"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument(
        "raw",
        metavar="RAW",
        nargs="+",
        help="files or patterns: csv, tsv, json lines or .parquet, plain, gzip or zstd; with --recipe their folder",
    )
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="folder to write; it must not exist yet")
    parser.add_argument("--force", action="store_true", help="replace a folder that prepare wrote")
    parser.add_argument("--tsv", action="store_true", help="write TAB separated files instead of Parquet")
    parser.add_argument("--recipe", choices=_RECIPES, help="prepare a public log as the papers do; decides all else")
    parser.add_argument(
        "--cache",
        metavar="DIR",
        default=os.environ.get("GRU4REC_CACHE"),
        help="keep train_full and train_tr there too, as train --cache opens them ($GRU4REC_CACHE, else none)",
    )
    add_output_options(parser)
    _add_column_flags(parser.add_argument_group("columns"))
    _add_session_flags(parser.add_argument_group("sessions"))
    _add_split_flags(parser.add_argument_group("split"))


class _Once(argparse.Action):
    """Take a flag once: a second one would silently replace the first."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        if getattr(namespace, self.dest) is not None:
            parser.error(f"{option_string} was given twice. Give its values together, as COLUMN=VALUE,VALUE")
        setattr(namespace, self.dest, values)


def _add(group: Any, *flags: str, **options: Any) -> None:
    """Add a flag, which may be written with underscores, as in the older programs, or with hyphens."""
    group.add_argument(*flags, **options)
    dest = flags[-1][2:].replace("-", "_")
    for other in {f"--{dest}", f"--{dest.replace('_', '-')}"} - {*flags}:
        group.add_argument(other, dest=dest, **{**options, "help": argparse.SUPPRESS})


def _days(text: str) -> float:
    """Read a number of days, or a duration such as 12h."""
    from gru4rec.prepare.times import seconds_of

    try:
        return float(text)
    except ValueError:
        pass
    try:
        return seconds_of(text) / 86_400
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _add_column_flags(group: Any) -> None:
    _add(group, "-sk", "--session_key", metavar="NAME", help="column of session ids (SessionId)")
    _add(group, "-uk", "--user_key", metavar="NAME", help="column of user ids, to cut sessions from")
    _add(group, "-ik", "--item_key", metavar="NAME", help="column of item ids (ItemId)")
    _add(group, "-tk", "--time_key", metavar="NAME", help="column of times, numbers or ISO text (Time)")
    _add(group, "--time_unit", choices=("auto", "s", "ms", "us", "ns"), help="of numbers (auto: by their size)")
    _add(group, "--header", metavar="A,B,C", help="names of the columns, for files without a header")
    _add(group, "--separator", metavar="C", help="between fields; TAB for a TAB (found in the first line)")
    _add(
        group,
        "--keep",
        metavar="COLUMN=VALUES",
        action=_Once,
        help="rows that count, such as event=view,detail or event=* (all)",
    )
    _add(
        group,
        "--keep_after_cut",
        metavar="COLUMN=VALUES",
        action=_Once,
        help="likewise, but other rows still show when a visitor was there",
    )
    _add(group, "--missing", metavar="WORDS", help="words for a missing id or time, such as NA,null (an empty field)")
    _add(group, "--date_key", metavar="NAME", help="column of dates that times, in ms, count from")


def _add_session_flags(group: Any) -> None:
    _add(
        group,
        "--gap",
        metavar="T",
        help=f"a longer pause ends a session: 30m, 1h, none (with --user_key {_HOUR}, else none)",
    )
    _add(group, "--keep_repeats", action="store_true", default=None, help="keep repeats of the item just before")
    _add(group, "--min_session_length", metavar="N", type=int, help="events a session must have (2)")
    _add(group, "--min_item_support", metavar="N", type=int, help="events an item must have (5)")
    _add(group, "--one_pass", action="store_true", default=None, help="filter once, not until nothing changes any more")


def _add_split_flags(group: Any) -> None:
    _add(
        group,
        "--test_days",
        metavar="X",
        type=_days,
        help="length of the test period, at the end; validation is as long, before it: days, or 12h (1)",
    )
    _add(group, "--test_from", metavar="DATE", help="begin of the test, such as 2014-09-29 (UTC)")
    _add(
        group,
        "--test_fraction",
        metavar="F",
        type=float,
        help="share of sessions that are the test, such as 0.1, and of the others that are validation",
    )
    _add(group, "--split_by", choices=("start", "end"), help="which event decides a session's side (start)")
    _add(group, "--cold_items", choices=("drop", "keep"), help="test events of items not in training (drop)")
    _add(
        group,
        "--windows",
        metavar="N",
        type=int,
        help="test periods of --test_days, back to back, each with its training (1)",
    )
    _add(group, "--train_days", metavar="X", type=_days, help="days of training before the test (all)")


_DECIDED_BY_RECIPE = (
    "session_key", "user_key", "item_key", "time_key", "date_key", "time_unit", "header", "separator", "missing",
    "keep", "keep_after_cut", "gap", "keep_repeats", "min_session_length", "min_item_support", "one_pass", "test_days",
    "test_from", "test_fraction", "split_by", "cold_items", "windows", "train_days",
)  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Carry the command out."""
    from gru4rec.prepare.account import summary
    from gru4rec.prepare.job import need_polars
    from gru4rec.prepare.sources import find_files

    need_polars()
    published: Any = ()
    if args.recipe is not None:
        paths, preparation, published = _by_recipe(args)
    else:
        preparation = preparation_of(args)
        paths = find_files(args.raw)
    account = _prepared(
        paths,
        Path(args.output),
        preparation,
        tsv=args.tsv,
        force=args.force,
        recipe=args.recipe,
        published=published,
        cache=Path(args.cache) if args.cache else None,
        stage=lambda name, n_rows: _stage(args, name, n_rows),
    )
    if args.json:  # the summary has them
        for caution in account["cautions"]:
            say(args, f"caution: {caution}")
    say(args, f"wrote {args.output} in {account['seconds']:.1f}s")
    sys.stdout.write(f"{json.dumps(account)}\n" if args.json else summary(account))
    return 0


def _prepared(*given: Any, **options: Any) -> dict[str, Any]:
    from gru4rec.prepare.job import prepare

    try:
        return prepare(*given, **options)
    except MemoryError:
        raise DataError(
            "the log does not fit into memory, about 60 bytes a row. Prepare part of it, or use a larger machine"
        ) from None


def _by_recipe(args: argparse.Namespace) -> tuple[list[Path], Preparation, Any]:
    from gru4rec.prepare.recipes import recipe
    from gru4rec.prepare.sources import column_names

    given = [name for name in _DECIDED_BY_RECIPE if getattr(args, name) is not None]
    if given:
        raise ConfigError(f"--recipe decides --{given[0]} itself. Leave one of the two out")
    if len(args.raw) != 1:
        raise ConfigError(f"--recipe takes the folder of the raw files, and {len(args.raw)} paths were given. Give one")
    chosen = recipe(args.recipe)
    paths = chosen.find_files(Path(args.raw[0]))
    return paths, chosen.fitted(column_names(paths[0], chosen.preparation.layout)), chosen.published


def preparation_of(args: argparse.Namespace) -> Preparation:
    """Turn flags into a preparation; those not given keep their defaults.

    Raises:
        ConfigError: A flag is wrong, or two contradict each other.
    """
    from gru4rec.prepare.job import Preparation
    from gru4rec.prepare.layout import Condition, RawLayout
    from gru4rec.prepare.times import seconds_of

    given = {name: value for name, value in vars(args).items() if value is not None}
    columns = {name: given[name] for name in ("session_key", "user_key", "item_key", "time_key") if name in given}
    if "session_key" not in columns and "user_key" not in columns:
        columns["session_key"] = "SessionId"
    layout = RawLayout(
        **{"item_key": "ItemId", "time_key": "Time", **columns},
        header=tuple(given["header"].split(",")) if "header" in given else None,
        separator={"TAB": "\t", "\\t": "\t"}.get(args.separator, args.separator),
        time_unit=given.get("time_unit", "auto"),
        date_key=args.date_key,
        missing=tuple(given["missing"].split(",")) if "missing" in given else (),
        keep=Condition.parse(args.keep) if args.keep else None,
        keep_after_cut=Condition.parse(args.keep_after_cut) if args.keep_after_cut else None,
    )
    gap = given.get("gap", _HOUR if "user_key" in columns else "none")
    steps = ("keep_repeats", "min_session_length", "min_item_support", "one_pass")
    return Preparation(
        layout=layout,
        split=_split_rule(given),
        gap_s=None if gap == "none" else seconds_of(gap),
        **{name: given[name] for name in steps if name in given},
    )


def _split_rule(given: dict[str, Any]) -> Any:
    from gru4rec.prepare.split import SplitRule
    from gru4rec.prepare.times import moment_of

    day_s = 86_400
    days = given.get("test_days", None if {"test_from", "test_fraction"} & set(given) else 1.0)
    return SplitRule(
        period_s=None if days is None else days * day_s,
        from_s=moment_of(given["test_from"]) if "test_from" in given else None,
        fraction=given.get("test_fraction"),
        by=given.get("split_by", "start"),
        cold_items=given.get("cold_items", "drop"),
        n_windows=given.get("windows", 1),
        train_period_s=given["train_days"] * day_s if "train_days" in given else None,
    )


@contextlib.contextmanager
def _stage(args: argparse.Namespace, name: str, n_rows: int | None) -> Iterator[Callable[[int], None]]:
    """Show a live line with the rows done while a stage runs; silent when not at a terminal."""
    if args.quiet or not sys.stderr.isatty():
        yield lambda n_done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<20}"), BarColumn(), TextColumn("{task.completed:>14,} rows"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as shown:
        task = shown.add_task(name, total=n_rows)
        yield lambda n_done: shown.advance(task, n_done)
