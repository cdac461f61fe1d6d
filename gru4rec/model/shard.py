"""Which rows of the item matrices a process holds, where several of them hold a model together.

Items go round: the first to the first process, the next to the next. Popular items, which tend to have low indices, are
then spread evenly. Dimensions: N items.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Shard:
    """Every ``n_ranks``-th row of N, from row ``rank`` on.

    Attributes:
        rank: Which of the processes, from 0.
        n_ranks: Processes.
        n_items: Items N of all of them.

    Example:
        >>> shard = Shard(rank=1, n_ranks=3, n_items=7)
        >>> shard.n_rows, shard.rows_below(4)
        (2, 1)
        >>> [part.tolist() for part in shard.held(np.array([0, 4, 1, 4]))]
        [[1, 2, 3], [1, 0, 1]]
    """

    rank: int
    n_ranks: int
    n_items: int

    @property
    def n_rows(self) -> int:
        """Rows that are held."""
        return self.rows_below(self.n_items)

    def rows_below(self, item_idx: int) -> int:
        """Return how many items with an index below ``item_idx`` are held: the first row of those that are not."""
        return max(0, -(-(item_idx - self.rank) // self.n_ranks))

    def held(self, item_idx: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where in ``item_idx`` items stand that are held, int64, and their rows, int32."""
        place = np.flatnonzero(item_idx % self.n_ranks == self.rank)
        return place, (item_idx[place] // self.n_ranks).astype(np.int32)

    def of_block(self, start: int, stop: int) -> tuple[slice, slice]:
        """Return which of the rows start..stop-1 of the whole matrix are held, and which rows here they are."""
        first = self.rows_below(start)
        return slice(first * self.n_ranks + self.rank - start, stop - start, self.n_ranks), slice(
            first, self.rows_below(stop)
        )
