"""Which items have one of some values in every column, quickly where it was asked before. Knows no ids."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from gru4rec.serve.items.column import ItemColumn, Value

_REMEMBERED_BYTES = 64_000_000
_ANSWER_BYTES = 500
"""What an answer without items takes, about."""
_VALUE_BYTES = 150
"""And each value that was asked for, beside its letters."""


class ItemFilter:
    """Columns, arranged by value when they are first used, and the answers that were given last.

    Args:
        columns: By name.
        item_idx: Int32, the item of each of their rows, -1 for none.
        n_items: Number of items.
    """

    def __init__(self, columns: Mapping[str, pa.Array], item_idx: np.ndarray, n_items: int) -> None:
        self._columns, self._item_idx, self._n_items = columns, item_idx, n_items
        self._arranged: dict[str, ItemColumn] = {}
        self._answers: OrderedDict[object, tuple[np.ndarray, int]] = OrderedDict()
        self._n_bytes = 0
        self._arranging, self._answering = threading.Lock(), threading.Lock()

    def having(self, where: Mapping[str, Sequence[Value]]) -> np.ndarray:
        """Return the items that have one of the values in every column: int32, ascending, distinct, read-only."""
        asked = tuple((name, tuple((type(value), value) for value in where[name])) for name in sorted(where))
        with self._answering:
            if asked in self._answers:
                self._answers.move_to_end(asked)
                return self._answers[asked][0]
        found = self._found(where)
        found.flags.writeable = False
        asked_bytes = sum(_VALUE_BYTES + len(str(value)) for values in where.values() for value in values)
        self._remember(asked, found, found.nbytes + asked_bytes + _ANSWER_BYTES)
        return found

    def _found(self, where: Mapping[str, Sequence[Value]]) -> np.ndarray:
        parts = {name: self._column(name).items_with(where[name]) for name in where}
        if len(parts) == 1 and len(*parts.values()) == 1:
            return next(iter(parts.values()))[0]
        has_all = np.ones(self._n_items, dtype=bool)
        for items_of_values in parts.values():
            has_one = np.zeros(self._n_items, dtype=bool)
            for items in items_of_values:
                has_one[items] = True
            has_all &= has_one
        return np.flatnonzero(has_all).astype(np.int32)

    def _column(self, name: str) -> ItemColumn:
        if name not in self._arranged:
            with self._arranging:
                if name not in self._arranged:
                    self._arranged[name] = ItemColumn(self._columns[name], self._item_idx)
        return self._arranged[name]

    def _remember(self, asked: object, found: np.ndarray, n_bytes: int) -> None:
        """Keep an answer, and let go of those that were not wanted for longest where all become too many."""
        with self._answering:
            if asked not in self._answers:
                self._n_bytes += n_bytes
                self._answers[asked] = (found, n_bytes)
            while self._n_bytes > _REMEMBERED_BYTES:
                self._n_bytes -= self._answers.popitem(last=False)[1][1]
