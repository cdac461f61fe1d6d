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
        >>> shard.n_rows, shard.rows_below(4), shard.row_of(np.array([0, 1, 4, 5])).tolist()
        (2, 1, [-1, 0, 1, -1])
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

    def holds(self, item_idx: np.ndarray) -> np.ndarray:
        """Return which items are held."""
        held: np.ndarray = item_idx % self.n_ranks == self.rank
        return held

    def row_of(self, item_idx: np.ndarray) -> np.ndarray:
        """Return the row of each item, -1 for items that another process holds."""
        return np.where(self.holds(item_idx), item_idx // self.n_ranks, -1)

    def of_block(self, start: int, stop: int) -> tuple[slice, slice]:
        """Return which of the rows start..stop-1 of the whole matrix are held, and which rows here they are."""
        first = self.rows_below(start)
        return slice(first * self.n_ranks + self.rank - start, stop - start, self.n_ranks), slice(
            first, self.rows_below(stop)
        )
