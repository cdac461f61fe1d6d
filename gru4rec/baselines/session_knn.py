"""Session k-nearest-neighbours: what was clicked in the training sessions most like this one.

One scorer covers S-kNN, V-SkNN, VMIS-kNN and STAN, which differ in weights only; ``kinds.KINDS`` has them by name.
The index is the one of VMIS-kNN: for each item its newest sessions, so that the m newest candidates of a session come
from walking a few short lists, and memory and time depend on m, not on the length of the log. Sessions are sets, as in
the papers: a neighbour says something of an item once, the most it has to say where it holds the item repeatedly.

References:
    S-kNN: Jannach, Ludewig, RecSys 2017. V-SkNN: Ludewig, Jannach, UMUAI 2018, arXiv:1803.09587.
    STAN: Garg et al., SIGIR 2019. VMIS-kNN: Kersbergen, Sprangers, Schelter, SIGMOD 2022.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gru4rec.baselines.session_knn_loops import count_distinct, count_postings, score_sessions, write_postings
from gru4rec.baselines.settings import SessionKNNSettings, Weighting
from gru4rec.baselines.sparse import SparseScorer, padded
from gru4rec.data.sessions import Sessions


@dataclass(frozen=True)
class SessionIndex:
    """The training sessions that can be neighbours, and who holds which item.

    Attributes:
        item_idx: Int32 (n_events,), items of all sessions, oldest session first.
        offsets: Int64 (n_sessions + 1,), where sessions begin.
        age: Float32 (n_sessions,), how much older than the newest, as a share of the log's time: 0 up to 1.
        posting_offsets: Int64 (n_items + 1,), where each item's list of sessions begins.
        posted: Int32, sessions of each item, newest first.
    """

    item_idx: np.ndarray
    offsets: np.ndarray
    age: np.ndarray
    posting_offsets: np.ndarray
    posted: np.ndarray

    @property
    def n_bytes(self) -> int:
        """Memory of all arrays, in bytes."""
        return sum(array.nbytes for array in vars(self).values())

    @classmethod
    def of(cls, sessions: Sessions, m: int) -> SessionIndex:
        """Index the newest m sessions of each item; sessions that are nobody's are left out.

        Args:
            sessions: The training log.
            m: Sessions an item keeps.
        """
        item_idx = np.ascontiguousarray(sessions.items_at(slice(None)), dtype=np.int32)
        n_posted_N = np.zeros(sessions.items.n_items, dtype=np.int64)
        count_postings(item_idx, sessions.offsets, m, n_posted_N)
        posting_offsets = np.r_[0, np.cumsum(n_posted_N)]
        posted = np.empty(posting_offsets[-1], dtype=np.int32)
        write_postings(item_idx, sessions.offsets, posting_offsets, posted)
        is_posted = np.zeros(sessions.n_sessions, dtype=bool)
        is_posted[posted] = True
        lengths = sessions.lengths
        time = np.asarray(sessions.start_time, dtype=np.float64)
        span = time[-1] - time[0]
        age = (time[-1] - time) / span if span > 0 else np.zeros(len(time))
        return cls(
            item_idx=item_idx[np.repeat(is_posted, lengths)],
            offsets=np.r_[0, np.cumsum(lengths[is_posted])],
            age=age[is_posted].astype(np.float32),
            posting_offsets=posting_offsets,
            posted=(np.cumsum(is_posted) - 1).astype(np.int32)[posted],
        )


class SessionKNNScorer(SparseScorer):
    """Scores items by what the nearest training sessions hold.

    Args:
        index: Of the training sessions, with at least ``settings.m`` sessions an item where there are as many.
        support: Int (N,), training events of each item.
        settings: What makes sessions near, and what a neighbour says.
    """

    def __init__(self, index: SessionIndex, support: np.ndarray, settings: SessionKNNSettings) -> None:
        super().__init__(support, n_kept=settings.n_clicks)
        self.index, self.settings = index, settings
        self._support = np.asarray(support)
        weights = _session_weights(index, settings)
        self._tables = (weights, _item_factors(self._support, settings), *_click_weights(settings))

    @classmethod
    def fit(cls, sessions: Sessions, settings: SessionKNNSettings) -> SessionKNNScorer:
        """Index a training log."""
        return cls(SessionIndex.of(sessions, settings.m), sessions.support(), settings)

    def said_about(self, clicks_RL: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the neighbours' items and their scores; see :meth:`SparseScorer.said_about`."""
        index, (session_weight, factor_N, weight_LL, score_weight_L, gap_weight) = self.index, self._tables
        row_offsets = np.zeros(len(clicks_RL) + 1, dtype=np.int64)
        items, scores = score_sessions(
            np.ascontiguousarray(clicks_RL), index.posting_offsets, index.posted, index.item_idx, index.offsets,
            session_weight, factor_N, self.settings.k, self.settings.m, weight_LL, score_weight_L, gap_weight,
            self.settings.exclude_last, row_offsets,
        )  # fmt: skip
        return padded(items, scores, row_offsets, self.n_items)


