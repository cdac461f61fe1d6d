"""What is asked of a service and what it answers, as values: ids are the caller's, and nothing here knows of HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gru4rec.serve.recommender import Filters
from gru4rec.serve.served_model import ServedModel


@dataclass(frozen=True)
class Asked:
    """What a list is to hold, in the caller's ids.

    Attributes:
        k: List length; fewer items come where there are fewer.
        exclude: Ids that may not stand in it.
        exclude_seen: Nor may those of the session.
        exclude_current: Nor may its newest.
        allow: The only ids that may; None: all.
        where: Only items that have one of the values in each column of the catalogue.
    """

    k: int = 20
    exclude: Sequence[Any] = ()
    exclude_seen: bool = False
    exclude_current: bool = False
    allow: Sequence[Any] | None = None
    where: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def filters(self, model: ServedModel) -> Filters:
        """Return the same in a model's item indices.

        Raises:
            ConfigError: A column that the catalogue does not have.
        """
        k = min(self.k, model.items.n_items)
        filters = model.recommender.filters(k, exclude=self.exclude, allow=self.allow)
        allowed = filters.allowed_idx
        if self.where:
            having = model.details.having(self.where)
            allowed = having if allowed is None else np.intersect1d(allowed, having, assume_unique=True)
        return replace(
            filters, allowed_idx=allowed, exclude_seen=self.exclude_seen, exclude_current=self.exclude_current
        )


@dataclass(frozen=True)
class Answer:
    """A list and how it came about.

    Attributes:
        model: Which gave it.
        item_ids: Best first.
        scores: Of each.
        unknown: Clicked ids the model does not know; they were skipped.
        popular: Whether no item was known: then these are the items clicked most in training.
        n_clicks: Clicks of a kept session so far; None for a session that was sent whole.
        degraded: Whether the store was lost, and the list is for the newest click alone.
    """

    model: ServedModel
    item_ids: list[Any]
    scores: list[float]
    unknown: list[Any]
    popular: bool
    n_clicks: int | None = None
    degraded: bool = False


@dataclass(frozen=True)
class SimilarItems:
    """Items most like one.

    Attributes:
        model: Which says so.
        item_ids: Most alike first.
        scores: Of each.
        by: ``cosine`` of output vectors, or ``scores`` of a session that holds the one item.
    """

    model: ServedModel
    item_ids: list[Any]
    scores: list[float]
    by: str
