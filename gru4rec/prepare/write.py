"""Writing prepared logs: a folder appears whole or not at all; each part is one file of SessionId, ItemId, Time."""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as papq

from gru4rec.errors import DataError
from gru4rec.prepare.raw import RawEvents
from gru4rec.prepare.steps import SessionEvents
from gru4rec.prepare.times import TICKS_PER_S, Clock

_ROWS_AT_ONCE = 1 << 20
STATS = "stats.json"
SUMMARY = "summary.txt"


@dataclass(frozen=True)
class Ids:
    """What codes stand for in the files.

    Attributes:
        session_ids: The log's own session ids by code; None where sessions were cut, and are numbered.
        item_ids: Item ids by code.
        clock: What ticks mean.
        whole_seconds: Whether ISO times have no fractions of a second anywhere in the log.
    """

    session_ids: pa.Array | None
    item_ids: pa.Array
    clock: Clock
    whole_seconds: bool = True

    @classmethod
    def of(cls, raw: RawEvents, *, sessions_are_cut: bool) -> Ids:
        """Take what writing needs of a raw log."""
        whole = not raw.clock.from_text or not np.any(raw.time % TICKS_PER_S["us"])
        return cls(None if sessions_are_cut else raw.group_ids, raw.item_ids, raw.clock, whole)

    def written(self, ticks: np.ndarray) -> np.ndarray:
        """Return what stands in the files for ticks: seconds for ISO text, else the log's own numbers."""
        if not self.clock.from_text:
            return ticks
        return ticks // TICKS_PER_S["us"] if self.whole_seconds else ticks / TICKS_PER_S["us"]

    def written_moment(self, tick: float) -> float:
        """Return a moment in the unit of the files, exactly: whole where it can be."""
        if not self.clock.from_text:
            return tick
        seconds = tick / TICKS_PER_S["us"]
        return int(seconds) if seconds.is_integer() else seconds


@contextlib.contextmanager
def new_folder(folder: Path, *, replace: bool, inputs: list[Path]) -> Iterator[Path]:
    """Give a folder to write in, which takes its name only once the block is done.

    Args:
        folder: What it will be called.
        replace: Replace a folder of prepared logs of that name.
        inputs: Files that are read: a folder that holds one of them is never replaced.

    Raises:
        DataError: There is something of that name already, or the folder cannot be written.
    """
    folder = Path(os.path.realpath(folder))
    check_free(folder, replace=replace, inputs=inputs)
    partial = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
    try:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            partial.mkdir()
        except OSError as error:
            raise DataError(
                f"cannot write {folder}: {error.strerror}. Choose a folder that can be written to"
            ) from None
        yield partial
        check_free(folder, replace=replace, inputs=inputs)  # it may have come meanwhile
        _take_name(partial, folder)
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"cannot write {folder}: {error}. Choose a folder that can be written to, on a disk with room"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_free(folder: Path, *, replace: bool, inputs: list[Path]) -> None:
    """Find out before the work whether a folder can take a name.

    Raises:
        DataError: There is something of that name already.
    """
    try:
        is_free = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    except OSError as error:
        raise DataError(f"cannot write {folder}: {error.strerror}. Choose a folder that can be written to") from None
    if is_free:
        return
    if not folder.is_dir():
        raise DataError(f"{folder} is a file. Give a folder that does not exist yet")
    if not replace:
        raise DataError(f"{folder} is there already. Give another folder, or --force to replace it")
    if any(folder.resolve() in path.resolve().parents for path in inputs):
        raise DataError(f"{folder} holds a file that is read. Give another folder")
    if not (folder / STATS).exists():
        raise DataError(f"{folder} has no {STATS}, so it is no folder of prepared logs, and stays. Give another folder")


def _take_name(partial: Path, folder: Path) -> None:
    """Move the finished folder to its place; an old one stays until the new one is there."""
    old = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.old")
    if folder.exists():
        folder.rename(old)
    try:
        partial.rename(folder)
    except OSError as error:
        try:
            old.rename(folder)
        except OSError:
            raise DataError(f"cannot write {folder}: {error.strerror}. What was there is in {old}") from None
        raise
    shutil.rmtree(old, ignore_errors=True)


def write_part(
    events: SessionEvents, path: Path, ids: Ids, *, on_rows: Callable[[int], None] = lambda n_rows: None
) -> None:
    """Write one part as Parquet, or, where the name ends in .tsv, TAB separated.

    Args:
        events: The part.
        path: The file.
        ids: What its codes stand for.
        on_rows: Called with the number of rows written since.
    """
    writer = _tsv_writer if path.suffix == ".tsv" else _parquet_writer
    pieces = _tables(events, ids)
    first = next(pieces)
    with writer(path, first.schema) as file:
        for piece in itertools.chain([first], pieces):
            file.write_table(piece)
            on_rows(piece.num_rows)


def _tables(events: SessionEvents, ids: Ids) -> Iterator[pa.Table]:
    """Turn codes into ids, a million rows at a time."""
    start = 0
    while start < events.n_sessions:
        enough = events.offsets[start] + _ROWS_AT_ONCE
        stop = max(start + 1, int(np.searchsorted(events.offsets, enough, side="right")) - 1)
        rows = slice(events.offsets[start], events.offsets[stop])
        session = np.repeat(events.session[start:stop], np.diff(events.offsets[start : stop + 1]))
        yield pa.table(
            {
                "SessionId": pa.array(session, pa.int64())
                if ids.session_ids is None
                else _take(ids.session_ids, session),
                "ItemId": _take(ids.item_ids, events.item[rows]),
                "Time": ids.written(events.time[rows]),
            }
        )
        start = stop


def _take(ids: pa.Array, codes: np.ndarray) -> pa.Array:
    taken = ids.take(pa.array(codes))
    return taken.cast(pa.string()) if pa.types.is_large_string(taken.type) else taken


def _parquet_writer(path: Path, schema: pa.Schema) -> Any:
    """Differences of neighbours are small in sorted sessions and times; items are few."""
    delta = {
        name: "DELTA_BINARY_PACKED" for name in ("SessionId", "Time") if pa.types.is_integer(schema.field(name).type)
    }
    return papq.ParquetWriter(
        path, schema, compression="zstd", use_dictionary=["ItemId"], column_encoding=delta, write_statistics=["Time"]
    )


@contextlib.contextmanager
def _tsv_writer(path: Path, schema: pa.Schema) -> Iterator[Any]:
    """Write fields unquoted where they can be; Arrow itself would always quote the header."""
    options = pacsv.WriteOptions(include_header=False, delimiter="\t", quoting_style="needed")
    with open(path, "wb") as file:
        file.write("\t".join(schema.names).encode() + b"\n")
        with pacsv.CSVWriter(file, schema, write_options=options) as writer:
            yield writer
