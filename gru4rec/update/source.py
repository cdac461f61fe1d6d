"""The model that is updated: a model file, or the folder of a run, whose checkpoint holds the optimiser's state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from gru4rec.api import GRU4Rec
from gru4rec.bundle import FORMAT_NAME, Bundle, bundle_of, read_model_file
from gru4rec.errors import ModelFileError
from gru4rec.train.checkpoint import load_checkpoint

MODEL, CHECKPOINT = "model.gru4rec", Path("checkpoints", "last.safetensors")
"""In a run folder: see :class:`gru4rec.runs.folder.RunFolder`, whose lock nothing here needs."""


def load_to_update(path: str | Path, *, device: str, tell: Callable[[str], None]) -> GRU4Rec:
    """Read the model that is to be updated, with its training state where there is one.

    Args:
        path: A model file, or the folder of a run that has ended.
        device: Where the model computes.
        tell: Called with what the user should know.

    Raises:
        ModelFileError: There is none, it is of another kind, or it is damaged.
        DivergedError: It diverged in training.
    """
    folder = Path(path) if Path(path).is_dir() else None
    if folder is None:
        return GRU4Rec.from_bundle(_bundle(Path(path)), device)
    if not (folder / MODEL).is_file():
        raise ModelFileError(
            f"there is no {MODEL} in the folder {path}. Give a model file, or the folder of a run that has ended "
            "(gru4rec train --run-dir)"
        )
    bundle = _bundle(folder / MODEL)
    if bundle.training_state is None and (folder / CHECKPOINT).is_file():
        bundle = _with_state_of(bundle, folder / CHECKPOINT, tell)
    return GRU4Rec.from_bundle(bundle, device)


def _bundle(path: Path) -> Bundle:
    file = read_model_file(path)
    if file.kind != FORMAT_NAME:
        raise ModelFileError(
            f"{path} holds a model of the kind {file.kind!r}, and only a GRU4Rec can be updated. Fit it anew on all "
            "logs with gru4rec train --model, which takes seconds"
            if file.kind != "hybrid"
            else f"{path} holds a hybrid, and only a GRU4Rec can be updated. Update the GRU4Rec in it, and blend anew "
            "with gru4rec compare"
        )
    return bundle_of(file, path)


def _with_state_of(bundle: Bundle, path: Path, tell: Callable[[str], None]) -> Bundle:
    """Return the model with the state of its run's last checkpoint."""
    tensors = load_checkpoint(path).tensors
    state = {name: tensor.numpy() for name, tensor in tensors.items() if name.startswith(("accumulator.", "velocity."))}
    weights = bundle.weights.items()
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items() if name.startswith("weight.")}
    if shapes != {f"weight.{name}": weight.shape for name, weight in weights}:
        raise ModelFileError(
            f"{path} is the checkpoint of another model than that beside it. Give the model file alone"
        )
    if not all(np.array_equal(tensors[f"weight.{name}"].numpy(), weight) for name, weight in weights):
        tell(f"note: the model is of epoch {bundle.n_epochs_done}, the state of the optimiser that of the run's end")
    return replace(bundle, training_state=state)
