"""Training in a run folder: the flags, and the job. Shared by ``run.py`` and ``gru4rec train``."""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gru4rec.cli.common import Output, same_file, say
from gru4rec.errors import ConfigError

if TYPE_CHECKING:
    from gru4rec.api import GRU4Rec
    from gru4rec.data.sessions import Sessions
    from gru4rec.distributed.group import Group
    from gru4rec.runs.folder import RunFolder, RunStatus
    from gru4rec.runs.recorder import Pace, RunRecorder
    from gru4rec.runs.validation import Validation

_NEED_FOLDER = ("resume", "validate", "patience", "log_every", "checkpoint_every", "tensorboard")


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a run that is kept."""
    group = parser.add_argument_group("a run that is kept")
    group.add_argument("--run-dir", metavar="DIR", help="keep settings, metrics, checkpoints, model and report there")
    group.add_argument("--resume", action="store_true", help="go on with the run in the folder, to the same bits")
    group.add_argument(
        "--validate", metavar="LOG", help="measure on this log after each epoch; the model is that of the best one"
    )
    group.add_argument(
        "--patience", metavar="N", type=int, help="end after N epochs without a better metric on that log (never)"
    )
    group.add_argument(
        "--log-every", metavar="N", type=int, help="steps between lines of metrics; 0: lines of epochs only (1000)"
    )
    group.add_argument(
        "--checkpoint-every", metavar="X", help="steps between checkpoints, such as 5000, or a time: 90s, 5m (5m)"
    )
    group.add_argument("--tensorboard", action="store_true", help="write the metrics as TensorBoard events too")


def check_run_options(args: argparse.Namespace) -> None:
    """Refuse flags that would have no effect.

    Raises:
        ConfigError: A flag of a kept run without its folder, or a wrong value.
    """
    given = [name for name in _NEED_FOLDER if getattr(args, name) not in (None, False)]
    if given and args.run_dir is None:
        raise ConfigError(f"--{given[0].replace('_', '-')} needs a run folder. Add --run-dir DIR")
    if args.patience is not None and args.validate is None:
        raise ConfigError("--patience needs a log to measure on. Add --validate LOG")
    if args.patience is not None and args.patience < 1:
        raise ConfigError(f"--patience {args.patience} is below 1. Give a number of epochs")
    if args.log_every is not None and args.log_every < 0:
        raise ConfigError(f"--log-every {args.log_every} is negative. Give a number of steps, or 0")
    _seconds_and_steps(args.checkpoint_every)
    for path in (getattr(args, "output", None), getattr(args, "save_model", None)):
        if (
            path is not None
            and args.run_dir is not None
            and Path(args.run_dir).resolve() in Path(path).resolve().parents
        ):
            raise ConfigError(f"{path} is in the run folder, which has its own files. Save the model elsewhere")
    for test in args.test:
        if args.validate is not None and same_file(args.validate, test):
            raise ConfigError(
                f"--validate {test} is a test log too: its figures would say nothing once they chose the epoch. "
                "Validate on a log of its own, such as train_valid of gru4rec prepare"
            )


def train_in_folder(
    args: argparse.Namespace,
    output: Output,
    gru: GRU4Rec,
    sessions: Sessions,
    *,
    threads: int,
    validation: Sessions | None,
    on_step: Callable[[int], None],
) -> None:
    """Train, and leave the model in the folder; with a validation log that of the best epoch.

    Raises:
        StoppedError: A signal came.
    """
    from gru4rec.errors import StoppedError
    from gru4rec.runs.page import write_report
    from gru4rec.runs.signals import StopSignals

    folder = _folder(args, gru, sessions, threads=threads, validation=validation)
    tell = lambda message: say(args, message)  # noqa: E731
    with _closed_with_status(folder), _curves(args, folder) as curves, StopSignals() as stop:
        recorder = _recorder(
            folder, gru, pace=_pace(args), validation=_validation(args, gru, validation), stop=stop, curves=curves,
            n_threads=threads, tell=tell,
        )  # fmt: skip
        started = time.perf_counter()
        gru.fit(
            sessions,
            sample_cache_max_size=args.sample_store_size,
            on_epoch=output.epoch,
            on_step=on_step,
            threads=threads,
            engine=args.engine,
            precision=args.precision,
            tables=args.tables,
            recorder=recorder,
        )
        output.training_time(time.perf_counter() - started)
        if validation is not None:
            _take_best(gru, recorder, tell)
        _save(gru, folder)
        folder.set_status("finished")
    if folder.is_ours:
        write_report(folder, tell)
    say(args, f"saved {folder.model}")
    if received := recorder.received():
        raise StoppedError(f"the run had come to its end; nothing more is done. {folder.model} is there", received)


def _group_of(gru: GRU4Rec) -> Group | None:
    """Return the processes that train a model; None: this one alone."""
    from gru4rec.distributed.model import DistributedGRU4Rec

    return gru.group if isinstance(gru, DistributedGRU4Rec) else None


def writes_files(gru: GRU4Rec) -> bool:
    """Tell whether this process is the one that writes a model's files."""
    group = _group_of(gru)
    return group is None or group.is_first


