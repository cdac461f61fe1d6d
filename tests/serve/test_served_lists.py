"""What is served is what is evaluated and what the library recommends: each click of each test session, bit by bit."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import real_log
from serve.running import Running, redis, served

from gru4rec import GRU4Rec
from gru4rec.data.sessions import Sessions
from gru4rec.evaluate.evaluator import evaluate
from gru4rec.serve.recommender import Recommender

K = 20
VISITORS = 12
LOGS = ["bol", "rsc15_100k"]


@dataclass(frozen=True)
class Trained:
    """A model, its file, and the sessions of a test log."""

    path: Path
    gru: GRU4Rec
    test: Sessions

    @cached_property
    def sessions(self) -> list[list[Any]]:
        """Ids of each session."""
        ids = self.test.items.ids_of(self.test.item_idx)
        return [ids[a:b] for a, b in zip(self.test.offsets[:-1], self.test.offsets[1:], strict=True)]

    @cached_property
    def expected(self) -> list[list[dict[str, Any]]]:
        """For each session, the list after each click, as the library recommends it: scores of the whole matrix."""
        recommender = Recommender.load(self.path)
        prefixes = [session[: n + 1] for session in self.sessions for n in range(len(session))]
        found = iter(recommender.recommend_batch(prefixes, K))
        return [[_items(next(found)) for _ in session] for session in self.sessions]

    def check_evaluated(self, lists: list[list[list[dict[str, Any]]]]) -> None:
        """Compare lists with the evaluator's, and the target's place in each with its rank."""
        evaluation = evaluate(self.gru.scorer(), self.test, list_length=K)
        ranks = evaluation.counts.ranks("no_dedupe")
        assert evaluation.lists_TK is not None
        at = 0
        for session, of_session in zip(self.sessions, lists, strict=True):
            for target, items in zip(session[1:], of_session[:-1], strict=True):
                ids = [item["id"] for item in items]
                assert ids == self.test.items.ids_of(evaluation.lists_TK[at])
                assert (ids.index(target) + 1 if target in ids else None) == (ranks[at] if ranks[at] <= K else None)
                at += 1
        assert at == evaluation.n_targets


def _items(found: Any) -> list[dict[str, Any]]:
    return [{"id": item_id, "score": score} for item_id, score in zip(found.item_ids, found.scores, strict=True)]


@pytest.fixture(scope="module", params=[LOGS[0], *(pytest.param(log, marks=pytest.mark.slow) for log in LOGS[1:])])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = real_log(request.param)
    return _trained(folder, tmp_path_factory.mktemp("models") / f"{request.param}.gru4rec")


@pytest.fixture(scope="module")
def trained_on_bol(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return _trained(real_log("bol"), tmp_path_factory.mktemp("models") / "bol.gru4rec")


def _trained(folder: Path, path: Path, seed: int = 1) -> Trained:
    gru = GRU4Rec(layers=[64], n_epochs=1, batch_size=64, learning_rate=0.1, seed=seed, device="cpu")
    gru.fit(folder / "train.tsv.gz", threads=1)
    gru.savemodel(path)
    from gru4rec.data.events import load_events

    return Trained(path, gru, Sessions.from_log(load_events(folder / "test.tsv.gz"), gru.bundle().items))


def clicked(service: Running, trained: Trained, tag: str, visitors: int) -> list[list[list[dict[str, Any]]]]:
    """Return the lists after each click of all sessions, of so many visitors at a time."""

    def visit(number: int) -> list[list[dict[str, Any]]]:
        answers = [service.click(f"{tag}-{number}", item, k=K) for item in trained.sessions[number]]
        assert [answer["n_clicks"] for answer in answers] == list(range(1, len(answers) + 1))
        assert not any(answer["degraded"] or answer["unknown"] for answer in answers)
        return [answer["items"] for answer in answers]

    with ThreadPoolExecutor(visitors) as pool:
        return list(pool.map(visit, range(len(trained.sessions))))


def test_served_every_test_session_is_exact(trained: Trained, tmp_path: Path) -> None:
    with served(trained.path, "--search", "int8", "--max-wait-ms", 5000, log=tmp_path / "log") as service:
        together = clicked(service, trained, "together", VISITORS)
        assert together == trained.expected
        trained.check_evaluated(together)

        prefixes = [session[: n + 1] for session in trained.sessions for n in range(len(session))]
        flat = [items for of_session in trained.expected for items in of_session]

        def ask(first: int) -> bool:
            body = {"sessions": prefixes[first : first + 100], "k": K}
            status, answer = service.ask("POST", "/v1/recommend", body)
            assert status == 200
            return [each["items"] for each in answer["lists"]] == flat[first : first + 100]

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(ask, range(0, len(prefixes), 100)))
        for place in np.random.default_rng(0).integers(len(prefixes), size=200):
            assert service.recommend(prefixes[place], k=K)["items"] == flat[place]


def test_served_through_redis_by_two_workers_is_exact(trained_on_bol: Trained, tmp_path: Path) -> None:
    trained = trained_on_bol
    with redis() as store:
        words = [trained.path, "--redis", store.url, "--redis-timeout-ms", 2000, "--workers", 2, "--max-wait-ms", 5000]
        with served(*words, log=tmp_path / "log") as service:
            assert clicked(service, trained, "shared", VISITORS) == trained.expected
            assert service.metric("gru4rec_store_failures_total") == 0
            assert service.metric("gru4rec_batch_sessions_count") > 0


def test_served_one_by_one_before_and_after_a_reload_is_exact(trained_on_bol: Trained, tmp_path: Path) -> None:
    trained = trained_on_bol
    path = tmp_path / "served.gru4rec"
    path.write_bytes(trained.path.read_bytes())
    other = _trained(real_log("bol"), tmp_path / "other.gru4rec", seed=2)
    some = range(0, len(trained.sessions), 5)
    with served(path, log=tmp_path / "log") as service:
        for number in some:
            for item, items in zip(trained.sessions[number][:-1], trained.expected[number], strict=False):
                assert service.click(f"visitor-{number}", item, k=K)["items"] == items
        version = service.ask("GET", "/v1/model")[1]["models"][0]["version"]

        other.path.replace(path)
        service.process.send_signal(signal.SIGHUP)
        until = time.monotonic() + 30
        while service.ask("GET", "/v1/model")[1]["models"][0]["version"] == version:
            assert time.monotonic() < until, service.said()
            time.sleep(0.05)

        wanted = Recommender.load(path).recommend_batch([trained.sessions[number] for number in some], K)
        for number, found in zip(some, wanted, strict=True):
            answer = service.click(f"visitor-{number}", trained.sessions[number][-1], k=K)
            assert answer["items"] == _items(found)
            assert answer["n_clicks"] == len(trained.sessions[number])
            assert answer["model_version"] != version
        assert service.metric("gru4rec_replayed_sessions_total") == len(some)
