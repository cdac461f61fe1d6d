"""Keeping the best items on CPU, in one pass over the scores; see :mod:`gru4rec.evaluate.best`."""

from __future__ import annotations

from gru4rec.jit import compiled_exactly


@compiled_exactly
def keep_best(scores_RC, start, score_RK, item_RK):
    """Insert the scores of a block that belong among each row's best, in place."""
    last = score_RK.shape[1] - 1
    for row in range(len(scores_RC)):
        for column in range(scores_RC.shape[1]):
            score = scores_RC[row, column]
            if score > score_RK[row, last]:  # an equal one came first, so it stays
                place = last
                while place > 0 and score > score_RK[row, place - 1]:
                    score_RK[row, place], item_RK[row, place] = score_RK[row, place - 1], item_RK[row, place - 1]
                    place -= 1
                score_RK[row, place], item_RK[row, place] = score, start + column
