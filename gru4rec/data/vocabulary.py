"""The one door between the caller's item ids and the dense item indices 0..n_items-1.

Ids are 64-bit integers or text. A vocabulary of integers also answers for text that spells an integer, and the other
way round, so that a model trained on one file type serves another.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gru4rec.errors import DataError

_CANONICAL_INTEGER = r"^(0|-?[1-9][0-9]*)$"


class Vocabulary:
    """Item ids in index order.

    Args:
        item_ids: Distinct ids, id of item index i at place i: an Arrow array, a NumPy array or a sequence; integers
            (64 bit) or text.

    Raises:
        DataError: Ids of a type that is neither, missing ids, or an id that stands twice.

    Example:
        >>> shop = Vocabulary([70, 30, 50])
        >>> shop.index_of("30"), shop.index_of(99), shop.ids_of([2, 0])
        (1, None, [50, 70])
    """

    def __init__(self, item_ids: pa.Array | np.ndarray | Sequence[Any]) -> None:
        ids = item_ids if isinstance(item_ids, pa.Array) else _to_arrow(item_ids)
        if ids.null_count:
            raise DataError(f"{ids.null_count} item ids are missing. Give every item an id")
        self.item_ids: pa.Array = ids
        if _any_twice(ids):
            raise DataError("an item id stands twice in the vocabulary. Item ids must be distinct")

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def n_items(self) -> int:
        """Number of items."""
        return len(self.item_ids)

    def same_as(self, other: Vocabulary | None) -> bool:
        """Tell whether another vocabulary numbers the same ids in the same way."""
        return other is self or (other is not None and self.item_ids.equals(other.item_ids))

    @property
    def is_integer(self) -> bool:
        """True where ids are integers, False where they are text."""
        return bool(pa.types.is_integer(self.item_ids.type))

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        """Integer ids in ascending order, and the item index of each."""
        ids = self.item_ids.to_numpy()
        order = np.argsort(ids, kind="stable")
        return ids[order], order

    @cached_property
    def _index_by_text(self) -> dict[str, int]:
        return {item_id: item_idx for item_idx, item_id in enumerate(self.item_ids.to_pylist())}

    def index_of(self, item_id: Any) -> int | None:
        """Return the item index of one id, or None where the id is unknown."""
        if not self.is_integer:
            if isinstance(item_id, float | np.floating) and float(item_id).is_integer():
                item_id = int(item_id)
            known_kind = isinstance(item_id, str | int | float | np.number) and not isinstance(item_id, bool)
            return self._index_by_text.get(str(item_id)) if known_kind else None
        number = _as_integer(item_id)
        if number is None:
            return None
        ids, order = self._sorted
        place = int(np.searchsorted(ids, number))
        return int(order[place]) if place < len(ids) and ids[place] == number else None

    def indices_of(self, item_ids: Sequence[Any]) -> np.ndarray:
        """Return the item index of each id as int32 of the same length, -1 where the id is unknown."""
        if not self.is_integer:
            indices = [self.index_of(item_id) for item_id in item_ids]
            return np.array([-1 if item_idx is None else item_idx for item_idx in indices], dtype=np.int32)
        ids, order = self._sorted
        numbers = [_as_integer(item_id) for item_id in item_ids]
        if not len(ids) or not numbers:
            return np.full(len(numbers), -1, dtype=np.int32)
        wanted = np.array([0 if number is None else number for number in numbers], dtype=np.int64)
        place = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
        is_known = (ids[place] == wanted) & np.array([number is not None for number in numbers])
        return np.where(is_known, order[place], -1).astype(np.int32)

    def encode(self, item_ids: pa.Array) -> np.ndarray:
        """Return the item index of each id as int32 of the same length, -1 where the id is unknown."""
        if pa.types.is_integer(item_ids.type) != self.is_integer:
            return self.indices_of(item_ids.to_pylist())
        found = pc.index_in(item_ids, value_set=self.item_ids)
        item_idx: np.ndarray = found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
        return item_idx

    def ids_of(self, item_idx: Sequence[int] | np.ndarray) -> list[Any]:
        """Return the ids (int or str) of item indices.

        Raises:
            IndexError: An index outside 0..n_items-1.
        """
        taken: list[Any] = self.item_ids.take(pa.array(np.asarray(item_idx, dtype=np.int64))).to_pylist()
        return taken


def integers_where_possible(ids: pa.Array) -> pa.Array:
    """Turn text ids into 64-bit integers if every one is the usual spelling of one, else return them unchanged.

    ``007`` and ``7`` are different ids, so a leading zero keeps all of them text.

    Example:
        >>> integers_where_possible(pa.array(["7", "12"])).type, integers_where_possible(pa.array(["07", "7"])).type
        (DataType(int64), DataType(string))
    """
    if not len(ids) or not pc.all(pc.match_substring_regex(ids, _CANONICAL_INTEGER)).as_py():
        return ids
    try:
        return ids.cast(pa.int64())
    except pa.ArrowInvalid:  # beyond 64 bit
        return ids


def _any_twice(ids: pa.Array) -> bool:
    if not pa.types.is_integer(ids.type):
        return len(pc.unique(ids)) != len(ids)
    in_order = np.sort(ids.to_numpy())  # a tenth of the memory of a hash table
    return bool((in_order[1:] == in_order[:-1]).any())


def _to_arrow(item_ids: np.ndarray | Sequence[Any]) -> pa.Array:
    try:
        ids = pa.array(item_ids)
        if pa.types.is_integer(ids.type) or (pa.types.is_null(ids.type) and not len(ids)):
            return ids.cast(pa.int64())
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        raise DataError(
            "item ids are neither all integers (64 bit, signed) nor all text. Convert them to one of the two"
        ) from None
    if pa.types.is_string(ids.type) or pa.types.is_large_string(ids.type):
        return ids.cast(pa.string())
    raise DataError(f"item ids are of type {ids.type}. Give integers or text")


def _as_integer(item_id: Any) -> int | None:
    """Read an integer out of an int, a NumPy integer, a whole float or its usual spelling; None otherwise."""
    if type(item_id) is int:  # the usual case, first
        return item_id if -(2**63) <= item_id < 2**63 else None
    if isinstance(item_id, str):
        item_id = int(item_id) if re.fullmatch(_CANONICAL_INTEGER, item_id) and len(item_id) < 21 else None
    elif isinstance(item_id, float | np.floating):
        item_id = int(item_id) if float(item_id).is_integer() else None
    elif isinstance(item_id, bool | np.bool_) or not isinstance(item_id, int | np.integer):
        return None
    return int(item_id) if item_id is not None and -(2**63) <= item_id < 2**63 else None