def _recorder(folder: RunFolder, gru: GRU4Rec, **options: Any) -> RunRecorder:
    from gru4rec.distributed.model import DistributedGRU4Rec
    from gru4rec.distributed.recorder import DistributedRecorder
    from gru4rec.runs.recorder import RunRecorder

    if isinstance(gru, DistributedGRU4Rec):
        return DistributedRecorder(folder, gru, **options)
    return RunRecorder(folder, gru, **options)


def _save(gru: GRU4Rec, folder: RunFolder) -> None:
    """Write the model; where there is no room, elsewhere before the run fails."""
    from gru4rec.errors import ModelFileError

    try:
        gru.savemodel(folder.model)
    except ModelFileError as error:
        elsewhere = Path(tempfile.gettempdir()) / f"{folder.path.name}.gru4rec"
        gru.savemodel(elsewhere)
        raise ModelFileError(f"{error}. The model is in {elsewhere}") from None


def _take_best(gru: GRU4Rec, recorder: RunRecorder, tell: Callable[[str], None]) -> None:
    """Put the weights of the best epoch into the model."""
    gru.take_weights(recorder.best_path)
    gru.n_epochs_done = recorder.best.epoch
    tell(f"the model is that of epoch {recorder.best.epoch}, the best on the validation log: {recorder.best.value:.6f}")


def _folder(
    args: argparse.Namespace, gru: GRU4Rec, sessions: Sessions, *, threads: int, validation: Sessions | None
) -> RunFolder:
    from gru4rec.config import setting_values
    from gru4rec.runs.folder import RunFolder, fingerprint

    group = _group_of(gru)
    config: dict[str, Any] = {
        "command": sys.argv,
        "settings": setting_values(gru.settings),
        "train": fingerprint(sessions),
        "validation": None if validation is None else fingerprint(validation),
        "metric": args.primary_metric,
        "cutoffs": args.measure,
        "ties": args.eval_type,
        "patience": args.patience or 0,
        "engine": gru.choose_engine(args.engine, args.precision),
        "precision": args.precision,
        "threads": threads,
        "processes": 1 if group is None else group.n_ranks,
        "device": str(gru.device),
        "log_every": _pace(args).log_steps,
        "n_epochs": gru.settings.n_epochs,
        "n_events": sessions.n_targets,
    }
    if not writes_files(gru):
        from gru4rec.distributed.recorder import FollowedFolder

        return FollowedFolder(args.run_dir, config)
    folder = RunFolder(args.run_dir, config, resume=args.resume)
    if args.resume and folder.is_new:
        say(args, f"there is no run in {folder.path} yet: it begins")
    return folder


@contextlib.contextmanager
def _closed_with_status(folder: RunFolder) -> Iterator[None]:
    """Note how the run ended, whatever ends it."""
    from gru4rec.errors import DivergedError, GRU4RecError, StoppedError

    try:
        yield
    except BaseException as error:
        status: RunStatus = "failed"
        if isinstance(error, StoppedError | KeyboardInterrupt | SystemExit):
            status = "interrupted"
        elif isinstance(error, DivergedError):
            status = "diverged"
        with contextlib.suppress(GRU4RecError):
            folder.set_status(status)
        raise
    finally:
        folder.close()


@contextlib.contextmanager
def _curves(args: argparse.Namespace, folder: RunFolder) -> Iterator[Any]:
    if not args.tensorboard or not folder.is_ours:
        yield None
        return
    from gru4rec.runs.curves import Curves

    curves = Curves(folder.path / "tensorboard")
    try:
        yield curves
    finally:
        curves.close()


def _validation(args: argparse.Namespace, gru: GRU4Rec, sessions: Sessions | None) -> Validation | None:
    from gru4rec.runs.validation import Validation

    if sessions is None:
        return None
    return Validation(
        sessions, args.primary_metric, args.measure, args.eval_type, gru.settings.draw_seed, args.patience or 0
    )


def _pace(args: argparse.Namespace) -> Pace:
    from gru4rec.runs.recorder import Pace

    seconds, steps = _seconds_and_steps(args.checkpoint_every)
    return Pace(1000 if args.log_every is None else args.log_every, steps, seconds)


def _seconds_and_steps(text: str | None) -> tuple[float, int]:
    """Return how long, and how many steps, between checkpoints.

    Example:
        >>> _seconds_and_steps("2m"), _seconds_and_steps("500")
        ((120.0, 0), (300.0, 500))
    """
    if text is None:
        return 300.0, 0
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    steps_are_whole = found is not None and (bool(found[2]) or "." not in found[1])
    if found is None or not steps_are_whole or float(found[1]) <= 0:
        raise ConfigError(f"--checkpoint-every {text!r} is no number of steps and no time. Write 5000, 90s, 5m or 1h")
    if found[2]:
        return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]], 0
    return 300.0, int(found[1])
