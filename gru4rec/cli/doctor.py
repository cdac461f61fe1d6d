"""``gru4rec doctor``: say what is wrong with a log before anyone trains on it."""

from __future__ import annotations

import argparse
import json
import os
from typing import TYPE_CHECKING

from gru4rec.cli.common import (
    add_column_options,
    add_device_option,
    add_output_options,
    add_threads_option,
    columns_of,
    same_file,
    say,
)
from gru4rec.errors import ConfigError, DataError

if TYPE_CHECKING:
    from gru4rec.config import HyperParameters

HELP = "say what is wrong with a log before training on it"

_A_LOG = "a log with numeric times, as gru4rec prepare writes it (TAB separated, .csv or .parquet)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("path", metavar="LOG", help=f"training log: {_A_LOG}")
    parser.add_argument(
        "test", metavar="TEST", nargs="?", help="test log of the same kind, to look for leaks between the two"
    )
    parser.add_argument("-o", "--output", metavar="PAGE", help="write a page with figures too, such as page.html")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if there is an error or a warning")
    add_output_options(parser)
    add_column_options(parser)
    group = parser.add_argument_group("what training will take")
    source = group.add_mutually_exclusive_group()
    source.add_argument("-ps", "--parameter_string", metavar="STRING", help="settings to train with (the defaults)")
    source.add_argument("-pf", "--parameter_file", metavar="FILE", help="the same from a file")
    group.add_argument("--no-timing", action="store_true", help="do not train a little to see how long it will take")
    add_device_option(parser)
    add_threads_option(parser)


def run(args: argparse.Namespace) -> int:
    """Carry the command out."""
    from gru4rec.doctor.examine import examine
    from gru4rec.doctor.text import as_text

    settings = _settings(args)
    _check_page(args)
    try:
        report = examine(
            args.path,
            args.test,
            columns=columns_of(args),
            trust_pickle=args.trust_pickle,
            settings=settings,
            timing=not args.no_timing,
            device=args.device,
            threads=args.threads,
            tell=lambda message: say(args, message),
        )
    except DataError as error:
        if not all(os.path.exists(path) for path in (args.path, args.test) if path is not None):
            raise
        raise DataError(
            f"{error}. If this is a raw log, gru4rec prepare reads it, and writes what doctor reads"
        ) from None
    print(json.dumps(report.as_dict()) if args.json else as_text(report), flush=True)
    if args.output is not None:
        from gru4rec.doctor.page import write_page

        write_page(report, args.output)
        say(args, f"wrote {args.output}")
    return int(args.strict and not report.is_clean)


def _settings(args: argparse.Namespace) -> HyperParameters:
    from gru4rec.config import hyper_parameters, parse_parameter_string, read_parameter_file

    if args.parameter_string is not None:
        return hyper_parameters(parse_parameter_string(args.parameter_string), where="-ps")
    if args.parameter_file is not None:
        return hyper_parameters(read_parameter_file(args.parameter_file), where=args.parameter_file)
    return hyper_parameters({})


def _check_page(args: argparse.Namespace) -> None:
    """Refuse a page that could not be written, or would replace a file that is read, before any work is done."""
    if args.output is None:
        return
    from gru4rec.doctor.page import check_page

    for read in (args.path, args.test, args.parameter_file):
        if read is not None and same_file(args.output, read):
            raise ConfigError(f"writing the page to {args.output} would replace {read}, which is read. Give -o another")
    check_page(args.output)
