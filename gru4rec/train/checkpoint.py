"""Checkpoints: all that training changes, in one safetensors file, so that it goes on to the very same bits.

Weights, accumulators, velocities, hidden states, the state of the dropout generator, and the place in the epoch.
Negatives need no array: their sequence depends on the seed alone, and a place in it is a number of steps.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
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
        negatives = training.batches.negatives
        if negatives is not None and not isinstance(negatives, SampleStore):
            raise ConfigError("training on negatives= of your own cannot go on from a checkpoint. Leave negatives= out")
        for name, own in _tensors_of(training).items():
            restored = self.tensors.get(name)
            if restored is None or restored.shape != own.shape or restored.dtype != own.dtype:
                raise ModelFileError(
                    f"the checkpoint has no {name} of {own.dtype} {tuple(own.shape)}: it is of another model"
                )
            own.copy_(restored)
        rng = training.model.rng
        if rng is not None:
            rng.set_state(self.tensors["generator"])
        if self.position.step:  # an epoch starts without states
            n_layers = len(training.model.settings.layers)
            training.step.restore([self.tensors[f"hidden.{layer}"] for layer in range(n_layers)])
        if negatives is not None:
            negatives.skip((self.position.epoch - 1) * training.batches.n_steps + self.position.step)


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
    tensors = {name: tensor.cpu() for name, tensor in _tensors_of(training).items()}
    tensors |= {f"hidden.{layer}": values.cpu() for layer, values in enumerate(hidden)}
    if training.model.rng is not None:
        tensors["generator"] = training.model.rng.get_state()
    return Checkpoint(position, tensors, more)


def optimizer_state(training: Training) -> dict[str, np.ndarray]:
    """Return accumulators and velocities by name, as arrays on the CPU: what a model file can carry."""
    tensors = _tensors_of(training).items()
    return {name: tensor.cpu().numpy() for name, tensor in tensors if not name.startswith("weight.")}


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint, whole or not at all.

    Raises:
        DataError: The file cannot be written; an older one is as it was.
    """
    header = {"version": FORMAT_VERSION, "position": asdict(checkpoint.position), "more": dict(checkpoint.more)}
    tensors = {name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()}

    def write(partial: Path) -> None:
        try:
            save_file(tensors, partial, metadata={"gru4rec_checkpoint": json.dumps(header)})
        except SafetensorError as error:
            raise OSError(0, str(error)) from None
        partial.chmod(0o644)
        with open(partial, "rb") as file:
            os.fsync(file.fileno())

    write_whole(path, write, advice="Free some room, or choose another folder")


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

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
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return Checkpoint(Position(**header["position"]), tensors, header["more"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"{path} is not a checkpoint that can be read: {error}. Train anew") from None


def _tensors_of(training: Training) -> dict[str, Tensor]:
    """Return weights, accumulators and velocities by name, sharing their memory."""
    tensors: dict[str, Tensor] = {}
    for name, weight in training.model.named_parameters():
        accumulator, velocity = training.optimizer.state_of(weight)
        tensors |= {f"weight.{name}": weight.detach(), f"accumulator.{name}": accumulator}
        if velocity is not None:
            tensors[f"velocity.{name}"] = velocity
    return tensors
