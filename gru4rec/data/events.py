"""An event log: a file or a data frame becomes an :class:`EventLog`, three checked columns.

Ids are encoded once to dense int32 codes. This module knows nothing of models or batches, and no data frame travels
further than here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gru4rec.data.files import ENCODED_TEXT, Columns, first_line, need_columns, read_file
from gru4rec.data.vocabulary import Vocabulary, integers_where_possible
from gru4rec.errors import DataError


@dataclass(frozen=True)
class EventLog:
    """An event log in memory; row order is that of the input.

    Attributes:
        session_code: Int32 (n_events,). Codes follow the order of the session ids: 0 is the smallest id.
        item_code: Int32 (n_events,), index into ``items``.
        time: Int64 or float64 (n_events,), in the caller's unit, finite.
        items: The distinct item ids in order of first appearance.
        n_sessions: Number of distinct session ids.
        source: What messages call this log: a path or a kind of data frame.
    """

    session_code: np.ndarray
    item_code: np.ndarray
    time: np.ndarray
    items: Vocabulary
    n_sessions: int
    source: str

    @property
    def n_events(self) -> int:
        """Number of rows."""
        return len(self.time)


def load_events(data: Any, *, columns: Columns | None = None, trust_pickle: bool = False) -> EventLog:
    """Turn a path, a pandas, polars or Arrow table, or an EventLog into an EventLog. The input is not changed.

    Args:
        data: What holds the events. Files: TAB separated ``.tsv``/``.txt``, ``.csv``, ``.parquet``, each also
            gzip-compressed, or (with ``trust_pickle``) a pickled pandas frame.
        columns: Names of the session, item and time columns.
        trust_pickle: Unpickle a file that is a pickle. That can execute code from the file: only for files you made.

    Raises:
        DataError: The log cannot be read, lacks a column, has missing or non-numeric values, or has no event.
    """
    if isinstance(data, EventLog):
        return data
    columns = columns or Columns()
    kind = f"the {type(data).__module__.partition('.')[0]} table"
    if isinstance(data, str | Path):
        kind, data = str(data), read_file(Path(data), columns, trust_pickle=trust_pickle)
    return _from_table(_arrow_table(data, columns, kind), columns, kind)


def _from_table(table: pa.Table, columns: Columns, source: str) -> EventLog:
    """Check and encode the three columns of an Arrow table."""
    if not table.num_rows:
        raise DataError(f"{source} has no events. Give a log with at least one session of two events")
    session_codes, session_ids = _encode(table[columns.session_key], columns.session_key, source)
    item_codes, item_ids = _encode(table[columns.item_key], columns.item_key, source)
    order = pc.array_sort_indices(session_ids).to_numpy()
    rank = np.empty(len(order), dtype=np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    return EventLog(
        session_code=rank[session_codes],
        item_code=item_codes,
        time=_numbers(table[columns.time_key], columns.time_key, source),
        items=Vocabulary(item_ids),
        n_sessions=len(session_ids),
        source=source,
    )


def _encode(column: pa.ChunkedArray, name: str, source: str) -> tuple[np.ndarray, pa.Array]:
    """Encode ids to int32 codes in order of first appearance.

    Returns:
        codes: Int32 (n_events,).
        ids: The distinct ids, int64 or string.
    """
    column = _usual_id_type(column, name, source)
    if column.null_count:
        raise _missing_ids(pc.is_null(column).to_numpy(), name, source)
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    encoded = encoded.unify_dictionaries().combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):  # older pyarrow keeps one chunk
        encoded = encoded.chunk(0)
    ids = encoded.dictionary
    codes = encoded.indices.to_numpy().astype(np.int32, copy=False)
    codes, ids = _drop_unused(codes, ids)
    if not pa.types.is_string(ids.type):
        return codes, ids
    empty_code = pc.index(ids, "").as_py()  # an empty text is no id, in a frame as in a file
    if empty_code >= 0:
        raise _missing_ids(codes == empty_code, name, source)
    return codes, integers_where_possible(ids)


def _missing_ids(is_missing: np.ndarray, name: str, source: str) -> DataError:
    rows = np.flatnonzero(is_missing)
    return DataError(
        f"{len(rows)} of {len(is_missing)} rows of {source} have no {name} (first: row {rows[0] + 1}). "
        "Fill or drop them"
    )


def _usual_id_type(column: pa.ChunkedArray, name: str, source: str) -> pa.ChunkedArray:
    """Bring an id column to int64, string, or dictionary-encoded string."""
    kind = column.type
    values = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_boolean(values) or pa.types.is_temporal(values):
        raise DataError(f"column {name!r} of {source} holds {kind} values, which are not ids. Use integers or text")
    try:
        if pa.types.is_integer(values):
            return column.cast(pa.int64())
        if pa.types.is_floating(values):  # what pandas makes of integers once one of them was missing
            return _whole_numbers(column.cast(values))
        if pa.types.is_dictionary(kind) and not any(map(_is_odd_dictionary, column.chunks)):
            return column.cast(ENCODED_TEXT)
        return column.cast(values).cast(pa.string())
    except pa.ArrowException as error:
        raise DataError(
            f"column {name!r} of {source} holds {kind} values that are not ids ({first_line(error)}). "
            "Use signed 64-bit integers or text"
        ) from None


def _whole_numbers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Turn floats into int64 if each is whole and small enough that no rounding can have merged it with another."""
    limit = 2.0 ** (np.finfo(column.type.to_pandas_dtype()).nmant + 1)
    largest = pc.max(pc.abs(column.cast(pa.float64()))).as_py() or 0.0
    if limit <= largest < np.inf:
        raise pa.ArrowInvalid(f"Float value {largest:.0f} has lost digits, which merges ids")
    return column.cast(pa.float64()).cast(pa.int64())


