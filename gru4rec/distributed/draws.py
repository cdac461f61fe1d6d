"""Negatives that several processes draw together: each knows the distribution of some items only."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from gru4rec.data.negatives import CHUNK, SampleStore
from gru4rec.distributed.group import Group


class SharedStore(SampleStore):
    """Hands out the negatives of a :class:`SampleStore`, the same in all processes, from a W-th of its distribution.

    All processes draw the same uniform numbers, and each says which items those of its range fall on.

    Args:
        support: As for :class:`SampleStore`; nothing of it is kept.
        group: The processes, W of them.
        **options: As for :class:`SampleStore`.
    """

    def __init__(self, support: np.ndarray, group: Group, **options: Any) -> None:
        options["cache_size"] = min(options["cache_size"], CHUNK)  # what one message carries
        super().__init__(support, **options)
        whole, n_items = self._cumulative, len(support)
        self._group = group
        self._first, stop = (n_items * rank // group.n_ranks for rank in (group.rank, group.rank + 1))
        self._total = float(whole[-1])
        self._below = float(whole[self._first - 1]) if self._first else 0.0
        self._up_to = float(whole[stop - 1]) if stop < n_items else np.inf
        self._cumulative = whole[self._first : stop].copy()

    def _new_look_up(self) -> Any:
        from gru4rec.data.draws import look_up  # loads Numba

        return partial(self._find, look_up(self._cumulative, below=self._below, total=self._total))

    def _find(self, look_up: Any, uniform: np.ndarray, found: np.ndarray) -> None:
        points = uniform * self._total
        is_here = (self._below <= points) & (points < self._up_to)
        items = np.empty(np.count_nonzero(is_here), dtype=np.int32)
        look_up(uniform[is_here], items)
        found[:] = 0
        found[is_here] = items + self._first
        told = torch.from_numpy(found).to(self._group.device)
        self._group.sum(told)
        found[:] = told.cpu().numpy()
