"""The lists of all sessions of a log, in a Parquet file: a row for each session, or for each click.

The log is mapped once and worked off in stretches, each of which becomes a part of the output. So memory does not grow
with what is scored, and a run that was ended goes on with the first part that is missing, to the same file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as papq

from gru4rec.baselines.files import Fitted, load
from gru4rec.data.files import Columns, separator_of
from gru4rec.errors import ConfigError, DataError, StoppedError
from gru4rec.scale.bulk_folder import BulkFolder
from gru4rec.scale.bulk_lists import lists_of, schema_of
from gru4rec.scale.bulk_log import BulkLog, digest_of, map_log
from gru4rec.serve.recommender import Filters, Recommender
from gru4rec.serve.search import SearchKind, can_scan, make_search
from gru4rec.serve.settings import SearchChoice

_FORMAT_VERSION = 1
"""One more when sessions are cut into other parts: then parts of before do not fit."""
_CLICKS_A_PART = 16_384
_LISTED_A_PART = 1_000_000
"""Items in the lists of a part at most, where lists are long."""
_SCAN_PAYS_ITEMS = 30_000
"""From so many items on, a scan for hundreds of sessions at once is faster than scoring everything."""


@dataclass(frozen=True)
class BulkOptions:
    """What decides the contents of the output, beside the model and the log.

    Attributes:
        k: List length.
        every_click: A row for each click, not only for the last one of a session.
        exclude: Ids that may not be listed.
        exclude_seen: Nor may the items of the session so far.
        exclude_current: Nor may its newest item.
        allow: The only ids that may be listed; None: all.
        columns: Names of the log's columns.
    """

    k: int = 20
    every_click: bool = False
    exclude: Sequence[Any] = ()
    exclude_seen: bool = False
    exclude_current: bool = False
    allow: Sequence[Any] | None = None
    columns: Columns = field(default_factory=Columns)

    def filters(self, recommender: Recommender) -> Filters:
        """Return what lists are to hold, in a model's item indices.

        Raises:
            ConfigError: k is out of range, or no item may be listed.
        """
        filters = recommender.filters(self.k, exclude=self.exclude, allow=self.allow)
        if filters.allowed_idx is not None and not len(filters.allowed_idx):
            raise ConfigError(
                f"none of the {len(self.allow or ())} allowed items is known to the model. Check their ids"
            )
        return replace(filters, exclude_seen=self.exclude_seen, exclude_current=self.exclude_current)


@dataclass(frozen=True)
class BulkReport:
    """What a run did.

    Attributes:
        output: The file.
        n_sessions: Sessions of the log.
        n_rows: Rows of the file.
        n_popular: Rows without a known click, whose lists are the popular items.
        n_clicks: Clicks of the log.
        n_unknown: Clicks on items that the model does not know.
        n_resumed: Clicks that were done before this run.
        search: How lists were found.
    """

    output: str
    n_sessions: int
    n_rows: int
    n_popular: int
    n_clicks: int
    n_unknown: int
    n_resumed: int
    search: str


def score_log(
    model: str | Path,
    path: str | Path,
    output: str | Path,
    options: BulkOptions,
    *,
    search: SearchChoice = "auto",
    threads: int = 1,
    resume: bool = False,
    trust_pickle: bool = False,
    tell: Callable[[str], None] = lambda message: None,
    progress: Callable[[int], AbstractContextManager[Callable[[int], None]]] = lambda n_clicks: nullcontext(_ignore),
    stop_signal: Callable[[], int] = lambda: 0,
) -> BulkReport:
    """Write the lists of all sessions of a log.

    Args:
        model: Model file of any kind.
        path: A log, or a session map, whose sessions are named by their places.
        output: Parquet file; replaced whole at the end. Until then, ``OUTPUT.parts`` holds what is done.
        options: What to write.
        search: How lists are found; it changes nothing about them.
        threads: Parts of a scan side by side.
        resume: Go on with what ``OUTPUT.parts`` holds.
        trust_pickle: Unpickle a log that is a pickle.
        tell: Told in words what comes next.
        progress: Given the number of all clicks, entered for the work; what it returns is told how many more are done.
        stop_signal: Returns a signal's number once the run is to stop, else 0.

    Raises:
        ModelFileError: The model cannot be used.
        DataError: The log cannot be used, or the output cannot be written.
        ConfigError: An option is wrong, or what is to be gone on with is of another run.
        StoppedError: ``stop_signal`` returned a number; the run can go on.
    """
    path, output = Path(path), Path(output)
    fitted = load(model)
    found_by = _choice(fitted, search)
    finder = make_search(fitted.scorer, found_by, threads=threads)
    recommender = Recommender(fitted.scorer, fitted.items, fitted.support, search=finder)
    filters = options.filters(recommender)
    for word, given in (("exclude", options.exclude), ("allow", options.allow or ())):
        n_unknown = len(given) - len(recommender.known(given))
        if n_unknown:
            tell(f"{n_unknown} of {len(given)} items to {word} are unknown to the model")
    folder = BulkFolder(output, _asked(Path(model), path, options, filters), resume=resume)
    try:
        tell(f"{'reading' if folder.is_new else 'going on with'} {path}; lists are found by {_in_words(found_by)}")
        log = map_log(path, folder.path, options.columns, trust_pickle=trust_pickle)
        run = _Run(log, recommender, filters, options.every_click)
        tell(log.sessions.report().partition("; ")[0])
        with progress(log.sessions.n_events) as on_clicks:
            n_resumed = _work_off(run, folder, on_clicks, stop_signal)
        folder.finish(len(run.stretches()), run.schema)
    except (DataError, ConfigError):
        folder.discard_unbegun()
        raise
    finally:
        folder.close()
    is_popular = papq.read_table(output, columns=["popular"], partitioning=None)["popular"]
    n_rows, n_popular = len(is_popular), pc.sum(is_popular).as_py()
    return BulkReport(
        str(output), log.sessions.n_sessions, n_rows, n_popular, log.sessions.n_events, run.n_unknown,
        n_resumed, found_by,
    )  # fmt: skip


class _Run:
    """A mapped log, a model, and what is wanted: tables of stretches of sessions."""

    def __init__(self, log: BulkLog, recommender: Recommender, filters: Filters, every_click: bool) -> None:
        self._log, self._recommender, self._filters, self._every_click = log, recommender, filters, every_click
        items = log.sessions.items
        self._model_idx = recommender.items.encode(items.item_ids)
        self.n_unknown = int(log.sessions.support()[self._model_idx < 0].sum())
        if self.n_unknown == log.sessions.n_events:
            raise DataError(
                f"none of the {items.n_items} items of {log.sessions.source} is known to the model. "
                "Use a log of the shop that the model was trained on, and the same item column"
            )
        log.sessions.check_offsets()
        self.schema = schema_of(log.id_type, recommender.items.item_ids.type, every_click=every_click)

    def stretches(self) -> list[tuple[int, int]]:
        """Return the first session of each part, and the one after its last."""
        clicks = max(1, min(_CLICKS_A_PART, _LISTED_A_PART // self._filters.k))
        offsets = self._log.sessions.offsets
        starts = np.unique(np.searchsorted(offsets, np.arange(0, offsets[-1], clicks)))
        stops = np.r_[starts[1:], self._log.sessions.n_sessions]
        return [(int(first), int(stop)) for first, stop in zip(starts, stops, strict=True) if first < stop]

    def n_clicks(self, first: int, stop: int) -> int:
        """Return the number of clicks of a stretch."""
        return int(self._log.sessions.offsets[stop] - self._log.sessions.offsets[first])

    def n_rows(self, first: int, stop: int) -> int:
        """Return the number of rows of a stretch."""
        return self.n_clicks(first, stop) if self._every_click else stop - first

    def table(self, first: int, stop: int, before_batch: Callable[[], None]) -> pa.Table:
        """Return the rows of a stretch."""
        sessions = self._log.sessions
        clicked = [self._model_idx[sessions.items_at(slice(*sessions.offsets[s : s + 2]))] for s in range(first, stop)]
        ids = self._log.ids_of(first, stop)
        return lists_of(self._recommender, ids, clicked, self._filters, self.schema, before_batch=before_batch)


def _work_off(run: _Run, folder: BulkFolder, on_clicks: Callable[[int], None], stop_signal: Callable[[], int]) -> int:
    """Write the parts that are missing; return how many clicks are in those that were there."""

    def check_stop() -> None:
        number = stop_signal()
        if number:
            raise StoppedError(
                f"stopped. {folder.path} holds what is done; the same command with --resume goes on", number
            )

    n_resumed = 0
    for part, (first, stop) in enumerate(run.stretches()):
        check_stop()
        n_clicks = run.n_clicks(first, stop)
        if folder.has(part, run.n_rows(first, stop)):
            n_resumed += n_clicks
        else:
            folder.write(part, run.table(first, stop, check_stop))
        on_clicks(n_clicks)
    return n_resumed


def _ignore(n_clicks: int) -> None:
    pass


def _choice(fitted: Fitted, search: SearchChoice) -> SearchKind:
    """Return how lists are found where that is left open; unlike in serving, hundreds of sessions come at once."""
    if search != "auto":
        return search
    return "int8" if can_scan(fitted.scorer) and fitted.items.n_items >= _SCAN_PAYS_ITEMS else "dense"


def _in_words(found_by: str) -> str:
    return "scoring every item" if found_by == "dense" else f"a scan in {found_by}"


def _asked(model: Path, path: Path, options: BulkOptions, filters: Filters) -> dict[str, Any]:
    """Return what decides the contents of the output."""
    allowed = filters.allowed_idx
    return {
        "format_version": _FORMAT_VERSION,
        "model": digest_of(model),
        "log": digest_of(path),
        "columns": [*options.columns.names, separator_of(path.name)],
        "k": options.k,
        "every_click": options.every_click,
        "exclude": hashlib.sha256(filters.excluded_idx.tobytes()).hexdigest(),
        "exclude_seen": options.exclude_seen,
        "exclude_current": options.exclude_current,
        "allow": None if allowed is None else hashlib.sha256(allowed.tobytes()).hexdigest(),
    }
