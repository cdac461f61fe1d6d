"""A saved model: weights, settings, vocabulary and format version in one safetensors file (docs/model-format.md).

Loading reads numbers and JSON and never executes anything; writing replaces the old file in one move. This module knows
the file, not how a model is trained or used.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from gru4rec.config import HyperParameters, hyper_parameters, setting_values
from gru4rec.data.vocabulary import Vocabulary
from gru4rec.errors import DivergedError, GRU4RecError, ModelFileError
from gru4rec.model.network import GRU4RecModel

FORMAT_NAME = "gru4rec"
FORMAT_VERSION = 3
"""The newest that is read. Models of GRU4Rec are written as version 1, or 3 with training state; others as 2."""

VERSION_DIGITS = 16

Status = Literal["finished", "checkpoint", "diverged", "converted"]

ACCUMULATOR, VELOCITY = "accumulator.", "velocity."
"""What begins the names of training state; the name of the weight follows."""

STATE_EVENTS = "state_events"
"""In training state: events that accumulators are sums over, float64 (1,); left out where the support adds up to it."""

_TEXT_BYTES, _TEXT_OFFSETS, _INTEGER_IDS, _SUPPORT = "item_id_bytes", "item_id_offsets", "item_ids", "item_support"


@dataclass(frozen=True)
class Bundle:
    """What a model file holds.

    Attributes:
        settings: The hyper-parameters of the training run.
        weights: Arrays by name, as the network's ``state_dict`` names them.
        items: The vocabulary.
        support: Int64 (n_items,), training events of each item.
        status: ``finished``; ``checkpoint`` (training went on after this file was written); ``diverged`` (of no use);
            ``converted`` (from the official program).
        n_epochs_done: Passes over the training log behind these weights.
        training_state: The optimiser's accumulators and velocities, each named after its weight, of the weight's
            shape, and :data:`STATE_EVENTS`; None where the model was saved without.
    """

    settings: HyperParameters
    weights: Mapping[str, np.ndarray]
    items: Vocabulary
    support: np.ndarray
    status: Status = "finished"
    n_epochs_done: int = 0
    training_state: Mapping[str, np.ndarray] | None = None

    def restore(self, *, device: torch.device | str = "cpu", n_rows: int | None = None) -> GRU4RecModel:
        """Build the network around these weights, in the number type they were saved in.

        Args:
            device: Where to.
            n_rows: Rows that item matrices have here; None: one for each item.

        Raises:
            DivergedError: The model diverged in training, so its weights mean nothing.
        """
        if self.status == "diverged":
            raise DivergedError("this model diverged in training: its weights are of no use. Train it again")
        model = _empty_network(self.items.n_items if n_rows is None else n_rows, self.settings)
        weights = {name: torch.from_numpy(np.array(array)).to(device) for name, array in self.weights.items()}
        model.load_state_dict(weights, assign=True)
        return model


def save_bundle(bundle: Bundle, path: str | Path) -> None:
    """Write a model file. A save that is cut short leaves an old file of that name as it was.

    Raises:
        ModelFileError: The path cannot be written.
    """
    content = content_of(bundle.settings, bundle.status, bundle.n_epochs_done)
    state = bundle.training_state
    arrays = {**bundle.weights, **(state or {})}
    version = format_version_of(state)
    write_model_file(path, content, arrays, bundle.items, bundle.support, format_version=version)


def format_version_of(training_state: Mapping[str, np.ndarray] | None) -> int:
    """Return the oldest version that a GRU4Rec's file can be written as, so that older programs read it."""
    return 1 if training_state is None else FORMAT_VERSION


def content_of(settings: HyperParameters, status: Status, n_epochs_done: int) -> dict[str, Any]:
    """Return what says in the file of a GRU4Rec what its arrays mean; see :class:`Bundle`."""
    return {"settings": setting_values(settings), "status": status, "n_epochs_done": n_epochs_done}


