"""A GRU4Rec that several processes train together, each holding a part of it.

The same calls are made in all processes, with the same arguments; what they return is the same everywhere.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gru4rec.api import GRU4Rec
from gru4rec.bundle import (
    Bundle,
    bundle_of,
    content_of,
    format_version_of,
    model_metadata,
    read_model_file,
    replacing,
    vocabulary_tensors,
)
from gru4rec.config import Engine, Precision, Tables, setting_values
from gru4rec.data.batches import SessionDataIterator
from gru4rec.data.negatives import SampleStore
from gru4rec.data.session_map import give_back
from gru4rec.distributed.draws import SharedStore
from gru4rec.distributed.files import ITEM_MATRICES, Part, read_part, reader_of, write_parts
from gru4rec.distributed.group import Group
from gru4rec.distributed.scorer import ShardedScorer
from gru4rec.distributed.step import ShardedStep
from gru4rec.errors import ConfigError, DivergedError, ModelFileError
from gru4rec.evaluate.evaluator import SpreadScorer
from gru4rec.model.initial import initialise
from gru4rec.model.network import GRU4RecModel
from gru4rec.model.scorer import check_finite
from gru4rec.model.shard import Shard
from gru4rec.serve.recommender import Recommender
from gru4rec.train.loop import Training
from gru4rec.train.optim import IndexedAdagradM


class DistributedGRU4Rec(GRU4Rec):
    """One process's part of a model; see :class:`gru4rec.api.GRU4Rec`.

    Every process holds all weights of the network and every W-th row of the item matrices. A saved model is that of a
    single process, and goes wherever one goes.

    Args:
        group: The processes.
        dtype: Number type of weights and training.
        **settings: Hyper-parameters by name.

    Attributes:
        group: The processes.
        shard: Which rows of the item matrices this process holds.
    """

    def __init__(self, group: Group, *, dtype: torch.dtype = torch.float32, **settings: Any) -> None:
        super().__init__(device=group.device, dtype=dtype, **settings)
        self.group = group
        self.shard = Shard(group.rank, group.n_ranks, 0)

    @classmethod
    def load(cls, path: str | Path, group: Group) -> DistributedGRU4Rec:
        """Read each process's part of a model file.

        Raises:
            ModelFileError: The file cannot be used; the message says why.
            DivergedError: The model in it diverged in training.
            ConfigError: There are more processes than items.
        """
        file = read_model_file(path, read=reader_of(group.rank, group.n_ranks))
        shard = _shard(group, file.items.n_items)
        bundle = bundle_of(file, path, n_rows=shard.n_rows)
        gru = cls(group, **setting_values(bundle.settings))
        gru.shard, gru.items, gru.support = shard, bundle.items, bundle.support
        gru.status, gru.n_epochs_done, gru.training_state = bundle.status, bundle.n_epochs_done, bundle.training_state
        gru.model = bundle.restore(device=gru.device, n_rows=shard.n_rows)
        gru.dtype = gru.model.dtype
        return gru

    def choose_engine(
        self, engine: Engine = "auto", precision: Precision = "float32", tables: Tables = "device"
    ) -> Engine:
        """Return ``fast``: several processes train with no other engine.

        Raises:
            ConfigError: Another one is asked for.
        """
        if super().choose_engine(engine, precision, tables) != "fast":
            raise ConfigError(
                "several processes train with the fast engine only. Leave --engine plain out, or torchrun"
            )
        if tables != "device":
            raise ConfigError("several processes spread the item matrices over their devices. Leave --tables out")
        return "fast"

    def check_finite(self) -> None:
        """Make sure that all weights of all processes are numbers.

        Raises:
            DivergedError: A weight is not a finite number.
        """
        try:
            check_finite(self._trained()[0])
            failure = None
        except DivergedError as error:
            failure = error
        if self.group.any(failure is not None):
            raise failure or DivergedError("another process holds numbers that are not finite: the model diverged")

    def scorer(self) -> SpreadScorer:  # type: ignore[override]
        """Return the model as a scorer, for evaluation in all processes together.

        Raises:
            ConfigError: The model is not trained.
            DivergedError: It diverged in training.
        """
        model, _, _ = self._usable()
        self.check_finite()
        return ShardedScorer(model, self.group, self.shard)

    def recommender(self) -> Recommender:
        """Refuse: no process holds the whole model.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError("each process holds a part of the model. Save it, and recommend with Recommender.load(path)")

    def bundle(self) -> Bundle:
        """Refuse: no process holds the whole model.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError("each process holds a part of the model. Save it with savemodel(path), and load the file")

    def take_weights(self, path: str | Path) -> None:
        """Put the weights of a saved model into this one; see :meth:`GRU4Rec.take_weights`."""
        for name, values in self._trained()[0].state_dict().items():
            read_part(Path(path), name, self.part_of(name, values))

    def savemodel(self, path: str | Path) -> None:
        """Write the model to one file, as a single process writes it; the first process does.

        Raises:
            ConfigError: There is nothing to save yet.
            ModelFileError: The path cannot be written; an old file there stays as it was.
        """
        model, items, support = self._trained()
        state = self.training_state
        arrays = {name: self.part_of(name, values) for name, values in model.state_dict().items()}
        arrays |= {name: self.part_of(name, torch.from_numpy(array)) for name, array in (state or {}).items()}
        texts = {name: Part(_as_tensor(array)) for name, array in vocabulary_tensors(items, support).items()}
        content = content_of(self.settings, self.status, self.n_epochs_done)
        version = format_version_of(state)
        write_parts(
            Path(path),
            arrays | texts,
            lambda checksums: model_metadata(content, checksums, items.n_items, format_version=version),
            self.group,
            _put,
            ModelFileError,
        )

    def part_of(self, name: str, values: torch.Tensor) -> Part:
        """Return an array as what it is: this process's rows of a whole one, or one that all processes have.

        Args:
            name: Of a weight, or of an accumulator or velocity, which ends in that of a weight.
            values: What this process holds.
        """
        return Part(values, self.shard if name.endswith(ITEM_MATRICES) else None)

    def _new_store(self, support: np.ndarray, **options: Any) -> SampleStore:
        return SharedStore(support, self.group, **options)

    def _new_model(self, initial_weights: Mapping[str, np.ndarray] | None, tables: Tables = "device") -> GRU4RecModel:
        assert self.items is not None
        group = self.group
        self.shard = _shard(group, self.items.n_items)
        rng = torch.Generator(device=self.device).manual_seed(self.settings.draw_seed)
        self.model = model = GRU4RecModel(self.shard.n_rows, self.settings, rng=rng)
        model.to(device=self.device, dtype=self.dtype)
        if initial_weights is None:
            initialise(model, seed=self.settings.seed, shard=self.shard)
        else:
            own = slice(group.rank, None, group.n_ranks)
            model.load_state_dict(
                {
                    name: torch.as_tensor(np.array(array)[own] if name.endswith(ITEM_MATRICES) else np.array(array))
                    for name, array in initial_weights.items()
                }
            )
        return model.train()

    def _training(
        self, batches: SessionDataIterator, engine: Engine, precision: Precision, tables: Tables = "device"
    ) -> Training:
        model, _, support = self._trained()
        optimizer = IndexedAdagradM(model.parameters(), lr=self.settings.learning_rate, momentum=self.settings.momentum)
        own_support = np.maximum(support[self.shard.rank :: self.shard.n_ranks], 1)
        give_back(support)
        step = ShardedStep(
            model,
            optimizer,
            self.group,
            self.shard,
            torch.as_tensor(np.log(own_support), dtype=self.dtype, device=self.device),
            n_lanes=batches.n_lanes,
            batch_size=self.settings.batch_size,
            precision=precision,
        )
        return Training(model, optimizer, step, batches)


def _shard(group: Group, n_items: int) -> Shard:
    if n_items < group.n_ranks:
        raise ConfigError(f"{group.n_ranks} processes cannot share {n_items} items. Start {n_items} or fewer")
    return Shard(group.rank, group.n_ranks, n_items)


def _as_tensor(array: np.ndarray) -> torch.Tensor:
    """Return an array as a tensor that is only read: ids lie in a mapped file, which torch warns of."""
    with warnings.catch_warnings(action="ignore"):
        return torch.from_numpy(array)


def _put(path: Path, write: Callable[[Path], None]) -> None:
    with replacing(path) as temporary:
        write(temporary)
