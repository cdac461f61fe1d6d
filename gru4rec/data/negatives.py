"""Negative samples: item indices drawn in proportion to support^sample_alpha.

Draws are made in bulk and used up step by step. The sequence depends on the seed alone, not on the size of the store.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np

from gru4rec.data.batches import Negatives
from gru4rec.errors import ConfigError, DataError

CHUNK = 1 << 18
"""Draws made in one go: 2 MB of uniform numbers, whatever the size of the store."""


class CheckedNegatives:
    """A caller's own negatives, looked at as they come: a wrong index would read and write beyond the item matrices.

    Args:
        source: Hands out one step's negatives at a time, with ``next()``.
        n_sample: Negatives S per step.
        n_items: Items N of the vocabulary.
    """

    def __init__(self, source: Negatives, *, n_sample: int, n_items: int) -> None:
        self._source, self.n_sample, self._n_items = source, n_sample, n_items

    def next(self) -> np.ndarray:
        """Return the next step's negatives, int32 (S,).

        Raises:
            DataError: Not so many, or not indices of items.
        """
        given = np.asarray(self._source.next())
        if given.shape != (self.n_sample,) or given.dtype.kind not in "iu":
            raise DataError(
                f"negatives= gave {given.dtype} of shape {given.shape} for a step. "
                f"Give {self.n_sample} item indices (n_sample), or set n_sample"
            )
        if self.n_sample and not 0 <= given.min() <= given.max() < self._n_items:
            raise DataError(
                f"negatives= gave the item index {given[(given < 0) | (given >= self._n_items)][0]}. "
                f"Give indices from 0 to {self._n_items - 1}"
            )
        return np.array(given, dtype=np.int32)


class SampleStore:
    """Hands out S negatives a step.

    The cumulative distribution is kept in float64: even with 20 million items each item's share of it is many
    times the spacing of the numbers, so no item has probability zero (a float32 sum loses part of such a catalogue).

    Args:
        support: (n_items,) training events of each item, all >= 1.
        n_sample: Negatives S per step.
        sample_alpha: Exponent of the support; 0 draws uniformly.
        cache_size: Ids drawn at once (``-ss``); below one step's need, each step is drawn by itself.
        rng: Generator of the draws.

    Raises:
        ConfigError: A negative ``cache_size``.

    Example:
        >>> store = SampleStore(np.array([8, 1]), n_sample=4, sample_alpha=0.5, rng=np.random.default_rng(0))
        >>> store.next().tolist()
        [0, 0, 0, 0]
    """

    def __init__(
        self,
        support: np.ndarray,
        *,
        n_sample: int,
        sample_alpha: float,
        cache_size: int = 10_000_000,
        rng: np.random.Generator,
    ) -> None:
        if cache_size < 0:
            raise ConfigError(
                f"sample_store_size={cache_size} is negative. Give the number of ids to draw at once, or 0"
            )
        self.n_sample = n_sample
        self._cumulative = np.asarray(support, dtype=np.float64) ** sample_alpha
        np.cumsum(self._cumulative, out=self._cumulative)
        self._rng = rng
        self._steps_per_fill = max(1, cache_size // max(1, n_sample))
        self._store = np.empty((0, n_sample), dtype=np.int32)
        self._step = 0

    def expect_steps(self, n_steps: int) -> None:
        """Draw no more at once than so many steps need."""
        self._steps_per_fill = max(1, min(self._steps_per_fill, n_steps))

    def skip(self, n_steps: int) -> None:
        """Pass over the next steps' negatives without drawing them; before the first :meth:`next` only."""
        assert not len(self._store), "some were drawn already"
        self._rng.bit_generator.advance(n_steps * self.n_sample)  # type: ignore[attr-defined]  # one number a draw

    @property
    def probabilities(self) -> np.ndarray:
        """Float64 (n_items,), the probability that the store really draws each item with."""
        steps: np.ndarray = np.diff(self._cumulative, prepend=0.0)
        steps /= self._cumulative[-1]
        return steps

    def next(self) -> np.ndarray:
        """Return one step's negatives, int32 (S,). They may repeat, and may contain a target."""
        if self._step == len(self._store):
            self._refill()
        self._step += 1
        negative_idx_S: np.ndarray = self._store[self._step - 1]
        return negative_idx_S

    @cached_property
    def _look_up(self) -> Callable[[np.ndarray, np.ndarray], None]:
        return self._new_look_up()

    def _new_look_up(self) -> Callable[[np.ndarray, np.ndarray], None]:
        from gru4rec.data.draws import look_up  # loads Numba

        return look_up(self._cumulative)

    def _refill(self) -> None:
        """Draw the next part of the sequence."""
        drawn = np.empty(self._steps_per_fill * self.n_sample, dtype=np.int32)
        for start in range(0, len(drawn), CHUNK):
            chunk = drawn[start : start + CHUNK]
            self._look_up(self._rng.random(len(chunk)), chunk)
        self._store = drawn.reshape(self._steps_per_fill, self.n_sample)
        self._step = 0
