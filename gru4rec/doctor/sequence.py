"""Is the log a sequence at all? What the last item says about the next one, in order and out of order.

A first-order Markov model (counts of which item followed which, popularity behind) is measured against popularity, and
against itself on the same log with every session shuffled. A shuffled session still says which items go together; what
the true order adds to that is what a sequential model is there for. Without it, GRU4Rec learns no more than counts do.
"""

from __future__ import annotations

import numpy as np

from gru4rec.doctor.findings import Checked, Finding, count, percent
from gru4rec.doctor.ordered import OrderedLog

K, MIN_ITEMS_PER_PLACE = 20, 10
"""List length of the recall, and the items there must be for each place: a list of all items is always right."""

MEASURED_FRAC = 0.2
"""Share of sessions, the last ones, that are measured on; large enough that a log of some thousand events tells."""

MAX_EVENTS = 3_000_000
"""Of a longer log the latest sessions up to so many events are used: counting takes seconds then, not minutes."""

MAX_TARGETS = 200_000
"""Measured at most: the standard error of a recall is below 0.0012 then."""

MIN_GAIN_FRAC = 0.05
"""What the true order must add to the shuffled recall, as a share of it: on four public shop logs 27 to 43 %."""

PLAUSIBLE_GAIN_FRAC = 0.25
"""A gain that a sequential log may well have. Where noise could hide it, the log is too short to be called shuffled."""

PLAUSIBLE_GAIN = 0.02
"""The same as a recall, for logs whose shuffled recall is next to nothing."""

N_ERRORS = 2.0
"""Standard errors that a difference of two recalls must exceed before it counts."""

MANY_CASES = 1_000
"""From so many on, an order that shows nothing is said to carry nothing; in fewer cases noise could hide it."""

SEED = 42


