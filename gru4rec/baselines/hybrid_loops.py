"""Compiled loops of :mod:`gru4rec.baselines.hybrid` and of the choice of its settings."""

from __future__ import annotations

import numpy as np

from gru4rec.jit import compiled_exactly


@compiled_exactly
def _are_adjacent(item_C):
    """Tell whether items are start, start + 1, ..., so that columns need not be searched."""
    are_adjacent = True
    for column in range(1, len(item_C)):
        are_adjacent &= item_C[column] == item_C[column - 1] + 1
    return are_adjacent


@compiled_exactly
def write_shares(score_RK, exponent, share_RK):
    """Divide each row's positive scores by their sum, which is taken in order: what fills rows up changes no bit."""
    for row in range(len(score_RK)):
        total = 0.0
        for place in range(score_RK.shape[1]):
            total += max(score_RK[row, place], 0.0)
        for place in range(score_RK.shape[1]):
            if score_RK[row, place] > 0:
                share_RK[row, place] = (score_RK[row, place] / total) ** exponent


@compiled_exactly
def add_shares(item_RK, share_RK, item_C, scores_RC):
    """Add the neighbours' shares to the scores of C items; K items of a row ascend."""
    are_adjacent = _are_adjacent(item_C)
    for row in range(len(item_RK)):
        if are_adjacent:
            place = np.searchsorted(item_RK[row], item_C[0])
            while place < item_RK.shape[1] and item_RK[row, place] <= item_C[-1]:
                scores_RC[row, item_RK[row, place] - item_C[0]] += share_RK[row, place]
                place += 1
        else:
            for column in range(len(item_C)):
                place = np.searchsorted(item_RK[row], item_C[column])
                if place < item_RK.shape[1] and item_RK[row, place] == item_C[column]:
                    scores_RC[row, column] += share_RK[row, place]


@compiled_exactly
def times_factors(clicks_RL, factors, item_C, scores_RC):
    """Multiply the scores of items that were clicked by the factor of their newest click."""
    are_adjacent = _are_adjacent(item_C)
    for row in range(len(clicks_RL)):
        for lag in range(clicks_RL.shape[1]):
            item = clicks_RL[row, lag] - 1
            if item < 0:
                break
            if not _is_newest(clicks_RL[row], lag):
                continue
            factor = factors[min(lag, len(factors) - 1)]
            if are_adjacent:
                if item_C[0] <= item <= item_C[-1]:
                    scores_RC[row, item - item_C[0]] *= factor
            else:
                for column in range(len(item_C)):
                    if item_C[column] == item:
                        scores_RC[row, column] *= factor


@compiled_exactly
def _is_newest(clicks_L, lag):
    """Tell whether the click is the newest one of its item."""
    is_newest = True
    for newer in range(lag):
        is_newest &= clicks_L[newer] != clicks_L[lag]
    return is_newest


@compiled_exactly
def gather_hits(clicks_RL, target_R, lag_hits):
    """Count, by lag, how often a clicked item was the target."""
    for row in range(len(clicks_RL)):
        for lag in range(clicks_RL.shape[1]):
            item = clicks_RL[row, lag] - 1
            if item < 0:
                break
            if item == target_R[row]:
                lag_hits[min(lag, len(lag_hits) - 1)] += 1
                break


@compiled_exactly
def _to_root(value, n_halvings):
    """Undo the exponent 1 / 2**n_halvings, at most two of them."""
    if n_halvings >= 1:
        value *= value
    if n_halvings >= 2:
        value *= value
    return value


@compiled_exactly
def gather_repeats(model_RN, share_RN, neighbour_share, n_halvings, clicks_RL, lag_sums):
    """Add up, by lag, the probability that a blend has for clicked items.

    Args:
        model_RN: The model's probabilities to the power 1 / 2**n_halvings.
        share_RN: The neighbours', likewise.
        neighbour_share: Weight of the neighbours.
        n_halvings: 0, 1 or 2.
        clicks_RL: Item indices + 1, newest first; 0 is none.
        lag_sums: Added to; the last is for all older clicks.
    """
    kept = 1 - neighbour_share
    for row in range(len(clicks_RL)):
        if clicks_RL[row, 0] == 0:
            continue
        total = 0.0
        for item in range(model_RN.shape[1]):
            total += _to_root(kept * model_RN[row, item] + neighbour_share * share_RN[row, item], n_halvings)
        for lag in range(clicks_RL.shape[1]):
            item = clicks_RL[row, lag] - 1
            if item < 0:
                break
            if _is_newest(clicks_RL[row], lag):
                value = _to_root(kept * model_RN[row, item] + neighbour_share * share_RN[row, item], n_halvings)
                lag_sums[min(lag, len(lag_sums) - 1)] += value / max(total, 1e-30)


@compiled_exactly
def ranks_of_blend(model_RN, share_RN, neighbour_share, clicks_RL, factors, target_R, rank_R):
    """Rank each row's target in the blend, after its equals; arguments as of ``gather_repeats``."""
    multiplier_N = np.ones(model_RN.shape[1], np.float32)
    kept = np.float32(1 - neighbour_share)
    taken = np.float32(neighbour_share)
    for row in range(len(model_RN)):
        for lag in range(clicks_RL.shape[1] - 1, -1, -1):
            item = clicks_RL[row, lag] - 1
            if item >= 0:
                multiplier_N[item] = factors[min(lag, len(factors) - 1)]
        target, rank = target_R[row], 0
        level = (kept * model_RN[row, target] + taken * share_RN[row, target]) * multiplier_N[target]
        for item in range(model_RN.shape[1]):
            rank += (kept * model_RN[row, item] + taken * share_RN[row, item]) * multiplier_N[item] >= level
        rank_R[row] = rank
        for lag in range(clicks_RL.shape[1]):
            if clicks_RL[row, lag] > 0:
                multiplier_N[clicks_RL[row, lag] - 1] = 1.0
