"""What an operator does to a service and what happens to it while requests come: none may be the worse for it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from serve.running import COMMAND, Running, free_port, redis, served
from serve.small_models import random_model

ADMIN = {"Authorization": "Bearer the-admin-key-0001"}
ADMIN_ENV = {"GRU4REC_ADMIN_KEYS": "the-admin-key-0001"}
PATIENT = ["--max-wait-ms", 5000, "--timeout-ms", 20_000]
"""So that a machine that is busy with other things turns nobody away."""
FAILED = "failed"


class Callers:
    """Threads that click without a pause, each with a visitor of its own, until told to stop.

    Attributes:
        statuses: How often each came; ``failed``: no answer.
        seconds: Of every answer.
    """

    def __init__(self, service: Running, n_callers: int, *, stateless: bool = False) -> None:
        self.statuses: Counter[Any] = Counter()
        self.seconds: list[float] = []
        self.answers: list[Any] = []
        self._service, self._stateless = service, stateless
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(n,)) for n in range(n_callers)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let each have its last answer."""
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _call(self, number: int) -> None:
        n = 0
        while not self._is_over.is_set():
            n += 1
            started = time.monotonic()
            try:
                status, answer = self._ask(f"visitor-{number}", n % 50)
            except (OSError, http.client.HTTPException):
                status, answer = FAILED, None
                time.sleep(0.01)
            self.statuses[status] += 1
            self.seconds.append(time.monotonic() - started)
            self.answers.append(answer)

    def _ask(self, visitor: str, item: int) -> tuple[int, Any]:
        if self._stateless:
            return self._service.ask("POST", "/v1/recommend", {"session": [item, 3], "k": 5})
        return self._service.ask("POST", f"/v1/sessions/{visitor}/events", {"item": item, "k": 5})


@contextmanager
def calling(service: Running, n_callers: int, *, stateless: bool = False) -> Iterator[Callers]:
    """Have callers call for as long as the block lasts."""
    callers = Callers(service, n_callers, stateless=stateless)
    try:
        yield callers
    finally:
        callers.stop()


def until(condition: Any, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.02)


def version_of(service: Running) -> str:
    return str(service.ask("GET", "/v1/model")[1]["models"][0]["version"])


# --- reload ---


def test_reload_under_load_fails_no_request_and_mixes_no_states(tmp_path: Path) -> None:
    path = random_model(tmp_path / "served.gru4rec", seed=1)
    with served(path, *PATIENT, log=tmp_path / "log", env=ADMIN_ENV) as service:
        versions = {version_of(service)}
        with calling(service, 6) as callers:
            for seed in (2, 3, 4):
                random_model(tmp_path / "next.gru4rec", seed=seed).replace(path)
                status, answer = service.ask("POST", "/admin/reload", headers=ADMIN)
                assert status == 200
                versions.add(answer["models"][0]["version"])
                time.sleep(0.2)
        assert set(callers.statuses) == {200}
        assert len(versions) == 4
        assert {answer["model_version"] for answer in callers.answers} == versions
        # what a visitor is shown is what the newest model says of all that visitor's clicks
        kept = service.ask("GET", "/v1/sessions/visitor-0")[1]
        answer = service.click("visitor-0", 7, k=5)
        assert answer["n_clicks"] == kept["n_clicks"] + 1
        newest = [*kept["session"], 7][-500:]
        assert answer["items"] == service.recommend(newest, k=5)["items"] or kept["n_clicks"] >= 500


def test_reload_of_a_damaged_file_keeps_the_model(tmp_path: Path) -> None:
    path = random_model(tmp_path / "served.gru4rec")
    with served(path, log=tmp_path / "log", env=ADMIN_ENV) as service:
        version, before = version_of(service), service.recommend([1, 2])
        path.write_bytes(path.read_bytes()[:-7] + b"damaged")
        status, answer = service.ask("POST", "/admin/reload", headers=ADMIN)
        assert status == 422
        assert "is damaged" in answer["error"]["message"]
        service.process.send_signal(signal.SIGHUP)
        until(lambda: service.metric("gru4rec_reloads_total") == 2)
        assert version_of(service) == version
        assert service.recommend([1, 2]) == before
        assert any(event["event"].startswith("reload failed") for event in service.events())


def test_reloads_let_old_models_go(tmp_path: Path) -> None:
    path = random_model(tmp_path / "served.gru4rec", n_items=100_000, layers=(64,))  # 26 MB, and 7 MB to scan
    with served(path, log=tmp_path / "log", env=ADMIN_ENV) as service:
        process = psutil.Process(service.pid)
        for _ in range(3):
            assert service.ask("POST", "/admin/reload", headers=ADMIN)[0] == 200
        before = process.memory_info().rss
        for _ in range(20):
            assert service.ask("POST", "/admin/reload", headers=ADMIN)[0] == 200
        assert process.memory_info().rss - before < 20 * 33e6 / 2  # it goes up and down by up to 200 MB


