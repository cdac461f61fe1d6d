"""``gru4rec backtest``: would updating have done? Rolling windows over one log, three policies side by side."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from typing import TYPE_CHECKING, Any

from gru4rec.cli.common import add_engine_options, add_job_options, say
from gru4rec.cli.update import add_update_options, update_settings

if TYPE_CHECKING:
    from gru4rec.backtest.job import Plan
    from gru4rec.backtest.windows import Parts

HELP = "compare training anew, updating and doing nothing, in rolling windows over one log"

N_PARTS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("path", metavar="LOG", help="click log (TAB separated, .csv, .parquet, or a session map)")
    parser.add_argument(
        "-o", "--output", metavar="DIR", required=True,
        help="folder for backtest.json, backtest.html and finished parts; the same again goes on where it stopped",
    )  # fmt: skip
    cut = parser.add_argument_group("how the log is cut")
    cut.add_argument("--parts", metavar="N", type=int, help=f"consecutive parts of as many sessions ({N_PARTS})")
    cut.add_argument("--days", metavar="X", type=float, help="parts of so many days instead")
    cut.add_argument("--first-days", metavar="X", type=float, help="days of the first part (as the others)")
    settings = parser.add_argument_group("settings")
    settings.add_argument("-ps", "--parameter_string", metavar="A=1,B=2", help="what models are trained with")
    settings.add_argument(
        "-pf", "--parameter_file", metavar="FILE", help="the same as a file; -ps beside it comes first"
    )
    settings.add_argument(
        "-us", "--update_string", metavar="A=1,B=2", help="settings that updates train with instead, such as n_epochs=1"
    )
    add_update_options(parser)
    add_job_options(parser)
    add_engine_options(parser)
    parser.add_argument("--no-report", action="store_true", help="write no backtest.html, which needs gru4rec[report]")


def run(args: argparse.Namespace) -> int:
    """Carry the command out."""
    from pathlib import Path

    from gru4rec.backtest.folder import taken
    from gru4rec.backtest.job import backtest
    from gru4rec.backtest.output import table_lines
    from gru4rec.compare.output import write_results
    from gru4rec.whole import folder_to_write

    plan, folder = _plan(args), Path(args.output)
    with folder_to_write(folder, advice="Give -o another folder"), taken(folder):
        if not args.no_report:
            from gru4rec.backtest.page import check_page

            check_page(folder / "backtest.html")
        parts = _parts(args)
        say(args, f"cut into {parts.rule}")
        command = shlex.join(["gru4rec", *sys.argv[1:]]) if sys.argv[1:2] == ["backtest"] else "gru4rec backtest"
        try:
            results = backtest(parts, plan, folder, command=command, tell=lambda message: say(args, message))
        except KeyboardInterrupt:
            say(args, f"what is finished lies in {folder / 'parts'}; the same command goes on from there")
            raise
        write_results(results, folder / "backtest.json")
        say(args, f"wrote {folder / 'backtest.json'}")
        if not args.no_report:
            from gru4rec.backtest.page import write_page

            write_page(results, folder / "backtest.html")
            say(args, f"wrote {folder / 'backtest.html'}")
    if args.json:
        print(json.dumps(results))
    else:
        for line in table_lines(results):
            print(line)
    return 0


def _plan(args: argparse.Namespace) -> Plan:
    from gru4rec.api import GRU4Rec
    from gru4rec.backtest.job import Plan
    from gru4rec.config import hyper_parameters, parse_parameter_string, read_parameter_file
    from gru4rec.model.device import threads_that_help
    from gru4rec.update.settings import training_settings

    given: dict[str, Any] = read_parameter_file(args.parameter_file) if args.parameter_file else {}
    given |= parse_parameter_string(args.parameter_string) if args.parameter_string else {}
    settings = hyper_parameters(given, where="-ps or -pf")
    for_update = parse_parameter_string(args.update_string) if args.update_string else {}
    of_updates = training_settings(settings, for_update, has_state=True, where="-us")
    threads = args.threads or max(threads_that_help(settings), threads_that_help(of_updates))
    gru = GRU4Rec(device=args.device)
    gru.choose_engine(args.engine, args.precision)
    return Plan(
        settings, update_settings(args), for_update, args.measure, args.eval_type, str(gru.device), threads,
        args.engine, args.precision,
    )  # fmt: skip


def _parts(args: argparse.Namespace) -> Parts:
    from gru4rec.backtest.windows import cut_by_days, cut_by_sessions
    from gru4rec.cli import pipeline
    from gru4rec.errors import ConfigError

    if args.days is None and args.first_days is not None:
        raise ConfigError("--first-days needs --days, the length of the other parts. Add --days 1, or use --parts")
    if args.days is not None and args.parts is not None:
        raise ConfigError("--days and --parts cut the log in two ways. Give one of them")
    log = pipeline.read_sessions(args, args.path)
    if args.days is None:
        return cut_by_sessions(log, N_PARTS if args.parts is None else args.parts)
    return cut_by_days(log, args.days, first_days=args.days if args.first_days is None else args.first_days)
