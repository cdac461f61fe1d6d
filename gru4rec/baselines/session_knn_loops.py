"""Compiled loops of :mod:`gru4rec.baselines.session_knn`: the index, and the neighbours of a session.

Recency is the place in the log: a higher session index began later.
"""

from __future__ import annotations

import numpy as np

from gru4rec.baselines.sparse import BELOW_ALL
from gru4rec.jit import compiled_exactly


@compiled_exactly
def count_postings(item_idx, offsets, m, n_posted_N):
    """Count, for each item, the sessions that hold it, up to the newest m."""
    last_seen_N = np.full(len(n_posted_N), -1, np.int64)
    for session in range(len(offsets) - 2, -1, -1):
        for place in range(offsets[session], offsets[session + 1]):
            item = item_idx[place]
            if last_seen_N[item] != session and n_posted_N[item] < m:
                last_seen_N[item] = session
                n_posted_N[item] += 1


@compiled_exactly
def write_postings(item_idx, offsets, posting_offsets, posted):
    """Write each item's newest sessions, newest first, from its posting offset on."""
    n_items = len(posting_offsets) - 1
    last_seen_N = np.full(n_items, -1, np.int64)
    n_written_N = np.zeros(n_items, np.int64)
    for session in range(len(offsets) - 2, -1, -1):
        for place in range(offsets[session], offsets[session + 1]):
            item = item_idx[place]
            first = posting_offsets[item] + n_written_N[item]
            if last_seen_N[item] != session and first < posting_offsets[item + 1]:
                last_seen_N[item] = session
                posted[first] = session
                n_written_N[item] += 1


@compiled_exactly
def count_distinct(item_idx, offsets, n_items, n_distinct):
    """Count the distinct items of each session."""
    last_seen_N = np.full(n_items, -1, np.int64)
    for session in range(len(offsets) - 1):
        n_distinct[session] = 0
        for place in range(offsets[session], offsets[session + 1]):
            n_distinct[session] += last_seen_N[item_idx[place]] != session
            last_seen_N[item_idx[place]] = session


@compiled_exactly
def _heads_of(clicks_L, posting_offsets, item_U, distance_U, head_U, end_U):
    """Find the distinct items of a session, newest first, and where their postings begin and end; return how many."""
    n_unique = 0
    for distance in range(len(clicks_L)):
        item = clicks_L[distance] - 1
        if item < 0:
            break
        is_new = True
        for other in range(n_unique):
            is_new = is_new and item_U[other] != item
        if is_new:
            item_U[n_unique], distance_U[n_unique] = item, distance
            head_U[n_unique], end_U[n_unique] = posting_offsets[item], posting_offsets[item + 1]
            n_unique += 1
    return n_unique


@compiled_exactly
def _newest_candidates(n_unique, distance_U, head_U, end_U, posted, weight_L, session_m, similarity_m, nearest_m):
    """Walk the postings of all items side by side, newest session first, until m sessions were met; return how many.

    Fills in their similarities (sum of the weights of shared items) and the distance of the newest shared item.
    """
    n_met = 0
    while n_met < len(session_m):
        newest = -1
        for place in range(n_unique):
            if head_U[place] < end_U[place] and posted[head_U[place]] > newest:
                newest = posted[head_U[place]]
        if newest < 0:
            break
        similarity, nearest = 0.0, -1
        for place in range(n_unique):
            if head_U[place] < end_U[place] and posted[head_U[place]] == newest:
                head_U[place] += 1
                similarity += weight_L[distance_U[place]]
                if nearest < 0:
                    nearest = place
        session_m[n_met], similarity_m[n_met], nearest_m[n_met] = newest, similarity, nearest
        n_met += 1
    return n_met


@compiled_exactly
def _keep_most_similar(n_met, k, session_m, similarity_m, nearest_m):
    """Move the k most similar sessions to the front, newer ones first among equals; return how many."""
    if n_met <= k:
        return n_met
    level = np.partition(similarity_m[:n_met], n_met - k)[n_met - k]
    n_at_level = k - np.sum(similarity_m[:n_met] > level)
    n_kept = 0
    for place in range(n_met):
        is_at_level = similarity_m[place] == level
        if similarity_m[place] > level or (is_at_level and n_at_level > 0):
            n_at_level -= is_at_level
            session_m[n_kept], similarity_m[n_kept] = session_m[place], similarity_m[place]
            nearest_m[n_kept] = nearest_m[place]
            n_kept += 1
    return n_kept


@compiled_exactly
def _place_of(item, item_idx, first, end):
    """Return where a session has an item for the last time."""
    for place in range(end - 1, first - 1, -1):
        if item_idx[place] == item:
            return place
    return first


@compiled_exactly
def _add(key_H, value_H, neighbour_H, said_H, item, neighbour, say):
    """Add what a neighbour says of an item to the item's sum: the most that it says, where it has the item repeatedly.

    The sums are an open hash table whose size is a power of two.
    """
    slot = (item * 40503) & (len(key_H) - 1)
    while key_H[slot] != item and key_H[slot] >= 0:
        slot = (slot + 1) & (len(key_H) - 1)
    if key_H[slot] < 0:
        key_H[slot], value_H[slot], neighbour_H[slot] = item, 0.0, -1
    if neighbour_H[slot] != neighbour:
        neighbour_H[slot], said_H[slot] = neighbour, 0.0
    if say > said_H[slot]:
        value_H[slot] += say - said_H[slot]
        said_H[slot] = say