def write_model_file(
    path: str | Path,
    content: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    items: Vocabulary,
    support: np.ndarray,
    *,
    format_version: int = 1,
) -> None:
    """Write a model of any kind: arrays by name, vocabulary and support; ``content`` is JSON that says what they mean.

    Raises:
        ModelFileError: The path cannot be written.
    """
    tensors = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    tensors |= vocabulary_tensors(items, support)
    checksums = {name: checksum(array) for name, array in tensors.items()}
    metadata = model_metadata(content, checksums, items.n_items, format_version=format_version)
    with replacing(Path(path)) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def model_metadata(
    content: Mapping[str, Any], checksums: Mapping[str, int], n_items: int, *, format_version: int = 1
) -> dict[str, str]:
    """Return what stands in a model file's header beside the arrays, whose checksums are given by name."""
    whole: dict[str, Any] = {
        "format": FORMAT_NAME,
        "format_version": format_version,
        "gru4rec_version": _package_version(),
        "n_items": n_items,
        **content,
        "checksums": dict(checksums),
    }
    whole["header_checksum"] = _header_checksum(whole)
    return {FORMAT_NAME: json.dumps(whole)}


def version_of(path: str | Path) -> str:
    """Return what names a model by its contents: the first digits of the SHA-256 of its file.

    Raises:
        ModelFileError: It cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:VERSION_DIGITS]
    except OSError as error:
        raise ModelFileError(f"cannot read model file {path}: {error.strerror}. Check the path") from None


@dataclass(frozen=True)
class ModelFile:
    """What stands in a model file of any kind, its checksums checked.

    Attributes:
        content: What the arrays mean.
        arrays: By name.
        items: The vocabulary.
        support: Int64 (n_items,), training events of each item.
    """

    content: Mapping[str, Any]
    arrays: dict[str, np.ndarray]
    items: Vocabulary
    support: np.ndarray

    @property
    def kind(self) -> str:
        """What made it: ``gru4rec``, or the name of a baseline."""
        return str(self.content.get("kind", FORMAT_NAME))


ReadArray = Callable[[Any, str], tuple[np.ndarray, int]]
"""Given an open safetensors file and a name, returns the array, or a part of it, and the checksum of the whole."""


def _read_whole(file: Any, name: str) -> tuple[np.ndarray, int]:
    array: np.ndarray = file.get_tensor(name)
    return array, checksum(array)


def read_model_file(path: str | Path, *, read: ReadArray = _read_whole) -> ModelFile:
    """Read a model file of any kind and check it: format, version, checksums, vocabulary.

    Args:
        path: The file.
        read: Reads each array.

    Raises:
        ModelFileError: There is no such file, it is of another program, damaged, or of a newer version; the message
            says which, and what to do.
    """
    path = Path(path)
    _check_kind(path)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            content = _content(metadata, path)
            found = {name: read(file, name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError, RecursionError) as error:
        raise ModelFileError(f"{path} is damaged: {error}. Copy or save the model again") from None
    _check_checksums(content, {name: value for name, (_, value) in found.items()}, path)
    tensors = {name: array for name, (array, _) in found.items()}
    with damage_named(path):
        support = tensors.pop(_SUPPORT)
        items = _vocabulary(tensors)
        if support.shape != (items.n_items,):
            raise ModelFileError(
                f"{path} is damaged: {items.n_items} items but {support.shape[0]} supports. Save it again"
            )
        return ModelFile(content, tensors, items, support)


@contextlib.contextmanager
def damage_named(path: str | Path) -> Iterator[None]:
    """Turn what reading a wrong file's contents raises into one message.

    Raises:
        ModelFileError: Whenever something was wrong.
    """
    try:
        yield
    except ModelFileError:
        raise
    except (KeyError, ValueError, TypeError, GRU4RecError, pa.ArrowException) as error:
        raise ModelFileError(f"{path} is damaged: {error}. Copy or save the model again") from None


def load_bundle(path: str | Path) -> Bundle:
    """Read a model file and check it: format, version, checksums, sizes.

    Raises:
        ModelFileError: There is no such file, it is of another kind, damaged, or of a newer version; the message says
            which, and what to do.
    """
    return bundle_of(read_model_file(path), path)


def bundle_of(file: ModelFile, path: str | Path, *, n_rows: int | None = None) -> Bundle:
    """Take a GRU4Rec model out of what was read.

    Args:
        file: What was read.
        path: Where.
        n_rows: Rows that item matrices have in it; None: one for each item.

    Raises:
        ModelFileError: It holds another kind of model, or is damaged.
    """
    if file.kind != FORMAT_NAME:
        raise ModelFileError(
            f"{path} holds a model of the kind {file.kind!r}, not a GRU4Rec. Open it with Recommender.load, or measure "
            "it with gru4rec evaluate"
        )
    with damage_named(path):
        settings = hyper_parameters(file.content["settings"], where=str(path))
        state = {
            name: array for name, array in file.arrays.items() if name.startswith((ACCUMULATOR, VELOCITY, STATE_EVENTS))
        }
        weights = {name: array for name, array in file.arrays.items() if name not in state}
        _check_shapes(file.arrays, file.items.n_items if n_rows is None else n_rows, settings, Path(path))
        return Bundle(
            settings=settings,
            weights=weights,
            items=file.items,
            support=file.support,
            status=file.content["status"],
            n_epochs_done=file.content["n_epochs_done"],
            training_state=state or None,
        )


def check_writable(path: str | Path) -> None:
    """Find out before training whether a model can be saved there.

    Raises:
        ModelFileError: The path is a folder, its folder is missing, or there is no permission.
    """
    with replacing(Path(path), keep=False):
        pass


def _model_in(folder: Path) -> str:
    """Return how to go on where a run folder was given, or anything else."""
    return f", such as {folder / 'model.gru4rec'}" if (folder / "model.gru4rec").is_file() else ""


def _check_kind(path: Path) -> None:
    """Refuse what is no safetensors file, with a word on what it is."""
    try:
        with open(path, "rb") as file:
            head = file.read(9)
    except FileNotFoundError:
        raise ModelFileError(
            f"there is no model file {path}. Check the path, or train one: gru4rec train LOG -o {path}"
        ) from None
    except IsADirectoryError:
        raise ModelFileError(f"{path} is a folder. Give the path of a model file{_model_in(path)}") from None
    except OSError as error:
        raise ModelFileError(f"cannot read model file {path}: {error.strerror}. Check its mode") from None
    if not head:
        raise ModelFileError(f"model file {path} is empty. Copy or save the model again")
    if head[8:] == b"{":  # eight bytes of header length, any values, then JSON: a safetensors file
        return
    if head[:4] == b"PK\x03\x04" or head[:1] == b"\x80":
        raise ModelFileError(
            f"{path} is a pickle, as the official program saves models; loading one can execute code. "
            f"Convert it first (nothing is executed): gru4rec convert {path} OUTPUT"
        )
    raise ModelFileError(f"{path} is not a model file, or its beginning is damaged. Give a model that gru4rec saved")


def _content(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    if FORMAT_NAME not in metadata:
        raise ModelFileError(f"{path} is a safetensors file of another program. Give a model that gru4rec saved")
    content = json.loads(metadata[FORMAT_NAME])
    if not isinstance(content, dict):
        raise ModelFileError(f"{path} is a safetensors file of another program. Give a model that gru4rec saved")
    version = content.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise ModelFileError(
            f"{path} has format version {version}, and this gru4rec {_package_version()} reads up to {FORMAT_VERSION}. "
            "Upgrade: pip install -U gru4rec"
        )
    if content.pop("header_checksum", None) != _header_checksum(content):
        raise ModelFileError(
            f"{path} is damaged: the checksum of its header does not fit. Copy or save the model again"
        )
    return content


def _header_checksum(content: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def _check_checksums(content: Mapping[str, Any], found: Mapping[str, int], path: Path) -> None:
    checksums = content.get("checksums")
    if not isinstance(checksums, dict) or checksums.keys() != found.keys():
        raise ModelFileError(
            f"{path} is damaged: its parts are not those its header lists. Copy or save the model again"
        )
    for name, value in found.items():
        if checksums[name] != value:
            raise ModelFileError(
                f"{path} is damaged: the checksum of {name!r} does not fit. Copy or save the model again"
            )


def checksum(array: np.ndarray, before: int = 0) -> int:
    """Return the CRC-32 of an array's bytes; ``before`` is that of the bytes that come before them."""
    return zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data, before) if array.size else before


