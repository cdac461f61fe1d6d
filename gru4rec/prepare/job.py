"""The whole way of a raw log: read, cut, filter, split, write, with an account of every row.

``Preparation`` says what is to be done; ``prepare`` does it and returns the account, which is also ``stats.json``.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gru4rec.data.session_cache import cached_sessions, check_cache
from gru4rec.errors import ConfigError, DataError
from gru4rec.prepare.account import Published, compared, counts, summary
from gru4rec.prepare.cautions import cautions_on_order, cautions_on_rows, cautions_on_split
from gru4rec.prepare.layout import RawLayout
from gru4rec.prepare.mapped import as_sessions
from gru4rec.prepare.raw import read_raw
from gru4rec.prepare.reasons import listed
from gru4rec.prepare.split import Split, SplitRule, split_windows
from gru4rec.prepare.steps import SessionEvents, filtered, sessions_of
from gru4rec.prepare.times import Clock
from gru4rec.prepare.write import STATS, SUMMARY, Ids, check_free, new_folder, write_part

Stage = Callable[[str, int | None], AbstractContextManager[Callable[[int], None]]]
"""Shows that a stage runs: given its name and the rows to come (None: unknown), a context that takes rows done."""


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What to do with a raw log.

    Attributes:
        layout: What its columns are.
        split: Where the test begins.
        gap_s: A longer pause ends a session, seconds; None leaves the log's sessions as they are.
        keep_repeats: Keep an event whose item is that of the event before it.
        min_session_length: Events a session must have.
        min_item_support: Events an item must have.
        one_pass: Filter once (sessions, items, sessions) instead of until nothing changes.
    """

    layout: RawLayout
    split: SplitRule
    gap_s: float | None = 3_600.0
    keep_repeats: bool = False
    min_session_length: int = 2
    min_item_support: int = 5
    one_pass: bool = False

    def __post_init__(self) -> None:
        if self.min_session_length < 1 or self.min_item_support < 1:
            raise ConfigError("min_session_length and min_item_support are numbers of events. Give 1 or more")
        if self.gap_s is None and self.layout.keep_after_cut is not None:
            raise ConfigError("--keep_after_cut needs a cut: give --gap, or use --keep")


def prepare(
    paths: Sequence[Path],
    folder: Path,
    preparation: Preparation,
    *,
    tsv: bool = False,
    force: bool = False,
    recipe: str | None = None,
    published: Sequence[Published] = (),
    cache: Path | None = None,
    stage: Stage = lambda name, n_rows: nullcontext(lambda n_done: None),
) -> dict[str, Any]:
    """Turn a raw log into training and test logs.

    Args:
        paths: The raw files.
        folder: Gets train_full, test, train_tr, train_valid (each window in a folder of its own, if there are more
            than one), stats.json and summary.txt; it appears whole or not at all.
        preparation: What to do.
        tsv: Write TAB separated files instead of Parquet.
        force: Replace a folder of prepared logs.
        recipe: Name of the recipe, for the account.
        published: Counts to compare with.
        cache: Keep the sessions of train_full and train_tr in this cache of session maps, so that training on the
            files that were written starts at once.
        stage: Shows progress.

    Returns:
        The account, as in stats.json.

    Raises:
        ConfigError: The preparation contradicts the log.
        DataError: The log cannot be used, or the folder cannot be written.
    """
    started = time.perf_counter()
    check_free(folder, replace=force, inputs=list(paths))
    if cache is not None:
        if Path(os.path.realpath(folder)) in (real := Path(os.path.realpath(cache)), *real.parents):
            raise ConfigError(f"the cache {cache} would lie in {folder}, which is made anew. Give another --cache")
        check_cache(cache)
    with stage("reading", None) as on_rows:
        raw = read_raw(paths, preparation.layout, on_rows=on_rows)
    account: dict[str, Any] = {
        "recipe": recipe,
        "files": [
            {"path": str(path), "bytes": path.stat().st_size, "rows": raw.rows_by_file[str(path)]} for path in paths
        ],
        "preparation": asdict(preparation),
        "rows": raw.n_rows,
        "dropped": dict(raw.dropped),
        "cautions": list(cautions_on_rows(raw, preparation.layout)),
    }
    ids = Ids.of(raw, sessions_are_cut=preparation.gap_s is not None)
    with stage("sessions", None):
        gap = None if preparation.gap_s is None else raw.clock.ticks(preparation.gap_s, "--gap")
        n_usable, events = len(raw.time), sessions_of(raw, gap=gap)
        del raw  # as much memory as the sessions
        account["dropped"]["only_for_the_cut"] = n_usable - events.n_events
        account["cautions"] += cautions_on_order(events)
        events = _filtered(events, preparation, account)
    account["time_unit"] = ids.clock.unit if not ids.clock.from_text else "s"
    account["log"] = counts(events, ids.clock)
    with new_folder(folder, replace=force, inputs=list(paths)) as unfinished:
        account["windows"] = []
        for number, split in enumerate(_splits(events, ids.clock, preparation.split, account), 1):
            name = f"window_{number}" if preparation.split.n_windows > 1 else ""
            (unfinished / name).mkdir(exist_ok=True)
            account["cautions"] += cautions_on_split(split)
            account["windows"].append(_write_split(split, unfinished / name, ids, tsv=tsv, cache=cache, stage=stage))
        account["published"] = compared(account["windows"][0]["parts"], published)
        account["seconds"] = round(time.perf_counter() - started, 1)
        (unfinished / STATS).write_text(json.dumps(account, indent=1) + "\n", encoding="utf-8")
        (unfinished / SUMMARY).write_text(summary(account), encoding="utf-8")
    return account


