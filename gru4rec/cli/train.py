"""``gru4rec train``: train a model, with a flag for every setting."""

from __future__ import annotations

import argparse
from typing import Any

from gru4rec.cli.common import add_engine_options, add_job_options, add_store_option, output_of

HELP = "train a model on a log, measure it on test logs, save it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags; those of the settings come from their declaration."""
    from gru4rec.config import HyperParameters

    parser.add_argument("path", metavar="LOG", help="training log (TAB separated, .csv, .parquet, or a session map)")
    parser.add_argument("-o", "--output", metavar="MODEL", help="save the model there, such as model.gru4rec")
    parser.add_argument("-t", "--test", metavar="LOG", nargs="+", default=[], help="test logs to measure on")
    add_job_options(parser)
    add_engine_options(parser)
    parser.add_argument(
        "-pf", "--parameter_file", metavar="FILE", help="settings file; flags given beside it come first"
    )
    add_store_option(parser)
    group = parser.add_argument_group("settings")
    for name, field in HyperParameters.model_fields.items():
        default = "/".join(map(str, field.default)) if name == "layers" else field.default
        text = f"{field.description} ({default})".replace("%", "%%")
        group.add_argument(f"--{name}", metavar="X", default=argparse.SUPPRESS, help=text)


def run(args: argparse.Namespace) -> int:
    """Carry the command out."""
    from gru4rec.api import GRU4Rec
    from gru4rec.cli import pipeline
    from gru4rec.config import HyperParameters, read_parameter_file

    output = output_of(args)
    given: dict[str, Any] = read_parameter_file(args.parameter_file) if args.parameter_file else {}
    given |= {name: value for name, value in vars(args).items() if name in HyperParameters.model_fields}
    gru = GRU4Rec(device=args.device).set_params(**given)
    gru.choose_engine(args.engine, args.precision)
    pipeline.check_save_path(args.output, inputs=[args.path, *args.test, args.parameter_file])
    sessions = pipeline.read_sessions(args, args.path)
    tests = pipeline.read_tests(args, args.test, sessions.items)
    pipeline.print_settings(output, gru, list(given))
    pipeline.train_model(args, output, gru, sessions, save_path=args.output)
    pipeline.evaluate_model(args, output, gru, tests)
    return 0
