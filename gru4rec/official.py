"""Read a model that the official GRU4Rec program saved, without running anything the file says.

The official program pickles its whole object, and a pickle may call any function of the machine that loads
it. Here every global of the file becomes an inert record of what was asked for; settings, vocabulary and
weights are looked up in the records and decoded from plain bytes by numpy. Torch, pandas and pyarrow are not
imported. The module knows the official object's attributes, and nothing of this project's network or file
format.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gru4rec.errors import ModelFileError

# fmt: off
_SETTINGS = (
    "layers", "loss", "batch_size", "dropout_p_embed", "dropout_p_hidden", "learning_rate", "momentum",
    "sample_alpha", "n_sample", "embedding", "constrained_embedding", "n_epochs", "bpreg", "elu_param",
    "logq",
)
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
_PEEK_BYTES = 1 << 16


class _FileError(Exception):
    """What is wrong with the file; `read_official_model` adds where, and what to do."""


@dataclass(frozen=True, eq=False)
class OfficialModel:
    """What a model file of the official program holds, as plain values.

    Attributes:
        settings: Hyper-parameters by their official names, those the object has.
        weights: Arrays by parameter name ("Wy.weight", "G.0.weight_ih", ...), in the official shapes.
        item_ids: Item ids in item-index order, (N,): int64, or an object array of str.
        support: Training events of each item index, int64 (N,); None where the file carries no training rows.
    """

    settings: dict[str, Any]
    weights: dict[str, np.ndarray]
    item_ids: np.ndarray
    support: np.ndarray | None


def read_official_model(path: str | Path) -> OfficialModel:
    """Read a model saved by the official GRU4Rec program; nothing the file names is imported or called.

    Args:
        path: File written by the official program's `savemodel`, with torch 1.6 or newer, on any device.

    Returns:
        Settings, weights, vocabulary and item support, the shapes checked against settings and vocabulary.

    Raises:
        ModelFileError: The file is missing, damaged, hostile, or holds something else.
    """
    try:
        with zipfile.ZipFile(path) as members:
            archive = _Archive(members, Path(path).stat().st_size)
            return _extract(_load_records(archive.read(archive.pickle_name())), archive)
    except FileNotFoundError:
        raise ModelFileError(f"no model file {str(path)!r}. Check the path.") from None
    except _FileError as error:
        reason = str(error)
    except zipfile.BadZipFile as error:
        reason = f"it is not a whole zip file, as torch 1.6 and newer write them ({error})"
    except Exception as error:  # a hostile file can make the parsers raise anything
        reason = f"it is damaged ({type(error).__name__}: {str(error)[:200]})"
    raise ModelFileError(
        f"cannot read {str(path)!r} as a model of the official GRU4Rec program: {reason}. "
        "Copy the file again, or save the model again with the official program."
    )


def looks_official(path: str | Path) -> bool:
    """Tell whether a file looks like a model of the official program, without unpickling anything.

    Args:
        path: Any file; one that is missing or cannot be read does not look official.

    Returns:
        True for a torch zip file whose pickle names a class GRU4Rec within its first 64 KiB.
    """
    text = ""
    try:
        with zipfile.ZipFile(path) as members:
            archive = _Archive(members, Path(path).stat().st_size)
            for opcode, arg, _ in pickletools.genops(archive.read(archive.pickle_name(), _PEEK_BYTES)):
                named = {"GLOBAL": str(arg).split(" ")[-1], "STACK_GLOBAL": text}.get(opcode.name)
                if named == "GRU4Rec":
                    return True
                text = arg if isinstance(arg, str) else text
    except Exception:  # as above; a pickle cut after the first 64 KiB ends here too
        return False
    return False


@dataclass
class _Archive:
    """A torch zip file; its members are read into memory by name, in all not far beyond the file's size."""

    members: zipfile.ZipFile
    file_bytes: int
    n_read_bytes: int = 0

    def pickle_name(self) -> str:
        names = [name for name in self.members.namelist() if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise _FileError(f"it is a zip file with {len(names)} members 'data.pkl' instead of one")
        return names[0]

    def read(self, name: str, limit_bytes: int = -1) -> bytes:
        if name not in self.members.namelist():
            raise _FileError(f"its member {name[:100]!r} is missing")
        info = self.members.getinfo(name)
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise _FileError(f"its member {name[:100]!r} is compressed, which torch does not do")
        self.n_read_bytes += info.file_size
        if self.n_read_bytes > _MAX_READ_FACTOR * self.file_bytes:
            raise _FileError(f"its members claim {self.n_read_bytes} bytes in a file of {self.file_bytes}")
        with self.members.open(info) as member:
            return member.read(limit_bytes)

    def storage(self, key: str, dtype: str) -> np.ndarray:
        """Return storage `key` as a flat read-only array in the file's byte order."""
        folder = self.pickle_name().removesuffix("data.pkl")
        marker = f"{folder}byteorder"  # older files have none; they are little-endian
        is_big = marker in self.members.namelist() and self.read(marker) == b"big"
        return np.frombuffer(self.read(f"{folder}data/{key}"), (">" if is_big else "<") + dtype)


class _Record:
    """What the file says about one object: constructor arguments, state, contents. It does nothing."""

    __slots__ = ("args", "contents", "mapping", "state")
    path = ""  # "module.name" of the global; each has a subclass of its own
    args: tuple[Any, ...]
    contents: list[Any]
    mapping: dict[Any, Any]
    state: Any

    def __new__(cls, *args: Any, **kwargs: Any) -> _Record:
        self = super().__new__(cls)
        self.args, self.mapping, self.state, self.contents = args, dict(kwargs), None, []
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.mapping[key] = value

    def append(self, value: Any) -> None:
        self.contents.append(value)


class _InertUnpickler(pickle.Unpickler):
    """Builds records in place of objects: it imports, looks up and calls none of the globals a file names."""

    def __init__(self, pickled: bytes) -> None:
        super().__init__(io.BytesIO(pickled))
        self._classes: dict[str, type[_Record]] = {}

    def find_class(self, module: str, name: str, /) -> type[_Record]:
        path = f"{module}.{name}"
        return self._classes.setdefault(path, type("_Named", (_Record,), {"__slots__": (), "path": path}))

    def persistent_load(self, pid: Any) -> _Record:
        return self.find_class("torch", "storage")(*pid)


def _load_records(pickled: bytes) -> Any:
    """Check that the pickle has only opcodes that torch.save writes, in bounds, then build its records."""
    n_puts = n_calls = 0
    for opcode, arg, position in pickletools.genops(pickled):
        if opcode.name not in _OPCODES:
            raise _FileError(f"its pickle has the foreign opcode {opcode.name} at byte {position}")
        if opcode.name in _PUTS:
            if int(arg or 0) > n_puts:  # the memo is an array: slot 2^31 alone would take 16 GiB
                raise _FileError(f"its pickle jumps from memo slot {n_puts} to {arg} at byte {position}")
            n_puts += 1
        n_calls += opcode.name in _CALLS
        if n_calls > _MAX_CALLS:
            raise _FileError(f"its pickle builds more than {_MAX_CALLS} objects and tuples")
    return _InertUnpickler(pickled).load()


def _extract(top: Any, archive: _Archive) -> OfficialModel:
    """Look up settings, vocabulary and weights in the records of the official object."""
    attributes = _state(_expect(top, ".GRU4Rec"))
    settings = {name: _plain(attributes[name], name) for name in _SETTINGS if name in attributes}
    rows = _state(_get(attributes, "data_iterator"))
    item_ids = _item_ids(_get(rows, "itemidmap"))
    weights = {}
    for name, shape in _expected_shapes(settings, len(item_ids)).items():
        weights[name] = _tensor(_parameter(_get(attributes, "model"), name), archive)
        if weights[name].shape != shape:
            raise _FileError(f"its {name} is {weights[name].shape}, the settings ask for {shape}")
    support = None if rows.get("data_items") is None else _support(_vector(rows["data_items"]), len(item_ids))
    return OfficialModel(settings, weights, item_ids, support)


def _expect(value: Any, *endings: str) -> _Record:
    if isinstance(value, _Record) and value.path.endswith(endings):
        return value
    found = value.path if isinstance(value, _Record) else type(value).__name__
    raise _FileError(f"it holds {found[:80]!r} where {' or '.join(endings)!r} was expected")


def _state(value: Any) -> Any:
    return _expect(value, "").state


def _get(mapping: Any, name: str) -> Any:
    mapping = mapping.mapping if isinstance(mapping, _Record) else mapping  # an OrderedDict is a record
    if not isinstance(mapping, dict) or name not in mapping:
        raise _FileError(f"it has no {name!r}")
    return mapping[name]


def _plain(value: Any, name: str, *, in_list: bool = False) -> Any:
    """Return a setting as a Python value; numpy scalars become Python numbers, tuples become lists."""
    if isinstance(value, (list, tuple)) and not in_list:
        return [_plain(part, name, in_list=True) for part in value]
    if isinstance(value, _Record) and value.path.endswith("multiarray.scalar"):
        return np.frombuffer(_bytes(value.args[1]), _dtype(value.args[0]))[0].item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise _FileError(f"its setting {name!r} is not a plain value")


def _expected_shapes(settings: dict[str, Any], n_items: int) -> dict[str, tuple[int, ...]]:
    """Name every parameter of a model with these settings, in the official order, with its shape."""
    layers, width = settings.get("layers"), settings.get("embedding", 0)
    if not isinstance(layers, list) or not layers or not all(type(n) is int and n > 0 for n in layers):
        raise _FileError("its setting 'layers' is not a list of positive integers")
    size, shapes = layers[0], dict[str, tuple[int, ...]]()
    if settings.get("constrained_embedding", True):
        width = layers[-1]
    elif width:
        width = size if width == "layersize" else width
        shapes = {"E.weight": (n_items, width)}
    elif len(layers) == 1:
        shapes = {"GE.Wrz0": (size, 2 * size), "GE.Wh0": (size, size), "GE.Bh0": (3 * size,)}
        shapes["GE.Wx0.weight"] = (n_items, 3 * size)
    else:
        raise _FileError("it has several layers without an embedding, which never could run")
    for i, size in enumerate([] if "GE.Wh0" in shapes else layers):
        shapes |= {f"G.{i}.weight_ih": (3 * size, width), f"G.{i}.weight_hh": (3 * size, size)}
        shapes |= {f"G.{i}.bias_ih": (3 * size,), f"G.{i}.bias_hh": (3 * size,)}
        width = size
    return shapes | {"Wy.weight": (n_items, layers[-1]), "By.weight": (n_items, 1)}


def _parameter(module: Any, name: str) -> Any:
    *modules, last = name.split(".")
    try:
        for part in modules:
            module = _get(_get(_state(module), "_modules"), part)
        return _get(_get(_state(module), "_parameters"), last)
    except _FileError:
        raise _FileError(f"its weight {name!r} is missing, which the settings ask for") from None


def _tensor(value: Any, archive: _Archive) -> np.ndarray:
    """Copy a tensor that lies inside its storage without gaps, row by row or column by column."""
    record = _expect(value, "._rebuild_parameter", "._rebuild_tensor_v2")
    record = _expect(record.args[0], "._rebuild_tensor_v2") if record.path.endswith("parameter") else record
    storage, offset, size, stride = record.args[:4]
    _, kind, key, _, n_declared = _expect(storage, "storage").args
    kind = str(getattr(kind, "path", kind))
    if kind not in _STORAGES or not isinstance(key, str):
        raise _FileError(f"it has a storage of type {kind[:80]!r}; read are {', '.join(_STORAGES)}")
    if len(size) > 2 or any(type(n) is not int or n < 0 for n in (offset, *size, *stride)):
        raise _FileError("a tensor has a negative offset, size or stride, or many dimensions")
    flat, n = archive.storage(key, _STORAGES[kind]), math.prod(size)
    if len(flat) != n_declared or offset + n > len(flat):
        raise _FileError(f"storage {key[:20]!r} has {len(flat)} numbers, not what its tensor asks for")
    flat = flat[offset : offset + n].astype(flat.dtype.newbyteorder("="))
    by_row = [math.prod(size[i + 1 :]) for i in range(len(size))]
    by_column = [math.prod(size[:i]) for i in range(len(size))]
    if all(n == 1 or got == step for n, got, step in zip(size, stride, by_row, strict=True)):
        return flat.reshape(size)
    if all(n == 1 or got == step for n, got, step in zip(size, stride, by_column, strict=True)):
        return np.ascontiguousarray(flat.reshape(size[::-1]).T)
    raise _FileError("a tensor has strides that leave gaps or overlap")


def _bytes(value: Any) -> bytes:
    """Return the bytes of a buffer. Protocol 2 writes them as a text of characters 0 to 255."""
    while not isinstance(value, bytes):
        record = _expect(value, "_codecs.encode", ".bytes", ".bytearray", "pyarrow.lib.py_buffer")
        value = record.args[0] if record.args else b""
        value = value.encode("latin1") if isinstance(value, str) else value
    return value


def _dtype(value: Any) -> np.dtype[Any]:
    record = _expect(value, "numpy.dtype")
    code, order = record.args[0], record.state[1]
    if code not in _NUMBERS or order not in ("<", ">", "|", "="):
        raise _FileError("it has an array of other things than numbers where numbers were expected")
    return np.dtype(f"{order}{code}")


def _vector(value: Any) -> np.ndarray:
    """Decode a pickled numpy array of numbers in one dimension."""
    _, shape, dtype, _, data = _expect(value, ".multiarray._reconstruct").state
    array = np.frombuffer(_bytes(data), _dtype(dtype))
    if array.shape != shape:
        raise _FileError("it has an array that is not a vector of its stated length")
    return array


def _texts(value: Any) -> list[str]:
    """Decode a pickled Arrow array of texts, as pandas 3 keeps them where pyarrow is installed."""
    kind, n, n_missing, start, (_, offsets, texts), *_ = _expect(value, "pyarrow.lib._restore_array").args[0]
    offset_type = {"large_string": "<i8", "string": "<i4"}[_expect(kind, ".type_for_alias").args[0]]
    ends, data = np.frombuffer(_bytes(offsets), offset_type)[start : start + n + 1], _bytes(texts)
    if n_missing or ends[0] < 0 or (np.diff(ends) < 0).any() or ends[-1] > len(data):
        raise _FileError("its item ids are a damaged Arrow array, or have gaps")
    return [data[a:b].decode() for a, b in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)]


