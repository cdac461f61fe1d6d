"""``gru4rec tune``, and ``paropt.py`` as its users know it: search the settings that are best on a validation log."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gru4rec.cli.common import SAMPLE_STORE_SIZE, TextOutput, guarded, say
from gru4rec.cli.tune_options import (
    BEST_MODEL,
    BEST_PARAMETERS,
    REPORT,
    STUDY,
    add_arguments,
    check_folder,
    check_storage_folder,
    opening_of,
    plan_of,
)
from gru4rec.errors import ConfigError, StoppedError

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from gru4rec.data.sessions import Sessions
    from gru4rec.tune.space import Dimension
    from gru4rec.tune.storage import Address
    from gru4rec.tune.study import Search
    from gru4rec.tune.worker import Job

HELP = "search the settings that are best on a validation log"


def paropt(argv: Sequence[str] | None = None) -> int:
    """Run ``paropt.py`` and return its exit status."""
    parser = argparse.ArgumentParser(prog="paropt.py", description=f"{HELP[0].upper()}{HELP[1:]}.")
    add_arguments(parser)
    args = parser.parse_args(argv)
    return guarded(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    """Carry the command out."""
    ends_at = None if args.timeout is None else time.time() + args.timeout
    _check_optuna()
    from gru4rec.tune.processes import prepare_workers

    if args.workers:
        prepare_workers()
    from gru4rec.cli import pipeline
    from gru4rec.cli.run import _model_class
    from gru4rec.evaluate.evaluator import check_cutoffs
    from gru4rec.model.device import resolve_device
    from gru4rec.runs.signals import Interrupts
    from gru4rec.tune.job import check_study, mapped, open_study, own_folder
    from gru4rec.tune.output import number_of
    from gru4rec.tune.scratch import no_folder
    from gru4rec.tune.storage import address_of, quiet_optuna, wait_for_server

    quiet_optuna()
    opening = opening_of(args)
    folder = Path(args.run_dir or f"paropt_{Path(args.path).name.partition('.')[0]}")
    address = address_of(args.storage or f"sqlite:///{folder / 'study.db'}")
    study_name = args.study or folder.absolute().name
    space, fixed, starts = plan_of(args)
    model_class, device = _model_class(args.gru4rec_model), str(resolve_device(args.device))
    model_class(device=device).set_params(**fixed).choose_engine(args.engine, args.precision)
    if args.join:
        check_storage_folder(address, Path())
        wait_for_server(address, tell=lambda message: say(args, message))
    else:
        check_folder(args, folder)
        check_storage_folder(address, folder)
    is_complete = check_study(address, study_name, opening=opening, n_trials=args.ntrials, heartbeat_s=args.heartbeat)
    if args.join and is_complete:
        say(args, f"nothing to do: {number_of(args.ntrials, 'trial')} of {study_name} in {address}, all done")
        return 0
    with Interrupts() as interrupts:
        train = pipeline.read_sessions(args, args.path)
        valid = pipeline.read_sessions(args, args.test, train.items)
        check_cutoffs([args.measure, *args.final_measure], train.items.n_items)
        with no_folder() if args.join else own_folder(folder) as place, mapped(train, valid, place) as logs:
            search = _search(args, space, fixed, logs.fingerprints)
            job = _job(args, search, address, study_name, logs, model_class, device, ends_at)
            if args.join:  # reading took its time
                wait_for_server(address, tell=lambda message: say(args, message))
            opened = open_study(address, study_name, search, starts, opening=opening, heartbeat_s=args.heartbeat)
            with opened as (study, storage):
                content = None if args.join else _Keeper(job, study, folder)
                best = _run_search(args, job, study, storage, content, interrupts.check)
                if content is not None and best is not None:
                    _finish(args, best, folder, train, valid, model_class, device, content)
                    _write_page(args, content, study, folder)
    return 0


def _run_search(
    args: argparse.Namespace, job: Job, study: optuna.Study, storage: Any, content: _Keeper | None,
    check: Callable[[], None],
) -> dict[str, Any] | None:  # fmt: skip
    """Run the trials, and return the best settings where they are asked for."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    from gru4rec.tune.storage import storage_failed

    try:
        _run_trials(args, job, study, storage, check)
        return None if content is None else _best(args, job, study, content)
    except (KeyboardInterrupt, SystemExit) as stop:
        number = signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM
        if content is None:
            raise StoppedError(f"stopped. Its trials are free for other programs of {job.study_name}", number) from None
        content.write()
        raise StoppedError(f"stopped. The trials are in {job.address}: go on with --resume", number) from None
    except (StorageInternalError, SQLAlchemyError) as error:
        raise storage_failed(error, job.address) from None


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
    device: str, ends_at: float | None,
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
        threads=args.threads or max(1, ALL_THREADS // max(args.workers, 1)),
        heartbeat_s=args.heartbeat,
        ends_at=ends_at,
        job_name=args.job,
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
    from gru4rec.tune.output import number_of, trial_line, trial_row

    n_before = sum(trial.state.is_finished() for trial in counted(study.get_trials(deepcopy=False)).values())
    threads = number_of(job.threads, "CPU thread")
    here = f"{number_of(args.workers, 'worker')} with up to {threads} on {', '.join(job.devices)}"
    say(
        args,
        f"{number_of(job.n_trials, 'trial')} of {job.search.name} in {job.address} ({n_before} done), "
        f"{here if args.workers else 'all of them run by other programs'}",
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
    from gru4rec.tune.claims import PLACE, SETTINGS, counted
    from gru4rec.tune.job import FailedStudyError, results

    content.write()
    trials = study.get_trials(deepcopy=False)
    if args.timeout is not None and not any(trial.state.is_finished() for trial in counted(trials).values()):
        raise FailedStudyError(
            f"no trial came to an end within --timeout {args.timeout}. Go on with --resume and more time"
        )
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
    final.tables = "device"  # where trials have them
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


def _write_page(args: argparse.Namespace, content: _Keeper, study: optuna.Study, folder: Path) -> None:
    if args.no_report:
        return
    from gru4rec.tune.page import write_page

    write_page(content.write(), study, folder / REPORT)
    say(args, f"wrote {folder / REPORT}")


def _check_optuna() -> None:
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise ConfigError("tuning needs optuna, which is missing. Run: pip install 'gru4rec[tune]'") from None
