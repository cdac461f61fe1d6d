"""What is served in benchmarks: models of any size with made-up weights, and visitors who click what is popular.

Lengths of sessions are geometric, 4 on average, 50 at most; popularity is 1 / rank. Weights are normal, as widely
spread as those of a model trained on real clicks.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.serve_load import post
from gru4rec.bundle import Bundle, save_bundle
from gru4rec.config import hyper_parameters
from gru4rec.data.vocabulary import Vocabulary
from gru4rec.model.network import GRU4RecModel
from gru4rec.serve.recommender import Recommendations, Recommender

_MEAN_LENGTH, _LONGEST = 4, 50
_FIRST_ID = 1_000_000
_SPREAD = {"Wy": 0.35, "By": 1.0, "weight": 0.6, "bias": 1.0}
"""Standard deviations, by what is in the name: those of ten epochs with paramfiles/rsc15_xe_shared_100_best.py on real
clicks."""


@dataclass(frozen=True)
class Shop:
    """A model file with made-up weights.

    Attributes:
        path: The file.
        n_items: Of its catalogue.
        n_hidden: Units of its layer.
    """

    path: Path
    n_items: int
    n_hidden: int

    @classmethod
    def build(cls, folder: Path, n_items: int, n_hidden: int, *, seed: int = 0) -> Shop:
        """Write the model file."""
        shop = cls(folder / f"shop_{n_items}_{n_hidden}_{seed}.pt", n_items, n_hidden)
        if not shop.path.exists():
            save_bundle(_made_up(n_items, n_hidden, seed), shop.path)
        return shop

    def sessions(self, n_sessions: int, *, seed: int = 0) -> list[list[int]]:
        """Draw sessions of item ids."""
        rng = np.random.default_rng(seed)
        lengths = np.minimum(rng.geometric(1 / _MEAN_LENGTH, n_sessions), _LONGEST)
        return [part.tolist() for part in np.split(self.clicks(int(lengths.sum()), rng), np.cumsum(lengths)[:-1])]

    def clicks(self, n_clicks: int, rng: np.random.Generator) -> np.ndarray:
        """Draw item ids."""
        ranks = np.searchsorted(self._popularity, rng.random(n_clicks) * self._popularity[-1], side="right")
        return _FIRST_ID + self._at_rank[np.minimum(ranks, self.n_items - 1)]

    @cached_property
    def _popularity(self) -> np.ndarray:
        return np.cumsum(1 / np.arange(1, self.n_items + 1))

    @cached_property
    def _at_rank(self) -> np.ndarray:
        return np.random.default_rng(0).permutation(self.n_items)

    @cached_property
    def recommender(self) -> Recommender:
        """Scores everything: the lists that are right."""
        return Recommender.load(self.path)

    def matrix_ms(self, n_rows: int) -> float:
        """Return the milliseconds a row that the scores' product alone takes, n_rows at once, on one thread."""
        weight_HN = self.recommender._scorer.output_weights()[0].T  # type: ignore[attr-defined]
        hidden_BH = torch.rand(n_rows, self.n_hidden)
        scores_BN = torch.empty(n_rows, self.n_items)
        times = []
        for _ in range(6):
            started = time.perf_counter()
            torch.mm(hidden_BH, weight_HN, out=scores_BN)
            times.append(time.perf_counter() - started)
        return 1e3 * float(np.median(times[1:])) / n_rows


@dataclass(frozen=True)
class Click:
    """A request and what it is about.

    Attributes:
        request: Its bytes.
        session: Item ids so far, the newest included.
        session_id: Under which the service keeps it; empty: the request brings it.
    """

    request: bytes
    session: Sequence[int]
    session_id: str = ""


def stateless_clicks(shop: Shop, n_clicks: int, *, seed: int = 0) -> list[Click]:
    """Make requests that bring their sessions."""
    return [
        Click(post("/v1/recommend", json.dumps({"session": session}).encode()), session)
        for session in shop.sessions(n_clicks, seed=seed)
    ]


def stateful_clicks(shop: Shop, n_clicks: int, *, name: str, n_visitors: int = 1000, seed: int = 0) -> list[Click]:
    """Make the clicks of many visitors, each of whom clicks once a round; who leaves is followed by another.

    Args:
        shop: Where they click.
        n_clicks: Of all together.
        name: Begins the ids of their sessions.
        n_visitors: Who are there at a time.
        seed: Of the sessions.
    """
    sessions = iter(enumerate(shop.sessions(n_clicks, seed=seed)))
    places: list[Iterator[Click]] = [iter(()) for _ in range(n_visitors)]
    clicks = []
    for number in range(n_clicks):
        place = number % n_visitors
        click = next(places[place], None)
        if click is None:
            visitor, session = next(sessions)
            places[place] = visit(f"{name}-{visitor}", session)
            click = next(places[place])
        clicks.append(click)
    return clicks


def visit(session_id: str, session: Sequence[int]) -> Iterator[Click]:
    """Make the clicks of one session, one after the other."""
    path = f"/v1/sessions/{session_id}/events"
    for n_clicks, item in enumerate(session, start=1):
        yield Click(post(path, json.dumps({"item": item}).encode()), session[:n_clicks], session_id)


def held(clicks: Sequence[Click], bodies: Sequence[bytes], shop: Shop) -> tuple[float, float]:
    """Compare answers with the right lists.

    Returns:
        The share of their items that the answers hold; the share of answers that have the same ids in the same order
        with the same scores, to the last bit.
    """
    answers: list[Any] = [json.loads(body)["items"] for body in bodies]
    right = shop.recommender.recommend_batch([click.session for click in clicks])
    shares = [
        len({item["id"] for item in answer} & set(wanted.item_ids)) / len(wanted.item_ids)
        for answer, wanted in zip(answers, right, strict=True)
    ]
    equal = [_is(wanted, answer) for answer, wanted in zip(answers, right, strict=True)]
    return float(np.mean(shares)), float(np.mean(equal))


def _is(wanted: Recommendations, answer: Sequence[dict[str, Any]]) -> bool:
    return [(item["id"], item["score"]) for item in answer] == list(zip(wanted.item_ids, wanted.scores, strict=True))


def _made_up(n_items: int, n_hidden: int, seed: int) -> Bundle:
    settings = hyper_parameters({"layers": [n_hidden]})
    rng = np.random.default_rng(seed)
    with torch.device("meta"):
        shapes = {name: tuple(weight.shape) for name, weight in GRU4RecModel(n_items, settings).state_dict().items()}
    weights = {name: _normal(rng, shape, _spread(name)) for name, shape in shapes.items()}
    items = Vocabulary(np.arange(_FIRST_ID, _FIRST_ID + n_items))
    return Bundle(settings, weights, items, rng.permutation(n_items // np.arange(1, n_items + 1)))


def _spread(name: str) -> float:
    return next(spread for part, spread in _SPREAD.items() if part in name)


def _normal(rng: np.random.Generator, shape: tuple[int, ...], spread: float) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(spread)
