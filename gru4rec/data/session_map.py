"""A session map: one ``Sessions`` as a folder of plain arrays, which are mapped into memory and not read.

The folder holds ``item_idx.npy``, ``offsets.npy`` and ``start_time.npy`` (mapped), ``item_support.npy`` and
``item_ids.arrow`` (one Arrow column, read when the map is opened), and ``header.json``: format, counts, and size and
CRC-32 of every file. It appears under its name whole or not at all, and is never changed afterwards; whoever cuts a
file short while it is mapped ends the programs that read it.

Opening checks all sizes, shapes and number types, the header, the ids, the support, and both ends of the offsets. It
does not look at the events: an index that was changed within ``item_idx.npy`` is found by ``verify=True``, which reads
every byte.

Knows nothing of batches or models.
"""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import secrets
import shutil
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from gru4rec import __version__
from gru4rec.data.events import load_events
from gru4rec.data.files import Columns
from gru4rec.data.sessions import Sessions
from gru4rec.data.vocabulary import Vocabulary
from gru4rec.errors import DataError

FORMAT_NAME = "gru4rec-sessions"
FORMAT_VERSION = 1
HEADER = "header.json"

_ITEM_IDX, _OFFSETS, _START_TIME, _SUPPORT = "item_idx.npy", "offsets.npy", "start_time.npy", "item_support.npy"
_IDS = "item_ids.arrow"

_COUNTS = ("n_unknown_events", "n_unknown_items", "n_lost_sessions")

_NUMBERS_AT_ONCE = 1 << 21
"""Numbers that are written and summed at once, while they are in cache."""

_LEFTOVER_S = 24 * 3600
"""A folder without its name, as a killed program leaves it, is removed after that time."""

_REBUILD = "Delete the folder, and write it again from the log"


def is_session_map(path: str | Path) -> bool:
    """Tell whether a path is a folder with the header of a session map, or of something that looks like one."""
    return os.path.isfile(Path(path) / HEADER)


