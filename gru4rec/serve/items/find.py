"""Items by a part of their title or the beginning of their id, those clicked most first."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gru4rec.data.vocabulary import Vocabulary

_BYTES_AT_ONCE = 1 << 21
"""Looked through in one go, about a millisecond: in between, other threads run."""


class ItemSearch:
    """Texts of items in small letters, most clicked first; made when the first one is looked for.

    Args:
        items: The vocabulary.
        support: (n_items,), how often each was clicked; equal ones stay in item-index order.
        titles: Returns the title of each item, null where there is none.
    """

    def __init__(self, items: Vocabulary, support: np.ndarray, titles: Callable[[], pa.Array]) -> None:
        self._items, self._titles = items, titles
        self._order = np.argsort(-np.asarray(support, dtype=np.float64), kind="stable")

    def search(self, text: str, limit: int) -> np.ndarray:
        """Return the items of a text; see :meth:`gru4rec.serve.items.catalogue.ItemDetails.search`."""
        text = text.strip()
        if not text:
            return self._order[:limit]
        small = pc.utf8_lower(pa.scalar(text)).as_py()
        ids, titles = self._texts
        by_id = np.flatnonzero(pc.starts_with(ids, small).to_numpy(zero_copy_only=False))[:limit]
        ranks = np.union1d(by_id, np.array(titles.containing(small, limit), dtype=np.int64))
        found = self._order[ranks[:limit]]
        exact = self._items.index_of(text)
        return found if exact is None else np.r_[exact, found[found != exact]][:limit]

    @cached_property
    def _texts(self) -> tuple[pa.Array, _Haystack]:
        order = pa.array(self._order)
        ids = pc.utf8_lower(self._items.item_ids.take(order).cast(pa.string()))
        return ids, _Haystack(pc.utf8_lower(self._titles().take(order)))


class _Haystack:
    """Texts in a row, each on a line of its own, so that nothing lies across two of them."""

    def __init__(self, texts: pa.Array) -> None:
        one_line = pc.replace_substring(texts.fill_null(""), "\n", " ")
        _, offsets, content = pc.binary_join_element_wise(one_line, "\n", "").buffers()
        self._starts = np.frombuffer(offsets, dtype=np.int32)[: len(texts) + 1]
        self._content = b"" if content is None else content.to_pybytes()

    def containing(self, text: str, limit: int) -> list[int]:
        """Return the places of the first ``limit`` texts that contain a text, in order."""
        needle = text.replace("\n", " ").encode()
        places: list[int] = []
        start = 0
        while start < len(self._content) and len(places) < limit:
            at = self._content.find(needle, start, start + _BYTES_AT_ONCE + len(needle))
            if at < 0:
                start += _BYTES_AT_ONCE
                continue
            places.append(int(np.searchsorted(self._starts, at, side="right")) - 1)
            start = int(self._starts[places[-1] + 1])
        return places
