"""A cache of session maps: a log that was read once is mapped into memory the next time.

A map is found by what decides it: the file's contents, the names of the columns, how the file is read, the vocabulary,
and the versions of this package and of the format. Names and times of files decide nothing; they only save reading a
file to learn that it is the same:

    DIR/maps/KEY.sessions/    session maps, see ``session_map``
    DIR/files/KEY.json        the digest of a file's contents, and what the system said of the file then

Nothing is removed from the folder by itself. It can be deleted at any time.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import logging
import os
import secrets
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from gru4rec import __version__
from gru4rec.data.files import PICKLE_MARK, Columns, is_pickle_name, separator_of
from gru4rec.data.session_map import FORMAT_VERSION, ids_as_bytes, load_sessions, open_session_map, write_session_map
from gru4rec.data.sessions import Sessions
from gru4rec.data.vocabulary import Vocabulary
from gru4rec.errors import DataError

_log = logging.getLogger("gru4rec")

_SETTLED_NS = 2_000_000_000
"""A file that was changed less than this before it was read may change again within one tick of its clock (two seconds
on the coarsest file systems) and look the same, so its digest is not remembered."""


def cached_sessions(
    path: str | Path,
    *,
    columns: Columns | None = None,
    trust_pickle: bool = False,
    vocabulary: Vocabulary | None = None,
    cache: Path | None,
    tell: Callable[[str], None] = _log.info,
    make: Callable[[], Sessions] | None = None,
) -> Sessions:
    """Make sessions of a log, from the cache where the same were made before: the same bits in either case.

    Pickles, session maps and what is no regular file are not kept. A damaged map is made anew. Where one cannot be
    written after all (the disk is full), the sessions come from memory, with a warning.

    Args:
        path: The log.
        columns: Names of the session, item and time columns.
        trust_pickle: Unpickle a file that is a pickle.
        vocabulary: Items known to a model. Left out, the log's own items are the vocabulary.
        cache: The folder, made where it is missing. None: the log is read.
        tell: Called with a line on what the cache did.
        make: Makes the sessions where the cache has none, by a shorter way than reading the log.

    Returns:
        What :func:`gru4rec.data.session_map.load_sessions` returns; from the cache, its arrays cannot be written to.

    Raises:
        DataError: The log cannot be used; or the cache cannot be written, which is found before the log is read.
    """
    columns = columns or Columns()
    read = make or partial(load_sessions, path, columns=columns, trust_pickle=trust_pickle, vocabulary=vocabulary)
    file = None if cache is None or not _is_kept(Path(path)) else _look_at(path, cache)
    if cache is None or file is None:
        return read()
    folder = cache / "maps" / f"{_key(file, Path(path).name, columns, vocabulary)}.sessions"
    kept = _open(folder)
    if kept is not None:
        tell(f"{path}: mapped from the cache {cache} ({_size(kept)})")
    else:
        check_cache(cache)
        sessions = read()
        if _look_at(path, cache) != file:
            _log.warning(f"{path} was changed while it was read, so the cache does not keep it")
            return sessions
        kept = _keep(sessions, folder)
        if kept is None:
            return sessions
        tell(f"{path}: written to the cache {cache} ({_size(kept)})")
    return replace(kept, source=str(path), items=kept.items if vocabulary is None else vocabulary)


@dataclass(frozen=True)
class _File:
    """A file as it was looked at.

    Attributes:
        path: Absolute, links followed.
        n_bytes: Its size.
        mtime_ns: When its contents changed, as anyone can set it.
        ctime_ns: When anything of it changed, which only the system sets (Windows: when it was made).
        inode: Its number in the file system, another one where the file was replaced.
        digest: BLAKE2b of the contents; empty before they are read.
    """

    path: str
    n_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    digest: str = ""

    @classmethod
    def unread(cls, path: str) -> _File:
        stat = os.stat(path)
        return cls(path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


def _is_kept(path: Path) -> bool:
    """Tell whether a path is a file that may be kept: what a pickle holds is known only to its code."""
    if not os.path.isfile(path) or is_pickle_name(path.name):
        return False
    try:
        with open(path, "rb") as file:
            is_packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if is_packed else open(path, "rb") as file:
            return file.read(1) != PICKLE_MARK
    except (OSError, EOFError, zlib.error):
        return False  # whoever reads the log will say what is wrong


def _look_at(path: str | Path, cache: Path) -> _File | None:
    """Return a file with its digest, as remembered where nothing about it has changed; None where it cannot be read.

    Raises:
        DataError: The file has to be read, and the cache cannot be written.
    """
    looked_ns = time.time_ns()
    try:
        unread = _File.unread(os.path.realpath(path))
        record = cache / "files" / f"{_digest(os.fsencode(unread.path))}.json"
        remembered = _remembered(record)
        if remembered is not None and replace(remembered, digest="") == unread:
            return remembered
        check_cache(cache)
        with open(unread.path, "rb") as file:
            read = replace(unread, digest=hashlib.file_digest(file, _blake2b).hexdigest())
        if max(unread.mtime_ns, unread.ctime_ns) + _SETTLED_NS < looked_ns:  # else a later change might not show
            _remember(read, record)
        return read
    except OSError:
        return None


def _remembered(record: Path) -> _File | None:
    try:
        return _File(**json.loads(record.read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def _remember(file: _File, record: Path) -> None:
    """Write a record in one move; without it the file is read again next time, and no more."""
    temporary = record.with_name(f".{record.name}.{secrets.token_hex(8)}")
    with contextlib.suppress(OSError):
        temporary.write_text(json.dumps(asdict(file)))
        temporary.replace(record)
    with contextlib.suppress(OSError):
        temporary.unlink()


def _key(file: _File, name: str, columns: Columns, vocabulary: Vocabulary | None) -> str:
    """Return what belongs to a file's contents and to how they are read; its name decides on commas or TABs."""
    parts = {
        "contents": file.digest,
        "columns": columns.names,
        "separator": separator_of(name),
        "vocabulary": None if vocabulary is None else _digest(ids_as_bytes(vocabulary)),
        "versions": [__version__, FORMAT_VERSION],
    }
    return _digest(json.dumps(parts).encode())


