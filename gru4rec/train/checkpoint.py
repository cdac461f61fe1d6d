"""Checkpoints: all that training changes, in one safetensors file, so that it goes on to the very same bits.

Weights, accumulators, velocities, hidden states, the state of the dropout generator, and the place in the epoch.
Negatives need no array: their sequence depends on the seed alone, and a place in it is a number of steps.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gru4rec.data.negatives import SampleStore
from gru4rec.errors import ConfigError, ModelFileError
from gru4rec.train.loop import Position, Training
from gru4rec.whole import write_whole

FORMAT_VERSION = 1
ADVICE = "Free some room, or choose another folder"
"""What to do where a checkpoint cannot be written."""


@dataclass(frozen=True)
class Checkpoint:
    """A state of training.

    Attributes:
        position: The place.
        tensors: By name, on the CPU.
        more: What else belongs to the run, as JSON can hold it.
    """

    position: Position
    tensors: Mapping[str, Tensor]
    more: Mapping[str, Any]

    def restore(self, training: Training) -> None:
        """Bring training to this state, before its first step.

        Raises:
            ConfigError: Its negatives are the caller's own, which nobody can wind forward.
            ModelFileError: The checkpoint is of another model.
        """
        for name, own in tensors_of(training).items():
            restored = self.tensors.get(name)
            if restored is None or restored.shape != own.shape or restored.dtype != own.dtype:
                raise ModelFileError(
                    f"the checkpoint has no {name} of {own.dtype} {tuple(own.shape)}: it is of another model"
                )
            own.copy_(restored)
        restore_place(training, self.position, self.tensors)


def restore_place(training: Training, position: Position, tensors: Mapping[str, Tensor]) -> None:
    """Bring all but weights, accumulators and velocities to where they were.

    Args:
        training: Before its first step.
        position: The place.
        tensors: The state of the dropout generator, and hidden states, by the names they have in a checkpoint.

    Raises:
        ConfigError: Its negatives are the caller's own, which nobody can wind forward.
    """
    negatives = training.batches.negatives
    if negatives is not None and not isinstance(negatives, SampleStore):
        raise ConfigError("training on negatives= of your own cannot go on from a checkpoint. Leave negatives= out")
    rng = training.model.rng
    if rng is not None:
        rng.set_state(tensors["generator"])
    if position.step:  # an epoch starts without states
        n_layers = len(training.model.settings.layers)
        training.step.restore([tensors[f"hidden.{layer}"] for layer in range(n_layers)])
    if negatives is not None:
        negatives.skip((position.epoch - 1) * training.batches.n_steps + position.step)


def checkpoint_of(
    training: Training, position: Position, hidden: Sequence[Tensor], more: Mapping[str, Any]
) -> Checkpoint:
    """Take the state of training, as views: to be written before the next step.

    Args:
        training: What is trained.
        position: The place.
        hidden: The lanes' hidden states by layer; none between epochs.
        more: What else belongs to the run.
    """
    tensors = {name: tensor.cpu() for name, tensor in tensors_of(training).items()}
    return Checkpoint(position, tensors | place_tensors(training, hidden), more)


def place_tensors(training: Training, hidden: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return the state of the dropout generator, and hidden states, by the names they have in a checkpoint."""
    tensors = {f"hidden.{layer}": values.cpu() for layer, values in enumerate(hidden)}
    if training.model.rng is not None:
        tensors["generator"] = training.model.rng.get_state()
    return tensors


def optimizer_state(training: Training) -> dict[str, np.ndarray]:
    """Return accumulators and velocities by name, as arrays on the CPU: what a model file can carry."""
    tensors = tensors_of(training).items()
    return {name: tensor.cpu().numpy() for name, tensor in tensors if not name.startswith("weight.")}


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint, whole or not at all.

    Raises:
        DataError: The file cannot be written; an older one is as it was.
    """
    metadata = metadata_of(checkpoint.position, checkpoint.more)
    tensors = {name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()}

    def write(partial: Path) -> None:
        try:
            save_file(tensors, partial, metadata=metadata)
        except SafetensorError as error:
            raise OSError(0, str(error)) from None
        partial.chmod(0o644)
        with open(partial, "rb") as file:
            os.fsync(file.fileno())

    write_whole(path, write, advice=ADVICE)


def metadata_of(position: Position, more: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts of a checkpoint's header."""
    header = {"version": FORMAT_VERSION, "position": asdict(position), "more": dict(more)}
    return {"gru4rec_checkpoint": json.dumps(header)}


def load_checkpoint(path: Path, *, leave_out: Collection[str] = ()) -> Checkpoint:
    """Read a checkpoint.

    Args:
        path: The file.
        leave_out: Names of tensors that are not read.

    Raises:
        ModelFileError: The file is missing, damaged or not a checkpoint.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["gru4rec_checkpoint"])
            if header["version"] != FORMAT_VERSION:
                raise ModelFileError(
                    f"{path} has checkpoint version {header['version']}; this program reads {FORMAT_VERSION}"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys() if name not in leave_out}  # noqa: SIM118
        return Checkpoint(Position(**header["position"]), tensors, header["more"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"{path} is not a checkpoint that can be read: {error}. Train anew") from None


def tensors_of(training: Training) -> dict[str, Tensor]:
    """Return weights, accumulators and velocities by name, sharing their memory."""
    tensors: dict[str, Tensor] = {}
    for name, weight in training.model.named_parameters():
        accumulator, velocity = training.optimizer.state_of(weight)
        tensors |= {f"weight.{name}": weight.detach(), f"accumulator.{name}": accumulator}
        if velocity is not None:
            tensors[f"velocity.{name}"] = velocity
    return tensors
