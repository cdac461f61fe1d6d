"""Reading a raw log into numbers: ids become codes while the files stream by, so that texts are held once each.

Codes are made by polars (a categorical column for each kind of id) and then renumbered in the order of the ids, which
makes them independent of the order of reading. Rows stay in file order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gru4rec.data.vocabulary import integers_where_possible
from gru4rec.errors import DataError
from gru4rec.prepare.layout import Condition, RawLayout
from gru4rec.prepare.reasons import listed
from gru4rec.prepare.sources import is_parquet, scan, worded
from gru4rec.prepare.times import Clock, clock_of

if TYPE_CHECKING:
    import polars as pl

_BATCH_ROWS = 1 << 20
_SNIFFED_ROWS = 1_000
_US_PER_MS = 1_000

_Kind = Literal["integer", "float", "iso", "text"]
_KINDS: dict[str, tuple[_Kind, ...]] = {
    "group": ("integer", "text"),
    "item": ("integer", "text"),
    "time": ("integer", "float", "iso"),
}
"""What a column can hold, the strictest first. A column starts as what its first rows look like, and falls back."""


@dataclass(frozen=True)
class RawEvents:
    """The usable rows of a raw log, in file order, as numbers.

    Attributes:
        group: Int32 (n,), code of each row's session or user; codes follow the order of ids.
        item: Int32 (n,), code of its item; codes follow the order of ids.
        time: Int64 or float64 (n,), ticks of ``clock``.
        counts_after_cut: Bool (n,), False for rows that only say that a visitor was there, whose item means nothing;
            None where all count.
        group_ids: The ids of the groups, int64 or text, ascending.
        item_ids: Likewise of the items.
        clock: What the ticks mean.
        n_rows: Rows in the files.
        rows_by_file: The same, file by file.
        dropped: Rows that are not here, by reason.
    """

    group: np.ndarray
    item: np.ndarray
    time: np.ndarray
    counts_after_cut: np.ndarray | None
    group_ids: pa.Array
    item_ids: pa.Array
    clock: Clock
    n_rows: int
    rows_by_file: dict[str, int]
    dropped: dict[str, int]


def read_raw(
    paths: Sequence[Path], layout: RawLayout, *, on_rows: Callable[[int], None] = lambda n_rows: None
) -> RawEvents:
    """Read the files of a raw log, one after the other.

    Rows that lack an id or a time are left out and counted; a time that is none is an error.

    Args:
        paths: The files.
        layout: What their columns are.
        on_rows: Called with the number of rows read since.

    Raises:
        DataError: A file cannot be read, lacks a column, holds a time that is none, or no row is left.
    """
    source = str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
    kinds = _sniffed(paths[0], layout)
    error: DataError | None = None
    while True:
        columns = _Columns(layout, kinds)
        try:
            for path in paths:
                columns.read(path, on_rows)
            return columns.encoded(source)
        except _OfAnotherKindError as other:
            on_rows(-columns.n_rows)
            error = error or other.error
            weaker = _KINDS[other.column][_KINDS[other.column].index(kinds[other.column]) + 1 :]
            if not weaker:
                raise error or other from None
            kinds = {**kinds, other.column: weaker[0]}


class _OfAnotherKindError(Exception):
    """A value is not of the kind that its column is read as; only if no kind fits does that become an error."""

    def __init__(self, column: str, error: DataError | None = None) -> None:
        super().__init__(column)
        self.column, self.error = column, error


@dataclass
class _Columns:
    """The columns of a raw log while its files are read, in pieces."""

    layout: RawLayout
    kinds: dict[str, _Kind]
    pieces: dict[str, list[np.ndarray]] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    n_rows: int = 0
    rows_by_file: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        import polars as pl

        self._categories = {name: pl.Categories.random() for name in ("group", "item")}
        # Codes keep their meaning only while a column of them exists.
        self._kept = [pl.Series([], dtype=pl.Categorical(ids)) for ids in self._categories.values()]

    def read(self, path: Path, on_rows: Callable[[int], None]) -> None:
        """Read one file."""
        row = 0
        for batch in _batches(scan(path, self.layout).select(self._expressions()), path):
            self._check(batch, path, row)
            row += batch.height
            self.n_rows += batch.height
            self._take(batch)
            on_rows(batch.height)
        self.rows_by_file[str(path)] = row

    def _expressions(self) -> list[pl.Expr]:
        import polars as pl

        layout, keep = self.layout, self.layout.keep
        expressions = [] if keep is None else [_holds(keep).alias("counts")]
        for name, key in (("group", layout.group_key), ("item", layout.item_key)):
            text = _given(_counted(key, keep), layout.missing)
            if name == "item" and layout.keep_after_cut is not None:  # what other rows hold there is no item
                text = pl.when(_holds(layout.keep_after_cut)).then(text)
            if self.kinds[name] == "integer":
                expressions += [text.cast(pl.Int64, strict=False).alias(name), _no_integer(text).alias(f"bad_{name}")]
            else:
                categories = pl.Categorical(self._categories[name])
                expressions.append(text.cast(categories).to_physical().alias(name))
        for name, time_key, kind in (("time", layout.time_key, self.kinds["time"]), ("date", layout.date_key, "iso")):
            if time_key is not None:
                text = _given(_counted(time_key, keep), layout.missing)
                ticks = _ticks(text, kind)
                expressions += [ticks.alias(name), (ticks.is_null() & text.is_not_null()).alias(f"bad_{name}")]
        if layout.keep_after_cut is not None:
            expressions.append(_holds(layout.keep_after_cut).alias("counts_after_cut"))
        return expressions

    def _check(self, batch: pl.DataFrame, path: Path, row: int) -> None:
        """Make sure that all values of a batch are of the kind that its columns are read as."""
        for name in ("group", "item"):
            if self.kinds[name] == "integer" and batch[f"bad_{name}"].any():
                raise _OfAnotherKindError(name)
        for name, key, wanted in (
            ("time", self.layout.time_key, "a number, or ISO 8601 text such as 2014-04-07T10:51:09.277Z"),
            ("date", self.layout.date_key, "a date such as 2016-05-09"),
        ):
            if key is not None and batch[f"bad_{name}"].any():
                wrong = row + int(batch[f"bad_{name}"].arg_max() or 0)
                text = scan(path, self.layout).select(key).slice(wrong, 1).collect().item()
                error = DataError(
                    f"{key} is {text!r} in row {wrong + 1} of {path}. It must be {wanted}. "
                    "Mend the row, or name another column with --time_key"
                )
                raise error if name == "date" else _OfAnotherKindError(name, error)

    def _take(self, batch: pl.DataFrame) -> None:
        """Keep the usable rows of a batch, and count the others by reason."""
        import polars as pl

        usable = pl.repeat(True, batch.height, eager=True) if self.layout.keep is None else batch["counts"]
        self._count("other_event", batch.height - int(usable.sum()))
        has_item = batch["item"].is_not_null()
        if self.layout.keep_after_cut is not None:  # without an item a row still shows that a visitor was there
            batch = batch.with_columns(counts_after_cut=batch["counts_after_cut"] & has_item)
            has_item = pl.repeat(True, batch.height, eager=True)
        has_time = batch["time"].is_not_null()
        if self.layout.date_key is not None:
            has_time &= batch["date"].is_not_null()
        no_group = "no_session" if self.layout.session_key is not None else "no_user"
        for reason, holds in ((no_group, batch["group"].is_not_null()), ("no_item", has_item), ("no_time", has_time)):
            self._count(reason, int((usable & ~holds).sum()))
            usable &= holds
        kept = batch if usable.all() else batch.filter(usable)
        if not kept.height:
            return
        some_item = kept["item"].min() or 0  # for rows that need none
        kept = kept.with_columns(item=kept["item"].fill_null(some_item))
        for name in ("group", "item", "time", "counts_after_cut", "date"):
            if name in kept.columns:
                self.pieces.setdefault(name, []).append(kept[name].to_numpy())

    def _count(self, reason: str, n_rows: int) -> None:
        if n_rows:
            self.dropped[reason] = self.dropped.get(reason, 0) + n_rows

    def encoded(self, source: str) -> RawEvents:
        """Renumber the codes by the order of ids, and find out what the times mean."""
        if not sum(map(len, self.pieces.get("time", []))):
            raise DataError(
                f"no row of {source} can be used ({listed(self.dropped) if self.dropped else 'there is none'}). "
                f"Check the column flags{self._seen_values()}"
            )
        with ThreadPoolExecutor(2) as pool:
            of_group = pool.submit(self._codes, "group", self.layout.group_key, source)
            of_item = pool.submit(self._codes, "item", self.layout.item_key, source)
            time = self._joined("time")
            (group, group_ids), (item, item_ids) = of_group.result(), of_item.result()
        if self.layout.date_key is not None:
            time = _first_date_ms(group, self._joined("date"), len(group_ids))[group] + time
        clock = Clock("us", from_text=True) if self.kinds["time"] == "iso" else self._numeric_clock(time, source)
        marks = self._joined("counts_after_cut") if self.layout.keep_after_cut is not None else None
        return RawEvents(
            group, item, time, marks, group_ids, item_ids, clock, self.n_rows, self.rows_by_file, self.dropped
        )

    def _seen_values(self) -> str:
        """Say what the column of --keep holds."""
        import polars as pl

        keep = self.layout.keep
        if keep is None:
            return ""
        column = pl.concat([scan(Path(path), self.layout).select(keep.column) for path in self.rows_by_file])
        counted = column.group_by(keep.column).len().sort("len", descending=True).head(5).collect()
        seen = ", ".join(f"{value!r} ({n:,})" for value, n in counted.iter_rows())
        return f" and --keep: column {keep.column!r} holds {seen}"

    def _numeric_clock(self, time: np.ndarray, source: str) -> Clock:
        unit = "ms" if self.layout.date_key is not None else self.layout.time_unit
        return clock_of(time, unit, source)

    def _codes(self, name: str, key: str, source: str) -> tuple[np.ndarray, pa.Array]:
        """Return int32 (n,) codes in the order of the ids, and the ids."""
        pieces = self.pieces.pop(name)
        if self.kinds[name] == "integer":
            return _dense(pieces)
        rank, ids = _in_order(self._categories[name].to_series(), key, source)
        if not len(ids):  # no row counts, and those that only cut have no item
            return np.zeros(sum(map(len, pieces)), dtype=np.int32), ids
        return np.concatenate([rank[piece] for piece in pieces]), ids

    def _joined(self, name: str) -> np.ndarray:
        return np.concatenate(self.pieces.pop(name))


def _batches(frame: pl.LazyFrame, path: Path) -> Iterator[pl.DataFrame]:
    """Stream a file, a million rows at a time.

    All columns of a text file are read, also those that nobody asked for: else a row with a field too many would be
    taken for one of shifted columns.
    """
    import polars as pl

    with worded(path):
        plan = pl.QueryOptFlags(projection_pushdown=is_parquet(path))
        yield from frame.collect_batches(chunk_size=_BATCH_ROWS, engine="streaming", optimizations=plan)


def _holds(condition: Condition) -> pl.Expr:
    import polars as pl

    column = pl.col(condition.column)
    return column.is_in(list(condition.values)).fill_null(False) if condition.values else column.is_not_null()


def _counted(name: str, condition: Condition | None) -> pl.Expr:
    """Return a column's texts, nothing where the row does not count."""
    import polars as pl

    return pl.col(name) if condition is None else pl.when(_holds(condition)).then(pl.col(name))


