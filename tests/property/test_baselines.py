"""Baselines against slow recommenders in plain Python, and their independence of batch and block."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_sessions, real_log
from hypothesis import given
from hypothesis import strategies as st

from gru4rec.baselines.item_to_item import association_rules, item_knn, markov
from gru4rec.baselines.kinds import KINDS, baseline_settings, fit_baseline
from gru4rec.baselines.pop import PopularityScorer
from gru4rec.baselines.session_knn import SessionKNNScorer
from gru4rec.baselines.settings import AssociationSettings, ItemKNNSettings, MarkovSettings, SessionKNNSettings
from gru4rec.data.session_map import load_sessions
from gru4rec.evaluate.best import BestItems
from gru4rec.evaluate.evaluator import Scorer, evaluate, score_blocks

N = 9
logs = st.lists(st.lists(st.integers(0, N - 1), min_size=1, max_size=6), min_size=2, max_size=14)
clicks = st.lists(st.integers(0, N - 1), min_size=1, max_size=7)
WEIGHTS = {
    "same": lambda distance, n, decay: 1.0,
    "linear": lambda distance, n, decay: max(1 - 0.1 * distance, 0.0),
    "position": lambda distance, n, decay: (n - distance) / n,
    "inverse": lambda distance, n, decay: 1 / (1 + distance),
    "quadratic": lambda distance, n, decay: 1 / (1 + distance) ** 2,
    "exponential": lambda distance, n, decay: math.exp(-distance / decay),
}


def scores_after(scorer: Scorer, session: list[int]) -> list[float]:
    state = scorer.start(1)
    for item in session:
        state = scorer.advance(state, np.array([item]))
    blocks = [scores for _, scores in score_blocks(scorer, scorer.ready(state))]
    return [float(score) for score in torch.cat(blocks, dim=1)[0]]


def neighbours_by_hand(log: list[list[int]], session: list[int], s: SessionKNNSettings) -> dict[int, float]:
    """Score items by the nearest sessions, with dictionaries and loops; a later session is a newer one."""
    newest_first = session[::-1][: s.n_clicks]
    distance = {item: newest_first.index(item) for item in newest_first}
    holding = [place for place in range(len(log) - 1, -1, -1) if set(log[place]) & set(distance)][: s.m]
    similarity = {}
    for place in holding:
        shared = set(log[place]) & set(distance)
        value = sum(WEIGHTS[s.weighting](distance[item], len(newest_first), s.decay) for item in shared)
        if s.cosine:
            value /= math.sqrt(len(set(log[place])))
        if s.recency:
            value *= math.exp(-(len(log) - 1 - place) / (len(log) - 1) / s.recency)
        similarity[place] = value
    nearest = sorted(holding, key=lambda place: (-round(similarity[place], 6), -place))[: s.k]
    counts = Counter(item for events in log for item in events)
    scores: dict[int, float] = {}
    for place in nearest:
        newest_shared = min(set(log[place]) & set(distance), key=distance.__getitem__)
        say = similarity[place] * WEIGHTS[s.score_weighting](distance[newest_shared], s.n_clicks, s.decay)
        last = max(at for at, item in enumerate(log[place]) if item == newest_shared)
        for item in set(log[place]):
            nearest_gap = min(abs(at - last) for at, other in enumerate(log[place]) if other == item)
            gap = math.exp(-nearest_gap / s.gap_decay) if s.gap_decay else 1.0
            rarity = 1 - s.idf_weight * math.log(counts[item] / sum(counts.values()))
            scores[item] = scores.get(item, 0.0) + say * gap * rarity
    scores = {item: score for item, score in scores.items() if score > 0}
    if s.exclude_last:
        scores[session[-1]] = -2.0
    return scores


@given(
    logs, clicks,
    st.fixed_dictionaries(
        {
            "k": st.sampled_from([1, 2, 5, 50]), "m": st.sampled_from([1, 3, 50]), "n_clicks": st.sampled_from([2, 20]),
            "weighting": st.sampled_from(sorted(WEIGHTS)), "score_weighting": st.sampled_from(sorted(WEIGHTS)),
            "cosine": st.booleans(), "recency": st.sampled_from([0, 0.3]), "gap_decay": st.sampled_from([0, 1.5]),
            "idf_weight": st.sampled_from([0, 0.7]), "exclude_last": st.booleans(),
        }
    ),
)  # fmt: skip
def test_session_knn_scores_as_by_hand(log: list[list[int]], session: list[int], values: dict[str, Any]) -> None:
    settings = SessionKNNSettings(**values)
    scorer = SessionKNNScorer.fit(make_sessions(log, N), settings)
    expected = neighbours_by_hand(log, session, settings)
    found = scores_after(scorer, session)
    for item in range(N):
        if item in expected:
            assert found[item] == pytest.approx(expected[item], rel=1e-5, abs=1e-7)
        else:
            assert -1 < found[item] <= 0, "popularity behind"


@given(logs, st.integers(0, N - 1), st.integers(1, 4))
def test_markov_and_association_rules_count_as_by_hand(log: list[list[int]], last: int, steps: int) -> None:
    after: Counter[int] = Counter()
    beside: Counter[int] = Counter()
    for events in log:
        for at, item in enumerate(events):
            if item == last:
                for other in range(len(events)):
                    if events[other] != last:
                        beside[events[other]] += 1
                        if 0 < other - at <= steps:
                            after[events[other]] += 1 / (other - at)  # type: ignore[assignment]
    sessions = make_sessions(log, N)
    for scorer, expected in (
        (markov(sessions, MarkovSettings(steps=steps)), after),
        (association_rules(sessions, AssociationSettings()), beside),
    ):
        found = scores_after(scorer, [last])
        for item in range(N):
            if expected[item]:
                assert found[item] == pytest.approx(expected[item], rel=1e-6)
            else:
                assert -1 < found[item] <= 0


@given(logs, st.integers(0, N - 1), st.sampled_from([0.0, 2.0]), st.sampled_from([1, 3, 50]))
def test_item_knn_is_the_cosine_of_sets_of_sessions(
    log: list[list[int]], last: int, regularisation: float, kept: int
) -> None:
    holding = [{place for place, events in enumerate(log) if item in events} for item in range(N)]
    cosine = {}
    for item in range(N):
        both = len(holding[item] & holding[last])
        if item != last and both:
            sizes = (len(holding[item]) + regularisation) * (len(holding[last]) + regularisation)
            cosine[item] = both / math.sqrt(sizes)
    found = scores_after(
        item_knn(make_sessions(log, N), ItemKNNSettings(regularisation=regularisation, n_neighbours=kept)), [last]
    )
    scored = {item: found[item] for item in range(N) if found[item] > 0}
    assert len(scored) == min(kept, len(cosine))
    for item, value in scored.items():
        assert value == pytest.approx(cosine[item], rel=1e-5)
    left_out = [value for item, value in cosine.items() if item not in scored]
    assert not left_out or max(left_out) <= min(scored.values()) * (1 + 1e-5)


@pytest.mark.parametrize("kind", KINDS)
@given(logs, logs, st.integers(1, 5))
def test_ranks_do_not_depend_on_the_batch(
    kind: str, log: list[list[int]], test: list[list[int]], batch_size: int
) -> None:
    test = [*test, [0, 1]]
    sessions = make_sessions(log, N)
    scorer = fit_baseline(kind, sessions, baseline_settings(kind, {}))
    whole = evaluate(scorer, make_sessions(test, N), list_length=4)
    small = evaluate(scorer, make_sessions(test, N), list_length=4, batch_size=batch_size)
    assert whole.counts.n_higher.tolist() == small.counts.n_higher.tolist()
    assert whole.lists_TK.tolist() == small.lists_TK.tolist()  # type: ignore[union-attr]
    place = 0
    for events in test:  # and each list is what the scores of this session alone say
        for stop in range(1, len(events)):
            alone = np.array(scores_after(scorer, events[:stop]))
            assert whole.lists_TK[place].tolist() == np.argsort(-alone, kind="stable")[:4].tolist()  # type: ignore[index]
            place += 1


@pytest.mark.parametrize(
    ("kind", "field"),
    [(kind, field) for kind in KINDS for field in KINDS[kind].settings.model_fields],
)
def test_every_setting_changes_something(kind: str, field: str) -> None:
    rng = np.random.default_rng(3)
    log = [rng.integers(0, N, rng.integers(2, 9)).tolist() for _ in range(60)]
    test = make_sessions([rng.integers(0, N, 9).tolist() for _ in range(20)], N)
    base = (
        {"weighting": "exponential", "score_weighting": "exponential", "k": 20}
        if "weighting" in (KINDS[kind].settings.model_fields)
        else {}
    )
    other = {
        "seed": 9, "n_clicks": 2, "exclude_last": True, "steps": 3, "n_neighbours": 2, "regularisation": 0, "k": 2,
        "m": 3,
        "weighting": "same", "score_weighting": "same", "decay": 0.2, "cosine": True, "recency": 0.05, "gap_decay": 0.7,
        "idf_weight": 3,
    }  # fmt: skip
    sessions, lists = make_sessions(log, N), []
    for values in ({**base}, {**base, field: other[field]}):
        settings = baseline_settings(kind, values)
        if getattr(settings, field) == getattr(baseline_settings(kind, base), field) and values != base:
            settings = baseline_settings(kind, {**base, field: not other[field]})  # a switch that is on by default
        scorer = fit_baseline(kind, sessions, settings)
        lists.append([scores_after(scorer, events.tolist()) for events in np.split(test.item_idx, test.offsets[1:-1])])
    assert lists[0] != lists[1]


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 3), st.integers(1, 15))
def test_best_items_are_those_of_a_stable_sort(n_items: int, k: int, seed: int, width: int) -> None:
    k = min(k, n_items)
    scores = np.random.default_rng(seed).integers(0, 4, (3, n_items)).astype(np.float32)  # full of ties
    best, defined = BestItems(torch.zeros(3), k), BestItems(torch.zeros(3), k)
    for start in range(0, n_items, width):
        block = torch.from_numpy(scores[:, start : start + width].copy())
        best.see(block, start)
        defined.see_with_torch(block, start)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :k].tolist()
    assert best.items().tolist() == defined.items().tolist() == expected


def test_index_is_small_and_holds_the_newest_sessions_of_each_item() -> None:
    rng = np.random.default_rng(0)
    sessions = make_sessions([rng.integers(0, 50, 5).tolist() for _ in range(3_000)], 50)
    index = SessionKNNScorer.fit(sessions, SessionKNNSettings(m=20)).index
    assert index.n_bytes < 40 * sessions.n_events
    for item in range(50):
        posted = index.posted[index.posting_offsets[item] : index.posting_offsets[item + 1]]
        assert len(posted) == 20
        assert (np.diff(posted) < 0).all(), "newest first, each once"
        held = [item in index.item_idx[index.offsets[one] : index.offsets[one + 1]] for one in posted]
        assert all(held)


@pytest.mark.parametrize(
    ("name", "popular", "follows"),
    [
        ("bol", (0.0232, 0.0055), (0.4649, 0.2949)),
        ("rsc15_100k", (0.0720, 0.0171), (0.4948, 0.2528)),
        pytest.param("yoochoose1_64", (0.0720, 0.0253), (0.6277, 0.2824), marks=pytest.mark.slow),
        pytest.param("diginetica", (0.009, 0.002), (0.320, 0.116), marks=pytest.mark.slow),
    ],
)
def test_popularity_and_markov_reach_the_recorded_figures(
    name: str, popular: tuple[float, float], follows: tuple[float, float]
) -> None:
    """Figures measured by another program; those of diginetica are known to three digits only."""
    folder = real_log(name)
    train = load_sessions(folder / "train.tsv.gz")
    test = load_sessions(folder / "test.tsv.gz", vocabulary=train.items)
    digits = 0.00006 if name != "diginetica" else 0.0007
    for scorer, expected in ((PopularityScorer(train.support()), popular), (markov(train, MarkovSettings()), follows)):
        recall, mrr = evaluate(scorer, test).metrics([20], "standard")
        assert (recall[20], mrr[20]) == pytest.approx(expected, abs=digits)
