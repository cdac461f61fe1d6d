"""The flags of ``gru4rec tune``, and what can be found wrong with them before a log is read."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gru4rec.cli.common import (
    add_device_option,
    add_engine_options,
    add_log_options,
    add_quiet_option,
    add_threads_option,
    positive,
    whole_number,
)
from gru4rec.errors import ConfigError
from gru4rec.evaluate.ranks import TIE_MODES

if TYPE_CHECKING:
    from gru4rec.tune.job import Opening
    from gru4rec.tune.space import Dimension
    from gru4rec.tune.storage import Address

BEST_PARAMETERS, BEST_MODEL, STUDY, REPORT = "best_params.py", "best.gru4rec", "study.json", "report.html"
"""What a search leaves in its run folder."""

_FINAL_MEASURE = [20]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("path", metavar="TRAIN", help="training log (TAB separated, .csv, .parquet, or a session map)")
    parser.add_argument("test", metavar="VALID", help="validation log")
    parser.add_argument(
        "-opf", "--optuna_parameter_file", metavar="SPACE", required=True,
        help="search space: a JSON object a line, such as the files in paramspaces/",
    )  # fmt: skip
    parser.add_argument(
        "-fp", "--fixed_parameters", metavar="A=1,B=2", help="settings that all trials share; as -ps of run.py"
    )
    parser.add_argument(
        "-g", "--gru4rec_model", metavar="MODULE", default="gru4rec_pytorch",
        help="module with the GRU4Rec class (gru4rec_pytorch)",
    )  # fmt: skip
    parser.add_argument("-nt", "--ntrials", metavar="N", type=positive, default=50, help="trials of the study (50)")
    parser.add_argument("-m", "--measure", metavar="K", type=int, default=20, help="list length of the metric (20)")
    parser.add_argument(
        "-pm", "--primary_metric", choices=("recall", "mrr"), default="recall", help="what shall be high (recall)"
    )
    parser.add_argument(
        "-fm", "--final_measure", metavar="K", type=int, nargs="+", default=_FINAL_MEASURE,
        help="list lengths of the best model's metrics (20)",
    )  # fmt: skip
    parser.add_argument(
        "-e", "--eval_type", choices=TIE_MODES, default="standard", help="what equal scores do to a rank (standard)"
    )
    add_device_option(parser)
    add_threads_option(parser)
    add_engine_options(parser)
    add_quiet_option(parser)
    _add_study_options(parser.add_argument_group("the study"))
    add_log_options(parser)


def _add_study_options(group: Any) -> None:
    group.add_argument(
        "--run-dir", metavar="DIR", help="folder of what is found (paropt_TRAIN, after the training log)"
    )
    group.add_argument(
        "--storage", metavar="URL", default=os.environ.get("GRU4REC_STORAGE"),
        help="sqlite:///FILE, journal:FILE or postgresql://... keeps the trials ($GRU4REC_STORAGE, else DIR/study.db)",
    )  # fmt: skip
    group.add_argument("--study", metavar="NAME", help="name of the study in the storage (the run folder's)")
    group.add_argument("--resume", action="store_true", help="go on with a study, or join one on other machines")
    group.add_argument(
        "--join", action="store_true",
        help="only run trials of a study that many programs share, begun by the first of them; leave no run folder",
    )  # fmt: skip
    group.add_argument("--job", metavar="NAME", help="keep this with each trial of this program: a scheduler's number")
    group.add_argument(
        "--workers", metavar="N", type=whole_number, default=1,
        help="processes that run trials; 0: watch those of other programs, and take the result (1)",
    )  # fmt: skip
    group.add_argument("--sampler", choices=("tpe", "random", "gp", "cmaes"), default="tpe", help="(tpe)")
    group.add_argument(
        "--pruner", choices=("hyperband", "median", "none"), default="hyperband",
        help="what ends trials that fall behind after an epoch (hyperband)",
    )  # fmt: skip
    group.add_argument("--no-prune", action="store_true", help="run every trial to its end; as --pruner none")
    group.add_argument("--seed", metavar="N", type=whole_number, default=42, help="seed of the sampler (42)")
    group.add_argument(
        "--candidate-seeds", metavar="N", type=positive, default=1,
        help="train the three best settings with N seeds, and take the best mean (1)",
    )  # fmt: skip
    group.add_argument(
        "--timeout", metavar="SECONDS", type=positive, help="begin no trial after that time; the best is then trained"
    )
    group.add_argument(
        "--start", metavar="FILE", nargs="+", default=[], help="parameter files whose settings are the first trials"
    )
    group.add_argument(
        "--heartbeat", metavar="SECONDS", type=positive, default=20,
        help="between signs of life of a trial; it is lost after three that are missing (20)",
    )  # fmt: skip
    group.add_argument("--no-report", action="store_true", help="write no report.html, which needs gru4rec[report]")


def opening_of(args: argparse.Namespace) -> Opening:
    """Return how the program comes to its study.

    Raises:
        ConfigError: A flag of a program that leaves results is given to one that leaves none.
    """
    if not args.join:
        return "resume" if args.resume else "begin"
    if not args.storage:  # an empty variable names none
        raise ConfigError("--join needs the storage that the programs share. Give --storage, or set GRU4REC_STORAGE")
    useless = {
        "--resume": args.resume,
        "--run-dir": args.run_dir is not None,
        "--workers 0": args.workers == 0,
        "--candidate-seeds": args.candidate_seeds > 1,
        "-fm": args.final_measure != _FINAL_MEASURE,
        "--no-report": args.no_report,
    }
    for flag, is_given in useless.items():
        if is_given:
            raise ConfigError(f"{flag} has no effect with --join, which only runs trials. Leave one of them out")
    return "join"


def plan_of(args: argparse.Namespace) -> tuple[tuple[Dimension, ...], dict[str, Any], list[dict[str, Any]]]:
    """Read and check the space, the fixed settings and the first trials."""
    from gru4rec.config import hyper_parameters, parse_parameter_string, setting_values
    from gru4rec.tune.checks import check_space, read_starts
    from gru4rec.tune.space import read_space
    from gru4rec.tune.study import check_libraries

    check_libraries(args.sampler)
    given = parse_parameter_string(args.fixed_parameters) if args.fixed_parameters else {}
    values = setting_values(hyper_parameters(given, where="-fp"))
    fixed = {name: values[name] for name in given}
    space = read_space(args.optuna_parameter_file, conditional=True)
    check_space(space, fixed, where=args.optuna_parameter_file)
    if args.candidate_seeds > 1 and any(name == "seed" for name in (*fixed, *(each.name for each in space))):
        raise ConfigError(
            "--candidate-seeds varies the seed, which -fp or the search space sets. Leave one of them out"
        )
    starts = read_starts(args.start, space, fixed)
    if len(starts) > args.ntrials:
        raise ConfigError(f"--start has {len(starts)} files, and -nt is {args.ntrials}. Raise -nt, or give fewer files")
    if starts and args.resume:
        raise ConfigError("--start is for a study that begins, and --resume goes on with one. Leave one of them out")
    return space, fixed, starts


def check_storage_folder(address: Address, folder: Path) -> None:
    """Refuse a storage file in a folder that is not there and is not the run folder, which will be made."""
    if address.path is not None and address.path.parent != folder.absolute() and not address.path.parent.is_dir():
        raise ConfigError(f"there is no folder {address.path.parent} for --storage. Make it, or give another file")


def check_folder(args: argparse.Namespace, folder: Path) -> None:
    """Refuse a folder with results of another study, before anything is read."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"the run folder {folder} is a file. Give another --run-dir")
    try:
        there = {path.name for path in folder.iterdir()} if folder.exists() else set()
    except OSError as error:
        raise ConfigError(f"cannot look into {folder}: {error.strerror}. Give another --run-dir") from None
    if "config.json" in there:
        raise ConfigError(f"{folder} is the folder of a training run. Give another --run-dir")
    found = [name for name in (STUDY, BEST_PARAMETERS, BEST_MODEL, REPORT) if name in there]
    if found and not args.resume:
        raise ConfigError(
            f"{folder} holds a study already ({found[0]}). Go on with it: --resume; or give another --run-dir"
        )
    if not args.no_report:
        from gru4rec.tune.page import check_libraries

        check_libraries()
