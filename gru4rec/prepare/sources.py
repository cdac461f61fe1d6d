"""The files of a raw log: which they are, how their fields are separated, what their columns are called.

Every column is scanned as text, so that ids are never changed by a guess (``007`` is not ``7``). polars reads; it is
loaded by the functions that need it.
"""

from __future__ import annotations

import contextlib
import csv
import glob
import io
import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from gru4rec.errors import DataError
from gru4rec.prepare.layout import RawLayout

if TYPE_CHECKING:
    import polars as pl

_SEPARATORS = ("\t", ",", ";", "|")
_PIECE_BYTES = 1 << 24
_JSON_LINES = 10_000
"""Lines of a JSON file in which each column must occur once."""

_PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5": "zstd"}
_WORDS = {"\t": "TAB", ",": "comma", ";": "semicolon", "|": "bar"}


def find_files(patterns: Sequence[str]) -> list[Path]:
    """Return the files that paths or glob patterns name, each once, in the order given.

    Raises:
        DataError: A path or a pattern names no file.
    """
    found: dict[Path, Path] = {}
    for pattern in patterns:
        path = Path(pattern)
        try:
            path.exists()
        except OSError as error:
            raise DataError(f"cannot look at {pattern}: {error.strerror}. Check the path and its mode") from None
        if path.is_dir():
            raise DataError(f"{pattern} is a folder. Give its files, such as '{pattern.rstrip('/')}/*.csv'")
        paths = [path] if path.exists() else [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]
        if not paths:
            raise DataError(f"there is no file {pattern}. Check the path")
        for file in paths:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def column_names(path: Path, layout: RawLayout) -> list[str]:
    """Return what the columns of a text file are called.

    Raises:
        DataError: The file cannot be read.
    """
    first = _first_line(path, _head(path))
    return next(csv.reader([first], delimiter=layout.separator or _separator(first, layout)))


def scan(path: Path, layout: RawLayout) -> pl.LazyFrame:
    """Open one file lazily: the columns of the layout, each as text, or as a time where the file says so itself.

    Raises:
        DataError: The file cannot be read, or lacks a column.
    """
    with worded(path):
        return _scan(path, layout)


@contextlib.contextmanager
def worded(path: Path) -> Iterator[None]:
    """Word what polars says about a file."""
    import polars as pl

    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        reason = str(error).partition("\n")[0]
        if "more fields" in reason:
            raise DataError(
                f"a row of {path} has more fields than its first line{_first_long_row(path)}. Mend it, or check "
                "--separator and --header"
            ) from None
        if "utf-8" in reason.lower() or "utf8" in reason.lower():
            raise DataError(f"{path} is not UTF-8 text. Convert it, for example with iconv") from None
        raise DataError(f"cannot read {path}: {reason}. Mend the file, or export it again") from None


def _scan(path: Path, layout: RawLayout) -> pl.LazyFrame:
    head = _head(path)
    if head[:4] == b"PAR1":
        return _scan_parquet(path, layout)
    if b"\0" in head:
        raise DataError(
            f"{path} is neither text nor Parquet. Give csv, tsv, json lines or .parquet, plain, gzip or zstd"
        )
    if head.lstrip()[:1] == b"{":
        return _scan_json_lines(path, layout)
    return _scan_text(path, layout, head)


def _head(path: Path) -> bytes:
    """Return the unpacked beginning of a file, up to 64 KiB."""
    try:
        with _opened(path) as stream:
            head = bytes(stream.read(1 << 16))
    except PermissionError:
        raise DataError(f"no permission to read {path}. Change its mode, or copy it") from None
    except (OSError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"cannot read {path}: {reason}. Copy or export it again") from None
    if not head.strip():
        raise DataError(f"{path} is empty. Leave it out, or export it again")
    return head


def is_parquet(path: Path) -> bool:
    """Tell whether a file is Parquet, whose columns can be read one by one."""
    return _head(path)[:4] == b"PAR1"


def _first_long_row(path: Path) -> str:
    """Find the first row with more fields than the first line, and show it; separators are tried as they come."""
    for separator in _SEPARATORS:
        with _opened(path) as stream, io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
            rows = csv.reader(text, delimiter=separator)
            n_fields = len(next(rows))
            if n_fields < 2:
                continue
            for number, fields in enumerate(rows, 1):
                if len(fields) > n_fields:
                    return (
                        f": row {number} has {len(fields)} fields and not {n_fields} ({separator.join(fields)[:80]!r})"
                    )
    return ""


def _opened(path: Path) -> Any:
    with open(path, "rb") as file:
        packing = _PACKED.get(file.read(2))
    return pa.input_stream(str(path), compression=packing)