def _is_odd_dictionary(chunk: pa.DictionaryArray) -> bool:
    """Tell whether a dictionary holds null, or a value twice; then its codes are not its values."""
    return len(pc.unique(chunk.dictionary.drop_null())) != len(chunk.dictionary)


def _drop_unused(codes: np.ndarray, ids: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Renumber codes by first appearance and leave out ids that no row has (categories of a data frame)."""
    first_row = np.full(len(ids), len(codes), dtype=np.int64)
    np.minimum.at(first_row, codes, np.arange(len(codes)))
    order = np.argsort(first_row, kind="stable")
    order = order[first_row[order] < len(codes)]
    if len(order) == len(ids) and np.array_equal(order, np.arange(len(ids))):
        return codes, ids
    renumbered = np.full(len(ids), -1, dtype=np.int32)
    renumbered[order] = np.arange(len(order), dtype=np.int32)
    return renumbered[codes], ids.take(pa.array(order))


def _numbers(column: pa.ChunkedArray, name: str, source: str) -> np.ndarray:
    """Return the time column as int64 or float64, all finite."""
    kind = column.type
    wanted = pa.float64() if pa.types.is_floating(kind) else pa.int64()
    try:
        if pa.types.is_date(kind):
            column = column.cast(pa.timestamp("ms"))
        elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_timestamp(kind)):
            raise pa.ArrowInvalid("not numbers")
        times: np.ndarray = column.cast(wanted).to_numpy()
    except pa.ArrowException as error:
        raise DataError(
            f"column {name!r} of {source} holds {kind} values ({first_line(error)}). "
            "Time must be an integer or float number, or a timestamp"
        ) from None
    missing = np.flatnonzero(pc.is_null(column).to_numpy() | ~np.isfinite(times))
    if len(missing):
        row = int(missing[0])
        value = column[row].as_py()
        raise DataError(
            f"{len(missing)} of {len(column)} rows of {source} have no finite {name} "
            f"(first: {'nothing' if value is None else value} in row {row + 1}). Drop or fill them"
        )
    return times


def _arrow_table(frame: Any, columns: Columns, kind: str) -> pa.Table:
    """Take the three columns of a pandas, polars or Arrow table."""
    names = getattr(frame, "column_names", None) or getattr(frame, "columns", None)
    if names is None or not hasattr(frame, "__getitem__"):
        raise DataError(
            f"cannot read events from {kind}: it is a {type(frame).__name__}. "
            "Give a path, or a pandas, polars or Arrow table"
        )
    need_columns([str(name) for name in names], columns, kind)
    try:
        wanted = list(columns.names)
        if isinstance(frame, pa.Table):
            return frame.select(wanted)
        if hasattr(frame, "to_records"):  # pandas, which needs to be told to leave its index alone
            return pa.Table.from_pandas(frame[wanted], preserve_index=False)
        taken = frame[wanted]
        return taken.to_arrow() if hasattr(taken, "to_arrow") else pa.table(taken)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"cannot read {kind}: {first_line(error)}. Ids must be all integers (64 bit) or all text, times numbers"
        ) from None
