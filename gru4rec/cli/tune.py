"""``gru4rec tune``, and ``paropt.py`` as its users know it: search the settings that are best on a validation log."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gru4rec.cli.common import (
    SAMPLE_STORE_SIZE,
    TextOutput,
    add_device_option,
    add_engine_options,
    add_log_options,
    add_quiet_option,
    add_threads_option,
    guarded,
    positive,
    say,
    whole_number,
)
from gru4rec.errors import ConfigError
from gru4rec.evaluate.ranks import TIE_MODES

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from gru4rec.data.sessions import Sessions
    from gru4rec.tune.space import Dimension
    from gru4rec.tune.storage import Address
    from gru4rec.tune.study import Search
    from gru4rec.tune.worker import Job

HELP = "search the settings that are best on a validation log"

BEST_PARAMETERS, BEST_MODEL, STUDY, REPORT = "best_params.py", "best.gru4rec", "study.json", "report.html"


def paropt(argv: Sequence[str] | None = None) -> int:
    """Run ``paropt.py`` and return its exit status."""
    parser = argparse.ArgumentParser(prog="paropt.py", description=f"{HELP[0].upper()}{HELP[1:]}.")
    add_arguments(parser)
    args = parser.parse_args(argv)
    return guarded(lambda: run(args))


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
        "-fm", "--final_measure", metavar="K", type=int, nargs="+", default=[20],
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
        "--storage", metavar="URL",
        help="where trials are kept: sqlite:///FILE, journal:FILE or postgresql://... (DIR/study.db)",
    )  # fmt: skip
    group.add_argument("--study", metavar="NAME", help="name of the study in the storage (the run folder's)")
    group.add_argument("--resume", action="store_true", help="go on with a study, or join one on other machines")
    group.add_argument("--workers", metavar="N", type=positive, default=1, help="processes that run trials (1)")
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


def run(args: argparse.Namespace) -> int:
    """Carry the command out."""
    _check_optuna()
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    from gru4rec.tune.processes import prepare_workers

    prepare_workers()
    from gru4rec.cli import pipeline
    from gru4rec.cli.run import _model_class
    from gru4rec.evaluate.evaluator import check_cutoffs
    from gru4rec.model.device import resolve_device
    from gru4rec.runs.signals import Interrupts
    from gru4rec.tune.job import check_study, mapped, open_study, own_folder
    from gru4rec.tune.storage import address_of, quiet_optuna, storage_failed

    quiet_optuna()
    folder = Path(args.run_dir or f"paropt_{Path(args.path).name.partition('.')[0]}")
    address = address_of(args.storage or f"sqlite:///{folder / 'study.db'}")
    study_name = args.study or folder.absolute().name
    space, fixed, starts = _plan(args)
    model_class, device = _model_class(args.gru4rec_model), str(resolve_device(args.device))
    model_class(device=device).set_params(**fixed).choose_engine(args.engine, args.precision)
    _check_folder(args, folder, address)
    check_study(address, study_name, resume=args.resume, heartbeat_s=args.heartbeat)
    train = pipeline.read_sessions(args, args.path)
    valid = pipeline.read_sessions(args, args.test, train.items)
    check_cutoffs([args.measure, *args.final_measure], train.items.n_items)
    with own_folder(folder), mapped(train, valid, folder) as logs:
        search = _search(args, space, fixed, logs.fingerprints)
        job = _job(args, search, address, study_name, logs, model_class, device)
        opened = open_study(address, study_name, search, starts, resume=args.resume, heartbeat_s=args.heartbeat)
        with opened as (study, storage):
            content = _Keeper(job, study, folder)
            try:
                with Interrupts() as interrupts:
                    _run_trials(args, job, study, storage, interrupts.check)
                    best = _best(args, job, study, content)
            except (KeyboardInterrupt, SystemExit):
                content.write()
                say(args, f"stopped; the trials are in {address}: go on with --resume")
                raise
            except (StorageInternalError, SQLAlchemyError) as error:
                raise storage_failed(error, address) from None
            _finish(args, best, folder, train, valid, model_class, device, content)
            if not args.no_report:
                from gru4rec.tune.page import write_page

                write_page(content.write(), study, folder / REPORT)
                say(args, f"wrote {folder / REPORT}")
    return 0


def _plan(args: argparse.Namespace) -> tuple[tuple[Dimension, ...], dict[str, Any], list[dict[str, Any]]]:
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


def _check_folder(args: argparse.Namespace, folder: Path, address: Address) -> None:
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
    if address.path is not None and address.path.parent != folder.absolute() and not address.path.parent.is_dir():
        raise ConfigError(f"there is no folder {address.path.parent} for --storage. Make it, or give another file")
    if not args.no_report:
        from gru4rec.tune.page import check_libraries

        check_libraries()


def _search(
    args: argparse.Namespace, space: tuple[Dimension, ...], fixed: Mapping[str, Any], fingerprints: tuple[str, str]
) -> Search:
    from gru4rec.tune.study import Search

    return Search(
        space=space,
        fixed=fixed,
        metric=args.primary_metric,
        k=args.measure,
        mode=args.eval_type,
        engine=args.engine,
        precision=args.precision,
        data=fingerprints,
        sampler=args.sampler,
        pruner="none" if args.no_prune else args.pruner,
        seed=args.seed,
    )


def _job(
    args: argparse.Namespace, search: Search, address: Address, study_name: str, logs: Any, model_class: Any,
    device: str,
) -> Job:  # fmt: skip
    from gru4rec.model.device import ALL_THREADS
    from gru4rec.tune.worker import Job

    return Job(
        search=search,
        address=address,
        study_name=study_name,
        n_trials=args.ntrials,
        train_map=logs.train,
        valid_map=logs.valid,
        model_class=model_class,
        devices=_devices(args.device, device),
        threads=args.threads or max(1, ALL_THREADS // args.workers),
        heartbeat_s=args.heartbeat,
        ends_at=None if args.timeout is None else time.time() + args.timeout,
    )


def _devices(asked: str, device: str) -> tuple[str, ...]:
    """Return where workers train: on all GPUs in turn, unless one is named."""
    import torch

    if device == "cpu" or asked not in ("auto", "cuda"):
        return (device,)
    return tuple(f"cuda:{number}" for number in range(torch.cuda.device_count()))


def _run_trials(
    args: argparse.Namespace, job: Job, study: optuna.Study, storage: Any, check: Callable[[], None]
) -> None:
    """Run what is missing, and show it; ``check`` is called now and then."""
    from gru4rec.tune.claims import counted
    from gru4rec.tune.job import run_workers
    from gru4rec.tune.output import trial_line, trial_row

    n_before = sum(trial.state.is_finished() for trial in counted(study.get_trials(deepcopy=False)).values())
    say(
        args,
        f"{job.n_trials} trials of {job.search.name} in {job.address} ({n_before} are done), "
        f"{args.workers} workers with up to {job.threads} CPU threads on {', '.join(job.devices)}",
    )
    if not job.address.has_heartbeat:
        say(args, "note: a journal has no heartbeat: trials that other machines lose are not found")
    told = {trial.number for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()}
    with _shown(args, job) as show:

        def look(trials: list[FrozenTrial]) -> None:
            check()
            show(trials)
            for trial in trials:
                if trial.state.is_finished() and trial.number not in told:
                    told.add(trial.number)
                    say(args, trial_line(trial_row(trial), job.n_trials, job.search.name))

        run_workers(job, study, storage, n_workers=args.workers, on_look=look, tell=lambda message: say(args, message))


@contextlib.contextmanager
def _shown(args: argparse.Namespace, job: Job) -> Iterator[Callable[[list[FrozenTrial]], None]]:
    """Show a live table while the block runs; nothing where standard error is no terminal."""
    if args.quiet or not sys.stderr.isatty():
        yield lambda trials: None
        return
    from rich.console import Console
    from rich.live import Live

    from gru4rec.tune.live import table_of

    with Live(console=Console(stderr=True), auto_refresh=False, redirect_stdout=False) as live:
        yield lambda trials: live.update(table_of(trials, job.n_trials, job.search.name), refresh=True)


class _Keeper:
    """Collects what ``study.json`` holds."""

    def __init__(self, job: Job, study: optuna.Study, folder: Path) -> None:
        self.best: int | None = None
        self.candidates: list[dict[str, Any]] = []
        self.final: dict[str, Any] | None = None
        self._job, self._study, self._path = job, study, folder / STUDY

    def write(self) -> dict[str, Any]:
        """Write the file, and return what is in it."""
        from gru4rec.tune.output import write_study

        return write_study(
            self._path, self._job.search, self._study.get_trials(), study_name=self._job.study_name,
            n_trials=self._job.n_trials, storage=str(self._job.address), best=self.best, candidates=self.candidates,
            final=self.final,
        )  # fmt: skip


def _best(args: argparse.Namespace, job: Job, study: optuna.Study, content: _Keeper) -> dict[str, Any]:
    """Choose the best settings; return them."""
    from gru4rec.tune.candidates import choose
    from gru4rec.tune.claims import PLACE, SETTINGS
    from gru4rec.tune.job import results

    content.write()
    trials = study.get_trials(deepcopy=False)
    if args.timeout is not None and not any(trial.state.is_finished() for trial in trials):
        raise ConfigError(f"no trial came to an end within --timeout {args.timeout}. Go on with --resume and more time")
    best = results(trials)
    content.best = best[0].number
    if args.candidate_seeds > 1:
        content.candidates = choose(
            best,
            study,
            job.trainer(job.devices[0]),
            n_seeds=args.candidate_seeds,
            tell=lambda message: say(args, message),
        )
        content.best = content.candidates[0]["number"]
    chosen = next(trial for trial in best if trial.number == content.best)
    say(args, f"best: trial {chosen.user_attrs[PLACE] + 1}, {job.search.name} {chosen.value:.6f}")
    settings: dict[str, Any] = chosen.user_attrs[SETTINGS]
    return settings


def _finish(
    args: argparse.Namespace, best: Mapping[str, Any], folder: Path, train: Sessions, valid: Sessions,
    model_class: Any, device: str, content: _Keeper,
) -> None:  # fmt: skip
    """Train with the best settings as run.py does, measure at all list lengths, and save."""
    from gru4rec.cli import pipeline
    from gru4rec.tune.output import write_parameters

    final = argparse.Namespace(**vars(args))
    final.measure, final.test, final.sample_store_size = args.final_measure, [args.test], SAMPLE_STORE_SIZE
    final.run_dir = None  # ours is the folder of a study, not that of a training run
    output = TextOutput()
    write_parameters(folder / BEST_PARAMETERS, best)
    say(args, f"wrote {folder / BEST_PARAMETERS}")
    gru = model_class(device=device).set_params(**best)
    pipeline.print_settings(output, gru, list(best))
    pipeline.train_model(final, output, gru, train, save_path=str(folder / BEST_MODEL))
    ((recall, mrr),) = pipeline.evaluate_model(final, output, gru, [valid])
    content.final = {"recall": recall, "mrr": mrr}
    content.write()
    say(args, f"wrote {folder / STUDY}")


def _check_optuna() -> None:
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise ConfigError("tuning needs optuna, which is missing. Run: pip install 'gru4rec[tune]'") from None