def _scan_text(path: Path, layout: RawLayout, head: bytes) -> pl.LazyFrame:
    import polars as pl

    first = _first_line(path, head)
    separator = layout.separator or _separator(first, layout)
    names = next(csv.reader([first], delimiter=separator))
    if layout.header is not None:
        if len(layout.header) != len(names):
            raise DataError(
                f"the first line of {path} has {len(names)} fields, and --header names {len(layout.header)} columns. "
                "Name them all, or check --separator"
            )
        names = list(layout.header)
    _need_columns(names, layout, f"{path} (separated by {_WORDS.get(separator, repr(separator))})")
    is_quoted = _has_quoted_fields(path, separator)
    frame = pl.scan_csv(
        path,
        has_header=layout.header is None,
        new_columns=names,
        separator=separator,
        quote_char='"' if is_quoted else None,
        infer_schema=False,
        glob=False,
    )
    return frame.select(map(_unless_empty, layout.flags) if is_quoted else list(layout.flags))


def _has_quoted_fields(path: Path, separator: str) -> bool:
    """Tell whether a field begins with a quote; a quote within a field, as in 5" tv, is a character like others."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as plain:
        if plain[:2] not in _PACKED and plain.find(b'"') < 0:  # most logs, and found without copying them
            return False
    starts = [f'{before}"'.encode() for before in (separator, "\n", "\r")]
    with _opened(path) as stream:
        end = b"\n"
        while piece := stream.read(_PIECE_BYTES):
            if piece.find(b'"') >= 0 and any(start in end + piece for start in starts):
                return True
            end = piece[-1:]
    return False


def _first_line(path: Path, head: bytes) -> str:
    try:
        lines = io.StringIO(
            head.decode("utf-8-sig", errors="strict" if len(head) < 1 << 16 else "ignore"), newline=None
        )
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text. Convert it, for example with iconv") from None
    return next(lines).rstrip("\n")


def _separator(first_line: str, layout: RawLayout) -> str:
    """Return the separator that finds most of the wanted columns, or, without a header, most columns."""

    def found(separator: str) -> int:
        names = next(csv.reader([first_line], delimiter=separator), [])
        return len(names) if layout.header is not None else len(set(layout.flags) & set(names))

    best = max(_SEPARATORS, key=found)
    if found(best):
        return best
    return max(_SEPARATORS, key=first_line.count)  # no column is there: name those that are


def _scan_json_lines(path: Path, layout: RawLayout) -> pl.LazyFrame:
    import polars as pl

    names = list(pl.scan_ndjson(path, infer_schema_length=_JSON_LINES).collect_schema())
    _need_columns(names, layout, str(path))
    return pl.scan_ndjson(path, schema=dict.fromkeys(layout.flags, pl.String)).select(map(_unless_empty, layout.flags))


def _scan_parquet(path: Path, layout: RawLayout) -> pl.LazyFrame:
    import polars as pl

    frame = pl.scan_parquet(path, glob=False)
    schema = frame.collect_schema()
    _need_columns(list(schema), layout, str(path))
    return frame.select(_as_text(name, schema[name], path) for name in layout.flags)


def _unless_empty(name: str) -> pl.Expr:
    """Return a column as text, nothing where it is empty, as the reader of text files has it."""
    import polars as pl

    text = pl.col(name).cast(pl.String)
    return pl.when(text != "").then(text).alias(name)


def _as_text(name: str, kind: Any, path: Path) -> pl.Expr:
    """Bring a Parquet column to text; a time of the file's own stays one."""
    import polars as pl

    column = pl.col(name)
    if kind.is_integer():
        return column.cast(pl.String)
    if isinstance(kind, pl.String | pl.Categorical | pl.Enum):
        return _unless_empty(name)
    if kind.is_float():  # what pandas makes of integers once one of them was missing
        is_exact = (column.round() == column) & (column.abs() < 2**53)
        return pl.when(is_exact).then(column.cast(pl.Int64, strict=False).cast(pl.String)).otherwise(
            column.fill_nan(None).cast(pl.String)
        ).alias(name)  # fmt: skip
    if isinstance(kind, pl.Date | pl.Datetime):
        return column.cast(pl.Datetime("us")).dt.to_string("iso:strict").alias(name)
    raise DataError(
        f"column {name!r} of {path} holds {kind} values. Ids are integers or text; times numbers, text or dates"
    )


def _need_columns(names: list[str], layout: RawLayout, source: str) -> None:
    missing = {wanted: flag for wanted, flag in layout.flags.items() if wanted not in names}
    if missing:
        columns = ", ".join(map(repr, missing))
        raise DataError(
            f"no column {columns} in {source}; it has: {', '.join(names) or 'no columns'}. "
            f"Pass {', '.join(missing.values())}, or --header if the first line is no header"
        )
    for wanted in layout.flags:
        if names.count(wanted) > 1:
            raise DataError(f"column {wanted!r} stands {names.count(wanted)} times in {source}. Keep one of them")