@compiled_exactly
def _value_of(key_H, value_H, item):
    slot = (item * 40503) & (len(key_H) - 1)
    while key_H[slot] != item:
        slot = (slot + 1) & (len(key_H) - 1)
    return value_H[slot]


@compiled_exactly
def score_sessions(
    clicks_RL, posting_offsets, posted, item_idx, offsets, session_weight, factor_N, k, m,
    weight_L, score_weight_L, gap_weight, exclude_last, row_offsets,
):  # fmt: skip
    """Score the items of each session's neighbours.

    A neighbour says something of an item once, however often it holds it. Items that all say nothing of, similarities
    or weights being 0, are left out.

    Args:
        clicks_RL: Int32 (R, L), item indices + 1, newest first; 0 is none.
        posting_offsets: Int64 (N + 1,).
        posted: Int32, sessions of each item, newest first.
        item_idx: Int32, the items of all sessions.
        offsets: Int64, where sessions begin.
        session_weight: Float32 (n_sessions,), a factor of each session's similarity.
        factor_N: Float32 (N,), a factor of each item's score.
        k: Neighbours.
        m: Newest sessions that neighbours are chosen from.
        weight_L: Float64 (L, L): row n - 1 has the weights of n clicks by distance from the newest.
        score_weight_L: Float64 (L,), a factor of a neighbour's say by the distance of the newest shared item.
        gap_weight: Float64, a factor of an item's score by how far it stands from the newest shared item in the
            neighbour's session; the last one holds beyond. One entry: no difference.
        exclude_last: Whether the item that was clicked last is below all others.
        row_offsets: Int64 (R + 1,), filled in: where each row's items begin.

    Returns:
        items: Int32, ascending in each row.
        scores: Float32.
    """
    n_kept = clicks_RL.shape[1]
    item_U, distance_U = np.empty(n_kept, np.int64), np.empty(n_kept, np.int64)
    head_U, end_U = np.empty(n_kept, np.int64), np.empty(n_kept, np.int64)
    session_m, similarity_m, nearest_m = np.empty(m, np.int64), np.empty(m, np.float64), np.empty(m, np.int64)
    key_H, neighbour_H = np.empty(1024, np.int64), np.empty(1024, np.int64)
    value_H, said_H = np.empty(1024, np.float64), np.empty(1024, np.float64)
    items, scores = np.empty(1024 * len(clicks_RL), np.int32), np.empty(1024 * len(clicks_RL), np.float32)
    row_offsets[0] = 0
    for row in range(len(clicks_RL)):
        n_unique = _heads_of(clicks_RL[row], posting_offsets, item_U, distance_U, head_U, end_U)
        n_clicks = np.sum(clicks_RL[row] > 0)
        n_met = _newest_candidates(
            n_unique, distance_U, head_U, end_U, posted, weight_L[n_clicks - 1], session_m, similarity_m, nearest_m
        )
        for place in range(n_met):
            similarity_m[place] *= session_weight[session_m[place]]
        n_neighbours = _keep_most_similar(n_met, k, session_m, similarity_m, nearest_m)
        n_listed = 0
        for place in range(n_neighbours):
            n_listed += offsets[session_m[place] + 1] - offsets[session_m[place]]
        size = 64
        while size < 2 * n_listed:
            size *= 2
        if size > len(key_H):
            key_H, neighbour_H = np.empty(size, np.int64), np.empty(size, np.int64)
            value_H, said_H = np.empty(size, np.float64), np.empty(size, np.float64)
        keys, values = key_H[:size], value_H[:size]
        keys[:] = -1
        last = clicks_RL[row, 0] - 1 if exclude_last else -1
        if last >= 0:
            _add(keys, values, neighbour_H, said_H, last, n_neighbours, 0.0)
        for place in range(n_neighbours):
            first, end = offsets[session_m[place]], offsets[session_m[place] + 1]
            say = similarity_m[place] * score_weight_L[distance_U[nearest_m[place]]]
            shared = _place_of(item_U[nearest_m[place]], item_idx, first, end) if len(gap_weight) > 1 else first
            for other in range(first, end):
                gap = min(abs(other - shared), len(gap_weight) - 1)
                _add(keys, values, neighbour_H, said_H, item_idx[other], place, say * gap_weight[gap])
        found = np.sort(keys[keys >= 0])
        first = row_offsets[row]
        if first + len(found) > len(items):
            size = 2 * (first + len(found))
            more_items, more_scores = np.empty(size, np.int32), np.empty(size, np.float32)
            more_items[:first], more_scores[:first] = items[:first], scores[:first]
            items, scores = more_items, more_scores
        n_listed = 0
        for item in found:
            score = BELOW_ALL if item == last else _value_of(keys, values, item) * factor_N[item]
            if score > 0 or item == last:
                items[first + n_listed], scores[first + n_listed] = item, score
                n_listed += 1
        row_offsets[row + 1] = first + n_listed
    return items[: row_offsets[-1]], scores[: row_offsets[-1]]
