"""What is measured: made-up sessions with a popular few, and steps that train on them through the package's classes."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.timing import Setup
from gru4rec.api import GRU4Rec
from gru4rec.config import Engine, HyperParameters, Precision, hyper_parameters, read_parameter_file, setting_values
from gru4rec.data.batches import SessionDataIterator
from gru4rec.data.negatives import SampleStore
from gru4rec.data.sessions import Sessions
from gru4rec.data.vocabulary import Vocabulary
from gru4rec.model.initial import initialise
from gru4rec.model.network import GRU4RecModel
from gru4rec.train.engine import new_step
from gru4rec.train.optim import IndexedAdagradM
from gru4rec.train.step import Step

ROOT = Path(__file__).parent.parent
ENGINES: dict[str, tuple[Engine, Precision]] = {
    "plain": ("plain", "float32"),
    "fast": ("fast", "float32"),
    "tf32": ("fast", "tf32"),
    "bf16": ("fast", "bf16"),
}
"""Engines by the name that results have for them."""
_STEPS_PER_SESSION = 4
_FLOP_PER_RUN = 1e10


@dataclass(frozen=True)
class Shape:
    """Sizes of a training step.

    Attributes:
        name: What tables call it.
        n_items: Items of the catalogue.
        settings: One layer; all else as a user would set it.
    """

    name: str
    n_items: int
    settings: HyperParameters

    @property
    def n_lanes(self) -> int:
        return self.settings.batch_size

    @property
    def n_hidden(self) -> int:
        return self.settings.layers[0]

    @property
    def n_sample(self) -> int:
        assert self.settings.n_sample != "all"
        return self.settings.n_sample

    @property
    def flop(self) -> int:
        """Of a step's matrix products: the GRU's (30 B H^2), and the scores' forward and twice backward."""
        n_lanes, n_hidden = self.n_lanes, self.n_hidden
        return 30 * n_lanes * n_hidden**2 + 6 * n_lanes * n_hidden * (n_lanes + self.n_sample)

    def sizes(self) -> dict[str, int | str]:
        """Return what a row of results says of the shape."""
        return {
            "settings": self.name,
            "n_lanes": self.n_lanes,
            "n_hidden": self.n_hidden,
            "n_sample": self.n_sample,
            "n_items": self.n_items,
            "loss": self.settings.loss,
        }

    def with_settings(self, n_items: int | None = None, **settings: object) -> Shape:
        values = {**setting_values(self.settings), **settings}
        return Shape(self.name, n_items or self.n_items, hyper_parameters(values))


def shape_of(name: str, n_lanes: int, n_hidden: int, n_items: int, loss: str = "cross-entropy") -> Shape:
    """Return a shape without dropout, with momentum and the loss's usual extras."""
    extras = {"logq": 1.0} if loss == "cross-entropy" else {"elu_param": 0.5, "bpreg": 1.0}
    values = {"layers": n_hidden, "batch_size": n_lanes, "loss": loss, "momentum": 0.2, "learning_rate": 0.05}
    return Shape(name, n_items, hyper_parameters({**values, **extras}))


REFERENCE = {"small": (32, 100, 18_000), "middle": (80, 224, 40_000), "large": (240, 512, 60_000)}
"""Lanes, hidden units, items."""
_CATALOGUE = {"rsc15": 18_000, "rees46": 60_000}
"""Items by data set; 40,000 elsewhere."""


def reference_shapes() -> list[Shape]:
    """Three sizes, each with both losses."""
    losses = ("cross-entropy", "bpr-max")
    return [shape_of(name, *sizes, loss=loss) for name, sizes in REFERENCE.items() for loss in losses]


def parameter_file_shapes() -> list[Shape]:
    """The files of ``paramfiles/``, named by data set."""
    shapes = []
    for path in sorted((ROOT / "paramfiles").glob("*.py")):
        name = path.name.split("_")[0]
        settings = hyper_parameters(read_parameter_file(path), where=str(path))
        shapes.append(Shape(name, _CATALOGUE.get(name, 40_000), settings))
    return shapes


def tiny(shape: Shape) -> Shape:
    """Return a shape of the same kind that takes no time."""
    return shape.with_settings(n_items=300, batch_size=4, layers=[16], n_sample=32)


