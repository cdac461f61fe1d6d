"""``run.py``: train or load a model, evaluate it, save it; flags and printed lines as its users know them."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gru4rec.cli.common import (
    TextOutput,
    add_device_option,
    add_engine_options,
    add_log_options,
    add_measure_options,
    add_quiet_option,
    add_store_option,
    add_tables_option,
    add_threads_option,
    guarded,
)
from gru4rec.cli.kept_run import add_run_options, check_run_options
from gru4rec.cli.processes import loaded_model, new_model, output_of_first, parsed, processes
from gru4rec.errors import ConfigError

if TYPE_CHECKING:
    from gru4rec.distributed.group import Group


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    args = parsed(_parser(), argv)
    return guarded(lambda: _run(args))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run.py", description="Train or load a GRU4Rec model, measure it on test logs, and save it."
    )
    parser.add_argument(
        "path",
        metavar="PATH",
        help="training log (TAB separated, .csv, .parquet, or a session map); with -l: a saved model",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "-ps", "--parameter_string", metavar="STRING", help="settings, such as layers=200/100,loss=bpr-max,momentum=0.1"
    )
    source.add_argument("-pf", "--parameter_file", metavar="FILE", help="settings file, such as those in paramfiles/")
    source.add_argument("-l", "--load_model", action="store_true", help="PATH is a saved model")
    parser.add_argument("-s", "--save_model", metavar="FILE", help="save the model there")
    parser.add_argument("-t", "--test", metavar="FILE", nargs="+", default=[], help="test logs to measure on")
    add_measure_options(parser)
    add_store_option(parser)
    parser.add_argument(
        "-g",
        "--gru4rec_model",
        metavar="MODULE",
        default="gru4rec_pytorch",
        help="module with the GRU4Rec class (gru4rec_pytorch)",
    )
    add_device_option(parser)
    add_threads_option(parser)
    add_engine_options(parser)
    add_tables_option(parser)
    parser.add_argument(
        "-pm", "--primary_metric", choices=("recall", "mrr"), default="recall", help="what -lpm prints (recall)"
    )
    parser.add_argument(
        "-lpm", "--log_primary_metric", action="store_true", help="print the primary metric of the first test log and K"
    )
    add_quiet_option(parser)
    add_log_options(parser)
    add_run_options(parser)
    return parser


def _run(args: argparse.Namespace) -> int:
    with processes(args) as group:
        return _run_with(args, group)


def _run_with(args: argparse.Namespace, group: Group | None) -> int:
    from gru4rec.cli import pipeline
    from gru4rec.config import hyper_parameters, parse_parameter_string, read_parameter_file

    check_run_options(args)
    if args.load_model and args.run_dir is not None:
        raise ConfigError("--run-dir keeps a training run, and -l loads a model. Leave one of them out")
    if args.log_primary_metric and not args.test:
        raise ConfigError("-lpm prints a metric on a test log, and none is given. Add -t TEST")
    output = output_of_first(group, TextOutput())
    model_class = _model_class(args.gru4rec_model)
    training_log = None if args.load_model else args.path  # a loaded model may be saved over itself
    if group is None or group.is_first:
        inputs = [*args.test, args.parameter_file, args.validate, training_log]
        pipeline.check_save_path(args.save_model, inputs=inputs, flag="-s")
    if args.load_model:
        gru: Any = loaded_model(group, model_class, args.path, args.device)
        tests = pipeline.read_tests(args, args.test, gru.items)
        if args.save_model is not None:
            gru.savemodel(args.save_model)
    else:
        where = "-ps" if args.parameter_string is not None else args.parameter_file
        given = parse_parameter_string(args.parameter_string) if where == "-ps" else read_parameter_file(where)
        hyper_parameters(given, where=where)  # so that the message names the flag or the file
        gru = new_model(group, model_class, args.device)
        gru.set_params(**given)
        gru.choose_engine(args.engine, args.precision, args.tables)
        sessions = pipeline.read_sessions(args, args.path)
        tests = pipeline.read_tests(args, args.test, sessions.items, trained_on=args.path)
        pipeline.print_settings(output, gru, list(given))
        validation = pipeline.read_validation(args, sessions.items)
        pipeline.train_model(args, output, gru, sessions, save_path=args.save_model, validation=validation)
    results = pipeline.evaluate_model(args, output, gru, tests)
    if args.log_primary_metric:
        recall, mrr = results[0]
        output.primary_metric((recall if args.primary_metric == "recall" else mrr)[args.measure[0]])
    return 0


def _model_class(module_name: str) -> Any:
    """Import the GRU4Rec class of the module that -g names."""
    from gru4rec.api import GRU4Rec

    try:
        module = importlib.import_module(module_name)
    except (ModuleNotFoundError, TypeError, ValueError) as error:  # the last two: ./x.py, and no name at all
        missing = getattr(error, "name", None)
        if missing and missing != module_name and not module_name.startswith(f"{missing}."):
            raise ConfigError(
                f"module {module_name} of -g imports {missing}, which is not installed. Install it"
            ) from None
        raise ConfigError(
            f"no module {module_name!r} for -g. Give a module's name, such as gru4rec_pytorch, without .py"
        ) from None
    except (ImportError, SyntaxError) as error:
        raise ConfigError(f"cannot import module {module_name} of -g: {error}. Mend it") from None
    model_class = getattr(module, "GRU4Rec", None)
    if not (isinstance(model_class, type) and issubclass(model_class, GRU4Rec)):
        raise ConfigError(
            f"module {module_name} of -g has no class GRU4Rec that builds on gru4rec.GRU4Rec. "
            "Name a module that defines one"
        )
    return model_class
