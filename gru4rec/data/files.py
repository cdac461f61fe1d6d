"""Reading a log's file into an Arrow table of three columns: text, Parquet, or a trusted pickle.

Knows file formats and column names; what the columns must hold is checked in ``events``.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import re
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as papq

from gru4rec.errors import DataError

ENCODED_TEXT = pa.dictionary(pa.int32(), pa.string())
"""How text ids are held: encoded while reading."""

PICKLE_MARK = b"\x80"
"""The first byte of a pickle."""

_UNREADABLE = (OSError, EOFError, zlib.error, pa.ArrowException)
_NOT_UTF8 = "{path} is not UTF-8 text. Convert its text to UTF-8; other logs are read as .parquet"
_PATIENCE_S = 1.0
"""How long Arrow's threads may hold a file that was read; they let go of it within a millisecond."""
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Columns:
    """Names of the three columns that a log is read from, as ``-sk``, ``-ik`` and ``-tk`` give them.

    Attributes:
        session_key: Of session ids.
        item_key: Of item ids.
        time_key: Of times.
        given_as: What gives them to the caller of a command: session, item, time.
        advice: How it is given, for messages; ``{name}`` stands for one of ``given_as``.
    """

    session_key: str = "SessionId"
    item_key: str = "ItemId"
    time_key: str = "Time"
    given_as: tuple[str, ...] = ("--session_key", "--item_key", "--time_key")
    advice: str = "Pass {name} NAME"

    @property
    def names(self) -> tuple[str, str, str]:
        """The three names in the order session, item, time."""
        return self.session_key, self.item_key, self.time_key


def read_file(path: Path, columns: Columns, *, trust_pickle: bool) -> Any:
    """Read a log's file.

    Returns:
        An Arrow table of the three columns; for a trusted pickle the data frame that was in it.

    Raises:
        DataError: The file cannot be read, lacks a column, or is a pickle that is not trusted.
    """
    head = _guard(lambda: _head(path), path)
    if not head:
        raise DataError(f"{path} is empty. Give a log with a header and at least one session of two events")
    if head[:4] == b"PAR1":
        return _guard(lambda: _read_parquet(path, columns), path)
    if head[:1] == PICKLE_MARK or is_pickle_name(path.name):
        return _read_pickle(path, trust_pickle)
    if re.match(rb'\s*(\{|\[\s*[{\["])', head):
        raise DataError(
            f"{path} is JSON, which is no log. Give a .tsv, .txt, .csv or .parquet log; gru4rec prepare makes one of "
            "JSON lines"
        )
    if b"\0" in head:
        raise DataError(f"{path} is not a text file. Give a .tsv, .txt, .csv or .parquet log")
    return _guard(lambda: _read_text(path, columns), path)


def is_pickle_name(name: str) -> bool:
    """Tell whether a file's name is that of a pickle."""
    return name.removesuffix(".gz").endswith((".pickle", ".pkl"))


def separator_of(name: str) -> str:
    """Return what separates the fields of a text file, which its name decides: a comma for .csv, else a TAB."""
    return "," if name.lower().removesuffix(".gz").endswith(".csv") else "\t"


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
        reason = str(error).partition("\n")[0].rstrip(".")
        raise DataError(f"cannot read {path}: {reason}. Mend the file, or export it again") from None


def _head(path: Path) -> bytes:
    with _open(path) as file:
        return file.read(512)


def _open(path: Path) -> IO[bytes]:
    """Open a file for reading, unpacking gzip whatever the name says."""
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(path, "rb") if packed else open(path, "rb"))


@contextlib.contextmanager
def _lent_to_arrow(file: IO[bytes]) -> Iterator[None]:
    """Let Arrow's threads read a file, and wait until they have let go of it.

    One that does so a moment later, while Python is about to exit, ends the process with SIGABRT.
    """
    n_references = sys.getrefcount(file)
    try:
        yield
    finally:
        until = time.monotonic() + _PATIENCE_S
        while sys.getrefcount(file) > n_references and time.monotonic() < until:
            time.sleep(0.0002)


def _read_parquet(path: Path, columns: Columns) -> pa.Table:
    with _open(path) as file:
        packed = isinstance(file, gzip.GzipFile)
        source = pa.BufferReader(file.read()) if packed else pa.OSFile(str(path))
    with source:
        parquet = papq.ParquetFile(source)
        need_columns(parquet.schema_arrow.names, columns, str(path))
        return parquet.read(columns=list(columns.names))


def _read_pickle(path: Path, trust_pickle: bool) -> Any:
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
            return pd.read_pickle(io.BytesIO(file.read()), compression=None)
    except Exception as error:  # a pickle can raise anything
        raise DataError(f"cannot read the pickle {path}: {error}. Save the frame again, best as .parquet") from None


def _read_text(path: Path, columns: Columns) -> pa.Table:
    """Read a TAB or comma separated file."""
    delimiter = separator_of(path.name)
    header = _header(path, delimiter)
    need_columns(header, columns, str(path))
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
    types = {columns.session_key: ENCODED_TEXT, columns.item_key: ENCODED_TEXT, columns.time_key: time_type}
    with _open(path) as file, _lent_to_arrow(file):
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


def need_columns(names: list[str], columns: Columns, source: str) -> None:
    """Make sure that a log has each of the three columns once.

    Raises:
        DataError: It does not; the message names what to give.
    """
    given_as = dict(zip(columns.names, columns.given_as, strict=True))
    if len(given_as) < 3:
        raise DataError(
            f"session, item and time must be three columns, not {', '.join(columns.names)}. "
            f"Check {', '.join(columns.given_as)}"
        )
    for wanted, name in given_as.items():
        if wanted not in names:
            raise DataError(
                f"no column {wanted!r} in {source} (it has: {', '.join(names) or 'no columns'}). "
                f"{columns.advice.replace('{name}', name)}, or rename the column{_separator_hint(names)}"
            )
        if names.count(wanted) > 1:
            raise DataError(f"column {wanted!r} stands {names.count(wanted)} times in {source}. Keep one of them")


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says."""
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