def _empty_network(n_items: int, settings: HyperParameters) -> GRU4RecModel:
    """Return a network with shapes but no numbers in it."""
    with torch.device("meta"):
        return GRU4RecModel(n_items, settings)


def _check_shapes(weights: Mapping[str, np.ndarray], n_items: int, settings: HyperParameters, path: Path) -> None:
    expected = {name: tuple(weight.shape) for name, weight in _empty_network(n_items, settings).state_dict().items()}
    state = {name[: name.index(".") + 1] for name in weights if name.startswith((ACCUMULATOR, VELOCITY))}
    if state:  # accumulators at least, each of its weight's shape
        expected |= {f"{kind}{name}": shape for kind in state | {ACCUMULATOR} for name, shape in expected.items()}
        expected |= {STATE_EVENTS: (1,)} if STATE_EVENTS in weights else {}
    found = {name: array.shape for name, array in weights.items()}
    for name, array in weights.items():
        if array.dtype.kind != "f":
            raise ModelFileError(f"{path} is damaged: {name} is made of {array.dtype} numbers. Save the model again")
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise ModelFileError(
                f"{path} is damaged: {name} has shape {found.get(name)}, and its settings and {n_items} items ask for "
                f"{expected.get(name)}. Copy or save the model again"
            )


def vocabulary_tensors(items: Vocabulary, support: np.ndarray) -> dict[str, np.ndarray]:
    """Return the arrays, by name, that every model file holds: the items' ids and their training events."""
    tensors = {_SUPPORT: np.asarray(support, dtype=np.int64)}
    if items.is_integer:
        return {_INTEGER_IDS: items.item_ids.to_numpy(), **tensors}
    texts = [text.encode() for text in items.item_ids.to_pylist()]
    offsets = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    return {_TEXT_BYTES: np.frombuffer(b"".join(texts), dtype=np.uint8), _TEXT_OFFSETS: offsets, **tensors}


