"""Popularity within the session: what this visitor clicked most, then what everybody did.

References:
    S-POP in Hidasi et al., ICLR 2016, arXiv:1511.06939.
"""

from __future__ import annotations

import numpy as np

from gru4rec.baselines.settings import SessionPopularitySettings
from gru4rec.baselines.sparse import BELOW_ALL, SparseScorer, padded


class SessionPopularityScorer(SparseScorer):
    """Scores the items of the session by their clicks in it.

    Args:
        support: Int (N,), training events of each item.
        settings: How many clicks are counted.
    """

    def __init__(self, support: np.ndarray, settings: SessionPopularitySettings) -> None:
        super().__init__(support, n_kept=settings.n_clicks)
        self.settings = settings

    def said_about(self, clicks_RL: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the clicked items and how often each was; see :meth:`SparseScorer.said_about`."""
        row_of, place = np.nonzero(clicks_RL)
        keys, n_clicks = np.unique(row_of * (self.n_items + 1) + clicks_RL[row_of, place] - 1, return_counts=True)
        rows, items = np.divmod(keys, self.n_items + 1)
        scores = n_clicks.astype(np.float64)
        if self.settings.exclude_last:
            scores[items == clicks_RL[rows, 0] - 1] = BELOW_ALL
        offsets = np.r_[0, np.cumsum(np.bincount(rows, minlength=len(clicks_RL)))]
        return padded(items.astype(np.int32), scores, offsets, self.n_items)
