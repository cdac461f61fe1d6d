"""From the raw files of a public log to numbers beside the published ones: prepare, train, measure, compare.

What is finished stays in the folder, with a record of what it was made from, and a later call takes it from there:

    prepared/             the logs, as ``prepare`` writes them      prepared.json       their record
    model.gru4rec         the model (model.seedN.gru4rec)           model.json          its record
    reproduce.json        the report of the last call

A record is written after what it speaks of, or names its digest, so what was cut short has none and is made anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from gru4rec import __version__
from gru4rec.api import GRU4Rec
from gru4rec.bundle import check_writable
from gru4rec.config import Engine, HyperParameters, Precision, setting_values
from gru4rec.data.session_map import load_sessions
from gru4rec.data.sessions import Sessions
from gru4rec.errors import ConfigError, DataError
from gru4rec.evaluate.evaluator import evaluate
from gru4rec.evaluate.ranks import TIE_MODES, TieMode
from gru4rec.model.device import ALL_THREADS, cpu_threads, threads_that_help
from gru4rec.prepare.job import Preparation, Stage, need_polars, prepare
from gru4rec.prepare.recipes import Recipe, recipe
from gru4rec.prepare.sources import column_names
from gru4rec.prepare.split import PARTS
from gru4rec.prepare.write import STATS, SUMMARY
from gru4rec.reproduce.published import CUTOFFS, EVAL_TYPE, Comparison, PublishedRow, overall, published_row
from gru4rec.train.loop import EpochReport
from gru4rec.whole import folder_to_write, write_whole

_log = logging.getLogger("gru4rec")

REPORT = "reproduce.json"
_PREPARED, _RECORD = "prepared", "prepared.json"
_FILES = {name: f"{name}.parquet" for name in PARTS}
_PACKAGES = ("numpy", "numba", "polars", "pyarrow", "torch")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to reproduce, and how.

    Attributes:
        dataset: Name of the log, and of its recipe.
        raw: Folder of its raw files.
        folder: Gets logs, models and report.
        seeds: Train once for each; none trains once, from the compatibility weights.
        n_epochs: Train so many epochs instead of the published number, as a trial.
        eval_type: What equal scores do to a rank.
        device: ``auto``, ``cpu`` or ``cuda:N``.
        threads: CPU threads; None takes one for small models, else all.
        engine: Which training step.
        precision: Of training's matrix products.
    """

    dataset: str
    raw: Path
    folder: Path
    seeds: tuple[int, ...] = ()
    n_epochs: int | None = None
    eval_type: TieMode = EVAL_TYPE
    device: str = "auto"
    threads: int | None = None
    engine: Engine = "auto"
    precision: Precision = "float32"

    def settings(self) -> list[HyperParameters]:
        """Return the settings of each training run.

        Raises:
            ConfigError: An unknown data set, a seed that is given twice, or a value that does not fit.
        """
        row = published_row(self.dataset)
        for seed in self.seeds:
            if self.seeds.count(seed) > 1:
                raise ConfigError(f"seed {seed} stands twice in --seeds. Give each once")
        changes = {} if self.n_epochs is None else {"n_epochs": self.n_epochs}
        return [row.settings(seed=seed, **changes) for seed in self.seeds or (None,)]

    def departures(self) -> list[str]:
        """Say in what this is not what was published."""
        said, published = [], published_row(self.dataset).settings().n_epochs
        if self.n_epochs not in (None, published):
            said.append(f"n_epochs was {self.n_epochs} and not {published}")
        if self.eval_type != EVAL_TYPE:
            said.append(f"the tie mode was {self.eval_type} and not {EVAL_TYPE}")
        return said

    def model_path(self, seed: int | None) -> Path:
        """Return where the model of a seed is saved."""
        return self.folder / ("model.gru4rec" if seed is None else f"model.seed{seed}.gru4rec")


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Who is told what happens.

    Attributes:
        tell: Gets a line now and then.
        stage: Shows progress: given a name and the events to come, a context that takes the events done.
    """

    tell: Callable[[str], None] = _log.info
    stage: Stage = lambda name, n_rows: nullcontext(lambda n_done: None)


@dataclass(frozen=True)
class _Logs:
    """The prepared logs.

    Attributes:
        account: What ``prepare`` says of them.
        digest: Of the training log's file.
        train: Its sessions.
        test: Those of the test log, in the same vocabulary.
    """

    account: dict[str, Any]
    digest: str
    train: Sessions
    test: Sessions


def reproduce(plan: Plan, *, watch: Watch | None = None) -> dict[str, Any]:
    """Prepare, train and measure, or take what an earlier call finished, and compare with what was published.

    Args:
        plan: What to do.
        watch: Who is told what happens; None logs it.

    Returns:
        The report, as in reproduce.json (docs/reproduce.md).

    Raises:
        ConfigError: Something in the plan does not fit, or the folder holds something else.
        DataError: The raw files are missing or cannot be used, or the folder cannot be written.
        DeviceError: The device is not there.
        DivergedError: Training diverged. What was finished before stays.
        ModelFileError: A model cannot be saved.
    """
    watch, started = watch or Watch(), time.perf_counter()
    all_settings = plan.settings()
    need_polars()
    if plan.eval_type not in TIE_MODES:
        raise ConfigError(f"unknown tie mode {plan.eval_type!r}. Choose from {', '.join(TIE_MODES)}")
    GRU4Rec(device=plan.device).choose_engine(plan.engine, plan.precision)
    chosen = recipe(plan.dataset)
    raw = chosen.find_files(plan.raw)
    preparation = chosen.fitted(column_names(raw[0], chosen.preparation.layout))
    with folder_to_write(plan.folder, advice="Give -o a folder that can be written to"):
        _check_prepared(plan)
        for settings in all_settings:
            _check_model(plan, settings)
        for name in (REPORT, _RECORD):
            check_writable(plan.folder / name)
        logs = _read(plan, _prepared(plan, chosen, raw, preparation, watch), watch)
        runs = [_run(plan, settings, logs, watch) for settings in all_settings]
        report = _report(plan, logs, runs)
        report["seconds"] = round(time.perf_counter() - started, 1)
        _write_json(plan.folder / REPORT, report)
    return report


# --- before any work ---


def _check_prepared(plan: Plan) -> None:
    """Refuse a folder whose prepared logs are of something else: they would be replaced."""
    folder = plan.folder / _PREPARED
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise ConfigError(f"{folder} is in the way: the prepared logs are to be a folder. Give -o another folder")
    if foreign := sorted({path.name for path in folder.iterdir()} - {*_FILES.values(), STATS, SUMMARY}):
        raise ConfigError(f"{folder} holds {foreign[0]}, which reproduce did not write. Give -o another folder")
    there = (_read_json(folder / STATS) or {"recipe": plan.dataset}).get("recipe")
    if there != plan.dataset:
        raise ConfigError(f"{folder} holds {there or 'another log'}, and not {plan.dataset}. Give -o another folder")


def _check_model(plan: Plan, settings: HyperParameters) -> None:
    """Refuse to replace a model that someone else saved, that is of another log, or that was trained for longer."""
    path = plan.model_path(settings.seed)
    if path.is_file():
        record = _read_json(path.with_suffix(".json"))
        if record is None:
            raise ConfigError(
                f"{path} has no {path.with_suffix('.json').name} to say what it is. Give -o another folder"
            )
        if record.get("dataset") != plan.dataset:
            raise ConfigError(f"{path} is a model of {record.get('dataset')}. Give -o another folder")
        n_epochs = _n_epochs(record)
        if n_epochs is None:
            raise ConfigError(
                f"{path.with_suffix('.json')} does not say for how many epochs {path.name} was trained. "
                "Give -o another folder"
            )
        if n_epochs > settings.n_epochs:
            raise ConfigError(
                f"{path} was trained for {n_epochs} epochs, and --n_epochs {settings.n_epochs} would replace it. "
                "Give -o another folder"
            )
    check_writable(path)
    check_writable(path.with_suffix(".json"))


def _n_epochs(record: dict[str, Any]) -> int | None:
    """Return for how many epochs a model was trained; None where its record does not say so."""
    settings = record.get("settings")
    found = settings.get("n_epochs") if isinstance(settings, dict) else None
    return found if isinstance(found, int) else None


# --- preparing ---


def _prepared(
    plan: Plan, chosen: Recipe, raw: list[Path], preparation: Preparation, watch: Watch
) -> tuple[dict[str, Any], str]:
    """Return the account of the prepared logs and the digest of the training log; prepare them where they are not."""
    folder, record_path = plan.folder / _PREPARED, plan.folder / _RECORD
    made_from = json.loads(json.dumps({
        "gru4rec": __version__,
        "recipe": plan.dataset,
        "preparation": asdict(preparation),
        "raw": [_stamp(path) for path in raw],
    }))  # fmt: skip
    record, account = _read_json(record_path), _read_json(folder / STATS)
    if record is not None and account is not None and record == made_from | {"digests": _digests(folder)}:
        watch.tell(f"prepared before: {folder}")
        return account, record["digests"]["train_full"]
    watch.tell(f"preparing {', '.join(map(str, raw))}")
    if folder.exists() and account is None:
        shutil.rmtree(os.path.realpath(folder))  # part of what prepare writes, as _check_prepared saw
    try:
        account = prepare(
            raw, folder, preparation, force=True, recipe=plan.dataset, published=chosen.published, stage=watch.stage
        )
    except MemoryError:
        raise DataError(
            f"{plan.dataset} does not fit into memory, about 60 bytes a row. Use a larger machine"
        ) from None
    digests = _digests(folder)
    _write_json(record_path, made_from | {"digests": digests})
    return account, digests["train_full"]


def _stamp(path: Path) -> list[Any]:
    """Return what shows that a file is the one it was: reading all of it would take as long as preparing it."""
    stat = path.stat()
    return [path.name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _digests(folder: Path) -> dict[str, str]:
    """Return the digests of the two logs that are used; a file that is missing has none."""
    return {part: _digest(folder / _FILES[part]) for part in ("train_full", "test")}


def _digest(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "blake2b").hexdigest()
    except OSError:
        return ""


def _read(plan: Plan, prepared: tuple[dict[str, Any], str], watch: Watch) -> _Logs:
    """Read the prepared logs, and make sure that they can be trained and measured on."""
    account, digest = prepared
    folder = plan.folder / _PREPARED
    train = load_sessions(folder / _FILES["train_full"])
    test = load_sessions(folder / _FILES["test"], vocabulary=train.items)
    for sessions in (train, test):
        watch.tell(sessions.report())
        sessions.check_predictable()
    if train.items.n_items < max(CUTOFFS):
        raise DataError(
            f"{train.source} has {train.items.n_items} items, too few for lists of {max(CUTOFFS)}. "
            "Is the raw log complete?"
        )
    return _Logs(account, digest, train, test)


# --- training and measuring ---


def _run(plan: Plan, settings: HyperParameters, logs: _Logs, watch: Watch) -> dict[str, Any]:
    """Train with one seed, or take the model that was, and measure it."""
    path = plan.model_path(settings.seed)
    wanted = {
        "gru4rec": __version__,
        "dataset": plan.dataset,
        "log": logs.digest,
        "settings": setting_values(settings),
        "precision": plan.precision,
    }
    record = before = _finished(path, wanted, plan.engine)
    if record is not None:
        watch.tell(f"trained before: {path}")
        gru = GRU4Rec.loadmodel(path, device=plan.device)
    else:
        gru = GRU4Rec(device=plan.device, **setting_values(settings))
        record = _save(gru, path, wanted | _train(plan, gru, logs, watch))
        watch.tell(f"saved {path}")
    named = {"model": str(path), "seed": settings.seed, "reused": before is not None}
    return named | record | _measure(plan, gru, logs, watch)


def _finished(path: Path, wanted: dict[str, Any], engine: Engine) -> dict[str, Any] | None:
    """Return the record of a model that was trained as wanted, if the file is the one that was saved then."""
    record = _read_json(path.with_suffix(".json"))
    if record is None or any(record.get(name) != value for name, value in wanted.items()):
        return None
    if engine not in ("auto", record.get("engine")) or record.get("digest") != _digest(path):
        return None
    return record


def _train(plan: Plan, gru: GRU4Rec, logs: _Logs, watch: Watch) -> dict[str, Any]:
    """Train, and return how."""
    threads = plan.threads or threads_that_help(gru.settings)
    engine = gru.choose_engine(plan.engine, plan.precision)
    seed = "compatibility weights" if gru.settings.seed is None else f"seed {gru.settings.seed}"
    watch.tell(
        f"training on {gru.device} ({engine} engine, {plan.precision}, CPU threads: {threads}), {seed}: "
        f"{gru.settings.n_epochs} epochs of {logs.train.n_targets:,} events"
    )
    reports: list[EpochReport] = []

    def on_epoch(report: EpochReport) -> None:
        reports.append(report)
        watch.tell(str(report))

    with watch.stage("training", logs.train.n_targets * gru.settings.n_epochs) as on_step:
        gru.fit(
            logs.train, on_epoch=on_epoch, on_step=on_step, threads=threads, engine=engine, precision=plan.precision
        )
    return {
        "engine": engine,
        "device": str(gru.device),
        "device_name": _device_name(gru.device),
        "threads": threads,
        "losses": [report.loss for report in reports],
        "train_seconds": round(sum(report.seconds for report in reports), 1),
        "versions": _versions(),
    }


def _save(gru: GRU4Rec, path: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Save a model, then its record, then give the model its name: without a record it has none.

    Returns:
        The record, with the digest of the model's file.
    """
    partial = path.with_suffix(".part")
    gru.savemodel(partial)
    record = record | {"digest": _digest(partial)}
    _write_json(path.with_suffix(".json"), record)
    partial.replace(path)
    return record


