"""Look into a pickle inside a torch zip file without running anything it says.

A pickle may call any function of the machine that loads it. Here every global it names becomes an inert record of what
was asked for, and tensors, arrays and texts are decoded from plain bytes by numpy. Torch, pandas and pyarrow are not
imported. What the records mean is ``official``'s business.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np

# fmt: off
_STORAGES = {
    "torch.FloatStorage": "f4", "torch.DoubleStorage": "f8", "torch.LongStorage": "i8",
    "torch.IntStorage": "i4", "torch.BoolStorage": "b1",
}
_NUMBERS = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8"}
_PUTS = {"BINPUT", "LONG_BINPUT"}
_CALLS = {
    "GLOBAL", "STACK_GLOBAL", "REDUCE", "NEWOBJ", "NEWOBJ_EX", "BUILD", "BINPERSID",
    "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
}
_OPCODES = _PUTS | _CALLS | {
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "MEMOIZE", "BINGET", "LONG_BINGET",
    "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT",
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "EMPTY_TUPLE",
    "EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_SET", "ADDITEMS",
}
# fmt: on
_MAX_CALLS = 5_000  # a model needs some hundreds; Python crashes on hashing a tuple nested a million deep
_MAX_READ_FACTOR = 4  # bytes read in all, in file sizes: members may overlap, a storage may be named often


class PickleFileError(Exception):
    """What is wrong with the file; the caller adds where, and what to do."""


@dataclass
class TorchArchive:
    """A torch zip file; its members are read into memory by name, in all not far beyond the file's size."""

    members: zipfile.ZipFile
    file_bytes: int
    n_read_bytes: int = 0

    def pickle_name(self) -> str:
        """Return the name of the one member that is a pickle."""
        names = [name for name in self.members.namelist() if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise PickleFileError(f"it is a zip file with {len(names)} members 'data.pkl' instead of one")
        return names[0]

    def read(self, name: str) -> bytes:
        """Return a member's bytes; compressed or oversized members are refused."""
        if name not in self.members.namelist():
            raise PickleFileError(f"its member {name[:100]!r} is missing")
        info = self.members.getinfo(name)
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise PickleFileError(f"its member {name[:100]!r} is compressed, which torch does not do")
        self.n_read_bytes += info.file_size
        if self.n_read_bytes > _MAX_READ_FACTOR * self.file_bytes:
            raise PickleFileError(f"its members claim {self.n_read_bytes} bytes in a file of {self.file_bytes}")
        with self.members.open(info) as member:
            return member.read()

    def storage(self, key: str, dtype: str) -> np.ndarray:
        """Return storage `key` as a flat read-only array in the file's byte order."""
        folder = self.pickle_name().removesuffix("data.pkl")
        marker = f"{folder}byteorder"  # older files have none; they are little-endian
        is_big = marker in self.members.namelist() and self.read(marker) == b"big"
        return np.frombuffer(self.read(f"{folder}data/{key}"), (">" if is_big else "<") + dtype)


class Record:
    """What the file says about one object: constructor arguments, state, contents. It does nothing."""

    __slots__ = ("args", "contents", "mapping", "state")
    path = ""  # "module.name" of the global; each has a subclass of its own
    args: tuple[Any, ...]
    contents: list[Any]
    mapping: dict[Any, Any]
    state: Any

    def __new__(cls, *args: Any, **kwargs: Any) -> Record:
        """Record the arguments of a call, whatever it was a call of."""
        self = super().__new__(cls)
        self.args, self.mapping, self.state, self.contents = args, dict(kwargs), None, []
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.mapping[key] = value

    def append(self, value: Any) -> None:
        """Take what a list would take."""
        self.contents.append(value)


class _InertUnpickler(pickle.Unpickler):
    """Builds records in place of objects: it imports, looks up and calls none of the globals a file names."""

    def __init__(self, pickled: bytes) -> None:
        super().__init__(io.BytesIO(pickled))
        self._classes: dict[str, type[Record]] = {}

    def find_class(self, module: str, name: str, /) -> type[Record]:
        path = f"{module}.{name}"
        return self._classes.setdefault(path, type("_Named", (Record,), {"__slots__": (), "path": path}))

    def persistent_load(self, pid: Any) -> Record:
        return self.find_class("torch", "storage")(*pid)


def load_records(pickled: bytes) -> Any:
    """Check that the pickle has only opcodes that torch.save writes, in bounds, then build its records."""
    n_puts = n_calls = 0
    for opcode, arg, position in pickletools.genops(pickled):
        if opcode.name not in _OPCODES:
            raise PickleFileError(f"its pickle has the foreign opcode {opcode.name} at byte {position}")
        if opcode.name in _PUTS:
            if int(arg or 0) > n_puts:  # the memo is an array: slot 2^31 alone would take 16 GiB
                raise PickleFileError(f"its pickle jumps from memo slot {n_puts} to {arg} at byte {position}")
            n_puts += 1
        n_calls += opcode.name in _CALLS
        if n_calls > _MAX_CALLS:
            raise PickleFileError(f"its pickle builds more than {_MAX_CALLS} objects and tuples")
    return _InertUnpickler(pickled).load()


def expect(value: Any, *endings: str) -> Record:
    """Return a record whose global ends in one of ``endings``; refuse everything else."""
    if isinstance(value, Record) and value.path.endswith(endings):
        return value
    found = value.path if isinstance(value, Record) else type(value).__name__
    raise PickleFileError(f"it holds {found[:80]!r} where {' or '.join(endings)!r} was expected")


def decode_tensor(value: Any, archive: TorchArchive) -> np.ndarray:
    """Copy a tensor that lies inside its storage without gaps, row by row or column by column."""
    record = expect(value, "._rebuild_parameter", "._rebuild_tensor_v2")
    record = expect(record.args[0], "._rebuild_tensor_v2") if record.path.endswith("parameter") else record
    storage, offset, size, stride = record.args[:4]
    _, kind, key, _, n_declared = expect(storage, "storage").args
    kind = str(getattr(kind, "path", kind))
    if kind not in _STORAGES or not isinstance(key, str):
        raise PickleFileError(f"it has a storage of type {kind[:80]!r}; read are {', '.join(_STORAGES)}")
    if len(size) > 2 or any(type(n) is not int or n < 0 for n in (offset, *size, *stride)):
        raise PickleFileError("a tensor has a negative offset, size or stride, or many dimensions")
    flat, n = archive.storage(key, _STORAGES[kind]), math.prod(size)
    if len(flat) != n_declared or offset + n > len(flat):
        raise PickleFileError(f"storage {key[:20]!r} has {len(flat)} numbers, not what its tensor asks for")
    flat = flat[offset : offset + n].astype(flat.dtype.newbyteorder("="))
    by_row = [math.prod(size[i + 1 :]) for i in range(len(size))]
    by_column = [math.prod(size[:i]) for i in range(len(size))]
    if all(n == 1 or got == step for n, got, step in zip(size, stride, by_row, strict=True)):
        return flat.reshape(size)
    if all(n == 1 or got == step for n, got, step in zip(size, stride, by_column, strict=True)):
        return np.ascontiguousarray(flat.reshape(size[::-1]).T)
    raise PickleFileError("a tensor has strides that leave gaps or overlap")


def decode_bytes(value: Any) -> bytes:
    """Return the bytes of a buffer. Protocol 2 writes them as a text of characters 0 to 255."""
    while not isinstance(value, bytes):
        record = expect(value, "_codecs.encode", ".bytes", ".bytearray", "pyarrow.lib.py_buffer")
        value = record.args[0] if record.args else b""
        value = value.encode("latin1") if isinstance(value, str) else value
    return value


def decode_dtype(value: Any) -> np.dtype[Any]:
    """Return the number type of a pickled numpy dtype; refuse objects and texts."""
    record = expect(value, "numpy.dtype")
    code, order = record.args[0], record.state[1]
    if code not in _NUMBERS or order not in ("<", ">", "|", "="):
        raise PickleFileError("it has an array of other things than numbers where numbers were expected")
    return np.dtype(f"{order}{code}")


def decode_vector(value: Any) -> np.ndarray:
    """Decode a pickled numpy array of numbers in one dimension."""
    _, shape, dtype, _, data = expect(value, ".multiarray._reconstruct").state
    array = np.frombuffer(decode_bytes(data), decode_dtype(dtype))
    if array.shape != shape:
        raise PickleFileError("it has an array that is not a vector of its stated length")
    return array


def decode_texts(value: Any) -> list[str]:
    """Decode a pickled Arrow array of texts, as pandas 3 keeps them where pyarrow is installed."""
    kind, n, n_missing, start, (_, offsets, texts), *_ = expect(value, "pyarrow.lib._restore_array").args[0]
    offset_type = {"large_string": "<i8", "string": "<i4"}[expect(kind, ".type_for_alias").args[0]]
    ends, data = np.frombuffer(decode_bytes(offsets), offset_type)[start : start + n + 1], decode_bytes(texts)
    if n_missing or ends[0] < 0 or (np.diff(ends) < 0).any() or ends[-1] > len(data):
        raise PickleFileError("its item ids are a damaged Arrow array, or have gaps")
    return [data[a:b].decode() for a, b in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)]
