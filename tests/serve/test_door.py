"""Requests that are turned away while too much waits: by their heads, with nothing lost and nothing let through."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from serve.running import Running, served
from serve.small_models import random_model

KEY, ADMIN = "Api-key-0123456789", "Admin-key-987654321"
LIST = b"POST /v1/recommend HTTP/1.1\r\n"
CLICK = b"POST /v1/sessions/a/events HTTP/1.1\r\n"
WITH_KEY = f"Host: x\r\nAuthorization: Bearer {KEY}\r\n".encode()
BODY = b'Content-Length: 16\r\n\r\n{"session": [7]}'
LAST = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("door")
    flags = ["--max-sessions", 1000, "--max-body", 50_000_000, "--timeout-ms", 120_000, "--max-wait-ms", 20]
    env = {"GRU4REC_API_KEYS": KEY, "GRU4REC_ADMIN_KEYS": ADMIN}
    words = [random_model(folder / "m.gru4rec"), *flags, "--access-log", "--cors", "https://shop.example"]
    with served(*words, "--drain", 0, log=folder / "log", env=env) as service:
        yield service


@contextmanager
def busy(service: Running) -> Iterator[None]:
    """Have the service read half a million clicks, which takes it a second or more, for as long as the block lasts."""
    question = {"sessions": [[1, 2, 3, 4, 5] * 100] * 1000, "k": 1}
    answers: list[int] = []

    def ask() -> None:
        headers = {"Authorization": f"Bearer {KEY}"}
        while 200 not in answers:  # on a slow machine our own question whether it is busy keeps it so
            answers.append(service.ask("POST", "/v1/recommend", question, headers=headers)[0])

    thread = threading.Thread(target=ask)
    thread.start()
    while not waits(service):
        assert thread.is_alive()
    yield
    assert waits(service), "it ended too soon: nothing was shown"
    thread.join()
    assert set(answers) <= {200, 429}


def waits(service: Running) -> bool:
    return status_of(talk(service, LIST + WITH_KEY + b"Connection: close\r\n" + BODY)) == 429


def talk(service: Running, *parts: bytes) -> bytes:
    """Send bytes, and return all that comes until the other side ends the connection."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
        for part in parts:
            connection.sendall(part)
        answer = b""
        while received := connection.recv(65_536):
            answer += received
    return answer


def status_of(answer: bytes) -> int:
    return statuses(answer)[0]


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


def test_door_turns_away_requests_for_lists_and_nothing_else(service: Running) -> None:
    with busy(service):
        for request in (LIST, CLICK):
            answer = talk(service, request + WITH_KEY + BODY + LAST)
            assert statuses(answer) == [429, 200]
            head, _, rest = answer.partition(b"\r\n\r\n")
            assert re.search(rb"\r\nretry-after: [1-9]\d*(\r\n|$)", head)
            assert b"\r\nx-content-type-options: nosniff" in head
            assert b"\r\ndate: " in head
            assert b"connection: close" not in head
            size = int(re.findall(rb"content-length: (\d+)", head)[0])
            assert json.loads(rest[:size])["error"]["code"] == "busy"
        assert status_of(talk(service, b"POST /v1/nothing HTTP/1.1\r\n" + WITH_KEY + BODY + LAST)) == 404
        assert status_of(talk(service, b"POST /v1/sessions/a/b/events HTTP/1.1\r\n" + WITH_KEY + BODY + LAST)) == 404
        assert status_of(talk(service, b"GET /v1/model HTTP/1.1\r\n" + WITH_KEY + b"\r\n" + LAST)) == 200
        reload = f"POST /admin/reload HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN}\r\n\r\n".encode()
        assert status_of(talk(service, reload + LAST)) == 200


def test_door_tells_nothing_to_who_has_no_key(service: Running) -> None:
    wrong = [b"Host: x\r\n", WITH_KEY + b"Authorization: Bearer x\r\n", WITH_KEY.replace(b"Api-", b"api-")]
    with busy(service):
        for request in (LIST, CLICK):
            for headers in wrong:
                assert statuses(talk(service, request + headers + BODY + LAST)) == [401, 200]


@pytest.mark.parametrize("request_line", [LIST, CLICK])
def test_door_request_in_the_body_of_one_that_is_turned_away_is_none(service: Running, request_line: bytes) -> None:
    inner = b"GET /v1/model HTTP/1.1\r\n" + WITH_KEY + b"\r\n"
    sized = b"Content-Length: %d\r\n\r\n" % len(inner)
    chunked = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(inner)
    with busy(service):
        assert statuses(talk(service, request_line + WITH_KEY + sized, inner, LAST)) == [429, 200]
        assert statuses(talk(service, request_line + WITH_KEY + chunked, inner, b"\r\n0\r\n\r\n" + LAST)) == [429, 200]


def test_door_ends_connections_that_are_to_end(service: Running) -> None:
    with busy(service):
        for header in (b"Connection: close\r\n", b"Expect: 100-continue\r\n"):
            answer = talk(service, LIST + WITH_KEY + header + BODY + LAST)
            assert statuses(answer) == [429]
            assert b"\r\nconnection: close\r\n" in answer
        assert statuses(talk(service, LIST.replace(b"/1.1", b"/1.0") + WITH_KEY + BODY)) == [429]


def test_door_answers_keep_the_order_of_requests(service: Running) -> None:
    with busy(service):
        first = b"GET /v1/items?query=1 HTTP/1.1\r\n" + WITH_KEY + b"\r\n"
        assert statuses(talk(service, first + LIST + WITH_KEY + BODY + LAST)) == [200, 429, 200]


def test_door_web_page_of_another_origin_can_read_the_refusal(service: Running) -> None:
    with busy(service):
        answer = talk(service, LIST + WITH_KEY + b"Origin: https://shop.example\r\n" + BODY + LAST)
        assert statuses(answer) == [429, 200]
        assert b"\r\naccess-control-allow-origin: https://shop.example\r\n" in answer


def test_door_every_refusal_is_counted_once_and_written_down(service: Running) -> None:
    def lines() -> int:
        return sum(event.get("status") == 429 for event in service.events())

    with busy(service):
        shed, n_lines = service.metric("gru4rec_shed_requests_total"), lines()
        for request in (LIST, CLICK, LIST.replace(b"recommend", b"%72ecommend"), CLICK.replace(b"/a/", b"/b/")):
            assert statuses(talk(service, request + WITH_KEY + BODY + LAST)) == [429, 200]
        assert service.metric("gru4rec_shed_requests_total") - shed == 4
        assert lines() - n_lines == 4
    text = service.ask("GET", "/metrics")[1]
    counted = {
        route: float(count)
        for route, count in re.findall(r'gru4rec_requests_total{route="([^"]+)",status="429"} (\S+)', text)
    }
    assert set(counted) == {"/v1/recommend", "/v1/sessions/{session_id}/events"}
    assert sum(counted.values()) == service.metric("gru4rec_shed_requests_total")


def test_door_is_open_when_there_is_room_again(service: Running, tmp_path: Path) -> None:
    with busy(service):
        pass
    assert statuses(talk(service, LIST + WITH_KEY + BODY + LAST)) == [200, 200]
