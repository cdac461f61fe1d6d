"""Compiled loops of :mod:`gru4rec.baselines.item_to_item`: what stands near each item, and scores out of it."""

from __future__ import annotations

import numpy as np

from gru4rec.jit import compiled_exactly


@compiled_exactly
def places_by_item(item_idx, place_offsets, places):
    """Write the places of each item's events in the log, ascending, from its place offset on."""
    n_written_N = np.zeros(len(place_offsets) - 1, np.int64)
    for place in range(len(item_idx)):
        item = item_idx[place]
        places[place_offsets[item] + n_written_N[item]] = place
        n_written_N[item] += 1


@compiled_exactly
def nearby_items(
    item_idx, first_of, end_of, place_offsets, places, weight_D, both_ways, once, factor_N, n_neighbours, row_offsets
):
    """Sum, for each item, the weights of the items that stand near it in its sessions.

    Args:
        item_idx: Int32, items of all sessions.
        first_of: Int64, where the session of each event begins.
        end_of: Int64, where it ends.
        place_offsets: Int64 (N + 1,), where each item's places begin.
        places: Int64, from :func:`places_by_item`.
        weight_D: Float64 (D,), weight by distance 1..D; nothing further away counts.
        both_ways: Whether items before count as those after do.
        once: Whether a session counts once for a pair of items, however often they stand in it.
        factor_N: Float64 (N,), a sum is multiplied by both items' factors.
        n_neighbours: Items that are kept, those of the highest sums.
        row_offsets: Int64 (N + 1,), filled in.

    Returns:
        items: Int32, ascending in each row.
        sums: Float32.
    """
    n_items = len(place_offsets) - 1
    sum_N, seen_in_N = np.zeros(n_items, np.float64), np.full(n_items, -1, np.int64)
    touched = np.empty(n_items, np.int32)
    items, sums = np.empty(1024, np.int32), np.empty(1024, np.float32)
    row_offsets[0] = 0
    for item in range(n_items):
        n_touched, counted = 0, np.int64(-1)
        for which in range(place_offsets[item], place_offsets[item + 1]):
            place = places[which]
            first, end = first_of[place], end_of[place]
            if once and first == counted:
                continue
            counted = first
            start = max(first, place - len(weight_D)) if both_ways else place + 1
            for other in range(start, min(end, place + len(weight_D) + 1)):
                near = item_idx[other]
                if near == item or (once and seen_in_N[near] == first):
                    continue
                seen_in_N[near] = first if once else -1
                if sum_N[near] == 0:
                    touched[n_touched] = near
                    n_touched += 1
                sum_N[near] += weight_D[abs(other - place) - 1]
        found = np.sort(touched[:n_touched])
        values = np.empty(n_touched, np.float64)
        for place in range(n_touched):
            values[place] = sum_N[found[place]] * factor_N[item] * factor_N[found[place]]
            sum_N[found[place]] = 0.0
            seen_in_N[found[place]] = -1
        row_first = row_offsets[item]
        if row_first + n_touched > len(items):
            size = 2 * (row_first + n_touched)
            more_items, more_sums = np.empty(size, np.int32), np.empty(size, np.float32)
            more_items[:row_first], more_sums[:row_first] = items[:row_first], sums[:row_first]
            items, sums = more_items, more_sums
        level, n_at_level = 0.0, n_touched
        if n_touched > n_neighbours:
            level = np.partition(values, n_touched - n_neighbours)[n_touched - n_neighbours]
            n_at_level = n_neighbours - np.sum(values > level)
        n_kept = 0
        for place in range(n_touched):
            is_at_level = values[place] == level
            if values[place] > level or (is_at_level and n_at_level > 0):
                n_at_level -= is_at_level
                items[row_first + n_kept], sums[row_first + n_kept] = found[place], values[place]
                n_kept += 1
        row_offsets[item + 1] = row_first + n_kept
    return items[: row_offsets[-1]].copy(), sums[: row_offsets[-1]].copy()


@compiled_exactly
def write_block_of_rows(row_offsets, item_idx, score, nudge_N, row_R, start, scores_RC):
    """Overwrite scores of the block that begins at item ``start`` with those of a matrix's rows; row -1 is empty."""
    stop = start + scores_RC.shape[1]
    for place_R in range(len(row_R)):
        if row_R[place_R] < 0:
            continue
        first, end = row_offsets[row_R[place_R]], row_offsets[row_R[place_R] + 1]
        place = first + np.searchsorted(item_idx[first:end], start)
        while place < end and item_idx[place] < stop:
            scores_RC[place_R, item_idx[place] - start] = score[place] * nudge_N[item_idx[place]]
            place += 1


@compiled_exactly
def look_up_in_rows(row_offsets, item_idx, score, nudge_N, row_R, wanted, scores_RC):
    """Overwrite scores of the wanted items with those of a matrix's rows; row -1 is empty."""
    for place_R in range(len(row_R)):
        if row_R[place_R] < 0:
            continue
        first, end = row_offsets[row_R[place_R]], row_offsets[row_R[place_R] + 1]
        for column in range(len(wanted)):
            place = first + np.searchsorted(item_idx[first:end], wanted[column])
            if place < end and item_idx[place] == wanted[column]:
                scores_RC[place_R, column] = score[place] * nudge_N[wanted[column]]