@pytest.mark.parametrize("words", [[], ["--workers", 2, "--stateless"]])
def test_reload_that_is_asked_for_during_the_start_ends_nothing(tmp_path: Path, words: list[Any]) -> None:
    """HUP ends a process that does not know it yet: a tenth of a second each until the service is ready."""
    is_ready = threading.Event()

    def hang_up(pid: int) -> None:
        while not is_ready.wait(0.1):
            os.kill(pid, signal.SIGHUP)

    def started(service: Running) -> bool:
        if not threads:
            until(lambda: catches(service.pid, signal.SIGHUP))
            threads.append(threading.Thread(target=hang_up, args=(service.pid,)))
            threads[0].start()
        return usual(service)

    threads: list[threading.Thread] = []
    usual = Running._is_ready
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Running, "_is_ready", started)
        try:
            with served(random_model(tmp_path / "m.gru4rec"), *words, log=tmp_path / "log") as service:
                is_ready.set()
                until(lambda: service.metric("gru4rec_reloads_total") > 0)
                assert not any("died" in event["event"] for event in service.events())
        finally:
            is_ready.set()


def catches(pid: int, number: signal.Signals) -> bool:
    """Tell whether a process handles a signal, or holds it back."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    masks = [int(line.split()[1], 16) for line in lines if line.startswith(("SigCgt:", "SigBlk:"))]
    return any(mask >> (number - 1) & 1 for mask in masks)


def test_reload_reaches_all_workers(tmp_path: Path) -> None:
    path = random_model(tmp_path / "served.gru4rec", seed=1)
    words = [path, "--workers", 2, "--stateless", *PATIENT]
    with served(*words, log=tmp_path / "log", env=ADMIN_ENV) as service:
        until(lambda: len(workers_of(service)) == 2)
        old = version_of(service)
        random_model(tmp_path / "next.gru4rec", seed=2).replace(path)
        with calling(service, 4, stateless=True) as callers:
            assert service.ask("POST", "/admin/reload", headers=ADMIN)[0] == 200
            until(lambda: old not in versions_of_many(service))
        assert set(callers.statuses) == {200}


def versions_of_many(service: Running) -> set[str]:
    """Ask on new connections, which any worker may take."""
    found = set()
    for _ in range(20):
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=10)
        connection.request("GET", "/v1/model")
        found.add(json.loads(connection.getresponse().read())["models"][0]["version"])
        connection.close()
    return found


def workers_of(service: Running) -> list[int]:
    """Process ids of the workers that serve."""
    return [event["pid"] for event in service.events() if event["event"] == "serving"]


# --- death ---


def test_worker_that_is_killed_costs_its_requests_and_is_replaced(tmp_path: Path) -> None:
    with redis() as store:
        words = [random_model(tmp_path / "m.gru4rec"), "--workers", 2, "--redis", store.url, "--redis-timeout-ms", 2000]
        with served(*words, *PATIENT, log=tmp_path / "log") as service:
            until(lambda: len(workers_of(service)) == 2)
            with calling(service, 6) as callers:
                time.sleep(1.5)
                os.kill(workers_of(service)[0], signal.SIGKILL)
                until(lambda: len(workers_of(service)) == 3)
                time.sleep(1.5)
            assert set(callers.statuses) <= {200, FAILED}
            assert callers.statuses[200] > 60
            assert callers.statuses[FAILED] <= 6, "a caller each, whose connection ended"
            assert not any(answer["degraded"] for answer in callers.answers if answer)
            assert any(event["event"] == "a worker died and is replaced" for event in service.events())


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    words = [random_model(tmp_path / "m.gru4rec"), "--workers", 2, "--stateless", "--drain", 0]
    service = Running(*words, log=tmp_path / "log")
    until(lambda: len(workers_of(service)) == 2)
    workers = workers_of(service)
    service.process.kill()
    service.stop()
    until(lambda: not any(psutil.pid_exists(pid) for pid in workers))


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_answers_all_that_was_sent(tmp_path: Path, workers: int) -> None:
    words = [random_model(tmp_path / "m.gru4rec"), "--workers", workers, "--stateless", *PATIENT]
    service = Running(*words, log=tmp_path / "log")
    if workers == 2:
        until(lambda: len(workers_of(service)) == 2)
    with calling(service, 6, stateless=True) as callers:
        time.sleep(0.5)
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)  # half of the time in which it still answers, and says so
        assert service.process.poll() is None
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=10)
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Connection"], answer.headers["Retry-After"]) == (503, "close", "1")
        connection.close()
        callers.stop()
    assert set(callers.statuses) == {200}
    assert service.process.wait(30) == 0


def test_sigterm_answers_a_request_that_is_under_way(tmp_path: Path) -> None:
    service = Running(random_model(tmp_path / "m.gru4rec"), "--drain", 0, log=tmp_path / "log")
    body = b'{"session": [1, 2, 3]}'
    with socket.create_connection(("127.0.0.1", service.port)) as caller:
        head = f"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        caller.sendall(head.encode() + body[:5])
        time.sleep(0.2)
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        caller.sendall(body[5:])
        assert caller.recv(1000).startswith(b"HTTP/1.1 200")
    assert service.process.wait(30) == 0


# --- Redis ---


def test_redis_stopped_and_started_costs_sessions_and_no_request(tmp_path: Path) -> None:
    with (
        redis() as store,
        served(random_model(tmp_path / "m.gru4rec"), "--redis", store.url, *PATIENT, log=tmp_path / "log") as service,
    ):
        assert not service.click("someone", 1)["degraded"]
        with calling(service, 4) as callers:
            time.sleep(0.3)
            store.stop()
            until(lambda: service.metric("gru4rec_degraded_requests_total") > 5)
            alone = service.click("someone", 2, k=5)
            assert (alone["degraded"], alone["n_clicks"]) == (True, 1)
            assert alone["items"] == service.recommend([2], k=5)["items"]
            assert service.ask("GET", "/v1/sessions/someone")[0] == 503
            assert service.ask("DELETE", "/v1/sessions/someone")[0] == 503
            assert service.ask("GET", "/readyz")[0] == 200
            store.start()
            until(lambda: not service.click("someone", 3)["degraded"])
            time.sleep(0.3)
        assert set(callers.statuses) == {200}
        assert service.metric("gru4rec_store_failures_total") > 0
        assert service.ask("GET", "/v1/sessions/someone")[1]["session"][0] == 3


def test_clicks_of_one_session_at_many_places_are_all_counted(tmp_path: Path) -> None:
    with redis() as store:
        words = [random_model(tmp_path / "m.gru4rec"), "--workers", 2, "--redis", store.url, "--redis-timeout-ms", 2000]
        with served(*words, *PATIENT, log=tmp_path / "log") as service:
            until(lambda: len(workers_of(service)) == 2)

            def click(number: int) -> None:
                for item in range(30):
                    while service.ask("POST", "/v1/sessions/shared/events", {"item": 40 * number + item})[0] == 409:
                        pass

            threads = [threading.Thread(target=click, args=(number,)) for number in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            kept = service.ask("GET", "/v1/sessions/shared")[1]
            assert kept["n_clicks"] == 180
            assert sorted(kept["session"]) == sorted(40 * number + item for number in range(6) for item in range(30))
            answer = service.click("shared", 5, k=5)
            assert answer["items"] == service.recommend([*kept["session"], 5], k=5)["items"]


def test_session_that_cannot_be_read_begins_anew(tmp_path: Path) -> None:
    import redis as client

    with (
        redis() as store,
        served(
            random_model(tmp_path / "m.gru4rec"), "--redis", store.url, "--redis-prefix", "shop:", log=tmp_path / "log"
        ) as service,
        client.Redis.from_url(store.url) as keys,
    ):
        keys.set("shop:odd", b"12345678 written by something else")
        assert service.click("odd", 1)["n_clicks"] == 1
        assert service.click("odd", 2)["n_clicks"] == 2
        assert 0 < keys.pttl("shop:odd") <= 1_800_000


# --- too much ---


def test_overload_is_turned_away_and_the_accepted_do_not_wait_long(tmp_path: Path) -> None:
    model = random_model(tmp_path / "m.gru4rec", n_items=200_000, layers=(64,))
    words = [model, "--search", "dense", "--batch", 1, "--max-wait-ms", 50]
    with served(*words, log=tmp_path / "log") as service:
        before = psutil.Process(service.pid).memory_info().rss
        with calling(service, 48, stateless=True) as callers:
            time.sleep(4)
        assert set(callers.statuses) == {200, 429}
        assert callers.statuses[429] > callers.statuses[200] / 4
        assert service.metric("gru4rec_shed_requests_total") == callers.statuses[429]
        accepted = [s for s, answer in zip(callers.seconds, callers.answers, strict=True) if "items" in answer]
        assert sorted(accepted)[len(accepted) * 9 // 10] < 1
        until(lambda: service.ask("POST", "/v1/recommend", {"session": [1]})[0] == 200)
        assert psutil.Process(service.pid).memory_info().rss < before * 1.25


def test_clicks_of_one_session_at_once_are_counted_or_turned_away(tmp_path: Path) -> None:
    """They wait for each other, so 100 at once would pile up where no estimate sees them."""
    with served(random_model(tmp_path / "m.gru4rec"), log=tmp_path / "log") as service:
        click = b'POST /v1/sessions/one/events HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n{"item": 7}'
        connections = [socket.create_connection(("127.0.0.1", service.port), timeout=30) for _ in range(100)]
        service.process.send_signal(signal.SIGSTOP)  # so that they come at once
        for connection in connections:
            connection.sendall(click)
        service.process.send_signal(signal.SIGCONT)
        statuses = Counter(int(connection.recv(65_536).split()[1]) for connection in connections)
        for connection in connections:
            connection.close()
        assert set(statuses) == {200, 429}
        assert statuses[200] >= 32
        assert service.ask("GET", "/v1/sessions/one")[1]["n_clicks"] == statuses[200]


# --- starting ---


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give a MODEL to serve, or --demo, and not both"),
        (["m.gru4rec", "--demo"], "give a MODEL to serve, or --demo, and not both"),
        (["m.gru4rec", "--workers", "2"], "Give --redis URL to share sessions, or --stateless"),
        (["m.gru4rec", "--redis", "redis://127.0.0.1:1", "--stateless"], "Give one of them"),
        (["m.gru4rec", "--redis", "nonsense"], "is no URL of a Redis"),
        (["none.gru4rec"], "there is no model file none.gru4rec"),
        (["none.gru4rec", "--workers", "2", "--stateless"], "there is no model file none.gru4rec"),
        (["m.gru4rec", "--compare", "none.gru4rec"], "there is no model file none.gru4rec"),
        (["m.gru4rec", "--catalogue", "none.csv"], "none.csv"),
        (["m.gru4rec", "--host", "256.0.0.1"], "cannot listen on 256.0.0.1"),
        (["m.gru4rec", "--port", "99999"], "99999 is above 65535"),
        (["m.gru4rec", "--keys", "none.txt"], "cannot read the API keys in none.txt"),
        (["m.gru4rec", "--json"], "--json is for --bench"),
        (["m.gru4rec", "--catalogue-id", "sku"], "Give --catalogue FILE too"),
        (["m.gru4rec", "--stateless", "--ttl", "60"], "--ttl changes nothing: --stateless keeps no sessions. Leave it"),
        (["m.gru4rec", "--redis-prefix", "a:"], "--redis-prefix changes nothing: without --redis sessions are in the"),
        (["m.gru4rec", "--redis", "redis://127.0.0.1:1", "--session-memory", "9"], "--session-memory changes nothing"),
    ],
)
def test_start_that_cannot_be_says_why_and_exits_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    import subprocess

    random_model(tmp_path / "m.gru4rec")
    port = [] if "--port" in words else ["--port", str(free_port())]
    done = subprocess.run(
        [*COMMAND, "serve", *words, *port], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    *usage, message = done.stderr.splitlines()
    assert said in message
    assert all(line.startswith(("usage: ", " ")) for line in usage)


def test_start_says_where_it_is_once_it_is_there_and_nothing_when_quiet(tmp_path: Path) -> None:
    model = random_model(tmp_path / "m.gru4rec")
    (tmp_path / "items.csv").write_text("ItemId,title\n123456,Lamp\n")
    words = [model, "--catalogue", tmp_path / "items.csv"]
    with served(*words, log=tmp_path / "log") as service:
        lines = service.said().splitlines()
        assert f"http://127.0.0.1:{service.port}/ shows a playground, and /docs the interface. Ctrl-C ends" in lines
        assert "serving" in [event["event"] for event in service.events()]
    with served(*words, "-q", "--access-log", log=tmp_path / "quiet") as service:
        service.recommend([1])
        found = {(event["level"], event["event"]) for event in service.events()}
        assert found == {("warning", "the catalogue describes none of the model's items"), ("info", "request")}
        assert all(line.startswith("{") for line in service.said().splitlines())


def test_start_on_a_port_that_is_taken_says_so(tmp_path: Path) -> None:
    import subprocess

    model = random_model(tmp_path / "m.gru4rec")
    with served(model, log=tmp_path / "log") as service:
        done = subprocess.run(
            [*COMMAND, "serve", str(model), "--port", str(service.port)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert "Address already in use. Choose another --port or --host" in done.stderr
