"""Finding the settings of a hybrid on a validation log, which neither part was fitted to.

Every pair of a share and a temperature gets the repeat factors that make its predicted shares the observed ones; the
pair is taken whose smaller gain over the better part, in Recall@k or in MRR@k, is largest.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from gru4rec.baselines.hybrid import HybridScorer, shares_of
from gru4rec.baselines.hybrid_loops import gather_repeats, ranks_of_blend
from gru4rec.baselines.settings import HybridSettings
from gru4rec.baselines.sparse import SparseScorer
from gru4rec.data.batches import SessionDataIterator
from gru4rec.data.sessions import Sessions
from gru4rec.evaluate.evaluator import Scorer, score_blocks, states_to_rank
from gru4rec.evaluate.metrics import mrr_at_k, recall_at_k

SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0)
TEMPERATURES = (0.18, 0.25, 0.35, 0.5, 0.7, 0.85, 1.0, 1.2, 1.6)
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


@dataclass(frozen=True)
class _Views:
    """Both parts' views of R targets, N items."""

    logits_RN: np.ndarray
    log_sum_TR: np.ndarray
    share_RN: np.ndarray
    clicks_RL: np.ndarray
    target_R: np.ndarray

    def model_RN(self, place: int) -> np.ndarray:
        """Return the model's probabilities at a temperature, float32."""
        scaled_RN = self.logits_RN / np.float32(TEMPERATURES[place])
        return np.asarray(np.exp(scaled_RN - self.log_sum_TR[place][:, None]))


def choose_settings(
    model: Scorer, neighbours: SparseScorer, valid: Sessions, *, k: int = 20, n_clicks: int = 20
) -> Choice:
    """Choose share, temperature and repeat factors.

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
    alone = [(place, share, np.ones(1)) for place, share in ((0, 0.0), (0, 1.0))]
    measured = np.array([[recall_at_k(row, k), mrr_at_k(row, k)] for row in _ranks(hybrid, newest, blends + alone)])
    better_part = np.maximum(measured[len(blends) :].max(axis=0), 1e-12)
    gains = measured[: len(blends)] / better_part - 1
    best = int(np.argmax(gains.min(axis=1)))
    place, share, factors = blends[best]
    settings = HybridSettings(
        neighbour_share=share,
        temperature=TEMPERATURES[place],
        repeat_factors=tuple(float(factor) for factor in factors),
        n_clicks=n_clicks,
    )
    return Choice(settings, (float(gains[best, 0]), float(gains[best, 1])))


def _newest(valid: Sessions) -> Sessions:
    """Return the newest sessions that hold as many targets as are looked at."""
    n_wanted = min(MAX_TARGETS, max(MAX_SCORES // valid.items.n_items, 500))
    n_from_the_end = np.cumsum((valid.lengths - 1)[::-1])
    n_sessions = min(int(np.searchsorted(n_from_the_end, n_wanted)) + 1, valid.n_sessions)
    return valid.part(valid.n_sessions - n_sessions, valid.n_sessions)


def _blends_with_factors(hybrid: HybridScorer, valid: Sessions) -> list[tuple[int, float, np.ndarray]]:
    """Return all blends: place of the temperature, share, and the factors that fit to them."""
    model_sums, share_sums = np.zeros((len(TEMPERATURES), N_FACTORS)), np.zeros(N_FACTORS)
    hits, n_targets = np.zeros(N_FACTORS), 0
    for views in _views(hybrid, valid):
        n_targets += len(views.target_R)
        gather_repeats(views.clicks_RL, views.target_R, views.share_RN, share_sums, hits)
        for place, sums in enumerate(model_sums):
            gather_repeats(views.clicks_RL, views.target_R, views.model_RN(place), sums, np.zeros(N_FACTORS))
    return [
        (place, share, _factors((1 - share) * model_sums[place] + share * share_sums, hits, n_targets))
        for place, share in itertools.product(range(len(TEMPERATURES)), SHARES)
    ]


def _factors(predicted: np.ndarray, observed: np.ndarray, n_targets: int) -> np.ndarray:
    """Return what predicted targets by lag are multiplied by to be the observed ones, all new items' factor being 1."""
    new_items = (n_targets - observed.sum() + _PRIOR) / max(n_targets - predicted.sum() + _PRIOR, _PRIOR)
    seen_often_enough = (observed + _PRIOR) / (predicted + _PRIOR) / new_items
    return np.where(observed == 0, 0.0, seen_often_enough) if n_targets > 100 * _PRIOR else seen_often_enough


def _ranks(hybrid: HybridScorer, valid: Sessions, blends: Sequence[tuple[int, float, np.ndarray]]) -> list[np.ndarray]:
    """Rank all targets with every blend."""
    ranks: list[list[np.ndarray]] = [[] for _ in blends]
    for views in _views(hybrid, valid):
        for place in range(len(TEMPERATURES)):
            model_RN = views.model_RN(place)
            for blend, (own_place, share, factors) in enumerate(blends):
                if own_place == place:
                    rank_R = np.empty(len(views.target_R), dtype=np.int64)
                    ranks_of_blend(model_RN, views.share_RN, share, views.clicks_RL, factors, views.target_R, rank_R)
                    ranks[blend].append(rank_R)
    return [np.concatenate(parts) for parts in ranks]


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
    item_RK, share_RK = shares_of(*hybrid.neighbours.ready(state[n_model:-1]))
    share_RN = np.zeros((len(target_R), hybrid.n_items + 1), dtype=np.float32)  # the last is for what fills rows up
    np.put_along_axis(share_RN, item_RK.numpy().astype(np.int64), share_RK.numpy().astype(np.float32), axis=1)
    logits = torch.from_numpy(logits_RN).double()
    log_sum_TR = np.stack([torch.logsumexp(logits / temperature, dim=1).numpy() for temperature in TEMPERATURES])
    return _Views(
        logits_RN, log_sum_TR.astype(np.float32), np.ascontiguousarray(share_RN[:, :-1]), state[-1].numpy(), target_R
    )
