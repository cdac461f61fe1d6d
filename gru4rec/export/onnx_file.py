"""ONNX files: written whole, opened with ONNX Runtime, told how their check went."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gru4rec.errors import ConfigError
from gru4rec.export.about import VERIFIED, Step, damaged, read_about, write_export
from gru4rec.export.step_graph import StepModel


@contextlib.contextmanager
def extra_named() -> Iterator[None]:
    """Run a block that imports what ``pip install gru4rec`` alone does not bring.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"an ONNX file needs {error.name}, which is missing. Run: pip install 'gru4rec[export]'"
        ) from None


def write_onnx(model: StepModel, path: str | Path) -> None:
    """Write a model's step graph.

    Raises:
        ConfigError: It is larger than an ONNX file can be, or the extra is missing.
        DataError: The path cannot be written.
    """
    with extra_named():
        from gru4rec.export.onnx_graph import step_proto

    proto = step_proto(model)
    _save(proto, path, model.about.texts(model.items))


class OnnxFile:
    """An exported ONNX file, ready to take clicks.

    Attributes:
        about: What it says of itself.
        item_ids: In item-index order.
        runtime: What runs it, with its version.

    Raises:
        ModelFileError: It is damaged, or no export.
        ConfigError: The extra is missing.
    """

    def __init__(self, path: str | Path) -> None:
        with extra_named():
            import onnx  # noqa: F401  # needed by record; better missed now than after the check
            import onnxruntime as ort  # type: ignore[import-untyped]

        options = ort.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is said once, by us
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            texts = self._session.get_modelmeta().custom_metadata_map
        except Exception as error:  # the errors of ONNX Runtime have no class in common
            raise damaged(path, _reason(error)) from None
        self._path = path
        self.about, self.item_ids = read_about(texts, path)
        self.runtime = f"onnxruntime {ort.__version__}"

    def step(self, item_idx: np.ndarray, state: Sequence[np.ndarray]) -> Step:
        """Run one step; see :class:`~gru4rec.export.step_graph.StepGraph`."""
        from gru4rec.export.onnx_graph import ITEM_IDX, SCORES, TOP_IDS, TOP_IDX, next_state_name, state_name

        sizes = [*[self.about.k] * 3, *self.about.layers]
        layers = range(len(self.about.layers))
        given = {ITEM_IDX: item_idx} | {state_name(layer): state[layer] for layer in layers}
        try:
            found = self._session.run([TOP_IDX, SCORES, TOP_IDS, *map(next_state_name, layers)], given)
        except Exception as error:  # as above
            raise damaged(self._path, _reason(error)) from None
        if [each.shape for each in found] != [(len(item_idx), size) for size in sizes]:
            raise damaged(self._path, "what it gives has another shape than it says")
        top_idx, scores, top_ids, *next_state = found
        return Step(next_state, top_idx, scores, top_ids.tolist())

    def record(self, verified: Mapping[str, Any]) -> None:
        """Write the outcome of a check into the file.

        Raises:
            DataError: It cannot be written.
        """
        import onnx

        _save(onnx.load(self._path), self._path, {VERIFIED: json.dumps(verified)})


def _reason(error: Exception) -> str:
    """Return what ONNX Runtime says without the name of the file, which our message has."""
    return str(error).split(" failed:", 1)[-1]


def _save(proto: Any, path: str | Path, texts: Mapping[str, str]) -> None:
    """Write a graph with these texts in place of those of the same names."""
    import onnx

    kept = {each.key: each.value for each in proto.metadata_props}
    onnx.helper.set_model_props(proto, {**kept, **texts})
    write_export(path, lambda partial: onnx.save(proto, partial))