def _ids(index: Any) -> list[Any]:
    """Return the values of a pickled pandas Index: a numpy array, or one wrapped by a pandas string array."""
    index = _expect(index, "._reconstruct", ".__pyx_unpickle_NDArrayBacked", ".ArrowStringArray")
    if index.path.endswith(".ArrowStringArray"):
        return _texts(index.state["_pa_array"])
    array = index.state[1] if index.path.endswith("NDArrayBacked") else index
    _, _, dtype, _, data = _expect(array, "._reconstruct").state
    is_objects = _expect(dtype, "numpy.dtype").args[0] in ("O8", "O4")
    return list(data) if is_objects else list(_vector(array).tolist())


def _item_ids(series: Any) -> np.ndarray:
    """Return in item-index order the ids of a pickled pandas Series, whose values are the item indices."""
    manager = _state(_state(_expect(series, ".Series"))["_mgr"])[3]["0.14.1"]
    ids = _ids(_expect(manager["axes"][0], "._new_Index").args[1]["data"])
    item_idx = _vector(manager["blocks"][0]["values"])
    order = np.argsort(item_idx, kind="stable")
    if item_idx.dtype.kind not in "iu" or not np.array_equal(item_idx[order], np.arange(len(ids))):
        raise _FileError("its vocabulary does not number the items 0 to n_items - 1, each once")
    kinds = {type(item_id) for item_id in ids}
    if kinds not in ({int}, {str}) or len(set(ids)) != len(ids):
        raise _FileError("its item ids are not all integers or all texts, or one occurs twice")
    return np.array([ids[i] for i in order.tolist()], dtype=np.int64 if kinds == {int} else object)


def _support(item_idx: np.ndarray, n_items: int) -> np.ndarray:
    """Count the training events of each item index."""
    if item_idx.dtype.kind not in "iu" or not np.isin(item_idx, np.arange(n_items)).all():
        raise _FileError("its training rows name items that are not in its vocabulary")
    return np.bincount(item_idx.astype(np.int64), minlength=n_items)
