"""Compiled loops of :mod:`gru4rec.baselines.sparse`: few scores into rows of all scores."""

from __future__ import annotations

import numpy as np

from gru4rec.jit import compiled_exactly


@compiled_exactly
def write_block(item_RK, score_RK, start, scores_RC):
    """Overwrite scores of the block that begins at item ``start`` where a row has something to say."""
    stop = start + scores_RC.shape[1]
    for row in range(len(item_RK)):
        place = np.searchsorted(item_RK[row], start)
        while place < item_RK.shape[1] and item_RK[row, place] < stop:
            scores_RC[row, item_RK[row, place] - start] = score_RK[row, place]
            place += 1


@compiled_exactly
def look_up(item_RK, score_RK, wanted, scores_RC):
    """Overwrite scores of the wanted items where a row has something to say."""
    for row in range(len(item_RK)):
        for column in range(len(wanted)):
            place = np.searchsorted(item_RK[row], wanted[column])
            if place < item_RK.shape[1] and item_RK[row, place] == wanted[column]:
                scores_RC[row, column] = score_RK[row, place]
