"""The main job, shared by ``run.py``, ``gru4rec train``, ``gru4rec evaluate`` and the demo.

Everything that can be found wrong is found before training starts: settings, both logs, list lengths, the save path.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gru4rec.api import GRU4Rec
from gru4rec.bundle import check_writable
from gru4rec.cli.common import Output, columns_of, progress, same_file, say
from gru4rec.cli.kept_run import train_in_folder, writes_files
from gru4rec.config import setting_values
from gru4rec.data.session_cache import cached_sessions
from gru4rec.data.sessions import Sessions
from gru4rec.data.vocabulary import Vocabulary
from gru4rec.errors import ConfigError
from gru4rec.evaluate.evaluator import Evaluation, Scorer, check_cutoffs, evaluate
from gru4rec.model.device import ALL_THREADS, cpu_threads, threads_that_help


def read_sessions(args: argparse.Namespace, path: str, items: Vocabulary | None = None) -> Sessions:
    """Read a log that has something to predict, with a line on what is in it and what was left out."""
    sessions = cached_sessions(
        path,
        columns=columns_of(args),
        trust_pickle=args.trust_pickle,
        vocabulary=items,
        cache=Path(args.cache) if args.cache else None,
        tell=lambda message: say(args, message),
    )
    say(args, sessions.report())
    sessions.check_predictable()
    return sessions


def read_validation(args: argparse.Namespace, items: Vocabulary) -> Sessions | None:
    """Read the log that is measured after each epoch, where there is one."""
    if args.validate is None:
        return None
    check_cutoffs(args.measure, items.n_items)
    _note_if_same(args, args.path, args.validate)
    return read_sessions(args, args.validate, items)


def _note_if_same(args: argparse.Namespace, trained_on: str | None, path: str) -> None:
    if trained_on is not None and same_file(trained_on, path):
        say(args, f"note: {path} is what the model is trained on: figures on it say how well it remembers")


def read_tests(
    args: argparse.Namespace, paths: Sequence[str], items: Vocabulary, *, trained_on: str | None = None
) -> list[Sessions]:
    """Read the test logs and make sure that they can be measured as asked; a note, if one was ``trained_on``."""
    tests = [read_sessions(args, path, items) for path in paths]
    for path in paths:
        _note_if_same(args, trained_on, path)
    for test in tests:
        if test.n_unknown_events > test.n_events:
            say(
                args,
                f"note: most events of {test.source} are of unknown items. Is it the log that belongs to the model?",
            )
    if tests:
        check_cutoffs(args.measure, items.n_items)
    return tests


def train_model(
    args: argparse.Namespace,
    output: Output,
    gru: GRU4Rec,
    sessions: Sessions,
    *,
    save_path: str | None,
    validation: Sessions | None = None,
    keep_state: bool = False,
) -> None:
    """Train, in a run folder where one is named, and save where asked."""
    checkpoint_path = None if save_path is None else f"{save_path}.checkpoint"
    threads = args.threads or threads_that_help(gru.settings)
    engine = gru.choose_engine(args.engine, args.precision, args.tables)
    where = ", item matrices in host memory" if args.tables == "host" else ""
    say(
        args,
        f"training on {gru.device} ({engine} engine, {args.precision}, CPU threads: {threads}{where}): "
        f"{gru.settings.n_epochs} epochs of {sessions.n_targets:,} events",
    )
    if args.run_dir is not None:
        n_events = sessions.n_targets * gru.settings.n_epochs
        with progress(args, "training", n_events) as on_step:
            train_in_folder(args, output, gru, sessions, threads=threads, validation=validation, on_step=on_step)
        if save_path is not None:
            gru.savemodel(save_path)
            say(args, f"saved {save_path}")
        return
    if save_path is None and not args.test:
        say(args, "note: the model will be neither saved nor measured; see --help for both")
    started = time.perf_counter()
    try:
        with progress(args, "training", sessions.n_targets * gru.settings.n_epochs) as on_step:
            gru.fit(
                sessions,
                sample_cache_max_size=args.sample_store_size,
                checkpoint_path=checkpoint_path,
                on_epoch=output.epoch,
                on_step=on_step,
                threads=threads,
                engine=args.engine,
                precision=args.precision,
                tables=args.tables,
                keep_state=keep_state,
            )
    except KeyboardInterrupt:
        if checkpoint_path is not None and gru.n_epochs_done and gru.settings.n_epochs > 1:
            n_saved = min(gru.n_epochs_done, gru.settings.n_epochs - 1)  # none is written after the last epoch
            say(args, f"the weights after epoch {n_saved} are in {checkpoint_path}")
        raise
    output.training_time(time.perf_counter() - started)
    if save_path is not None and checkpoint_path is not None:
        gru.savemodel(save_path)
        if gru.settings.n_epochs > 1 and writes_files(gru):  # else a file of that name is not ours
            Path(checkpoint_path).unlink(missing_ok=True)
        say(args, f"saved {save_path}")


def check_save_path(
    save_path: str | None, *, inputs: Sequence[str | None], flag: str = "-o", checkpoints: bool = True
) -> None:
    """Refuse a save path that would fail, or replace a file that is read, before any work is done.

    Args:
        save_path: Where the model will be; None: nowhere.
        inputs: Paths that are read, also those of folders, such as session maps, with the files in them.
        flag: What the path was given with.
        checkpoints: Whether checkpoints are written beside the model.

    Raises:
        ConfigError: A file that is read would be replaced.
        ModelFileError: The path cannot be written.
    """
    if save_path is None:
        return
    for path in (save_path, f"{save_path}.checkpoint") if checkpoints else (save_path,):
        for read in filter(None, inputs):
            replaced = next((file for file in _files_at(read) if same_file(path, file)), None)
            if replaced is not None:
                raise ConfigError(
                    f"saving to {save_path} would replace {replaced}, which is read. Give {flag} another path"
                )
        check_writable(path)


def _files_at(path: str) -> list[str]:
    """Return a path, or those of the files in a folder, such as a session map."""
    with contextlib.suppress(OSError):  # what cannot be listed is refused when it is read
        return [entry.path for entry in os.scandir(path)]
    return [path]


def print_settings(output: Output, gru: GRU4Rec, given: Sequence[str]) -> None:
    """Print the settings that were given, as they were understood."""
    values: dict[str, Any] = setting_values(gru.settings)
    output.settings({name: values[name] for name in given})


def evaluate_model(args: argparse.Namespace, output: Output, gru: GRU4Rec, tests: Sequence[Sessions]) -> list[Any]:
    """Measure a GRU4Rec on every test log; see :func:`evaluate_scorer`."""
    if not tests:
        return []
    scorer, seed = gru.scorer(), gru.settings.draw_seed
    place = gru.device if gru.model is None else gru.model.device  # after --tables host on the CPU
    return [
        evaluation.metrics(args.measure, args.eval_type, seed=seed)
        for evaluation in evaluate_scorer(args, output, scorer, place, seed, tests)
    ]


def evaluate_scorer(
    args: argparse.Namespace,
    output: Output,
    scorer: Scorer,
    device: object,
    seed: int,
    tests: Sequence[Sessions],
    *,
    list_length: int = 0,
) -> list[Evaluation]:
    """Measure a model of any kind on every test log, and show the metrics.

    Returns:
        The evaluation of each test log, with lists of ``list_length``.
    """
    results = []
    for test in tests:
        started = time.perf_counter()
        threads = args.threads or ALL_THREADS  # the same after training as after loading
        with cpu_threads(threads), progress(args, "evaluating", test.n_targets) as on_step:
            evaluation = evaluate(scorer, test, list_length=list_length, on_step=on_step)
        recall, mrr = evaluation.metrics(args.measure, args.eval_type, seed=seed)
        seconds = time.perf_counter() - started
        say(
            args,
            f"{evaluation.n_targets:,} events of {test.source} ranked among {test.items.n_items:,} "
            f"on {device}: {seconds:.1f}s",
        )
        output.metrics(test.source, evaluation.n_targets, recall, mrr)
        results.append(evaluation)
    return results
