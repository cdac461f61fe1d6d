"""The best items of many sessions, kept while blocks of scores go by: a loop over the scores, compiled."""

from __future__ import annotations

from gru4rec.jit import compiled_exactly


@compiled_exactly
def keep_best(scores_RC, start, barred_N, clicked, own_first_R, own_stop_R, score_RK, item_RK):
    """Insert the scores of a block that belong among each row's best, in place; equal ones stay in item-index order.

    Args:
        scores_RC: Of the items start, start + 1, ...; blocks come in the order of the items.
        start: The first item.
        barred_N: Whether an item may stand in no list; empty: all may.
        clicked: Item indices. Row r may not have the items clicked[own_first_R[r] : own_stop_R[r]].
        own_first_R: Int64 (R,).
        own_stop_R: Int64 (R,).
        score_RK: The best so far, descending, -inf where there are fewer than K.
        item_RK: Their items.
    """
    last = score_RK.shape[1] - 1
    for row in range(len(scores_RC)):
        scores_C, own = scores_RC[row], clicked[own_first_R[row] : own_stop_R[row]]
        lowest = score_RK[row, last]
        for column in range(len(scores_C)):
            score, item = scores_C[column], start + column
            if not score > lowest:  # an equal one came first, so it stays
                continue
            if (len(barred_N) and barred_N[item]) or (len(own) and item in own):
                continue
            place = last
            while place > 0 and score > score_RK[row, place - 1]:
                score_RK[row, place], item_RK[row, place] = score_RK[row, place - 1], item_RK[row, place - 1]
                place -= 1
            score_RK[row, place], item_RK[row, place] = score, item
            lowest = score_RK[row, last]