def _blake2b(content: Any = b"") -> Any:
    return hashlib.blake2b(content, digest_size=20)


def _digest(content: Any) -> str:
    return str(_blake2b(content).hexdigest())


def check_cache(cache: Path) -> None:
    """Make a cache's folders, and find out whether they can be written.

    Raises:
        DataError: They cannot.
    """
    try:
        for name in ("maps", "files"):
            (cache / name).mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=cache / name).close()
    except OSError as error:
        raise DataError(
            f"cannot write to the cache {cache}: {error.strerror}. Give --cache another folder, or leave it out"
        ) from None


def _open(folder: Path) -> Sessions | None:
    """Return a map of the cache; None where there is none. A damaged one is put out of the way."""
    if not os.path.lexists(folder):
        return None
    try:
        return open_session_map(folder)
    except DataError as error:
        _log.warning(f"{error}. That is done now")
    discarded = folder.with_name(f".sessions-{secrets.token_hex(8)}.part")
    with contextlib.suppress(OSError):  # another program does the same
        folder.rename(discarded)
        shutil.rmtree(discarded, ignore_errors=True)
    return None


def _keep(sessions: Sessions, folder: Path) -> Sessions | None:
    """Write a map and return it, so that the sessions in memory can go; None where that failed."""
    try:
        write_session_map(sessions, folder)
        return open_session_map(folder)
    except DataError as error:
        _log.warning(f"{error}. This run goes on without")
        return None


def _size(sessions: Sessions) -> str:
    n_bytes = sum(array.nbytes for array in (sessions.item_idx, sessions.offsets, sessions.start_time))
    return f"{(n_bytes + sessions.items.item_ids.nbytes) / 1e6:,.1f} MB"
