"""What a run in bulk computes: options, and a job that any process can open and do parts of.

A part is a stretch of sessions of the mapped log. Its rows depend on the model, the log and the options alone, so it
does not matter who writes it, or how often.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gru4rec.baselines.files import Fitted, load
from gru4rec.data.files import Columns, separator_of
from gru4rec.errors import ConfigError, DataError
from gru4rec.scale.bulk_lists import Finder, Stretch, lists_of, schema_of
from gru4rec.scale.bulk_log import BulkLog, digest_of, map_log
from gru4rec.serve.recommender import Filters, Recommender
from gru4rec.serve.search import SearchKind, can_scan
from gru4rec.serve.settings import SearchChoice

_FORMAT_VERSION = 2
"""One more when sessions are cut into other parts: then parts of before do not fit."""
_FEWEST_CLICKS_A_PART = 16_384
_MOST_CLICKS_A_PART = 262_144
_LISTED_A_PART = 2_000_000
"""Items in the lists of a part at most, where lists are long."""
_SCORES_A_PART = 2_500_000_000
"""Scores of a part, where the catalogue is large: seconds of work."""
_SCAN_PAYS_ITEMS = 60_000
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
class BulkJob:
    """A model, a log and what is wanted; opens them where they are used.

    Attributes:
        model: Model file of any kind.
        log: A log, or a session map.
        options: What to write.
        search: How lists are found.
    """

    model: Path
    log: Path
    options: BulkOptions
    search: SearchChoice = "auto"

    @cached_property
    def fitted(self) -> Fitted:
        """The model."""
        return load(self.model)

    @cached_property
    def recommender(self) -> Recommender:
        """The model's ids, and what is popular."""
        return Recommender(self.fitted.scorer, self.fitted.items, self.fitted.support)

    @cached_property
    def filters(self) -> Filters:
        """What lists are to hold."""
        return self.options.filters(self.recommender)

    @property
    def kind(self) -> SearchKind:
        """How lists are found, decided; unlike in serving, hundreds of sessions come at once."""
        if self.search != "auto":
            return self.search
        pays = can_scan(self.fitted.scorer) and self.fitted.items.n_items >= _SCAN_PAYS_ITEMS
        return "int8" if pays else "dense"

    @cached_property
    def finder(self) -> Finder:
        """Finds lists; threads may share it."""
        return Finder(self.recommender, self.fitted.scorer, self.kind, self.filters)

    def asked(self) -> dict[str, Any]:
        """Return what decides the contents of the output, as JSON may hold it."""
        options, allowed = self.options, self.filters.allowed_idx
        return {
            "format_version": _FORMAT_VERSION,
            "model": digest_of(self.model),
            "log": digest_of(self.log),
            "columns": [*options.columns.names, separator_of(self.log.name)],
            "k": options.k,
            "every_click": options.every_click,
            "exclude": hashlib.sha256(self.filters.excluded_idx.tobytes()).hexdigest(),
            "exclude_seen": options.exclude_seen,
            "exclude_current": options.exclude_current,
            "allow": None if allowed is None else hashlib.sha256(allowed.tobytes()).hexdigest(),
        }

    def open(self, folder: Path, *, trust_pickle: bool = False) -> BulkRun:
        """Open the log as it is mapped in a folder; read it first where that was not done."""
        log = map_log(self.log, folder, self.options.columns, trust_pickle=trust_pickle)
        return BulkRun(log, self.finder, every_click=self.options.every_click)


class BulkRun:
    """A mapped log and a model, cut into parts.

    Args:
        log: The log.
        finder: Finds lists with the model.
        every_click: A row for each click.

    Attributes:
        n_sessions: Sessions of the log.
        n_clicks: Clicks of the log.
        n_unknown: Clicks on items that the model does not know.
        n_parts: Parts of the output.
        schema: Of the output.
        summary: What the log holds, in words.

    Raises:
        DataError: The model knows no item of the log.
    """

    def __init__(self, log: BulkLog, finder: Finder, *, every_click: bool) -> None:
        sessions, model = log.sessions, finder.recommender
        self._log, self._finder, self._every_click = log, finder, every_click
        self._model_idx = model.items.encode(sessions.items.item_ids)
        self.n_sessions, self.n_clicks = sessions.n_sessions, sessions.n_events
        self.summary = f"{sessions.source}: {self.n_clicks:,} events in {self.n_sessions:,} sessions"
        self.n_unknown = int(sessions.support()[self._model_idx < 0].sum())
        if self.n_unknown == self.n_clicks:
            raise DataError(
                f"none of the {sessions.items.n_items:,} items of {sessions.source} is known to the model. "
                "Use a log of the shop that the model was trained on, and the same item column"
            )
        self.schema = schema_of(log.id_type, model.items.item_ids.type, every_click=every_click)
        clicks = clicks_a_part(finder.filters.k, model.items.n_items)
        starts = np.unique(np.searchsorted(sessions.offsets, np.arange(0, self.n_clicks, clicks)))
        starts = starts[starts < self.n_sessions]
        self._starts, self.n_parts = np.r_[starts, self.n_sessions], len(starts)

    def sessions_of(self, part: int) -> tuple[int, int]:
        """Return the first session of a part, and the one after its last."""
        first, stop = self._starts[part : part + 2].tolist()
        return first, stop

    def n_clicks_of(self, part: int) -> int:
        """Return the number of clicks of a part."""
        first, stop = self._log.sessions.offsets[self._starts[part : part + 2]]
        return int(stop - first)

    def n_rows_of(self, part: int) -> int:
        """Return the number of rows of a part."""
        first, stop = self.sessions_of(part)
        return self.n_clicks_of(part) if self._every_click else stop - first

    def table(self, first: int, stop: int, before_batch: Callable[[], None] = lambda: None) -> pa.Table:
        """Return the rows of the sessions first..stop-1.

        Args:
            first: The first session.
            stop: The one after the last.
            before_batch: Called before each batch; may raise.

        Raises:
            DataError: The mapped log is damaged.
        """
        sessions = self._log.sessions.part(first, stop)
        sessions.check_offsets()
        item_idx = self._model_idx[sessions.items_at(slice(None))]
        stretch = Stretch(self._log.ids_of(first, stop), item_idx, sessions.offsets)
        return lists_of(self._finder, stretch, self.schema, before_batch=before_batch)


def clicks_a_part(k: int, n_items: int) -> int:
    """Return about how many clicks a part has: few seconds of work, and a table that is small in memory.

    Example:
        >>> clicks_a_part(20, 10_000), clicks_a_part(20, 1_000_000), clicks_a_part(5, 100)
        (100000, 16384, 262144)
    """
    seconds = max(_FEWEST_CLICKS_A_PART, min(_MOST_CLICKS_A_PART, _SCORES_A_PART // n_items))
    return max(1, min(seconds, _LISTED_A_PART // k))