def _vocabulary(tensors: dict[str, np.ndarray]) -> Vocabulary:
    """Take the vocabulary's parts out of the tensors."""
    if _INTEGER_IDS in tensors:
        return Vocabulary(tensors.pop(_INTEGER_IDS))
    joined, offsets = tensors.pop(_TEXT_BYTES).tobytes(), tensors.pop(_TEXT_OFFSETS).tolist()
    return Vocabulary([joined[start:stop].decode() for start, stop in itertools.pairwise(offsets)])


@contextlib.contextmanager
def replacing(path: Path, *, keep: bool = True) -> Iterator[Path]:
    """Give a temporary file beside ``path``; on success it takes that name (if ``keep``), otherwise it is removed.

    Raises:
        ModelFileError: The file cannot be written.
    """
    path = Path(os.path.realpath(path))  # a link stays, and what it points to is replaced
    if os.path.isdir(path):  # os.path says no where a Path raises: a name too long, a folder that is locked
        raise ModelFileError(
            f"cannot save to {path}: it is a folder. Give a file name in it, such as {path / 'model.pt'}"
        )
    if os.path.exists(path) and not os.path.isfile(path):  # /dev/null would be replaced
        raise ModelFileError(f"cannot save to {path}: it is not a regular file. Give another path")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        advice = "Make" if isinstance(error, FileNotFoundError) else "Check"
        raise ModelFileError(
            f"cannot save to {path}: {error.strerror}. {advice} the folder {path.parent}, or give another path"
        ) from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        if keep:
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise ModelFileError(f"cannot save to {path}: {error}. Free some space, or give another path") from None
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _package_version() -> str:
    from gru4rec import __version__

    return __version__
