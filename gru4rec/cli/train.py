"""``gru4rec train``: train a model, with a flag for every setting."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from gru4rec.cli.common import (
    SAMPLE_STORE_SIZE,
    add_engine_options,
    add_job_options,
    add_store_option,
    add_tables_option,
    output_of,
    say,
)
from gru4rec.cli.kept_run import add_run_options, check_run_options
from gru4rec.cli.processes import new_model, output_of_first, processes

if TYPE_CHECKING:
    from gru4rec.distributed.group import Group

HELP = "train a model on a log, measure it on test logs, save it"

GRU4REC = "gru4rec"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags; those of the settings come from their declaration."""
    from gru4rec.config import HyperParameters

    parser.add_argument("path", metavar="LOG", help="training log (TAB separated, .csv, .parquet, or a session map)")
    parser.add_argument("-o", "--output", metavar="MODEL", help="save the model there, such as model.gru4rec")
    parser.add_argument("-t", "--test", metavar="LOG", nargs="+", default=[], help="test logs to measure on")
    add_job_options(parser)
    add_engine_options(parser)
    add_tables_option(parser)
    parser.add_argument(
        "--model",
        metavar="KIND",
        default=GRU4REC,
        help="what to train: gru4rec (default), random, pop, session_pop, markov, association_rules, item_knn, sknn, "
        "vsknn, vmisknn or stan",
    )
    parser.add_argument(
        "-ps", "--parameter_string", metavar="A=1,B=2", help="settings of such a baseline (docs/compare.md lists them)"
    )
    parser.add_argument(
        "-pf", "--parameter_file", metavar="FILE", help="settings file; flags given beside it come first"
    )
    add_store_option(parser)
    parser.add_argument(
        "--keep-state", action="store_true", help="save the optimiser's state too, for gru4rec update to go on with"
    )
    add_run_options(parser)
    parser.add_argument(
        "-pm", "--primary_metric", choices=("recall", "mrr"), default="recall",
        help="which metric of --validate decides, at the first K (recall)",
    )  # fmt: skip
    group = parser.add_argument_group("settings")
    for name, field in HyperParameters.model_fields.items():
        default = "/".join(map(str, field.default)) if name == "layers" else field.default
        text = f"{field.description} ({default})".replace("%", "%%")
        group.add_argument(f"--{name}", metavar="X", default=argparse.SUPPRESS, help=text)


def run(args: argparse.Namespace) -> int:
    """Carry the command out."""
    with processes(args) as group:
        return _run_with(args, group)


def _run_with(args: argparse.Namespace, group: Group | None) -> int:
    from gru4rec.api import GRU4Rec
    from gru4rec.cli import pipeline
    from gru4rec.config import HyperParameters, read_parameter_file
    from gru4rec.errors import ConfigError

    check_run_options(args)
    if args.model != GRU4REC:
        if group is not None:
            raise ConfigError(f"a {args.model} is fitted by one process. Call gru4rec train without torchrun")
        return _train_baseline(args)
    if args.parameter_string is not None:
        raise ConfigError("-ps is for baselines here. Give a flag a setting, such as --layers 100, or use run.py -ps")
    if args.keep_state and args.run_dir is not None:
        raise ConfigError("--keep-state is not needed with --run-dir: gru4rec update takes the folder. Leave it out")
    if args.keep_state and args.output is None:
        raise ConfigError("--keep-state needs a model file to keep it in. Add -o MODEL")
    output = output_of_first(group, output_of(args))
    given: dict[str, Any] = read_parameter_file(args.parameter_file) if args.parameter_file else {}
    given |= {name: value for name, value in vars(args).items() if name in HyperParameters.model_fields}
    gru = new_model(group, GRU4Rec, args.device).set_params(**given)
    gru.choose_engine(args.engine, args.precision, args.tables)
    if group is None or group.is_first:
        pipeline.check_save_path(args.output, inputs=[args.path, *args.test, args.parameter_file, args.validate])
    sessions = pipeline.read_sessions(args, args.path)
    tests = pipeline.read_tests(args, args.test, sessions.items, trained_on=args.path)
    pipeline.print_settings(output, gru, list(given))
    validation = pipeline.read_validation(args, sessions.items)
    pipeline.train_model(
        args, output, gru, sessions, save_path=args.output, validation=validation, keep_state=args.keep_state,
    )  # fmt: skip
    pipeline.evaluate_model(args, output, gru, tests)
    return 0


def _train_baseline(args: argparse.Namespace) -> int:
    """Fit, save and measure a baseline."""
    import time

    from gru4rec.baselines.files import Fitted, save
    from gru4rec.baselines.kinds import baseline_settings, fit_baseline, kind_of
    from gru4rec.cli import pipeline
    from gru4rec.config import DEFAULT_SEED, HyperParameters, parse_parameter_string
    from gru4rec.errors import ConfigError

    kind_of(args.model)
    names = (*HyperParameters.model_fields, "parameter_file", "run_dir")
    useless = [name.replace("run_dir", "run-dir") for name in names if getattr(args, name, None) is not None]
    usual = {
        "engine": "auto",
        "precision": "float32",
        "tables": "device",
        "sample_store_size": SAMPLE_STORE_SIZE,
        "keep_state": False,
    }
    useless += [
        name.replace("keep_state", "keep-state") for name, value in usual.items() if getattr(args, name) != value
    ]
    if args.device not in ("auto", "cpu"):
        raise ConfigError(f"--device {args.device}: a {args.model} computes on the CPU. Leave it out")
    if useless:
        raise ConfigError(f"--{useless[0]} has no effect on a {args.model}. Give its settings with -ps")
    values = parse_parameter_string(args.parameter_string) if args.parameter_string else {}
    settings = baseline_settings(args.model, values, where="-ps")
    pipeline.check_save_path(args.output, inputs=[args.path, *args.test])
    sessions = pipeline.read_sessions(args, args.path)
    tests = pipeline.read_tests(args, args.test, sessions.items, trained_on=args.path)
    output = output_of(args)
    output.settings({name: getattr(settings, name) for name in values})
    started = time.perf_counter()
    scorer = fit_baseline(args.model, sessions, settings)
    output.training_time(time.perf_counter() - started)
    if args.output is not None:
        save(Fitted(args.model, scorer, sessions.items, sessions.support(), settings), args.output)
        say(args, f"saved {args.output}")
    elif not args.test:
        say(args, "note: the model was neither saved nor measured; see --help for both")
    pipeline.evaluate_scorer(args, output, scorer, "cpu", DEFAULT_SEED, tests)
    return 0
