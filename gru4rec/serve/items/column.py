"""One column of a catalogue by value: which items have it.

Values are compared as the column's type has it. In a column of text, 5 is ``"5"``, 5.0 too, and True is ``"true"``. In
a column of numbers, ``"5"``, 5 and 5.0 are one value, and no item has text that spells no number. A column of booleans
knows true and false, also as text.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Value = str | int | float | bool


def kind_of(column: pa.Array) -> str:
    """Return how a column's values are compared: as text, integer, number or boolean."""
    kind = column.type.value_type if pa.types.is_list(column.type) else column.type
    names = {pa.int64(): "integer", pa.float64(): "number", pa.bool_(): "boolean"}
    return names.get(kind, "text")


class ItemColumn:
    """The items of each value.

    Args:
        column: String, int64, float64, bool, or lists of one of these; an item has each value of its list.
        item_idx: Int32, the item of each row, -1 for none; every item at most once.
    """

    def __init__(self, column: pa.Array, item_idx: np.ndarray) -> None:
        self.kind = kind_of(column)
        if pa.types.is_list(column.type):
            item_idx = item_idx[pc.list_parent_indices(column).to_numpy(zero_copy_only=False)]
            column = column.flatten()
        encoded = column.dictionary_encode()
        code = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        is_used = (item_idx >= 0) & (code >= 0)
        code, item_idx = code[is_used], item_idx[is_used]
        order = np.lexsort((item_idx, code))
        code, item_idx = code[order], item_idx[order]
        is_first = np.r_[True, (code[1:] != code[:-1]) | (item_idx[1:] != item_idx[:-1])][: len(code)]
        self._values: pa.Array = encoded.dictionary
        self._items = item_idx[is_first].astype(np.int32)
        self._items.flags.writeable = False  # callers get views of it
        self._starts = np.searchsorted(code[is_first], np.arange(len(self._values) + 1))

    def items_with(self, values: Sequence[Value]) -> list[np.ndarray]:
        """Return the items of each value that the column has: int32, ascending, distinct, read-only."""
        stored = [self._as_stored(value) for value in values]
        wanted = pa.array([value for value in stored if value is not None], self._values.type)
        codes = pc.index_in(wanted, value_set=self._values).fill_null(-1).to_pylist()
        return [self._items[self._starts[code] : self._starts[code + 1]] for code in codes if code >= 0]

    def _as_stored(self, value: Value) -> Value | None:
        """Return a value in the column's type; None where it has no such value."""
        if self.kind == "text":
            return _text(value)
        if self.kind == "boolean":
            return {"true": True, "false": False}.get(_text(value))
        if isinstance(value, bool):
            return None
        try:
            return _whole(value) if self.kind == "integer" else float(value)
        except (ValueError, OverflowError):  # no number
            return None


def _whole(value: str | float) -> int | None:
    """Return a value as an int where it is a whole number of 64 bits, or its spelling, exactly; None otherwise."""
    try:
        number: float = value if isinstance(value, float) else int(value)
    except ValueError:
        number = float(value)
    return int(number) if number == int(number) and -(2**63) <= number < 2**63 else None


def _text(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
