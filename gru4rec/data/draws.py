"""Draws from a cumulative distribution: the item that each uniform number falls on, in a few nanoseconds.

Knows nothing of seeds and stores. Loads Numba; ``negatives`` imports it at the first draw.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from gru4rec.jit import HAVE_NUMBA, compiled_exactly

_BLOCK = 1024
"""Draws whose first look into memory is over before the walks begin: a walk waits for nothing then."""


def look_up(
    cumulative_N: np.ndarray, *, below: float = 0.0, total: float | None = None
) -> Callable[[np.ndarray, np.ndarray], None]:
    """Prepare draws from a distribution, or from some neighbouring items of one.

    Args:
        cumulative_N: Float64 (N,), ascending; item i has the share of the total that is above entry i - 1, up to i.
        below: What stands before the first entry: more than 0 where items before these were left out.
        total: Of the whole distribution; None: the last entry.

    Returns:
        A function of n uniform numbers (float64, 0 up to 1) and an int32 array (n,), which it fills with the number of
        entries <= uniform x total, but N - 1 at most, since rounding can lift a point onto the total.
    """
    total = float(cumulative_N[-1]) if total is None else total
    if not HAVE_NUMBA:
        return partial(_search, cumulative_N, total)
    guide = np.empty(len(cumulative_N), dtype=np.int32)
    _fill_guide(cumulative_N, guide, below)
    return partial(_walk, cumulative_N, guide, below, total)


def _search(cumulative_N: np.ndarray, total: float, uniform: np.ndarray, found: np.ndarray) -> None:
    """Look points up in their order, which walks the distribution once, so that it stays in cache."""
    points = uniform * total
    order = np.argsort(points)
    found[order] = np.minimum(np.searchsorted(cumulative_N, points[order], side="right"), len(cumulative_N) - 1)


@compiled_exactly
def _fill_guide(cumulative_N: np.ndarray, guide_G: np.ndarray, below: float) -> None:
    """Cut what the entries span into G equal parts, and note where the draws of each begin.

    With G = N a draw walks less than one entry on average, whatever the distribution (Chen and Asau, AIIE Transactions
    1974).
    """
    last, span, item = len(cumulative_N) - 1, cumulative_N[-1] - below, 0
    for part in range(len(guide_G)):
        while item < last and cumulative_N[item] <= part / len(guide_G) * span + below:
            item += 1
        guide_G[part] = item


@compiled_exactly
def _walk(
    cumulative_N: np.ndarray, guide_G: np.ndarray, below: float, total: float, uniform: np.ndarray, found: np.ndarray
) -> None:
    """Start at the guide's item, and walk to the right one: rounding may have put a part's border on either side."""
    n_parts, last = len(guide_G), len(cumulative_N) - 1
    start, parts_a_total = below / total, n_parts * (total / (cumulative_N[last] - below))
    for first in range(0, len(uniform), _BLOCK):
        block, items = uniform[first : first + _BLOCK], found[first : first + _BLOCK]
        for draw in range(len(block)):
            items[draw] = guide_G[max(0, min(int((block[draw] - start) * parts_a_total), n_parts - 1))]
        for draw in range(len(block)):  # most walks are one step or none: without a branch to guess
            items[draw] = min(items[draw] + (cumulative_N[items[draw]] <= block[draw] * total), last)
        for draw in range(len(block)):
            item, point = items[draw], block[draw] * total
            while item < last and cumulative_N[item] <= point:
                item += 1
            while item > 0 and cumulative_N[item - 1] > point:
                item -= 1
            items[draw] = item
