"""Hybrids: the blend against its definition, the same bits in every batch, and the choice of settings."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from baselines.literal import blend, scores_of, state_of
from conftest import make_sessions
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gru4rec.baselines import hybrid_choice
from gru4rec.baselines.hybrid import HybridScorer
from gru4rec.baselines.hybrid_choice import choose_settings
from gru4rec.baselines.session_knn import SessionKNNScorer
from gru4rec.baselines.session_pop import SessionPopularityScorer
from gru4rec.baselines.settings import HybridSettings, SessionKNNSettings, SessionPopularitySettings
from gru4rec.baselines.sparse import SparseScorer
from gru4rec.data.sessions import Sessions
from gru4rec.errors import ConfigError
from gru4rec.evaluate.evaluator import evaluate

N_ITEMS = 12
State = tuple[Tensor, ...]


class TableScorer:
    """A model that knows the last item alone: its logits are a row of a table; row 0 is for no click."""

    def __init__(self, logits_MN: np.ndarray) -> None:
        self.logits_MN = torch.from_numpy(logits_MN.astype(np.float32))
        self.n_items = logits_MN.shape[1]

    def start(self, n_sessions: int) -> State:
        return (torch.zeros(n_sessions, 1, dtype=torch.int64),)

    def advance(self, state: State, item_idx: Any) -> State:
        return (torch.as_tensor(np.asarray(item_idx, dtype=np.int64) + 1).unsqueeze(1),)

    def ready(self, state: State) -> State:
        return (self.logits_MN[state[0][:, 0]],)

    def score_block(self, ready: State, start: int, stop: int) -> Tensor:
        return ready[0][:, start:stop]

    def score_items(self, ready: State, item_idx: Any) -> Tensor:
        return ready[0][:, np.asarray(item_idx, dtype=np.int64)]


def model_of(n_items: int, seed: int, scale: float = 2.0) -> TableScorer:
    return TableScorer(scale * np.random.default_rng(seed).standard_normal((n_items + 1, n_items)))


def random_lists(n_items: int, n_sessions: int, seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, n_items, size=rng.integers(2, 9)).tolist() for _ in range(n_sessions)]


def knn_of(lists: list[list[int]], n_items: int, **values: Any) -> SessionKNNScorer:
    return SessionKNNScorer.fit(make_sessions(lists, n_items), SessionKNNSettings(**values))


hybrid_settings = st.fixed_dictionaries(
    {
        "neighbour_share": st.sampled_from([0.0, 0.3, 1.0]),
        "temperature": st.sampled_from([0.3, 1.0, 4.0]),
        "exponent": st.sampled_from([0.25, 0.6, 1.0]),
        "repeat_factors": st.sampled_from([(1.0,), (0.0, 2.0), (0.5, 3.0, 0.1)]),
        "n_clicks": st.sampled_from([1, 3, 20]),
    }
)
logs = st.lists(st.lists(st.integers(0, N_ITEMS - 1), min_size=1, max_size=6), min_size=1, max_size=12)
queries = st.lists(st.lists(st.integers(0, N_ITEMS - 1), max_size=8), min_size=1, max_size=4)


@given(logs, queries, hybrid_settings, st.booleans())
def test_scores_equal_the_definition(
    lists: list[list[int]], sessions: list[list[int]], values: dict[str, Any], exclude_last: bool
) -> None:
    model, neighbours = model_of(N_ITEMS, 1), knn_of(lists, N_ITEMS, exclude_last=exclude_last)
    found = scores_of(HybridScorer(model, neighbours, HybridSettings(**values)), sessions)
    for row, session in enumerate(sessions):
        said_N = scores_of(neighbours, [session])[0]
        logits_N = model.logits_MN[session[-1] + 1 if session else 0].tolist()
        expected = blend(logits_N, {item: said for item, said in enumerate(said_N) if said > 0}, session, **values)
        np.testing.assert_allclose(found[row], expected, rtol=1e-6, atol=1e-12)


def test_probabilities_sum_to_one_where_there_are_neighbours_and_to_the_model_share_where_not() -> None:
    neighbours = knn_of([[0, 1, 2], [2, 3]], N_ITEMS)
    hybrid = HybridScorer(model_of(N_ITEMS, 2), neighbours, HybridSettings(neighbour_share=0.3))
    np.testing.assert_allclose(scores_of(hybrid, [[0], [5, 2], [7], []]).sum(axis=1), [1, 1, 0.7, 0.7])


def test_factor_of_an_item_is_that_of_its_newest_click() -> None:
    # Without neighbours and with equal logits every item has 1/12. Newest first: 3, 5, 3, 7, 8, 9.
    settings = HybridSettings(neighbour_share=0.0, repeat_factors=(0.0, 2.0, 5.0, 0.5), n_clicks=5)
    hybrid = HybridScorer(TableScorer(np.zeros((N_ITEMS + 1, N_ITEMS))), knn_of([[0, 1]], N_ITEMS), settings)
    found = 12 * scores_of(hybrid, [[9, 8, 7, 3, 5, 3]])[0]
    # 7 is the fourth click back and 8 the fifth: both have the last factor; 9 is not among the newest five
    np.testing.assert_allclose(found, [1, 1, 1, 0, 1, 2, 1, 0.5, 0.5, 1, 1, 1])


@given(st.integers(0, 10**6), st.integers(2, 60))
def test_scores_are_the_same_bits_alone_and_in_any_batch(seed: int, n_rows: int) -> None:
    lists = random_lists(400, 300, seed)
    hybrid = HybridScorer(
        model_of(400, seed), knn_of(lists, 400, k=20), HybridSettings(repeat_factors=(0.1, 1.7), temperature=0.7)
    )
    sessions = random_lists(400, n_rows, seed + 1)
    together = scores_of(hybrid, sessions)
    for row, session in enumerate(sessions):
        np.testing.assert_array_equal(scores_of(hybrid, [session])[0], together[row])


def test_blocks_and_single_items_have_the_same_scores() -> None:
    hybrid = HybridScorer(
        model_of(40, 5), knn_of(random_lists(40, 60, 5), 40), HybridSettings(repeat_factors=(0.1, 1.7))
    )
    ready = hybrid.ready(state_of(hybrid, random_lists(40, 9, 6)))
    whole = hybrid.score_block(ready, 0, 40).numpy()
    for start, stop in ((0, 1), (3, 17), (39, 40), (10, 40)):
        np.testing.assert_allclose(hybrid.score_block(ready, start, stop), whole[:, start:stop], rtol=1e-14)
    for chosen in ([7], [5, 6, 7], [9, 3, 3, 38, 0], list(range(39, -1, -1))):
        np.testing.assert_allclose(hybrid.score_items(ready, chosen), whole[:, chosen], rtol=1e-14)


def test_evaluation_does_not_depend_on_batch_or_block_size() -> None:
    hybrid = HybridScorer(model_of(700, 3), knn_of(random_lists(700, 400, 3), 700), HybridSettings())
    test = make_sessions(random_lists(700, 80, 4), 700)
    reference = evaluate(hybrid, test, list_length=30)
    for batch_size, block_items in ((1, 256), (7, 300), (64, 700)):
        found = evaluate(hybrid, test, batch_size=batch_size, block_items=block_items, list_length=30)
        np.testing.assert_array_equal(found.counts.n_higher, reference.counts.n_higher)
        np.testing.assert_array_equal(found.lists_TK, reference.lists_TK)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("neighbour_share", 0.6), ("temperature", 0.4), ("exponent", 0.6), ("repeat_factors", (0.2, 3.0)),
        ("n_clicks", 1),
    ],
)  # fmt: skip
def test_every_setting_changes_the_scores(field: str, value: Any) -> None:
    base = HybridSettings(repeat_factors=(0.5, 2.0))
    parts = model_of(N_ITEMS, 7), knn_of(random_lists(N_ITEMS, 20, 7), N_ITEMS)
    assert getattr(base, field) != value
    before, after = (
        scores_of(HybridScorer(*parts, settings), [[1, 2, 3]])
        for settings in (base, base.model_copy(update={field: value}))
    )
    assert not np.allclose(before, after, rtol=1e-3)


def test_parts_of_other_catalogues_are_refused() -> None:
    parts = model_of(1_200, 1), knn_of([[0, 1]], N_ITEMS)
    with pytest.raises(ConfigError, match=r"a hybrid of 1,200 and 12 items does not fit together. Fit both parts to"):
        HybridScorer(*parts, HybridSettings())
    with pytest.raises(ConfigError, match="does not fit together"):
        choose_settings(*parts, make_sessions([[0, 1]], N_ITEMS))


def walking_lists(n_items: int, n_sessions: int, seed: int) -> list[list[int]]:
    """Sessions that walk forward: by one mostly, by two or three at times."""
    rng = np.random.default_rng(seed)
    steps = rng.choice([1, 2, 3], size=(n_sessions, 6), p=[0.6, 0.25, 0.15])
    return ((steps.cumsum(axis=1) + rng.integers(0, n_items, size=(n_sessions, 1))) % n_items).tolist()


def knowing_model(n_items: int) -> TableScorer:
    """A model that knows how far a walk goes."""
    logits_MN = np.full((n_items + 1, n_items), -9.0)
    for step, p in ((1, 0.6), (2, 0.25), (3, 0.15)):
        logits_MN[1:][np.arange(n_items), (np.arange(n_items) + step) % n_items] = np.log(p)
    return TableScorer(logits_MN)


@pytest.mark.parametrize("knowing", ["model", "neighbours"])
def test_choice_keeps_what_the_part_that_knows_something_knows(knowing: str) -> None:
    n_items = 60
    model = knowing_model(n_items) if knowing == "model" else model_of(n_items, 4)
    lists = walking_lists(n_items, 2_000, 2) if knowing == "neighbours" else random_lists(n_items, 2_000, 3)
    settings = {"k": 2_000, "m": 2_000, "gap_decay": 1.0, "weighting": "quadratic", "score_weighting": "quadratic"}
    neighbours = knn_of(lists, n_items, **settings)
    valid = make_sessions(walking_lists(n_items, 400, 1), n_items)
    choice = choose_settings(model, neighbours, valid, k=2)
    test = make_sessions(walking_lists(n_items, 1_000, 9), n_items)
    alone, blended, other = (
        np.array([metric[2] for metric in evaluate(scorer, test).metrics([2], "conservative")])
        for scorer in (
            model if knowing == "model" else neighbours,
            HybridScorer(model, neighbours, choice.settings),
            neighbours if knowing == "model" else model,
        )
    )
    assert (blended > 0.99 * alone).all()
    assert (blended > 3 * other).all()


class SilentScorer(SparseScorer):
    """A neighbour that says nothing."""

    def said_about(self, clicks_RL: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.empty((len(clicks_RL), 0), dtype=np.int32), np.empty((len(clicks_RL), 0))


def repeating_lists(n_items: int, n_sessions: int) -> list[list[int]]:
    """Long sessions whose next click is often the one before the last, seldom the one before that."""
    rng = np.random.default_rng(5)
    lists = []
    for _ in range(n_sessions):
        events = rng.choice(n_items, 3, replace=False).tolist()
        for luck in rng.random(97):
            new = rng.choice(np.setdiff1d(np.arange(n_items), events[-3:]))
            events.append(events[-2] if luck < 0.4 else events[-3] if luck < 0.5 else int(new))
        lists.append(events)
    return lists


@pytest.mark.parametrize("halvings", [0, 1, 2])
def test_factors_make_the_predicted_share_of_repeats_the_observed_one(
    halvings: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model gives every item 1/50, so that the observed shares are those of the factors alone.

    Scores are probabilities to the power 1 / 2^halvings, which is undone before they are summed.
    """
    monkeypatch.setattr(hybrid_choice, "HALVINGS", (halvings,))
    monkeypatch.setattr(hybrid_choice, "SHARES", (0.3,))
    n_items = 50
    lists = repeating_lists(n_items, 40)
    valid = make_sessions(lists, n_items)
    silent = SilentScorer(valid.support(), n_kept=1)
    model = TableScorer(np.zeros((n_items + 1, n_items)))
    settings = choose_settings(model, silent, valid).settings
    assert settings.exponent == 0.5**halvings
    hybrid = HybridScorer(model, silent, settings)
    predicted, observed = np.zeros(3), np.zeros(3)  # by how many clicks ago the item was clicked last
    for events in lists:
        state = hybrid.start(1)
        for place, target in enumerate(events[1:]):
            state = hybrid.advance(state, events[place : place + 1])
            score_N = hybrid.score_block(hybrid.ready(state), 0, n_items).numpy()[0] ** 2**halvings
            read = events[place::-1]
            for lag, item in enumerate(read[:3]):
                if item not in read[:lag]:
                    predicted[lag] += score_N[item] / score_N.sum()
                    observed[lag] += item == target
    assert observed.min() > 200
    np.testing.assert_allclose(predicted, observed, rtol=0.1)


