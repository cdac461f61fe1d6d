"""Reading an event log: a file or a data frame becomes an :class:`EventLog`, three checked columns.

Ids are encoded once, while reading, to dense int32 codes. This module knows nothing of models or batches, and no data
frame travels further than here.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as papq

from gru4rec.data.vocabulary import Vocabulary, integers_where_possible
from gru4rec.errors import DataError

_ENCODED_TEXT = pa.dictionary(pa.int32(), pa.string())
_UNREADABLE = (OSError, EOFError, zlib.error, pa.ArrowException)
_NOT_UTF8 = "{path} is not UTF-8 text. Convert its text to UTF-8; other logs are read as .parquet"
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Columns:
    """Names of the three columns that a log is read from, as ``-sk``, ``-ik`` and ``-tk`` give them."""

    session_key: str = "SessionId"
    item_key: str = "ItemId"
    time_key: str = "Time"

    @property
    def names(self) -> tuple[str, str, str]:
        """The three names in the order session, item, time."""
        return self.session_key, self.item_key, self.time_key


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
    if isinstance(data, str | Path):
        return _from_table(_read_file(Path(data), columns, trust_pickle), columns, str(data))
    kind = f"the {type(data).__module__.partition('.')[0]} table"
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
            return column.cast(_ENCODED_TEXT)
        return column.cast(values).cast(pa.string())
    except pa.ArrowException as error:
        raise DataError(
            f"column {name!r} of {source} holds {kind} values that are not ids ({_first_line(error)}). "
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
            f"column {name!r} of {source} holds {kind} values ({_first_line(error)}). "
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
    _need_columns([str(name) for name in names], columns, kind)
    try:
        wanted = list(columns.names)
        if isinstance(frame, pa.Table):
            return frame.select(wanted)
        if hasattr(frame, "to_records"):  # pandas, which needs to be told to leave its index alone
            return pa.Table.from_pandas(frame[wanted], preserve_index=False)
        return pa.table(frame[wanted])
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"cannot read {kind}: {_first_line(error)}. Ids must be all integers (64 bit) or all text, times numbers"
        ) from None


def _need_columns(names: list[str], columns: Columns, source: str) -> None:
    flags = {columns.session_key: "--session_key", columns.item_key: "--item_key", columns.time_key: "--time_key"}
    if len(flags) < 3:
        raise DataError(
            f"session, item and time must be three columns, not {', '.join(columns.names)}. Check -sk, -ik, -tk"
        )
    for wanted, flag in flags.items():
        if wanted not in names:
            raise DataError(
                f"no column {wanted!r} in {source} (it has: {', '.join(names) or 'no columns'}). "
                f"Pass {flag} NAME, or rename the column{_separator_hint(names)}"
            )
        if names.count(wanted) > 1:
            raise DataError(f"column {wanted!r} stands {names.count(wanted)} times in {source}. Keep one of them")


def _first_line(error: BaseException) -> str:
    return "; ".join(str(part).partition("\n")[0] for part in error.args)


def _separator_hint(names: list[str]) -> str:
    if len(names) != 1:
        return ""
    for character, word in ((",", "comma"), (";", "semicolon"), ("\t", "TAB"), ("|", "bar"), (" ", "space")):
        if character in names[0]:
            return (
                f". The header is one word with a {word} in it: .csv files are read as comma separated, "
                "all other text files as TAB separated"
            )
    return ""


# ---------------------------------------------------------------------------------------------------------------------
# Files


def _read_file(path: Path, columns: Columns, trust_pickle: bool) -> pa.Table:
    head = _guard(lambda: _head(path), path)
    if not head:
        raise DataError(f"{path} is empty. Give a log with a header and at least one session of two events")
    if head[:4] == b"PAR1":
        return _guard(lambda: _read_parquet(path, columns), path)
    if head[:1] == b"\x80" or path.name.removesuffix(".gz").endswith((".pickle", ".pkl")):
        return _read_pickle(path, columns, trust_pickle)
    if b"\0" in head:
        raise DataError(f"{path} is not a text file. Give a .tsv, .txt, .csv or .parquet log")
    return _guard(lambda: _read_text(path, columns), path)


def _guard(read: Callable[[], _Result], path: Path) -> _Result:
    """Run a reading step and word what the system or Arrow says about the file."""
    try:
        return read()
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"there is no file {path}. Check the path") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder. Give the path of one file") from None
    except PermissionError:
        raise DataError(f"no permission to read {path}. Change its mode, or copy it") from None
    except UnicodeDecodeError:
        raise DataError(_NOT_UTF8.format(path=path)) from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is a damaged gzip file ({error}). Compress or copy it again") from None
    except _UNREADABLE as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"cannot read {path}: {reason}. Mend the file, or export it again") from None


def _head(path: Path) -> bytes:
    with _open(path) as file:
        return file.read(512)


def _open(path: Path) -> IO[bytes]:
    """Open a file for reading, unpacking gzip whatever the name says."""
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(path, "rb") if packed else open(path, "rb"))


def _read_parquet(path: Path, columns: Columns) -> pa.Table:
    with _open(path) as file:
        source = pa.BufferReader(file.read()) if isinstance(file, gzip.GzipFile) else file
        parquet = papq.ParquetFile(source)
        _need_columns(parquet.schema_arrow.names, columns, str(path))
        return parquet.read(columns=list(columns.names))


def _read_pickle(path: Path, columns: Columns, trust_pickle: bool) -> pa.Table:
    if not trust_pickle:
        raise DataError(
            f"{path} is a pickle, and loading a pickle can execute code. If you made the file yourself, "
            "pass --trust-pickle; better, save the frame as .parquet"
        )
    try:
        import pandas as pd
    except ImportError:
        raise DataError(f"reading the pickle {path} needs pandas. Run: pip install pandas") from None
    try:
        with _open(path) as file:
            frame = pd.read_pickle(io.BytesIO(file.read()), compression=None)
    except Exception as error:  # a pickle can raise anything
        raise DataError(f"cannot read the pickle {path}: {error}. Save the frame again, best as .parquet") from None
    return _arrow_table(frame, columns, str(path))


def _read_text(path: Path, columns: Columns) -> pa.Table:
    """Read a TAB or comma separated file."""
    delimiter = "," if path.name.lower().removesuffix(".gz").endswith(".csv") else "\t"
    header = _header(path, delimiter)
    _need_columns(header, columns, str(path))
    try:
        table = _read_rows(path, columns, delimiter)
    except pa.ArrowInvalid as error:
        if "Empty CSV file" in str(error):  # a header without a line end
            return pa.table({name: pa.nulls(0) for name in columns.names})
        if "CSV parse error" in str(error):
            raise _ragged_row(path, columns, delimiter, error) from None
        if "invalid UTF8" in str(error):
            raise DataError(_NOT_UTF8.format(path=path)) from None
        raise
    for name in (columns.session_key, columns.item_key):
        _need_one_line_ids(table[name], name, path)
    return table


def _read_rows(path: Path, columns: Columns, delimiter: str) -> pa.Table:
    """Read times as integers if they all are, else as floats."""
    for time_type in (pa.int64(), pa.float64()):
        try:
            return _read_columns(path, columns, delimiter, time_type)
        except pa.ArrowInvalid as error:
            if "conversion error" not in str(error):
                raise
    texts = _read_columns(path, columns, delimiter, pa.string())[columns.time_key]
    raise _bad_time(texts.to_pylist(), columns.time_key, path)


def _header(path: Path, delimiter: str) -> list[str]:
    with io.TextIOWrapper(_open(path), encoding="utf-8-sig") as file:
        try:
            return next((names for names in csv.reader(file, delimiter=delimiter) if names), [])
        except csv.Error as error:
            raise DataError(
                f"{path} has no header that can be read ({error}). Name the columns in its first line"
            ) from None


def _read_columns(
    path: Path, columns: Columns, delimiter: str, time_type: pa.DataType, on_ragged_row: Any = None
) -> pa.Table:
    types = {columns.session_key: _ENCODED_TEXT, columns.item_key: _ENCODED_TEXT, columns.time_key: time_type}
    with _open(path) as file:
        return pacsv.read_csv(
            file,
            read_options=pacsv.ReadOptions(use_threads=on_ragged_row is None),  # only one thread counts rows
            parse_options=pacsv.ParseOptions(delimiter=delimiter, invalid_row_handler=on_ragged_row),
            convert_options=pacsv.ConvertOptions(
                column_types=types, include_columns=list(columns.names), null_values=[""], strings_can_be_null=True
            ),
        )


def _ragged_row(path: Path, columns: Columns, delimiter: str, error: Exception) -> Exception:
    """Find the first row that has more or fewer fields than the header."""
    found: list[Any] = []

    def stop(row: Any) -> str:
        found.append(row)
        return "error"

    with contextlib.suppress(pa.ArrowInvalid):
        _read_columns(path, columns, delimiter, pa.string(), stop)
    if not found:
        return error
    row = found[0]
    return DataError(
        f"row {row.number - 1} of {path} has {row.actual_columns} fields and the header {row.expected_columns}: "
        f"{row.text[:100]!r}. Mend the row, or export the file again"
    )


def _bad_time(texts: list[str | None], name: str, path: Path) -> DataError:
    """Find the first value of the time column that is not a number."""
    row, text = next(((row, text) for row, text in enumerate(texts, 1) if not _is_number(text)), (1, texts[0]))
    return DataError(
        f"{name} is {text!r} in row {row} of {path}. Time must be an integer or float number, "
        "such as seconds since 1970"
    )


def _is_number(text: str | None) -> bool:
    """Tell whether Arrow reads a text as a number; no text at all is reported elsewhere."""
    try:
        pa.array([text and text.strip(" \t")], pa.string()).cast(pa.float64())
    except pa.ArrowInvalid:
        return False
    return True


def _need_one_line_ids(column: pa.ChunkedArray, name: str, path: Path) -> None:
    """Refuse an id that spans lines: a quote that is never closed makes one id out of many rows."""
    for chunk in column.chunks:
        ids = chunk.dictionary.filter(pc.match_substring_regex(chunk.dictionary, "[\\n\\r\\x00]"))
        if len(ids):
            raise DataError(
                f"an id in column {name!r} of {path} is not one line of text: {ids[0].as_py()[:60]!r}. "
                "Close the quote before it, or double quotes that belong to the id"
            )