def _session_weights(index: SessionIndex, settings: SessionKNNSettings) -> np.ndarray:
    """Return a factor of each session's similarity, float32."""
    weights = np.ones(len(index.age))
    if settings.cosine:
        n_distinct = np.empty(len(weights), dtype=np.int64)
        count_distinct(index.item_idx, index.offsets, len(index.posting_offsets) - 1, n_distinct)
        weights /= np.sqrt(n_distinct)
    if settings.recency > 0:
        weights *= np.exp(-index.age / settings.recency)
    return weights.astype(np.float32)


def _item_factors(support: np.ndarray, settings: SessionKNNSettings) -> np.ndarray:
    """Return a factor of each item's score, float32: rare items may say more."""
    share = np.maximum(support, 1) / max(int(support.sum()), 1)
    return np.asarray(1 - settings.idf_weight * np.log(share), dtype=np.float32)


def _click_weights(settings: SessionKNNSettings) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the weights of clicks by session length, of neighbours by the newest shared click, and of gaps."""
    n_kept = settings.n_clicks
    weight_LL = np.zeros((n_kept, n_kept))
    for n_clicks in range(1, n_kept + 1):
        weight_LL[n_clicks - 1, :n_clicks] = weights_by_distance(settings.weighting, n_clicks, settings.decay)
    score_weight_L = weights_by_distance(settings.score_weighting, n_kept, settings.decay)
    if settings.gap_decay == 0:
        return weight_LL, score_weight_L, np.ones(1)
    return weight_LL, score_weight_L, np.exp(-np.arange(50) / settings.gap_decay)


def weights_by_distance(weighting: Weighting, n_clicks: int, decay: float) -> np.ndarray:
    """Return float64 (n_clicks,), the weight of each click of a session, the newest first.

    Args:
        weighting: ``same``: 1. ``linear``: 1, .9, .8 ... down to 0. ``position``: place in the session / clicks.
            ``inverse``: 1, 1/2, 1/3 ... ``quadratic``: 1, 1/4, 1/9 ... ``exponential``: exp(-distance / decay).
        n_clicks: Clicks of the session.
        decay: Of ``exponential``, in clicks.

    Example:
        >>> weights_by_distance("position", 4, 1.0).tolist()
        [1.0, 0.75, 0.5, 0.25]
    """
    distance = np.arange(n_clicks, dtype=np.float64)
    if weighting == "linear":
        return np.maximum(1 - 0.1 * distance, 0.0)
    if weighting == "position":
        return np.asarray((n_clicks - distance) / n_clicks)
    if weighting == "inverse":
        return np.asarray(1 / (1 + distance))
    if weighting == "quadratic":
        return np.asarray(1 / (1 + distance) ** 2)
    if weighting == "exponential":
        return np.exp(-distance / decay)
    return np.ones(n_clicks)
