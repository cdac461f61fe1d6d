"""From scores to the rank of each target, in all five tie modes from one count.

Knows scores and targets only. ``n_higher`` items score strictly higher than the target, ``n_equal`` score the same (the
target itself included), ``n_equal_before`` of those have a smaller item index.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from gru4rec.errors import ConfigError

TieMode = Literal["standard", "conservative", "median", "tiebreaking", "no_dedupe"]
TIE_MODES: tuple[TieMode, ...] = get_args(TieMode)


@dataclass(frozen=True)
class RankCounts:
    """What decides each target's rank: three int64 arrays (n_targets,)."""

    n_higher: np.ndarray
    n_equal: np.ndarray
    n_equal_before: np.ndarray

    def ranks(self, mode: TieMode, *, seed: int = 0) -> np.ndarray:
        """Return float64 (n_targets,), the rank of each target; 1 is best.

        Args:
            mode: What ties do. ``standard``: the target leads its equals. ``conservative``: it comes last among them.
                ``median``: in their middle. ``tiebreaking``: at a random place among them. ``no_dedupe``: in item-index
                order, the place it has in the recommended list.
            seed: Decides the places of ``tiebreaking``; the others do not draw.

        Raises:
            ConfigError: An unknown mode.

        Example:
            >>> counts = RankCounts(n_higher=np.array([2]), n_equal=np.array([3]), n_equal_before=np.array([1]))
            >>> [float(counts.ranks(mode)[0]) for mode in ("standard", "conservative", "median", "no_dedupe")]
            [3.0, 5.0, 4.0, 4.0]
        """
        if mode == "standard":
            place = np.ones_like(self.n_equal)
        elif mode == "conservative":
            place = self.n_equal
        elif mode == "median":
            place = (self.n_equal - 1) / 2 + 1
        elif mode == "tiebreaking":
            place = np.floor(np.random.default_rng([seed, 2]).random(len(self.n_equal)) * self.n_equal) + 1
        elif mode == "no_dedupe":
            place = self.n_equal_before + 1
        else:
            raise ConfigError(f"unknown tie mode {mode!r}. Choose from {', '.join(TIE_MODES)}")
        return np.asarray(self.n_higher + place, dtype=np.float64)

    def among_candidates(self, n_candidates: int, n_items: int, *, seed: int = 0) -> RankCounts:
        """Return what decides each target's rank among uniformly drawn candidates instead of all items.

        Such ranks look far better than those among all items, and order models differently; they are of use only to
        compare with figures that were computed so. Candidates are drawn without replacement from the other items, so
        how many of them score higher follows a hypergeometric distribution, and no score is needed again.

        Args:
            n_candidates: Other items a target is ranked among, 1 up to ``n_items`` - 1.
            n_items: Items that were ranked.
            seed: Decides the draw.

        Raises:
            ConfigError: ``n_candidates`` is out of range.

        References:
            Krichene, Rendle, KDD 2020, on what sampled metrics measure.
        """
        if not 1 <= n_candidates < n_items:
            raise ConfigError(f"candidates={n_candidates} is out of range. Give 1 up to {n_items - 1}, or leave it out")
        rng, n_others = np.random.default_rng([seed, 3]), n_items - 1
        n_higher = rng.hypergeometric(self.n_higher, n_others - self.n_higher, n_candidates)
        n_level = self.n_equal - 1
        n_equal = rng.hypergeometric(n_level, n_others - self.n_higher - n_level, n_candidates - n_higher)
        n_before = rng.hypergeometric(self.n_equal_before, n_level - self.n_equal_before, n_equal)
        return RankCounts(n_higher, n_equal + 1, n_before)