def write_session_map(sessions: Sessions, folder: str | Path) -> None:
    """Write a session map. Under its name there is nothing, or all of it, whenever the program is killed.

    Of programs that write the same map at once one gives it its name; the others find that it holds the same, and
    discard their own. So writing a map again changes nothing.

    Args:
        sessions: What to write.
        folder: What the map will be called, usually ``NAME.sessions``; its parent must exist.

    Raises:
        DataError: There is something else of that name, the folder cannot be written, the disk is full, or the
            sessions do not fit together.
    """
    folder = Path(folder)
    arrays = _checked_arrays(sessions)
    if os.path.lexists(folder) and not is_session_map(folder):
        raise DataError(f"cannot write the session map {folder}: something else is there. Give another path")
    partial = folder.parent / f".sessions-{secrets.token_hex(8)}.part"
    try:
        _remove_leftovers(folder.parent)
        partial.mkdir()
        files = {name: _write_array(partial / name, array) for name, array in arrays.items()}
        files[_IDS] = _write_bytes(partial / _IDS, ids_as_bytes(sessions.items))
        _write_bytes(partial / HEADER, json.dumps(_header(sessions, files), indent=1).encode())
        _take_name(partial, folder, files)
    except OSError as error:
        raise DataError(
            f"cannot write the session map {folder}: {error.strerror}. {_advice(error, folder.parent)}"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def open_session_map(folder: str | Path, *, verify: bool = False) -> Sessions:
    """Map the sessions in a folder; only the vocabulary and the items' support are read.

    Args:
        folder: A session map.
        verify: Read everything, and compare it with the checksums: for a map from a disk or a copy that is in doubt.

    Returns:
        The sessions that were written. All arrays are read-only and lie in the files.

    Raises:
        DataError: There is no such folder, it is something else, damaged, or of a newer version.
    """
    folder = Path(folder)
    header = _read_header(folder)
    with _damage_named(folder):
        _check_sizes(folder, header)
        arrays = {name: _mapped(folder / name) for name in (_ITEM_IDX, _OFFSETS, _START_TIME, _SUPPORT)}
        _check_arrays(arrays, header)
        ids = np.memmap(folder / _IDS, np.uint8, mode="r").view(np.ndarray)
        small = {_SUPPORT: arrays[_SUPPORT], _IDS: ids}
        for name, content in (arrays | small if verify else small).items():
            _check_sum(name, content, header)
        if verify:
            _check_range(arrays[_ITEM_IDX], header["n_items"])
        items = _vocabulary(ids, header["n_items"])
        for content in (*arrays.values(), ids):
            give_back(content)
        return Sessions(
            item_idx=arrays[_ITEM_IDX],
            offsets=arrays[_OFFSETS],
            start_time=arrays[_START_TIME],
            items=items,
            source=header["source"],
            item_support=arrays[_SUPPORT],
            **{name: header[name] for name in _COUNTS},
        )


def load_sessions(
    data: Any, *, columns: Columns | None = None, trust_pickle: bool = False, vocabulary: Vocabulary | None = None
) -> Sessions:
    """Make sessions of whatever holds a log: a session map is opened, everything else is read.

    Args:
        data: The path of a session map, or what :func:`gru4rec.data.events.load_events` takes.
        columns: Names of the session, item and time columns; a session map has none.
        trust_pickle: Unpickle a file that is a pickle.
        vocabulary: Items known to a model. Left out, the log's own items are the vocabulary.

    Raises:
        DataError: The log or the map cannot be used.
    """
    if not (isinstance(data, str | Path) and is_session_map(data)):
        return Sessions.from_log(load_events(data, columns=columns, trust_pickle=trust_pickle), vocabulary)
    sessions = replace(open_session_map(data), source=str(data))  # messages call it what the caller does
    return sessions if vocabulary is None else sessions.with_vocabulary(vocabulary)


def give_back(mapped: np.ndarray) -> None:
    """Give back the memory of an array that lies in a mapped file; it is read again when it is used.

    The system usually has it in its cache. Nothing happens to other arrays.
    """
    while isinstance(mapped, np.ndarray) and not isinstance(mapped, np.memmap):
        mapped = mapped.base  # type: ignore[assignment]
    if isinstance(mapped, np.memmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]


def ids_as_bytes(items: Vocabulary) -> pa.Buffer:
    """Return a vocabulary's ids as the Arrow file that a map keeps them in: the same bytes for the same ids."""
    batch = pa.record_batch([items.item_ids], names=["item_id"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


# --- writing ---


def _checked_arrays(sessions: Sessions) -> dict[str, np.ndarray]:
    """Return the arrays by file name, in the number types of the format."""
    time_type = "float64" if sessions.start_time.dtype.kind == "f" else "int64"
    try:
        _check_range(sessions.item_idx, sessions.items.n_items)
        arrays: dict[str, np.ndarray] = {
            _ITEM_IDX: np.ascontiguousarray(sessions.item_idx, dtype=np.int32),
            _OFFSETS: np.ascontiguousarray(sessions.offsets, dtype=np.int64),
            _START_TIME: np.ascontiguousarray(sessions.start_time, dtype=time_type),
            _SUPPORT: np.ascontiguousarray(sessions.support(), dtype=np.int64),
        }
        _check_arrays(arrays, _counts(sessions))
    except ValueError as error:
        raise DataError(
            f"the sessions of {sessions.source} do not fit together: {error}. Make them with Sessions.from_log"
        ) from None
    return arrays


def _counts(sessions: Sessions) -> dict[str, int]:
    return {"n_events": sessions.n_events, "n_sessions": sessions.n_sessions, "n_items": sessions.items.n_items}


def _header(sessions: Sessions, files: dict[str, dict[str, int]]) -> dict[str, Any]:
    header = {
        "format": FORMAT_NAME,
        "format_version": FORMAT_VERSION,
        "gru4rec_version": __version__,
        "source": sessions.source,
        **_counts(sessions),
        **{name: getattr(sessions, name) for name in _COUNTS},
        "files": files,
    }
    return {**header, "header_checksum": _header_checksum(header)}


def _header_checksum(header: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(header, sort_keys=True).encode())


def _write_array(path: Path, array: np.ndarray) -> dict[str, int]:
    """Write a .npy file, and return its size and the checksum of its numbers."""
    checksum = 0
    with open(path, "xb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        for start in range(0, len(array), _NUMBERS_AT_ONCE):
            piece = array[start : start + _NUMBERS_AT_ONCE].data
            checksum = zlib.crc32(piece, checksum)
            file.write(piece)
        return {"bytes": _reach_the_disk(file), "crc32": checksum}


def _write_bytes(path: Path, content: Any) -> dict[str, int]:
    with open(path, "xb") as file:
        file.write(content)
        return {"bytes": _reach_the_disk(file), "crc32": zlib.crc32(content)}


def _reach_the_disk(file: IO[bytes]) -> int:
    """Wait until a file is on the disk, so that a power cut cannot leave a named map with holes; return its size."""
    file.flush()
    os.fsync(file.fileno())
    return file.tell()


def _take_name(partial: Path, folder: Path, files: dict[str, dict[str, int]]) -> None:
    """Give a whole folder its name, unless a program that wrote the same has done so."""
    _sync_folder(partial)
    try:
        partial.rename(folder)
    except OSError:
        if not is_session_map(folder):
            raise
        open_session_map(folder)  # is it whole?
        if _read_header(folder)["files"] != files:
            raise DataError(
                f"cannot write the session map {folder}: another one is there. Delete it, or give another path"
            ) from None
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Wait until a folder's names are on the disk, where the system lets a folder be opened."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_leftovers(parent: Path) -> None:
    """Remove what programs that were killed while writing have left, a day later: it takes room and serves nobody."""
    for partial in parent.glob(f".sessions-{'[0-9a-f]' * 16}.part"):
        with contextlib.suppress(OSError):
            if partial.stat().st_mtime < time.time() - _LEFTOVER_S:
                shutil.rmtree(partial, ignore_errors=True)


def _advice(error: OSError, parent: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "Free some space, or give another path"
    return f"{'Make' if error.errno == errno.ENOENT else 'Check'} the folder {parent}, or give another path"


# --- opening ---


def _read_header(folder: Path) -> dict[str, Any]:
    """Read and check the header.

    Raises:
        DataError: The folder is missing, no session map, damaged, or of a newer version.
    """
    text = _header_text(folder)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        raise DataError(f"{folder} is damaged: {HEADER} is not JSON. {_REBUILD}") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT_NAME:
        raise DataError(
            f"{folder} is not a session map: its {HEADER} is of another program. "
            "Give a folder that gru4rec wrote, or a log"
        )
    version = header.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise DataError(
            f"{folder} has format version {version}, and this gru4rec {__version__} reads up to {FORMAT_VERSION}. "
            "Upgrade: pip install -U gru4rec; or give the log itself"
        )
    if header.pop("header_checksum", None) != _header_checksum(header):
        raise DataError(f"{folder} is damaged: the checksum of {HEADER} does not fit. {_REBUILD}")
    return header


def _header_text(folder: Path) -> bytes:
    try:
        return (folder / HEADER).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        if not os.path.exists(folder):
            raise DataError(f"there is no session map {folder}. Check the path") from None
        kind = f"it has no {HEADER}" if os.path.isdir(folder) else "it is a file"
        raise DataError(f"{folder} is not a session map: {kind}. Give a folder that gru4rec wrote, or a log") from None
    except OSError as error:
        raise DataError(f"cannot read the session map {folder}: {error.strerror}. Change its mode") from None


@contextlib.contextmanager
def _damage_named(folder: Path) -> Iterator[None]:
    """Turn whatever is wrong with a map's files into one message."""
    try:
        yield
    except PermissionError:
        raise DataError(f"cannot read the session map {folder}: Permission denied. Change its mode") from None
    except FileNotFoundError as error:
        raise DataError(f"{folder} is damaged: {Path(error.filename).name} is missing. {_REBUILD}") from None
    except (OSError, EOFError, ValueError, KeyError, TypeError, DataError, pa.ArrowException) as error:
        raise DataError(f"{folder} is damaged: {str(error).partition(chr(10))[0]}. {_REBUILD}") from None


def _check_sizes(folder: Path, header: dict[str, Any]) -> None:
    for name in (_ITEM_IDX, _OFFSETS, _START_TIME, _SUPPORT, _IDS):
        n_bytes, expected = (folder / name).stat().st_size, header["files"][name]["bytes"]
        if n_bytes != expected:
            raise ValueError(f"{name} has {n_bytes:,} bytes, and {HEADER} says {expected:,}")


def _mapped(path: Path) -> np.ndarray:
    """Map a .npy file, as a plain array: every slice of a memmap object would cost more."""
    try:
        return np.lib.format.open_memmap(path, mode="r").view(np.ndarray)
    except ValueError as error:
        raise ValueError(f"{path.name} is not a .npy file ({error})") from None


def _check_arrays(arrays: dict[str, np.ndarray], counts: dict[str, Any]) -> None:
    """Look at shapes, number types and ends of the arrays; no more than two pages of a large one.

    Raises:
        ValueError: Something does not fit.
    """
    n_events, n_sessions, n_items = (counts[name] for name in ("n_events", "n_sessions", "n_items"))
    shapes = {_ITEM_IDX: n_events, _OFFSETS: n_sessions + 1, _START_TIME: n_sessions, _SUPPORT: n_items}
    types = {_ITEM_IDX: {"int32"}, _START_TIME: {"int64", "float64"}}
    for name, array in arrays.items():
        if array.shape != (shapes[name],) or array.dtype.name not in types.get(name, {"int64"}):
            raise ValueError(f"{name} holds {array.dtype} of shape {array.shape}, and not {shapes[name]} numbers")
    offsets, support = arrays[_OFFSETS], arrays[_SUPPORT]
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != n_events:
        raise ValueError(f"{_OFFSETS} does not lead from 0 to {n_events}")
    if support.min(initial=0) < 0 or support.sum() != n_events:
        raise ValueError(f"{_SUPPORT} does not add up to {n_events} events")


def _check_range(item_idx: np.ndarray, n_items: int) -> None:
    """Read all indices: one outside the vocabulary would let compiled loops write outside their arrays."""
    for start in range(0, len(item_idx), _NUMBERS_AT_ONCE):
        piece = item_idx[start : start + _NUMBERS_AT_ONCE]
        if piece.min() < 0 or piece.max() >= n_items:
            raise ValueError(f"an item index from {piece.min()} to {piece.max()} is outside of 0 to {n_items - 1}")


def _check_sum(name: str, content: np.ndarray, header: dict[str, Any]) -> None:
    if zlib.crc32(content.data) != header["files"][name]["crc32"]:
        raise ValueError(f"the checksum of {name} does not fit")


def _vocabulary(content: np.ndarray, n_items: int) -> Vocabulary:
    """Read ids from the mapped bytes (n,) of their file; they stay where they are."""
    items = Vocabulary(pa.ipc.open_file(pa.py_buffer(content)).get_batch(0).column(0))
    if items.n_items != n_items:
        raise ValueError(f"{_IDS} holds {items.n_items} ids, and {HEADER} says {n_items}")
    return items