def test_choice_is_the_same_again() -> None:
    valid = make_sessions(random_lists(30, 60, 8), 30)
    parts = model_of(30, 8), knn_of(random_lists(30, 90, 9), 30)
    assert choose_settings(*parts, valid) == choose_settings(*parts, valid)


def test_choice_has_the_gains_that_evaluation_finds() -> None:
    """The model knows a step forward, the neighbours which items are clicked again: only together they know both."""
    n_items = 40
    rng = np.random.default_rng(10)
    lists = []
    for first in rng.integers(0, n_items, 300).tolist():
        events = [first]
        for _ in range(7):
            is_repeat = rng.random() < 0.4 and len(events) > 2
            events.append(int(rng.choice(events[:-1])) if is_repeat else (events[-1] + 1) % n_items)
        lists.append(events)
    valid = make_sessions(lists, n_items)
    model, neighbours = knowing_model(n_items), repeats(valid)
    choice = choose_settings(model, neighbours, valid, k=3)
    parts, blended = (
        [[measure[3] for measure in evaluate(scorer, valid).metrics([3], "conservative")] for scorer in scorers]
        for scorers in ([model, neighbours], [HybridScorer(model, neighbours, choice.settings)])
    )
    assert np.array(blended[0]) / np.max(parts, axis=0) - 1 == pytest.approx(choice.gains, abs=0.01)
    assert min(choice.gains) > 0.05


