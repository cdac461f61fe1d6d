"""``gru4rec update``: a daily increment: train a model on a new log, with its new items."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from gru4rec.cli.common import (
    add_engine_options,
    add_job_options,
    add_store_option,
    output_of,
    progress,
    same_file,
    say,
)

if TYPE_CHECKING:
    from gru4rec.data.sessions import Sessions
    from gru4rec.update.job import Updated
    from gru4rec.update.settings import UpdateSettings

HELP = "train a model on a new log, with the new items in it, instead of anew"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags; those of the settings come from their declaration."""
    from gru4rec.config import HyperParameters
    from gru4rec.update.settings import FIXED, LEARNING_RATE_FRAC, N_EPOCHS

    parser.add_argument("model", metavar="MODEL", help="model file, or the folder of a run (gru4rec train --run-dir)")
    parser.add_argument("path", metavar="NEW_LOG", help="log of the sessions since")
    parser.add_argument(
        "-o", "--output", metavar="UPDATED", required=True, help="save the updated model there, over what is there"
    )
    parser.add_argument("-t", "--test", metavar="LOG", nargs="+", default=[], help="test logs to measure on")
    parser.add_argument("--replay", metavar="OLD_LOG", help="log of old sessions, some of which are trained on again")
    add_update_options(parser)
    add_job_options(parser)
    add_engine_options(parser)
    add_store_option(parser)
    usual = {"n_epochs": N_EPOCHS, "learning_rate": f"{LEARNING_RATE_FRAC} of the model's"}
    group = parser.add_argument_group("settings of this update")
    for name, field in HyperParameters.model_fields.items():
        if name in FIXED:  # taken, so that the message says why it is refused
            group.add_argument(f"--{name}", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        else:
            default = usual.get(name, "as the model was trained")
            text = f"{field.description} ({default})".replace("%", "%%")
            group.add_argument(f"--{name}", metavar="X", default=argparse.SUPPRESS, help=text)


def add_update_options(parser: argparse.ArgumentParser) -> None:
    """Add how what is old is treated; ``gru4rec backtest`` has them too."""
    from gru4rec.update.settings import REPLAY_CHOICES, UpdateSettings

    usual = UpdateSettings()
    group = parser.add_argument_group("what is old")
    group.add_argument(
        "--replay-share", metavar="X", type=float,
        help=f"old sessions trained on beside each new one; 0: none ({usual.replay_share})",
    )  # fmt: skip
    group.add_argument(
        "--replay-choice", metavar="CHOICE",
        help=f"which ones: {' or '.join(REPLAY_CHOICES)}; a sample is drawn by the seed ({usual.replay})",
    )  # fmt: skip
    group.add_argument(
        "--decay", metavar="X", type=float,
        help=f"share of the old training events that still counts in popularity and sampling ({usual.decay})",
    )  # fmt: skip


def update_settings(args: argparse.Namespace) -> UpdateSettings:
    """Return what those flags say."""
    from gru4rec.update.settings import UpdateSettings

    given = {"replay_share": args.replay_share, "replay": args.replay_choice, "decay": args.decay}
    return UpdateSettings(**{name: value for name, value in given.items() if value is not None})


def run(args: argparse.Namespace) -> int:
    """Carry the command out."""
    from pathlib import Path

    from gru4rec.cli import pipeline
    from gru4rec.config import HyperParameters
    from gru4rec.update.growth import grown_vocabulary
    from gru4rec.update.job import update
    from gru4rec.update.settings import training_settings
    from gru4rec.update.source import CHECKPOINT, MODEL, load_to_update

    output, settings = output_of(args), update_settings(args)
    _check_replay(args)
    given = {name: value for name, value in vars(args).items() if name in HyperParameters.model_fields}
    model = [str(Path(args.model, name)) for name in (MODEL, CHECKPOINT)] if Path(args.model).is_dir() else [args.model]
    read = [*model, args.path, args.replay, *args.test]
    pipeline.check_save_path(args.output, inputs=read, checkpoints=False)
    gru = load_to_update(args.model, device=args.device, tell=lambda message: say(args, message))
    asked = training_settings(gru.settings, given, has_state=gru.training_state is not None, where="the flags")
    gru.choose_engine(args.engine, args.precision)
    new = pipeline.read_sessions(args, args.path)
    assert gru.items is not None
    items = grown_vocabulary(gru.items, new)
    old = None if args.replay is None else pipeline.read_sessions(args, args.replay, items)
    tests = pipeline.read_tests(args, args.test, items)
    _warn(args, new, old)
    output.settings({name: getattr(asked, name) for name in given})
    n_sessions = 1 + (0 if old is None else settings.replay_share)
    with progress(args, "training", round(new.n_targets * n_sessions * asked.n_epochs)) as on_step:
        updated = update(
            gru, new, replay=old, settings=settings, sample_cache_max_size=args.sample_store_size,
            on_epoch=output.epoch, on_step=on_step, threads=args.threads, engine=args.engine,
            precision=args.precision, tell=lambda message: say(args, message), **given,
        )  # fmt: skip
    output.training_time(updated.seconds)
    updated.gru.savemodel(args.output)
    _show(args, updated)
    say(args, f"saved {args.output}")
    pipeline.evaluate_model(args, output, updated.gru, tests)
    return 0


def _check_replay(args: argparse.Namespace) -> None:
    """Refuse what would have no effect, or train on the new log twice.

    Raises:
        ConfigError: It would.
    """
    from gru4rec.errors import ConfigError

    useless = [name for name in ("replay_share", "replay_choice") if getattr(args, name) is not None]
    if args.replay is None and useless:
        raise ConfigError(f"--{useless[0].replace('_', '-')} needs a log of old sessions. Add --replay OLD_LOG")
    if args.replay is not None and same_file(args.replay, args.path):
        raise ConfigError(f"--replay {args.replay} is the new log itself. Give a log of the sessions before it")


def _warn(args: argparse.Namespace, new: Sessions, old: Sessions | None) -> None:
    """Say where sessions seem to be trained on twice, or measured on after training on them."""
    n_late = 0 if old is None else int((old.start_time >= new.start_time[0]).sum())
    if old is not None and n_late:
        say(
            args,
            f"warning: {n_late:,} of {old.n_sessions:,} sessions of --replay {args.replay} do not start before the "
            f"first of {args.path}. Where they are the new ones, these are trained on more often: give --replay the "
            "log of before",
        )
    for test in args.test:
        if same_file(test, args.path):
            say(args, f"warning: -t {test} is the new log itself: figures are of sessions that were trained on")


def _show(args: argparse.Namespace, updated: Updated) -> None:
    """Say what the update did, or print it for machines."""
    if args.json:
        print(json.dumps({"event": "updated", **updated.account}), flush=True)
    say(
        args,
        f"{updated.n_sessions:,} new sessions and {updated.n_replayed:,} old ones; {updated.n_new_items:,} new items "
        f"beside {updated.n_items_before:,}, {updated.n_alone:,} of them beside no known one",
    )
