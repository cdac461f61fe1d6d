"""The baselines once more, slowly: dicts and loops, one function a definition of the papers.

Nothing here is shared with gru4rec/baselines, and nothing is clever. A log is a list of sessions, oldest first, a
session a list of item indices, oldest click first. What is said about a session is a dict: item to score; items that
are not in it follow by popularity.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from math import exp, isclose, log, sqrt
from typing import Any

import numpy as np
import torch

Log = Sequence[Sequence[int]]
Said = dict[int, float]

NEVER = -2.0
"""Score of an item that is not to be recommended: all others are above."""


class CloseCallError(Exception):
    """Two values are so near each other, and yet not equal, that rounding decides which is kept."""


def popularity(log_: Log, n_items: int) -> list[int]:
    """Count the clicks of each item."""
    n_clicks = Counter(item for events in log_ for item in events)
    return [n_clicks[item] for item in range(n_items)]


def all_scores(said: Said, support: Sequence[int]) -> list[float]:
    """Return the scores of all items: those that nothing is said of stand below, at minus the share of more popular."""
    n_items = len(support)
    behind = [-sum(other > own for other in support) / n_items for own in support]
    return [said.get(item, behind[item]) for item in range(n_items)]


def session_popularity(session: Sequence[int], *, n_clicks: int, exclude_last: bool) -> Said:
    """Count the clicks of the session."""
    said: Said = {item: float(n) for item, n in Counter(session[-n_clicks:]).items()}
    if exclude_last and session:
        said[session[-1]] = NEVER
    return said


def sequential_rules(log_: Log, item: int, *, steps: int) -> Said:
    """Sum 1 / distance over all events that come up to ``steps`` after an event of the item."""
    said: Said = defaultdict(float)
    for events in log_:
        for place, own in enumerate(events):
            if own == item:
                for later in range(place + 1, min(place + steps, len(events) - 1) + 1):
                    said[events[later]] += 1 / (later - place)
    said.pop(item, None)
    return dict(said)


def association_rules(log_: Log, item: int) -> Said:
    """Count the pairs of an event of the item and one of another item in the same session."""
    said: Said = defaultdict(float)
    for events in log_:
        for other in events:
            if other != item and item in events:
                said[other] += events.count(item)
    return dict(said)


def item_cosine(log_: Log, item: int, *, regularisation: float) -> Said:
    """Return the cosine of sets of sessions, each set larger by some sessions that are in no other."""
    holding: dict[int, set[int]] = defaultdict(set)
    for number, events in enumerate(log_):
        for other in events:
            holding[other].add(number)
    own = holding.pop(item, set())
    return {
        other: len(own & sessions) / sqrt(len(own) + regularisation) / sqrt(len(sessions) + regularisation)
        for other, sessions in holding.items()
        if own & sessions
    }


def best_of(said: Said, n: int, *, is_exact: bool = True) -> Said:
    """Keep the items of the highest scores, lower indices first among equals.

    Args:
        said: Items and scores.
        n: Items that are kept.
        is_exact: Whether scores that are equal here are equal however they are computed, as counts are.

    Raises:
        CloseCallError: Rounding would decide.
    """
    ordered = sorted(said, key=lambda item: (-said[item], item))
    for item in ordered[n:]:
        is_close = isclose(said[item], said[ordered[n - 1]], rel_tol=1e-6)
        if is_close and not (is_exact and said[item] == said[ordered[n - 1]]):
            raise CloseCallError
    return {item: said[item] for item in ordered[:n]}


def weight(weighting: str, distance: int, n_clicks: int, decay: float) -> float:
    """Return the weight of a click that stands ``distance`` clicks before the newest of ``n_clicks``."""
    return {
        "same": 1.0,
        "linear": max(1 - 0.1 * distance, 0.0),
        "position": (n_clicks - distance) / n_clicks,
        "inverse": 1 / (1 + distance),
        "quadratic": 1 / (1 + distance) ** 2,
        "exponential": exp(-distance / decay),
    }[weighting]


def session_knn(
    log_: Log,
    start_times: Sequence[float],
    n_items: int,
    session: Sequence[int],
    *,
    k: int,
    m: int,
    weighting: str,
    score_weighting: str,
    decay: float,
    cosine: bool,
    recency: float,
    gap_decay: float,
    idf_weight: float,
    exclude_last: bool,
    n_clicks: int,
) -> Said:
    """Sum what the k most similar of the m newest sessions that share an item say.

    Raises:
        CloseCallError: Rounding would decide which of two sessions is a neighbour.
    """
    clicks = list(session)[::-1][:n_clicks]  # newest first
    distance = {item: clicks.index(item) for item in clicks}
    candidates = [number for number, events in enumerate(log_) if set(events) & set(clicks)]
    similarity: dict[int, float] = {}
    ingredients: dict[int, tuple[float, int, float]] = {}  # equal ones make equal similarities
    for number in candidates[::-1][:m]:
        events = log_[number]
        shared = sorted((item for item in distance if item in events), key=lambda item: distance[item])
        overlap = sum(weight(weighting, distance[item], len(clicks), decay) for item in shared)
        span = start_times[-1] - start_times[0]
        age = (start_times[-1] - start_times[number]) / span if span else 0.0
        ingredients[number] = (overlap, len(set(events)) if cosine else 1, age if recency else 0.0)
        similarity[number] = overlap / sqrt(ingredients[number][1]) * (exp(-age / recency) if recency else 1.0)
    nearest = sorted(similarity, key=lambda number: (-similarity[number], -number))
    if k < len(nearest):
        for number in nearest:
            is_close = isclose(similarity[number], similarity[nearest[k - 1]], rel_tol=1e-6)
            if is_close and ingredients[number] != ingredients[nearest[k - 1]]:
                raise CloseCallError
    said: Said = defaultdict(float)
    for number in nearest[:k]:
        events = log_[number]
        newest = min((item for item in distance if item in events), key=lambda item: distance[item])
        anchor = max(place for place, item in enumerate(events) if item == newest)
        say = similarity[number] * weight(score_weighting, distance[newest], n_clicks, decay)
        for item in set(events):
            gap = min(abs(place - anchor) for place, other in enumerate(events) if other == item)
            said[item] += say * (exp(-gap / gap_decay) if gap_decay else 1.0)
    support = popularity(log_, n_items)
    said = {
        item: value * (1 - idf_weight * log(support[item] / sum(support))) for item, value in said.items() if value > 0
    }
    if exclude_last and clicks:
        said[clicks[0]] = NEVER
    return said


def blend(
    logits: Sequence[float],
    said: Said,
    session: Sequence[int],
    *,
    neighbour_share: float,
    temperature: float,
    exponent: float,
    repeat_factors: Sequence[float],
    n_clicks: int,
) -> list[float]:
    """Return the blended probability of each item to the exponent, times the factor of its newest click."""
    powers = [exp(logit / temperature) for logit in logits]
    positive: Mapping[int, float] = {item: max(value, 0.0) for item, value in said.items()}
    total = sum(positive.values())
    clicks = list(session)[::-1][:n_clicks]
    scores = []
    for item, power in enumerate(powers):
        share = positive.get(item, 0.0) / total if total else 0.0
        score = (1 - neighbour_share) * (power / sum(powers)) ** exponent + neighbour_share * share**exponent
        if item in clicks:
            score *= repeat_factors[min(clicks.index(item), len(repeat_factors) - 1)]
        scores.append(score)
    return scores


def state_of(scorer: Any, sessions: Sequence[Sequence[int]]) -> tuple[torch.Tensor, ...]:
    """Return a scorer's states after the clicks of some sessions, read one session at a time."""
    states = []
    for events in sessions:
        state = scorer.start(1)
        for item in events:
            state = scorer.advance(state, [item])
        states.append(state)
    return tuple(torch.cat(parts) for parts in zip(*states, strict=True))


def scores_of(scorer: Any, sessions: Sequence[Sequence[int]]) -> np.ndarray:
    """Return a scorer's scores (sessions, N) of all items."""
    scores: np.ndarray = scorer.score_block(scorer.ready(state_of(scorer, sessions)), 0, scorer.n_items).numpy()
    return scores
