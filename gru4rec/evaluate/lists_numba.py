"""Walking lists beside the sessions they were made for; see :mod:`gru4rec.evaluate.lists`."""

from __future__ import annotations

from gru4rec.jit import compiled_exactly


@compiled_exactly
def measure_remaining(lists_TK, item_idx, offsets, discount_K, ideal_K, relevant_N, counted_N, values_4T):
    """Fill recall, mrr, ndcg and map of each list, the rest of its session being relevant.

    ``relevant_N`` and ``counted_N`` (int64, all -1) say in which session an item was last relevant, and in which row it
    was last a hit, so that nothing has to be cleared between sessions and rows.
    """
    k = lists_TK.shape[1]
    row_after = 0
    for session in range(len(offsets) - 1):
        first, last = offsets[session], offsets[session + 1] - 1
        row_after += last - first
        n_relevant = 0
        for position in range(last, first, -1):  # backwards: the rest of the session grows by one event
            item = item_idx[position]
            if relevant_N[item] != session:
                relevant_N[item] = session
                n_relevant += 1
            row = row_after - 1 - (last - position)
            n_hits, first_hit, precision, gain = 0, 0, 0.0, 0.0
            for place in range(k):
                listed = lists_TK[row, place]
                if listed >= 0 and relevant_N[listed] == session and counted_N[listed] != row:
                    counted_N[listed] = row
                    n_hits += 1
                    if n_hits == 1:
                        first_hit = place + 1
                    precision += n_hits / (place + 1)
                    gain += discount_K[place]
            if n_hits > 0:
                best = min(n_relevant, k)
                values_4T[0, row] = n_hits / n_relevant
                values_4T[1, row] = 1.0 / first_hit
                values_4T[2, row] = gain / ideal_K[best - 1]
                values_4T[3, row] = precision / best


@compiled_exactly
def count_clicked(lists_TK, item_idx, offsets, clicked_N):
    """Return how many listed items their session had clicked; ``clicked_N`` (int64, all -1) is the last session."""
    n_clicked = 0
    row = 0
    for session in range(len(offsets) - 1):
        for position in range(offsets[session], offsets[session + 1] - 1):
            clicked_N[item_idx[position]] = session
            for place in range(lists_TK.shape[1]):
                listed = lists_TK[row, place]
                if listed >= 0 and clicked_N[listed] == session:
                    n_clicked += 1
            row += 1
    return n_clicked
