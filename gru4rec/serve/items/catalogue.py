"""What a shop says about its items: titles, pictures, and columns that lists can be filtered by.

A catalogue is a file with a row for each item and a column of ids; ``title`` and ``picture``, in any case, are shown,
all others can be filtered by. :meth:`Catalogue.of` lines it up with a model's items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gru4rec.data.vocabulary import Vocabulary, integers_where_possible
from gru4rec.errors import ConfigError, DataError
from gru4rec.serve.items.catalogue_file import read_columns
from gru4rec.serve.items.column import Value, kind_of
from gru4rec.serve.items.filter import ItemFilter
from gru4rec.serve.items.find import ItemSearch
from gru4rec.serve.items.pictures import file_of, is_picture, origins_of

_SHOWN = ("title", "picture")


@dataclass(frozen=True)
class Catalogue:
    """The columns of a catalogue, a row for each item.

    Attributes:
        ids: Distinct ids, int64 or string.
        titles: String, null where there is none.
        pictures: String, a URL or the path of a file beside the catalogue; null where there is none.
        filters: What lists can be filtered by, by name.
        folder: Where the file is; None: there is no file.
    """

    ids: pa.Array
    titles: pa.Array
    pictures: pa.Array
    filters: Mapping[str, pa.Array]
    folder: Path | None

    @classmethod
    def empty(cls) -> Catalogue:
        """Return a catalogue that knows nothing."""
        nothing = pa.array([], pa.string())
        return cls(pa.array([], pa.int64()), nothing, nothing, {}, None)

    @classmethod
    def read(cls, path: str | Path, *, id_column: str = "ItemId") -> Catalogue:
        """Read a catalogue: csv, tsv or Parquet, plain or gzip.

        Args:
            path: The file.
            id_column: Its column of item ids.

        Raises:
            DataError: The file cannot be read, lacks the column, or an id is missing or stands twice.
        """
        path = Path(path)
        columns = read_columns(path, as_spelled=(id_column.lower(), *_SHOWN))
        if id_column not in columns:
            raise DataError(
                f"no column {id_column!r} in the catalogue {path} (it has: {', '.join(columns)}). "
                "Name its column of item ids, or rename it"
            )
        ids = _checked_ids(columns.pop(id_column), id_column, path)
        shown = {name.lower(): columns.pop(name) for name in list(columns) if name.lower() in _SHOWN}
        titles, pictures = (_texts(shown.get(name, pa.nulls(len(ids)))) for name in _SHOWN)
        return cls(ids, titles, pictures, columns, path.resolve().parent)

    @property
    def n_rows(self) -> int:
        """Number of items that are described."""
        return len(self.ids)

    @property
    def columns(self) -> dict[str, str]:
        """How the columns that can be filtered by are compared, by name: text, integer, number or boolean."""
        return {name: kind_of(column) for name, column in self.filters.items()}

    def of(self, items: Vocabulary, support: np.ndarray) -> ItemDetails:
        """Return what the catalogue says about a model's items.

        Args:
            items: Of the model.
            support: (n_items,), how often each was clicked in training.
        """
        return ItemDetails(items, support, self)


class ItemDetails:
    """What is known of a model's items, by item index. Safe to use from several threads.

    Args:
        items: The vocabulary.
        support: (n_items,), how often each item was clicked: searches show the most clicked first.
        catalogue: Describes them; None: they have ids only.

    Attributes:
        n_described: Items that the catalogue knows.
        columns: Names that can be filtered by, and how they are compared.
    """

    def __init__(self, items: Vocabulary, support: np.ndarray, catalogue: Catalogue | None = None) -> None:
        self._catalogue = Catalogue.empty() if catalogue is None else catalogue
        item_of_row = items.encode(self._catalogue.ids)
        rows = np.flatnonzero(item_of_row >= 0)
        self._row_of_item = np.full(items.n_items, -1, dtype=np.int32)
        self._row_of_item[item_of_row[rows]] = rows
        self.n_described = len(rows)
        self.columns = self._catalogue.columns
        self._filter = ItemFilter(self._catalogue.filters, item_of_row, items.n_items)
        self._search = ItemSearch(items, support, lambda: self._of_items(self._catalogue.titles))

    def title(self, item_idx: int) -> str | None:
        """Return an item's title; None where it has none."""
        return self._value(self._catalogue.titles, item_idx)

    def picture(self, item_idx: int) -> str | None:
        """Return an item's picture as the catalogue has it: an http or https URL, or the path of a file beside it.

        None where there is none, or what stands there is neither.
        """
        said = self._value(self._catalogue.pictures, item_idx)
        return said if said is not None and is_picture(said) else None

    def picture_file(self, item_idx: int) -> Path | None:
        """Return the file of an item's picture, one in the catalogue's folder for sure; None where there is none."""
        said, folder = self.picture(item_idx), self._catalogue.folder
        return None if said is None or folder is None else file_of(said, folder)

    @cached_property
    def picture_origins(self) -> frozenset[str]:
        """Where pictures come from, such as ``https://cdn.example``; fit for a Content-Security-Policy."""
        return origins_of(self._of_items(self._catalogue.pictures))

    def having(self, where: Mapping[str, Sequence[Value]]) -> np.ndarray:
        """Return the items that have one of the values in every column; how values compare: ``column``.

        Returns:
            Int32 item indices, ascending, distinct, read-only. Items that the catalogue does not know are not among
            them, unless ``where`` names no column at all.

        Raises:
            ConfigError: A column that the catalogue does not have.
        """
        for name in where:
            if name not in self.columns:
                raise ConfigError(
                    f"no column {name!r} to filter by (the catalogue has: {', '.join(self.columns) or 'none'}). "
                    "Name one of its columns"
                )
        return self._filter.having(where)

    def search(self, text: str, limit: int) -> np.ndarray:
        """Return the items whose title contains a text or whose id begins with it, in any case of letters.

        The item whose id is the text comes first, then those clicked most. Without a text: those clicked most.

        Returns:
            Int64 item indices, ``limit`` at most.
        """
        return self._search.search(text, limit)

    def _value(self, column: pa.Array, item_idx: int) -> str | None:
        row = int(self._row_of_item[item_idx])
        value: str | None = None if row < 0 else column[row].as_py()
        return value or None

    def _of_items(self, column: pa.Array) -> pa.Array:
        """Return a column with a row for each item of the model."""
        return column.take(pa.array(self._row_of_item, mask=self._row_of_item < 0))