def repeats(log: Sessions) -> SessionPopularityScorer:
    return SessionPopularityScorer(log.support(), SessionPopularitySettings(exclude_last=True))


def test_choice_is_the_blend_whose_smaller_gain_is_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    n_items = 40
    valid = make_sessions([events[:6] for events in walking_lists(n_items, 300, 12)], n_items)
    parts = model_of(n_items, 14), knn_of(walking_lists(n_items, 20, 13), n_items)
    chosen = choose_settings(*parts, valid, k=3).gains
    others = []
    grid = {name: getattr(hybrid_choice, name) for name in ("SHARES", "TEMPERATURES", "HALVINGS")}
    for point in itertools.product(*grid.values()):
        with monkeypatch.context() as only:
            for name, value in zip(grid, point, strict=True):
                only.setattr(hybrid_choice, name, (value,))
            choice = choose_settings(*parts, valid, k=3)
        found = choice.settings
        assert (found.neighbour_share, found.temperature, found.exponent) == (*point[:2], 0.5 ** point[2])
        others.append(choice.gains)
    # The better part of a grid of one point is that of the whole: ranks of the parts do not depend on temperatures.
    assert min(chosen) == pytest.approx(max(min(gains) for gains in others))
    better_on_average = [gains for gains in others if sum(gains) > sum(chosen) + 0.01]
    assert better_on_average, "or the mean would choose alike"
    assert all(min(gains) < min(chosen) for gains in better_on_average)
