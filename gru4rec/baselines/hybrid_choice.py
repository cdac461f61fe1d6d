"""Finding the settings of a hybrid on a validation log, which neither part was fitted to.

Every share, temperature and exponent gets the repeat factors that make its predicted shares the observed ones; the
blend is taken whose smaller gain over the better part, in Recall@k or in MRR@k, is largest.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from gru4rec.baselines.hybrid import HybridScorer, shares_of
from gru4rec.baselines.hybrid_loops import gather_hits, gather_repeats, ranks_of_blend
from gru4rec.baselines.settings import HybridSettings
from gru4rec.baselines.sparse import SparseScorer
from gru4rec.data.batches import SessionDataIterator
from gru4rec.data.sessions import Sessions
from gru4rec.evaluate.evaluator import Scorer, score_blocks, states_to_rank
from gru4rec.evaluate.metrics import mrr_at_k, recall_at_k

SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0)
TEMPERATURES = (0.18, 0.25, 0.35, 0.5, 0.7, 0.85, 1.0, 1.3)
HALVINGS = (0, 1, 2)
"""Exponents are 1 / 2**halvings, whose inverse costs no power of its own."""
N_FACTORS = 6
"""Clicks that have a factor of their own."""
MAX_TARGETS, MAX_SCORES = 12_000, 100_000_000
"""Targets, and scores of them, that are looked at; those of the newest sessions."""
_SCORES_AT_ONCE = 8_000_000
_PRIOR = 5.0
"""Targets that are added to both sides of a factor, so that a handful of them decides nothing."""


@dataclass(frozen=True)
class Choice:
    """What was found.

    Attributes:
        settings: The best.
        gains: Its gain over the better part on the validation log, (Recall@k, MRR@k); .03 is 3%.
    """

    settings: HybridSettings
    gains: tuple[float, float]


class _Blend(NamedTuple):
    """A point of the grid, its temperature and halvings by their places, and the factors that belong to it."""

    temperature: int
    halving: int
    share: float
    factors: np.ndarray


@dataclass(frozen=True)
class _Views:
    """Both parts' views of R targets, N items."""

    logits_RN: np.ndarray
    log_sum_TR: np.ndarray
    share_ERN: list[np.ndarray]
    clicks_RL: np.ndarray
    target_R: np.ndarray

    def model_RN(self, temperature: int, halving: int) -> np.ndarray:
        """Return the model's probabilities at a temperature and to an exponent, float32; both by their places."""
        log_RN = self.logits_RN / np.float32(TEMPERATURES[temperature]) - self.log_sum_TR[temperature][:, None]
        return np.asarray(np.exp(log_RN * np.float32(0.5 ** HALVINGS[halving])))


def choose_settings(
    model: Scorer, neighbours: SparseScorer, valid: Sessions, *, k: int = 20, n_clicks: int = 20
) -> Choice:
    """Choose share, temperature, exponent and repeat factors.

    Args:
        model: The model, on a CPU.
        neighbours: The session kNN.
        valid: Sessions that neither was fitted to, encoded with their vocabulary.
        k: List length of the metrics.
        n_clicks: Newest clicks of a session that the factors apply to.

    Raises:
        DataError: No session has two events.
        ConfigError: The parts do not fit together.
    """
    hybrid = HybridScorer(model, neighbours, HybridSettings.model_validate({"n_clicks": n_clicks}))
    newest = _newest(valid)
    blends = _blends_with_factors(hybrid, newest)
    alone = [_Blend(0, 0, share, np.ones(1)) for share in (0.0, 1.0)]
    measured = np.array([[recall_at_k(row, k), mrr_at_k(row, k)] for row in _ranks(hybrid, newest, blends + alone)])
    better_part = np.maximum(measured[len(blends) :].max(axis=0), 1e-12)
    gains = measured[: len(blends)] / better_part - 1
    best = int(np.argmax(gains.min(axis=1)))
    settings = HybridSettings(
        neighbour_share=blends[best].share,
        temperature=TEMPERATURES[blends[best].temperature],
        exponent=0.5 ** HALVINGS[blends[best].halving],
        repeat_factors=tuple(float(factor) for factor in blends[best].factors),
        n_clicks=n_clicks,
    )
    return Choice(settings, (float(gains[best, 0]), float(gains[best, 1])))