def _given(text: pl.Expr, missing: tuple[str, ...]) -> pl.Expr:
    """Return texts, nothing where they are words for nothing."""
    import polars as pl

    return pl.when(~text.is_in(list(missing))).then(text) if missing else text


def _no_integer(text: pl.Expr) -> pl.Expr:
    """Tell texts that are not the usual spelling of a 64-bit integer: ``007`` and ``7`` are different ids."""
    import polars as pl

    odd = (text.str.starts_with("0") & (text != "0")) | text.str.starts_with("+") | text.str.starts_with("-0")
    return (odd | text.cast(pl.Int64, strict=False).is_null()) & text.is_not_null()


def _ticks(text: pl.Expr, kind: str) -> pl.Expr:
    """Parse times; null where a text is no time of this kind."""
    import polars as pl

    if kind == "integer":
        return text.cast(pl.Int64, strict=False)
    if kind == "float":
        number = text.cast(pl.Float64, strict=False)
        return pl.when(number.is_finite()).then(number)
    iso = text.str.replace(" UTC", "Z", literal=True).str.replace(" ", "T", literal=True)
    zoned = iso.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%#z", strict=False, time_unit="us")
    plain = iso.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", strict=False, time_unit="us").dt.replace_time_zone("UTC")
    date = iso.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us", "UTC"))
    return pl.coalesce(zoned, plain, date).to_physical()