def _measure(plan: Plan, gru: GRU4Rec, logs: _Logs, watch: Watch) -> dict[str, Any]:
    """Rank every event of the test log but a session's first among all items."""
    started = time.perf_counter()
    with cpu_threads(plan.threads or ALL_THREADS), watch.stage("evaluating", logs.test.n_targets) as on_step:
        evaluation = evaluate(gru.scorer(), logs.test, on_step=on_step)
    recall, mrr = evaluation.metrics(CUTOFFS, plan.eval_type, seed=gru.settings.draw_seed)
    seconds = time.perf_counter() - started
    watch.tell(f"{evaluation.n_targets:,} events ranked among {logs.test.items.n_items:,} items: {seconds:.1f}s")
    metrics = {f"{name}@{k}": values[k] for k in CUTOFFS for name, values in (("Recall", recall), ("MRR", mrr))}
    return {"n_targets": evaluation.n_targets, "metrics": metrics, "evaluate_seconds": round(seconds, 1)}


# --- the report ---


def _report(plan: Plan, logs: _Logs, runs: list[dict[str, Any]]) -> dict[str, Any]:
    row = published_row(plan.dataset)
    departures, counts = plan.departures(), logs.account["published"]
    comparisons = _comparisons(row, runs)
    verdict, reason = overall(comparisons, counts, departures)
    return {
        "dataset": plan.dataset,
        "verdict": verdict,
        "reason": reason,
        "departures": departures,
        "source": row.source,
        "eval_type": plan.eval_type,
        "n_items": logs.train.items.n_items,
        "n_targets": logs.test.n_targets,
        "metrics": [
            {
                "metric": one.metric,
                "published": one.published,
                "here": one.mean,
                "deviation": one.deviation,
                "difference_frac": one.difference_frac,
                "verdict": "not comparable" if departures else one.verdict,
            }
            for one in comparisons
        ],
        "counts": counts,
        "runs": runs,
        "prepared": {name: logs.account[name] for name in ("files", "rows", "windows", "cautions", "seconds")},
        "versions": _versions(),
    }


def _comparisons(row: PublishedRow, runs: list[dict[str, Any]]) -> list[Comparison]:
    return [
        Comparison(metric, published, tuple(run["metrics"][metric] for run in runs))
        for metric, published in row.metrics.items()
    ]


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in _PACKAGES}
    return {"gru4rec": __version__, "python": platform.python_version(), "platform": platform.platform(), **packages}


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


def _read_json(path: Path) -> dict[str, Any] | None:
    """Return what a file holds; None where it is missing, or was cut short."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _write_json(path: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=1) + "\n"
    write_whole(
        path,
        lambda partial: partial.write_text(text, encoding="utf-8"),
        advice="Give -o a folder on a disk with room",
    )
