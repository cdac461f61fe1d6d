"""A scan over all items that keeps those which may be among the best of each session; see :mod:`gru4rec.serve.scan`."""

from __future__ import annotations

import numpy as np

from gru4rec.jit import compiled_exactly
from gru4rec.serve.vector_code import LANES, block_scores_of

ROWS = 4
"""Sessions whose sums lie in registers together."""

LOWEST = -3.0e38
"""Below every score, and above the padding's."""


_one, _two, _three, _four = (block_scores_of(n_rows) for n_rows in (1, 2, 3, ROWS))


@compiled_exactly
def is_among(number, ascending):
    """Tell whether a number is in an array; by halving, since it is called for few items."""
    low, high = 0, len(ascending)
    while low < high:
        middle = (low + high) // 2
        if ascending[middle] < number:
            low = middle + 1
        else:
            high = middle
    return low < len(ascending) and ascending[low] == number


@compiled_exactly
def raise_bar(bounds, n_bounds, k, bound):
    """Put a lower bound among the k highest, a heap whose first is the lowest; returns how many there are."""
    if n_bounds < k:
        place = n_bounds
        n_bounds += 1
        while place > 0 and bounds[(place - 1) // 2] > bound:
            bounds[place] = bounds[(place - 1) // 2]
            place = (place - 1) // 2
        bounds[place] = bound
    elif bound > bounds[0]:
        place = 0
        while True:
            child = 2 * place + 1
            if child + 1 < k and bounds[child + 1] < bounds[child]:
                child += 1
            if child >= k or bounds[child] >= bound:
                break
            bounds[place] = bounds[child]
            place = child
        bounds[place] = bound
    return n_bounds


@compiled_exactly
def drop_beaten(items, highs, n, bar):
    """Keep the candidates that may still be among the best; returns how many they are."""
    kept = 0
    for place in range(n):
        if highs[place] >= bar:
            items[kept], highs[kept] = items[place], highs[place]
            kept += 1
    return kept


@compiled_exactly
def scan(
    weights, scale, bias, error, slack, first_block, last_block, n_items, hidden_BH, norm_B, k_B,
    excluded, excluded_start, allowed, allowed_start, is_limited, item_BC, high_BC, n_B, bound_BK, bar_B,
):  # fmt: skip
    """Collect each session's candidates from blocks first_block..last_block-1, in place."""
    n_sessions, n_hidden = hidden_BH.shape
    room = item_BC.shape[1]
    score, above = np.empty(ROWS * LANES, dtype=np.float32), np.empty(ROWS, dtype=np.int64)
    gate_B, n_bounds = bar_B - slack, np.zeros(n_sessions, dtype=np.int64)
    for block in range(first_block, last_block):
        row = 0
        while row < n_sessions:
            left = n_sessions - row
            if left >= 4:
                _four(weights, scale, bias, error, block, n_hidden, hidden_BH, norm_B, gate_B, row, score, above)
            elif left == 3:
                _three(weights, scale, bias, error, block, n_hidden, hidden_BH, norm_B, gate_B, row, score, above)
            elif left == 2:
                _two(weights, scale, bias, error, block, n_hidden, hidden_BH, norm_B, gate_B, row, score, above)
            else:
                _one(weights, scale, bias, error, block, n_hidden, hidden_BH, norm_B, gate_B, row, score, above)
            for r in range(min(left, ROWS)):
                if above[r] == 0:
                    continue
                b = row + r
                for i in range(LANES):
                    item = block * LANES + i
                    if not (above[r] >> i) & 1 or item >= n_items or n_B[b] < 0:
                        continue
                    margin = norm_B[b] * error[item] + slack
                    high, low = score[r * LANES + i] + margin, score[r * LANES + i] - margin
                    if high < bar_B[b]:
                        continue
                    if is_among(item, excluded[excluded_start[b] : excluded_start[b + 1]]):
                        continue
                    if is_limited[b] and not is_among(item, allowed[allowed_start[b] : allowed_start[b + 1]]):
                        continue
                    if n_B[b] == room:
                        n_B[b] = drop_beaten(item_BC[b], high_BC[b], room, bar_B[b])
                        if n_B[b] > room // 2:
                            n_B[b] = -1
                            continue
                    item_BC[b, n_B[b]], high_BC[b, n_B[b]] = item, high
                    n_B[b] += 1
                    n_bounds[b] = raise_bar(bound_BK[b], n_bounds[b], k_B[b], low)
                    if n_bounds[b] == k_B[b]:
                        bar_B[b] = bound_BK[b, 0]
                        gate_B[b] = bar_B[b] - slack
            row += ROWS
    for b in range(n_sessions):
        if n_B[b] > 0:
            n_B[b] = drop_beaten(item_BC[b], high_BC[b], n_B[b], bar_B[b])
