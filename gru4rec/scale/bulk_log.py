"""The sessions of a log with their ids, as files that are mapped: read once, whatever is done with them and how often.

:class:`~gru4rec.data.sessions.Sessions` knows no session ids, since nothing is learned from them; results need them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gru4rec.data.events import EventLog, load_events
from gru4rec.data.files import Columns, first_line, read_file
from gru4rec.data.session_map import HEADER, ids_as_bytes, is_session_map, open_session_map, write_session_map
from gru4rec.data.sessions import Sessions
from gru4rec.data.vocabulary import Vocabulary
from gru4rec.errors import DataError
from gru4rec.whole import write_whole

_MAP, _IDS = "log.sessions", "session_ids.arrow"


@dataclass(frozen=True)
class BulkLog:
    """Sessions of a log, all events kept, in the order of their first events.

    Attributes:
        sessions: With the log's own vocabulary, mapped.
        ids: Id of each session, mapped; None: a session map was given, which has none, and places stand for them.
    """

    sessions: Sessions
    ids: pa.Array | None

    def ids_of(self, first: int, stop: int) -> pa.Array:
        """Return the ids of the sessions first..stop-1."""
        if self.ids is None:
            return pa.array(np.arange(first, stop))
        return self.ids.slice(first, stop - first)

    @property
    def id_type(self) -> pa.DataType:
        """Int64 or string."""
        return pa.int64() if self.ids is None else self.ids.type


def map_log(path: Path, folder: Path, columns: Columns, *, trust_pickle: bool) -> BulkLog:
    """Open a log as it was mapped in a folder; read and map it first where that was not done.

    Args:
        path: The log, a folder of Parquet files, or a session map, which is opened where it is.
        folder: Where maps go.
        columns: Names of the session, item and time columns.
        trust_pickle: Unpickle a file that is a pickle.

    Raises:
        DataError: The log cannot be used, or the folder cannot be written.
    """
    if is_session_map(path):
        sessions = open_session_map(path)
        if sessions.n_unknown_events:
            raise DataError(
                f"{path} was made for another model's items, and {sessions.n_unknown_events:,} events were left out "
                "then. Give the log that it was made from"
            )
        return BulkLog(replace(sessions, source=str(path)), None)
    if not is_mapped(path, folder):
        sessions, ids = _read(path, columns, trust_pickle)
        write_session_map(sessions, folder / _MAP)
        content = ids_as_bytes(Vocabulary(ids))
        write_whole(folder / _IDS, lambda partial: partial.write_bytes(content), advice="Free some space")
    ids = pa.ipc.open_file(pa.memory_map(str(folder / _IDS))).read_all().column(0).chunk(0)
    return BulkLog(replace(open_session_map(folder / _MAP), source=str(path)), ids)


def is_mapped(path: Path, folder: Path) -> bool:
    """Tell whether :func:`map_log` would open a log without reading it."""
    return is_session_map(path) or (is_session_map(folder / _MAP) and (folder / _IDS).exists())


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file; of a folder of Parquet files that of their names and SHA-256s.

    Of a session map it is that of its header, which has the checksums of its files.

    Raises:
        DataError: It cannot be read.
    """
    if path.is_dir() and not is_session_map(path):
        names = "\n".join(f"{digest_of(file)} {file.relative_to(path).as_posix()}" for file in parquet_files(path))
        return hashlib.sha256(names.encode()).hexdigest()
    try:
        with open(path / HEADER if is_session_map(path) else path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}. Check the path") from None


def parquet_files(folder: Path) -> list[Path]:
    """Return the Parquet files in a folder and those below it, by name; hidden ones are no part of what was written.

    Raises:
        DataError: There is none.
    """
    found = sorted(folder.rglob("*.parquet"))
    files = [path for path in found if not path.relative_to(folder).as_posix().startswith((".", "_"))]
    if not files:
        raise DataError(f"{folder} is a folder without Parquet files. Give a log, such a folder, or a session map")
    return files


def _read(path: Path, columns: Columns, trust_pickle: bool) -> tuple[Sessions, pa.Array]:
    """Read a log, and the ids of its sessions in their order."""
    stamp = _stamp(path)
    log = _events(path, columns, trust_pickle)
    sessions = Sessions.from_log(log)
    first_time = np.full(log.n_sessions, log.time.max())
    np.minimum.at(first_time, log.session_code, log.time)
    order = np.argsort(first_time, kind="stable")
    del log
    # Read again with sessions in the place of items, whose ids are kept: in the order of their first rows.
    ids = _events(path, _swapped(columns), trust_pickle).items.item_ids
    if _stamp(path) != stamp:
        raise DataError(f"{path} was changed while it was read. Call the command again when it is as it will stay")
    return sessions, ids.take(pc.array_sort_indices(ids)).take(pa.array(order))


def _events(path: Path, columns: Columns, trust_pickle: bool) -> EventLog:
    if not path.is_dir():
        return load_events(path, columns=columns, trust_pickle=trust_pickle)
    tables = [read_file(file, columns, trust_pickle=False) for file in parquet_files(path)]
    try:
        return load_events(pa.concat_tables(tables, promote_options="permissive"), columns=columns)
    except (DataError, pa.ArrowException) as error:
        reason = first_line(error).replace("the pyarrow table", str(path))
        raise DataError(reason if isinstance(error, DataError) else f"the files of {path} differ: {reason}") from None


def _stamp(path: Path) -> list[tuple[int, int]]:
    """Return what changes when a log is written: times and sizes of its files."""
    stats = [file.stat() for file in (parquet_files(path) if path.is_dir() else [path]) if file.exists()]
    return [(stat.st_mtime_ns, stat.st_size) for stat in stats]


def _swapped(columns: Columns) -> Columns:
    session, item, time = columns.given_as
    return replace(
        columns,
        session_key=columns.item_key,
        item_key=columns.session_key,
        given_as=(item, session, time),
    )