def _newest(valid: Sessions) -> Sessions:
    """Return the newest sessions that hold as many targets as are looked at."""
    n_wanted = min(MAX_TARGETS, max(MAX_SCORES // valid.items.n_items, 500))
    n_from_the_end = np.cumsum((valid.lengths - 1)[::-1])
    n_sessions = min(int(np.searchsorted(n_from_the_end, n_wanted)) + 1, valid.n_sessions)
    return valid.part(valid.n_sessions - n_sessions, valid.n_sessions)


def _blends_with_factors(hybrid: HybridScorer, valid: Sessions) -> list[_Blend]:
    """Return all blends that differ, with the factors that fit to them."""
    points = [
        (temperature, halving, share)
        for temperature, halving in itertools.product(range(len(TEMPERATURES)), range(len(HALVINGS)))
        for share in SHARES
        if 0 < share < 1 or (halving == 0 and (share == 0 or temperature == 0))  # one part has no other exponents
    ]
    predicted = np.zeros((len(points), N_FACTORS))
    hits, n_targets = np.zeros(N_FACTORS), 0
    for views in _views(hybrid, valid):
        n_targets += len(views.target_R)
        gather_hits(views.clicks_RL, views.target_R, hits)
        for number, model_RN in _with_model(points, views):
            _, halving, share = points[number]
            share_RN, sums = views.share_ERN[halving], predicted[number]
            gather_repeats(model_RN, share_RN, share, HALVINGS[halving], views.clicks_RL, sums)
    return [
        _Blend(*point, _factors(sums, hits, n_targets) ** 0.5 ** HALVINGS[point[1]])
        for point, sums in zip(points, predicted, strict=True)
    ]


def _factors(predicted: np.ndarray, observed: np.ndarray, n_targets: int) -> np.ndarray:
    """Return what predicted targets by lag are multiplied by to be the observed ones, all new items' factor being 1."""
    new_items = (n_targets - observed.sum() + _PRIOR) / max(n_targets - predicted.sum() + _PRIOR, _PRIOR)
    seen_often_enough = (observed + _PRIOR) / (predicted + _PRIOR) / new_items
    return np.where(observed == 0, 0.0, seen_often_enough) if n_targets > 100 * _PRIOR else seen_often_enough


def _ranks(hybrid: HybridScorer, valid: Sessions, blends: Sequence[_Blend]) -> list[np.ndarray]:
    """Rank all targets with every blend."""
    ranks: list[list[np.ndarray]] = [[] for _ in blends]
    for views in _views(hybrid, valid):
        for number, model_RN in _with_model(blends, views):
            _, halving, share, factors = blends[number]
            rank_R = np.empty(len(views.target_R), dtype=np.int64)
            ranks_of_blend(model_RN, views.share_ERN[halving], share, views.clicks_RL, factors, views.target_R, rank_R)
            ranks[number].append(rank_R)
    return [np.concatenate(parts) for parts in ranks]


def _with_model(points: Sequence[tuple[Any, ...]], views: _Views) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the number of each point with the model's probabilities there, which points of a row share."""
    for (temperature, halving), group in itertools.groupby(range(len(points)), lambda number: points[number][:2]):
        model_RN = views.model_RN(temperature, halving)
        for number in group:
            yield number, model_RN


@torch.no_grad()
def _views(hybrid: HybridScorer, valid: Sessions) -> Iterator[_Views]:
    """Yield both parts' views of all targets, some at a time."""
    n_rows = max(1, _SCORES_AT_ONCE // hybrid.n_items)
    for states, positions in states_to_rank(hybrid, SessionDataIterator(valid, batch_size=512)):
        for first in range(0, len(positions), n_rows):
            state = tuple(part[first : first + n_rows] for part in states)
            target_R = valid.items_at(positions[first : first + n_rows] + 1)
            yield _views_of(hybrid, state, target_R)


def _views_of(hybrid: HybridScorer, state: tuple[torch.Tensor, ...], target_R: np.ndarray) -> _Views:
    n_model = hybrid.n_model
    ready = hybrid.model.ready(state[:n_model])
    logits_RN = np.empty((len(target_R), hybrid.n_items), dtype=np.float32)
    for start, scores_RC in score_blocks(hybrid.model, ready):
        logits_RN[:, start : start + scores_RC.shape[1]] = scores_RC.numpy()
    logits = torch.from_numpy(logits_RN).double()
    log_sum_TR = np.stack([torch.logsumexp(logits / temperature, dim=1).numpy() for temperature in TEMPERATURES])
    item_RK, score_RK = hybrid.neighbours.said(state[n_model:-1])
    share_ERN = [_dense(item_RK, shares_of(score_RK, 0.5**halvings), hybrid.n_items) for halvings in HALVINGS]
    return _Views(logits_RN, log_sum_TR.astype(np.float32), share_ERN, state[-1].numpy(), target_R)


def _dense(item_RK: torch.Tensor, share_RK: torch.Tensor, n_items: int) -> np.ndarray:
    """Return the shares of all items, float32 (R, N)."""
    share_RN = np.zeros((len(item_RK), n_items + 1), dtype=np.float32)  # the last is for what fills rows up
    np.put_along_axis(share_RN, item_RK.numpy().astype(np.int64), share_RK.numpy().astype(np.float32), axis=1)
    return np.ascontiguousarray(share_RN[:, :-1])
