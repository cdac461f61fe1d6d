"""Heads that nobody means well with: endless ones are cut off, slow ones given up, and no memory is lost to them."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import psutil
import pytest
from serve.running import Running, served
from serve.small_models import random_model


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("heads")
    with served(random_model(folder / "m.gru4rec"), "--drain", 0, log=folder / "log") as service:
        yield service


@pytest.mark.parametrize(
    ("beginning", "part"),
    [(b"GET /healthz HTTP/1.1\r\n", b"x: " + b"a" * 9995 + b"\r\n"), (b"GET /", b"a" * 10_000)],
    ids=["headers", "path"],
)
def test_endless_head_is_cut_off(service: Running, beginning: bytes, part: bytes) -> None:
    before = psutil.Process(service.pid).memory_info().rss
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
        connection.sendall(beginning)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            send_endlessly(connection, part)
    assert psutil.Process(service.pid).memory_info().rss < before + 20_000_000
    assert service.ask("GET", "/healthz")[0] == 200


def send_endlessly(connection: socket.socket, part: bytes) -> None:
    for _ in range(10_000):
        connection.sendall(part)


def test_head_that_does_not_end_is_given_up(service: Running) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        started = time.monotonic()
        assert connection.recv(100) == b""
        assert 9 < time.monotonic() - started < 20


def test_connection_that_is_kept_may_be_quiet_for_longer(service: Running) -> None:
    for pause_s in (0, 11):
        time.sleep(pause_s)
        assert service.ask("GET", "/healthz")[0] == 200  # on this thread's one connection
