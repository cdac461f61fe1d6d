"""Read a model that the official GRU4Rec program saved, without running anything the file says.

Settings, vocabulary and weights are looked up in the records that ``inert_pickle`` makes of the file. The module knows
the official object's attributes, and nothing of this project's network; only ``bundle_from_official`` knows our file.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gru4rec.convert.inert_pickle import (
    PickleFileError,
    Record,
    TorchArchive,
    decode_bytes,
    decode_dtype,
    decode_tensor,
    decode_texts,
    decode_vector,
    expect,
    load_records,
)
from gru4rec.errors import ModelFileError

if TYPE_CHECKING:
    from gru4rec.bundle import Bundle

# fmt: off
_SETTINGS = (
    "layers", "loss", "batch_size", "dropout_p_embed", "dropout_p_hidden", "learning_rate", "momentum",
    "sample_alpha", "n_sample", "embedding", "constrained_embedding", "n_epochs", "bpreg", "elu_param",
    "logq",
)
# fmt: on


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
            archive = TorchArchive(members, Path(path).stat().st_size)
            return _extract(load_records(archive.read(archive.pickle_name())), archive)
    except IsADirectoryError:
        raise ModelFileError(f"{path} is a folder. Give the path of a model file of the official program") from None
    except FileNotFoundError:
        raise ModelFileError(f"no model file {str(path)!r}. Check the path.") from None
    except PickleFileError as error:
        reason = str(error)
    except zipfile.BadZipFile as error:
        reason = f"it is not a whole zip file, as torch 1.6 and newer write them ({error})"
    except Exception as error:  # a hostile file can make the parsers raise anything
        reason = f"it is damaged ({type(error).__name__}: {str(error)[:200]})"
    raise ModelFileError(
        f"cannot read {str(path)!r} as a model of the official GRU4Rec program: {reason}. "
        "Copy the file again, or save the model again with the official program."
    )


def bundle_from_official(official: OfficialModel) -> Bundle:
    """Bring an official model into this project's form.

    Weights that are not finite mark it as diverged. Training events are zeros where the file does not tell them.

    Raises:
        ConfigError: The model has a setting that this project does not know.
    """
    from gru4rec.bundle import Bundle
    from gru4rec.config import hyper_parameters
    from gru4rec.data.vocabulary import Vocabulary

    values = dict(official.settings)
    if values.get("constrained_embedding", True):
        values["embedding"] = 0  # the official program ignores it there
    settings = hyper_parameters(values, where="the official model")
    support = np.zeros(len(official.item_ids), dtype=np.int64) if official.support is None else official.support
    is_finite = all(bool(np.isfinite(weight).all()) for weight in official.weights.values())
    return Bundle(
        settings=settings,
        weights=official.weights,
        items=Vocabulary(official.item_ids),
        support=support,
        status="converted" if is_finite else "diverged",
        n_epochs_done=settings.n_epochs,
    )


def _extract(top: Any, archive: TorchArchive) -> OfficialModel:
    """Look up settings, vocabulary and weights in the records of the official object."""
    attributes = _state(expect(top, ".GRU4Rec"))
    settings = {name: _plain(attributes[name], name) for name in _SETTINGS if name in attributes}
    rows = _state(_get(attributes, "data_iterator"))
    item_ids = _item_ids(_get(rows, "itemidmap"))
    weights = {}
    for name, shape in _expected_shapes(settings, len(item_ids)).items():
        weights[name] = decode_tensor(_parameter(_get(attributes, "model"), name), archive)
        if weights[name].shape != shape:
            raise PickleFileError(f"its {name} is {weights[name].shape}, the settings ask for {shape}")
    support = None if rows.get("data_items") is None else _support(decode_vector(rows["data_items"]), len(item_ids))
    return OfficialModel(settings, weights, item_ids, support)


def _state(value: Any) -> Any:
    return expect(value, "").state


def _get(mapping: Any, name: str) -> Any:
    mapping = mapping.mapping if isinstance(mapping, Record) else mapping  # an OrderedDict is a record
    if not isinstance(mapping, dict) or name not in mapping:
        raise PickleFileError(f"it has no {name!r}")
    return mapping[name]


def _plain(value: Any, name: str, *, in_list: bool = False) -> Any:
    """Return a setting as a Python value; numpy scalars become Python numbers, tuples become lists."""
    if isinstance(value, (list, tuple)) and not in_list:
        return [_plain(part, name, in_list=True) for part in value]
    if isinstance(value, Record) and value.path.endswith("multiarray.scalar"):
        return np.frombuffer(decode_bytes(value.args[1]), decode_dtype(value.args[0]))[0].item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise PickleFileError(f"its setting {name!r} is not a plain value")


def _expected_shapes(settings: dict[str, Any], n_items: int) -> dict[str, tuple[int, ...]]:
    """Name every parameter of a model with these settings, in the official order, with its shape."""
    layers, width = settings.get("layers"), settings.get("embedding", 0)
    if not isinstance(layers, list) or not layers or not all(type(n) is int and n > 0 for n in layers):
        raise PickleFileError("its setting 'layers' is not a list of positive integers")
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
        raise PickleFileError("it has several layers without an embedding, which never could run")
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
    except PickleFileError:
        raise PickleFileError(f"its weight {name!r} is missing, which the settings ask for") from None


def _ids(index: Any) -> list[Any]:
    """Return the values of a pickled pandas Index: a numpy array, or one wrapped by a pandas string array."""
    index = expect(index, "._reconstruct", ".__pyx_unpickle_NDArrayBacked", ".ArrowStringArray")
    if index.path.endswith(".ArrowStringArray"):
        return decode_texts(index.state["_pa_array"])
    array = index.state[1] if index.path.endswith("NDArrayBacked") else index
    _, _, dtype, _, data = expect(array, "._reconstruct").state
    is_objects = expect(dtype, "numpy.dtype").args[0] in ("O8", "O4")
    return list(data) if is_objects else list(decode_vector(array).tolist())


def _item_ids(series: Any) -> np.ndarray:
    """Return in item-index order the ids of a pickled pandas Series, whose values are the item indices."""
    manager = _state(_state(expect(series, ".Series"))["_mgr"])[3]["0.14.1"]
    ids = _ids(expect(manager["axes"][0], "._new_Index").args[1]["data"])
    item_idx = decode_vector(manager["blocks"][0]["values"])
    order = np.argsort(item_idx, kind="stable")
    if item_idx.dtype.kind not in "iu" or not np.array_equal(item_idx[order], np.arange(len(ids))):
        raise PickleFileError("its vocabulary does not number the items 0 to n_items - 1, each once")
    kinds = {type(item_id) for item_id in ids}
    if kinds not in ({int}, {str}) or len(set(ids)) != len(ids):
        raise PickleFileError("its item ids are not all integers or all texts, or one occurs twice")
    return np.array([ids[i] for i in order.tolist()], dtype=np.int64 if kinds == {int} else object)


def _support(item_idx: np.ndarray, n_items: int) -> np.ndarray:
    """Count the training events of each item index."""
    if item_idx.dtype.kind not in "iu" or not np.isin(item_idx, np.arange(n_items)).all():
        raise PickleFileError("its training rows name items that are not in its vocabulary")
    return np.bincount(item_idx.astype(np.int64), minlength=n_items)