def _sniffed(path: Path, layout: RawLayout) -> dict[str, _Kind]:
    """Tell from the first rows what each column looks like; a wrong guess costs time, no more."""
    import polars as pl

    keys = {"group": layout.group_key, "item": layout.item_key, "time": layout.time_key}
    rows = scan(path, layout)
    if layout.keep_after_cut is not None:  # what other rows hold there is no item
        rows = rows.filter(_holds(layout.keep_after_cut))
    rows = rows.select(**{name: _given(_counted(key, layout.keep), layout.missing) for name, key in keys.items()})
    rows = rows.head(_SNIFFED_ROWS)
    texts = pl.DataFrame(schema=dict.fromkeys(keys, pl.String))
    for batch in _batches(rows, path):
        texts = texts.vstack(batch)
    return {name: next(kind for kind in kinds if _looks_like(texts[name], kind)) for name, kinds in _KINDS.items()}


def _looks_like(texts: pl.Series, kind: _Kind) -> bool:
    import polars as pl

    column = pl.col(texts.name)
    if kind in ("iso", "text"):  # the last resort
        return True
    texts = texts.drop_nulls()
    if texts.name == "time":  # the first decides: a wrong one behind it is to be found, not to be followed
        return not texts.head(1).to_frame().select(_ticks(column, kind).is_null().any()).item()
    return not texts.to_frame().select(_no_integer(column).any()).item()


