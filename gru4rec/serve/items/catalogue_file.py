"""Reading the file that describes a shop's items, into columns of text, integers, numbers, booleans or lists of these.

Knows file formats and number types; what the columns are for is known to ``catalogue``.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as papq

from gru4rec.data.files import separator_of
from gru4rec.data.vocabulary import integers_where_possible
from gru4rec.errors import DataError


def read_columns(path: Path, *, as_spelled: Collection[str]) -> dict[str, pa.Array]:
    """Read all columns of a csv, tsv or Parquet file, plain or gzip.

    Args:
        path: A name that ends in .csv or .csv.gz has commas; other text files have TABs.
        as_spelled: Columns, their names in small letters, that stay text where the file is text.

    Returns:
        By name: string, int64, float64, bool, or lists of one of them. A text file's columns are integers where all
        their values are spelled as such (``007`` is not), else numbers or booleans where all are, else text.

    Raises:
        DataError: The file cannot be read, has no rows, or a column of another kind.
    """
    try:
        table, is_text = _read(path)
    except FileNotFoundError:
        raise DataError(f"there is no catalogue {path}. Check the path") from None
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"cannot read the catalogue {path}: {reason}. Mend the file, or export it again") from None
    if not table.num_rows:
        raise DataError(f"the catalogue {path} has no rows. Give a row for each item, under a header")
    _check_names(table.column_names, path)
    columns = dict(zip(table.column_names, map(_one_array, table.columns), strict=True))
    if not is_text:
        return {name: _as_plain(column, name, path) for name, column in columns.items()}
    return {
        name: column if name.lower() in as_spelled else _as_narrow_as_possible(column)
        for name, column in columns.items()
    }


def _read(path: Path) -> tuple[pa.Table, bool]:
    """Return a file's table, and whether it comes from text, where no column has a type of its own."""
    with open(path, "rb") as file:
        compression = "gzip" if file.read(2) == b"\x1f\x8b" else None
    with pa.input_stream(str(path), compression=compression) as stream:
        head = stream.read(4)
    if head == b"PAR1":
        with pa.input_stream(str(path), compression=compression) as stream:
            return papq.ParquetFile(pa.BufferReader(stream.read()) if compression else path).read(), False
    delimiter = separator_of(path.name)
    with pa.input_stream(str(path), compression=compression) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        names = next((fields for fields in csv.reader(text, delimiter=delimiter) if fields), [])
    with pa.input_stream(str(path), compression=compression) as stream:
        table = pacsv.read_csv(
            stream,
            parse_options=pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), null_values=[""], strings_can_be_null=True
            ),
        )
    return table, True


def _check_names(names: list[str], path: Path) -> None:
    """Refuse two columns of one name, in any case of letters: nobody could tell which of them is meant."""
    seen: dict[str, str] = {}
    for name in names:
        if name.lower() in seen:
            raise DataError(
                f"the catalogue {path} has two columns {seen[name.lower()]!r} and {name!r}. Keep or rename one of them"
            )
        seen[name.lower()] = name


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.unify_dictionaries().chunks)


def _as_narrow_as_possible(texts: pa.Array) -> pa.Array:
    whole = integers_where_possible(texts)
    if whole.type == pa.int64():
        return whole
    for kind in (pa.float64(), pa.bool_()):
        try:
            return texts.cast(kind)
        except pa.ArrowInvalid:
            continue
    return texts


def _as_plain(column: pa.Array, name: str, path: Path) -> pa.Array:
    """Turn whatever Parquet holds into one of the few types of this module."""
    try:
        if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
            return _as_plain_values(column)
        offsets, missing = column.offsets.cast(pa.int32()), column.is_null() if column.null_count else None
        return pa.ListArray.from_arrays(offsets, _as_plain_values(column.values), mask=missing)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise DataError(
            f"column {name!r} of {path} is of type {column.type}. Make it text, numbers, booleans or lists of these, "
            "or leave it out"
        ) from None


def _as_plain_values(column: pa.Array) -> pa.Array:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _as_plain_values(column.dictionary_decode())
    if pa.types.is_boolean(kind):
        return column
    if pa.types.is_integer(kind):
        return column.cast(pa.int64())
    if pa.types.is_float16(kind) or pa.types.is_float32(kind):  # 0.1 stays 0.1, as everyone writes it
        return column.cast(pa.string()).cast(pa.float64())
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return column.cast(pa.float64())
    if pa.types.is_null(kind) or not (pa.types.is_nested(kind) or pa.types.is_binary(kind)):
        return pc.cast(column, pa.string())
    raise pa.ArrowNotImplementedError(str(kind))