def _checked_ids(ids: pa.Array, name: str, path: Path) -> pa.Array:
    """Return ids as int64 or string: integers also where they came as floats, as beside missing ones, or as text."""
    if pa.types.is_floating(ids.type) and ids.null_count < len(ids):
        try:
            ids = ids.cast(pa.int64())
        except pa.ArrowInvalid:
            raise DataError(f"column {name!r} of the catalogue {path} holds fractions. Give item ids") from None
    ids = integers_where_possible(ids) if pa.types.is_string(ids.type) else ids
    if not (pa.types.is_integer(ids.type) or pa.types.is_string(ids.type)):
        raise DataError(f"column {name!r} of the catalogue {path} holds {ids.type}. Give integers or text as item ids")
    if ids.null_count:
        raise DataError(f"{ids.null_count} rows of the catalogue {path} have no {name}. Give every item its id")
    counted = pc.value_counts(ids)
    if len(counted) < len(ids):
        first = counted.filter(pc.greater(counted.field("counts"), 1))[0].as_py()
        raise DataError(
            f"item {first['values']!r} stands {first['counts']} times in the catalogue {path}, and {len(counted):,} of "
            f"its {len(ids):,} ids are distinct. Keep one row for each item"
        )
    return ids


def _texts(column: pa.Array) -> pa.Array:
    if pa.types.is_nested(column.type):
        raise DataError("title and picture of a catalogue must be text, not lists. Give one for each item")
    return pc.cast(column, pa.string())