def check_sequence(ordered: OrderedLog) -> Checked:
    """Measure the recall of popularity, of Markov counts, and of Markov counts where all sessions are shuffled.

    Lists hold 20 items, fewer where the catalogue has fewer than 200.
    """
    first = min(int(np.searchsorted(ordered.offsets, ordered.n_events - MAX_EVENTS)), ordered.n_sessions - 1)
    start, n_sessions = int(ordered.offsets[first]), ordered.n_sessions - first
    session_E, item_E = ordered.session_E[start:] - first, ordered.item_E[start:]
    mixed_E = item_E[np.lexsort((np.random.default_rng(SEED).random(len(item_E)), session_E))]
    cut, k = int(n_sessions * (1 - MEASURED_FRAC)), min(K, max(ordered.n_items // MIN_ITEMS_PER_PLACE, 1))
    markov, popularity, n_targets = _recalls(item_E, session_E, cut, ordered.n_items, k)
    shuffled, _, _ = _recalls(mixed_E, session_E, cut, ordered.n_items, k)
    error = float(np.hypot(_standard_error(markov, n_targets), _standard_error(shuffled, n_targets)))
    numbers = {
        "k": k, "recall_popularity": popularity, "recall_markov": markov, "recall_shuffled": shuffled,
        "standard_error_of_difference": error, "n_targets": n_targets, "n_sessions_used": n_sessions,
        "n_sessions": ordered.n_sessions,
    }  # fmt: skip
    return Checked(numbers, judge(numbers))


def _standard_error(recall: float, n: int) -> float:
    """Return that of a share, which is not 0 where none or all of a few cases are right (Agresti and Coull 1998)."""
    p = (recall * n + 2) / (n + 4)
    return float(np.sqrt(p * (1 - p) / (n + 4)))


def judge(n: dict[str, float]) -> list[Finding]:
    """Say whether the recalls of :func:`check_sequence` show an order."""
    markov, shuffled = n["recall_markov"], n["recall_shuffled"]
    told = (
        f"Markov counts have the next item among their {n['k']} best in {percent(markov)} of "
        f"{count(int(n['n_targets']), 'case')}, in {percent(shuffled)} once sessions are shuffled; "
        f"the {'most popular item is' if n['k'] == 1 else str(n['k']) + ' most popular items are'} right in "
        f"{percent(n['recall_popularity'])}"
    )
    gain, noise = markov - shuffled, N_ERRORS * n["standard_error_of_difference"]
    is_many = n["n_targets"] >= MANY_CASES
    says_more = not is_many or markov > n["recall_popularity"]
    shows = gain > noise and gain >= MIN_GAIN_FRAC * shuffled
    if shows and says_more:
        return []
    hidden = gain + noise >= max(PLAUSIBLE_GAIN_FRAC * shuffled, PLAUSIBLE_GAIN)
    if is_many or (gain < MIN_GAIN_FRAC * max(shuffled, PLAUSIBLE_GAIN) and not hidden):
        lack = "no sign that the order of events matters" if hidden else "the order of events carries nothing"
        lack = "the last item says less than popularity does" if shows else lack
        return [Finding(
            "not-sequential", "warning",
            f"{lack}: {told}. Check that the session column holds visits and that the time column orders their clicks; "
            "if they do, a model of co-occurrence or of popularity serves this log as well as GRU4Rec",
        )]  # fmt: skip
    unsure = "too few sessions to tell whether the order of events matters"
    return [Finding("sequence-unknown", "note", f"{unsure}: {told}. Judge it on a longer log")]


def _recalls(item_E: np.ndarray, session_E: np.ndarray, cut: int, n_items: int, k: int) -> tuple[float, float, int]:
    """Fit on sessions below ``cut`` and measure on the rest.

    Returns:
        Recall of Markov counts, recall of popularity, number of targets.
    """
    pair = np.flatnonzero(session_E[1:] == session_E[:-1])
    is_fit = session_E[pair] < cut
    fit, measured = pair[is_fit], pair[~is_fit]
    if len(measured) > MAX_TARGETS:
        measured = np.random.default_rng(SEED).choice(measured, MAX_TARGETS, replace=False)
    if not len(measured) or not len(fit):
        return 0.0, 0.0, 0
    support_N = np.bincount(item_E[session_E < cut], minlength=n_items)
    rank_N = np.empty(n_items, dtype=np.int64)
    rank_N[np.argsort(-support_N, kind="stable")] = np.arange(n_items)
    rank_N[support_N == 0] = n_items  # never seen: never recommended
    last, target = item_E[measured].astype(np.int64), item_E[measured + 1].astype(np.int64)
    hits = markov_hits(item_E[fit], item_E[fit + 1], last, target, rank_N, k)
    return float(hits.mean()), float((rank_N[target] < k).mean()), len(measured)


def markov_hits(
    from_P: np.ndarray, to_P: np.ndarray, last_T: np.ndarray, target_T: np.ndarray, rank_N: np.ndarray, k: int
) -> np.ndarray:
    """Tell which targets are among the k likeliest followers of the last item, popular items filling the list up.

    Followers are ordered by count, then by popularity.

    Args:
        from_P: (P,) items of the fitted pairs, each followed by its ``to_P``.
        to_P: (P,).
        last_T: Int64 (T,), the last items.
        target_T: Int64 (T,), the items to find.
        rank_N: Int64 (N,), each item's place by popularity, from 0; N for an item that was never seen.
        k: List length.

    Returns:
        Bool (T,).
    """
    n_items = len(rank_N)
    keys, counts = np.unique(from_P.astype(np.int64) * n_items + to_P, return_counts=True)
    owner, follower = np.divmod(keys, n_items)
    order = np.lexsort((rank_N[follower], -counts, owner))
    keys, follower = keys[order], follower[order]
    start_N = np.searchsorted(owner, np.arange(n_items + 1))
    place = np.arange(len(keys)) - start_N[owner]
    by_key = np.argsort(keys)
    wanted = last_T * n_items + target_T
    found = by_key[np.searchsorted(keys, wanted, sorter=by_key).clip(max=len(keys) - 1)]
    follows_T = keys[found] == wanted
    n_followers_T = np.diff(start_N)[last_T]
    rank_T = np.where(follows_T, place[found], n_followers_T + rank_N[target_T])
    for j in range(k):  # popular items that stand among the followers already do not take a place twice
        column = (start_N[last_T] + j).clip(max=len(keys) - 1)
        rank_T -= ~follows_T & (j < n_followers_T) & (rank_N[follower[column]] < rank_N[target_T])
    hits: np.ndarray = (rank_T < k) & (rank_N[target_T] < n_items)
    return hits