def need_polars() -> None:
    """Make sure that polars, which reads raw logs, is installed.

    Raises:
        ConfigError: It is not.
    """
    try:
        import polars  # noqa: F401
    except ImportError:
        raise ConfigError("gru4rec prepare needs polars. Run: pip install 'gru4rec[prepare]'") from None


def _filtered(events: SessionEvents, preparation: Preparation, account: dict[str, Any]) -> SessionEvents:
    """Drop repeats, short sessions and rare items, and note how many events each took."""
    events, dropped = filtered(
        events,
        keep_repeats=preparation.keep_repeats,
        min_length=preparation.min_session_length,
        min_support=preparation.min_item_support,
        to_fixpoint=not preparation.one_pass,
    )
    account["dropped"] = {reason: count for reason, count in (account["dropped"] | dict(dropped)).items() if count}
    if not events.n_events:
        raise DataError(
            f"nothing is left of {account['rows']:,} rows ({listed(account['dropped'])}). "
            "Lower --min_session_length or --min_item_support, or check --keep and --gap"
        )
    return events


def _splits(events: SessionEvents, clock: Clock, rule: SplitRule, account: dict[str, Any]) -> Iterator[Split]:
    """Split, and where that fails say what was lost on the way there."""
    try:
        yield from split_windows(events, clock, rule)
    except DataError as error:
        dropped = {reason: count for reason, count in account["dropped"].items() if count}
        so_far = f". Of {account['rows']:,} rows there were left out before: {listed(dropped)}" if dropped else ""
        raise DataError(f"{error}{so_far}") from None


def _write_split(
    split: Split, folder: Path, ids: Ids, *, tsv: bool, cache: Path | None, stage: Stage
) -> dict[str, Any]:
    paths = {name: folder / f"{name}{'.tsv' if tsv else '.parquet'}" for name in split.parts}
    with (
        stage("writing", sum(part.n_events for part in split.parts.values())) as on_rows,
        ThreadPoolExecutor(2) as pool,
    ):
        written = [
            pool.submit(write_part, part, paths[name], ids, on_rows=on_rows) for name, part in split.parts.items()
        ]
        for part_written in written:
            part_written.result()
    for name in ("train_full", "train_tr") if cache is not None else ():
        with stage(f"caching {name}", None):
            make = partial(as_sessions, split.parts[name], ids, str(paths[name]))
            cached_sessions(paths[name], cache=cache, make=make)
    return {
        "test_from": ids.written_moment(split.cut),
        "valid_from": ids.written_moment(split.valid_cut),
        "parts": {name: counts(part, ids.clock) for name, part in split.parts.items()},
        "dropped": {reason: count for reason, count in split.dropped.items() if count},
        "dropped_inside": {reason: count for reason, count in split.dropped_inside.items() if count},
    }