def _dense(pieces: list[np.ndarray]) -> tuple[np.ndarray, pa.Array]:
    """Renumber integer ids by size, piece by piece where a table of all possible ids is small.

    Returns:
        codes: Int32 (n,), the place of each among the distinct ids.
        distinct: Int64, ascending.
    """
    low, high = int(min(ids.min() for ids in pieces)), int(max(ids.max() for ids in pieces))
    if high - low > 4 * sum(map(len, pieces)) + (1 << 20):
        distinct, codes = np.unique(np.concatenate(pieces), return_inverse=True)
        return codes.astype(np.int32, copy=False), pa.array(distinct)
    is_used = np.zeros(high - low + 1, dtype=np.bool_)
    for ids in pieces:
        is_used[ids - low] = True
    rank = np.cumsum(is_used, dtype=np.int32)
    rank -= 1
    return np.concatenate([rank[ids - low] for ids in pieces]), pa.array(np.flatnonzero(is_used) + low)


def _in_order(texts: pl.Series, name: str, source: str) -> tuple[np.ndarray, pa.Array]:
    """Sort the distinct ids, given as text.

    Returns:
        rank: Int32 (n_ids,), the place of each category among the sorted ids.
        ids: The sorted ids, int64 or text.
    """
    ids = texts.to_arrow().cast(pa.large_string())
    spread = ids.filter(pc.match_substring_regex(ids, "[\\n\\r\\x00]"))
    if len(spread):
        raise DataError(
            f"an id in column {name!r} of {source} is not one line of text: {spread[0].as_py()[:60]!r}. "
            "Close the quote before it, or double quotes that belong to the id"
        )
    ids = integers_where_possible(ids)
    is_integer = pa.types.is_integer(ids.type)
    order = np.argsort(ids.to_numpy()) if is_integer else texts.arg_sort().to_numpy()
    rank = np.empty(len(order), dtype=np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    return rank, ids.take(pa.array(order)) if is_integer else texts.gather(order).to_arrow().cast(pa.large_string())


def _first_date_ms(group: np.ndarray, date_us: np.ndarray, n_groups: int) -> np.ndarray:
    """Return int64 (n_groups,), the earliest date of each group, in ms since 1970."""
    first = np.full(n_groups, np.iinfo(np.int64).max)
    np.minimum.at(first, group, date_us)
    return first // _US_PER_MS