class Popularity:
    """A catalogue whose item of popularity rank r has N / r events: what is common is at random places.

    Attributes:
        support: Int64 (N,), events of each item, at least 1.
        rng: What sessions are drawn from.
    """

    def __init__(self, n_items: int, *, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.support = self.rng.permutation(n_items // np.arange(1, n_items + 1))

    def sessions(self, n_pairs: np.ndarray | list[int]) -> Sessions:
        """Draw sessions that have so many pairs of input and target each."""
        offsets = np.r_[0, np.cumsum(np.asarray(n_pairs, dtype=np.int64) + 1)]
        item_idx = self.draws(n_sample=int(offsets[-1]), alpha=1.0).next()
        items = Vocabulary(np.arange(len(self.support)))
        return Sessions(item_idx, offsets, np.arange(len(offsets) - 1), items, "made-up sessions")

    def even_sessions(self, *, n_lanes: int, n_steps: int) -> Sessions:
        """Draw sessions that keep all lanes full for so many steps, then end together."""
        free, n_pairs = [0] * n_lanes, []
        while free[0] < n_steps:
            n_pairs.append(min(int(self.rng.geometric(1 / _STEPS_PER_SESSION)), n_steps - free[0]))
            heapq.heapreplace(free, free[0] + n_pairs[-1])
        return self.sessions(n_pairs)

    def log(self, n_events: int) -> Sessions:
        """Draw a log of about so many events."""
        return self.sessions(self.rng.geometric(1 / _STEPS_PER_SESSION, n_events // (_STEPS_PER_SESSION + 1)))

    def draws(self, *, n_sample: int, alpha: float, cache_size: int = 0) -> SampleStore:
        return SampleStore(self.support, n_sample=n_sample, sample_alpha=alpha, cache_size=cache_size, rng=self.rng)


def new_model(shape: Shape, device: torch.device) -> GRU4RecModel:
    model = GRU4RecModel(shape.n_items, shape.settings, rng=torch.Generator(device=device).manual_seed(3))
    initialise(model.to(device), seed=1)
    return model


def training_step(shape: Shape, model: GRU4RecModel, support: np.ndarray, engine: str) -> Step:
    """Return the step that ``GRU4Rec.fit`` would train with."""
    gru = GRU4Rec(device=model.device, **setting_values(shape.settings))
    gru.model, gru.items, gru.support = model, Vocabulary(np.arange(shape.n_items)), support
    name, precision = ENGINES[engine]
    return new_step(
        name,
        model,
        IndexedAdagradM(model.parameters(), lr=shape.settings.learning_rate, momentum=shape.settings.momentum),
        gru.loss_fn_cross_entropy if shape.settings.loss == "cross-entropy" else gru.loss_fn_bpr_max,
        torch.as_tensor(np.log(support), dtype=model.dtype, device=model.device),
        n_lanes=shape.n_lanes,
        precision=precision,
    )


def training_batches(
    shape: Shape, popularity: Popularity, *, max_steps: int, sessions: Sessions | None = None
) -> SessionDataIterator:
    """Return an epoch of so many steps: of sessions that keep all lanes full, or the first steps of the given ones."""
    if sessions is None:
        sessions = popularity.even_sessions(n_lanes=shape.n_lanes, n_steps=max_steps)
    store = popularity.draws(n_sample=shape.n_sample, alpha=shape.settings.sample_alpha, cache_size=10_000_000)
    batches = SessionDataIterator(sessions, batch_size=shape.n_lanes, negatives=store)
    batches.n_steps = min(batches.n_steps, max_steps)
    store.expect_steps(batches.n_steps)
    return batches


def run_epoch(step: Step, batches: SessionDataIterator) -> int:
    """Train on all batches; returns the number of steps."""
    return sum(len(losses_C) for losses_C in step.epoch(batches))


def steps_per_run(shape: Shape, setup: Setup, engine: str) -> int:
    """Return how many steps one measurement takes: about 0.1 s of pure matrix time on a CPU core, 10 at least."""
    if setup.quick:
        return 4
    if setup.on_cpu:
        return int(np.clip(_FLOP_PER_RUN / shape.flop, 10, 200))
    return 200 if engine == "plain" else 1000


def engines_on(device: torch.device) -> Iterable[str]:
    return [name for name in ENGINES if name != "tf32" or device.type == "cuda"]
