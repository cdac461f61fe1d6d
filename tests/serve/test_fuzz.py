"""Bodies that nobody means well with: each is answered, soon, without a mistake of ours, and nothing is left behind."""

from __future__ import annotations

import json
import random
import shutil
import socket
import subprocess
import sysconfig
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from serve.running import Running, served
from serve.small_models import random_model

N_BODIES, N_THREADS = 10_000, 4
SLOWEST_S = 10.0
"""On a busy machine, for the slowest of all."""
MOST_CPU_S = 1.0
"""Of one body of a megabyte; three to six when all its errors were written down."""
GROWTH_BYTES = 120_000_000
PATHS = ("/v1/recommend", "/v1/sessions/x/events")
KEYS = {"GRU4REC_API_KEYS": "the-api-key-0001", "GRU4REC_ADMIN_KEYS": "the-admin-key-0001"}

NUMBERS = [
    0,
    -1,
    7,
    299,
    300,
    2**31,
    2**53 + 1,
    2**63 - 1,
    2**63,
    -(2**63),
    -(2**63) - 1,
    10**40,
    0.5,
    -0.0,
    7.0,
    1e308,
]
TEXTS = [
    "",
    "7",
    "007",
    " 7",
    "\uff17",
    "item-7",
    "x" * 512,
    "x" * 513,
    "\x00",
    "é\u200f日本",
    "😀",
    "__proto__",
    "%s{0}",
    "a\nb",
]
OTHERS = [None, True, False, [], {}, [[]], {"a": 1}, [None], [7, "7"], {"brand": ["acme"]}]
FIELDS = [
    *("session", "sessions", "item", "k", "exclude", "exclude_seen", "exclude_current", "allow", "where", "model"),
    *("details", "Session", "limit", "", "é"),
]
VALID: list[dict[str, Any]] = [
    {"session": [1, 2, 3], "k": 5},
    {"sessions": [[1], [], [2, 3]], "k": 3, "details": True},
    {"session": [5], "exclude": [1, 2], "allow": [1, 2, 3, 4], "where": {"brand": ["acme", 7]}},
    {"item": 7, "k": 5},
    {"item": "7", "exclude_seen": True, "where": {"price": [1, 2.5, "3"], "isNew": [True]}},
]
SPELLED = [
    *(b"", b" ", b"{", b"}", b"null", b"7", b'"7"', b"[]", b"{}", b"\xff", b"\x00", b"\xef\xbb\xbf{}", b"{} {}"),
    *(b'{"item": NaN}', b'{"item": Infinity}', b'{"item": -Infinity}', b'{"item": 1e400}', b'{"item": -1e-400}'),
    *(b'{"item": 07}', b'{"item": +7}', b'{"item": .7}', b'{"item": 0x7}', b"{'item': 7}", b'{"item": 7,}'),
    *(b'{"item": "\\ud800"}', b'{"item": "\\udc00\\ud800"}', b'{"item": "\xed\xa0\x80"}', b'{"item": "\xc0\xaf"}'),
    *(b'{"item": "\\u0000"}', b'{"item": "\\x41"}', b'{"item": "a\nb"}', b'{"item": 7, "item": []}', b'{"item": 7} x'),
    *(b'{"session": [1], "session": [2]}', b'{"session": [1], "k": 3, "k": 101}', b'/**/{"item": 7}'),
    *('{"item": 7}'.encode(form) for form in ("utf-16", "utf-16-le", "utf-32", "utf-7")),
]


def hostile(rng: random.Random) -> bytes:
    """Return a body: wrong fields, a valid one that was damaged, or one of those that are known to hurt."""
    kind = rng.random()
    if kind < 0.4:
        return json.dumps({rng.choice(FIELDS): value(rng, 3) for _ in range(rng.randrange(6))}).encode()
    if kind < 0.6:
        return json.dumps(rng.choice(VALID) | {rng.choice(FIELDS): value(rng, 3)}, ensure_ascii=False).encode()
    if kind < 0.9:
        return damaged(rng, json.dumps(rng.choice(VALID)).encode())
    if kind < 0.99:
        return rng.choice(SPELLED)
    return rng.choice([b"[", b'{"item":', b'{"where":{"a":', b'[{"session":']) * rng.choice([100, 200, 1000, 20_000])


def value(rng: random.Random, depth: int) -> Any:
    """Return any JSON value; most are none that a field takes."""
    kind = rng.randrange(8 if depth else 5)
    if kind == 0:
        return rng.randrange(-5, 310)
    if kind < 5:
        return rng.choice([NUMBERS, TEXTS, OTHERS][kind % 3])
    if kind < 7:
        return [value(rng, depth - 1) for _ in range(rng.randrange(5))]
    return {rng.choice([*FIELDS, "brand", "price"]): value(rng, depth - 1) for _ in range(rng.randrange(4))}


def damaged(rng: random.Random, body: bytes) -> bytes:
    """Return a body with bytes lost, doubled or changed."""
    for _ in range(rng.randrange(1, 4)):
        start = rng.randrange(len(body) + 1)
        stop = min(len(body), start + rng.randrange(1, 6))
        put = rng.choice([b"", body[start:stop] * 2, rng.randbytes(2), b'"', b"[", b"}", b"-", b"9" * 30])
        body = body[:start] + put + body[stop:]
    return body


def large() -> dict[str, bytes]:
    """Return bodies that are just small enough, and mean more work than they look like."""
    n = 950_000
    many_columns = b",".join(b'"%d":[{}]' % place for place in range(n // 13))
    return {
        "wrong ids": b'{"session":[' + b",".join([b"[]"] * (n // 3)) + b"]}",
        "wrong sessions": b'{"sessions":[' + b",".join([b"{}"] * (n // 3)) + b"]}",
        "sessions of a wrong id": b'{"sessions":[' + b",".join([b"[{}]"] * (n // 5)) + b"]}",
        "unknown fields": b"{" + b",".join(b'"%d":1' % place for place in range(n // 10)) + b"}",
        "wrong columns": b'{"session":[1],"where":{' + many_columns + b"}}",
        "wrong values": b'{"session":[1],"where":{"brand":[' + b",".join([b"{}"] * (n // 3)) + b"]}}",
        "many ids": b'{"session":[' + b",".join([b"7"] * (n // 2)) + b"]}",
        "a long number": b'{"session":[' + b"9" * n + b"]}",
        "a long text": b'{"session":["' + b"9" * n + b'"]}',
        "a long name": b'{"' + b"x" * n + b'":1}',
        "a long column": b'{"session":[1],"where":{"' + b"x" * n + b'":[1]}}',
        "depth": b"[" * n,
    }


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "items.csv").write_text(
        "ItemId,Title,brand,price,isNew\n"
        + "".join(f"{n},Lamp {n},{'acme' if n % 2 else 7},{n / 2},true\n" for n in range(300))
    )
    words = [random_model(folder / "m.gru4rec"), "--catalogue", folder / "items.csv", "--drain", 0]
    patient = ["--max-wait-ms", 60_000, "--timeout-ms", 60_000]  # here, nothing may be turned away unread
    with served(*words, *patient, log=folder / "log") as service:
        yield service


def rss(service: Running) -> int:
    return int(psutil.Process(service.pid).memory_info().rss)


def cpu_s(service: Running) -> float:
    times = psutil.Process(service.pid).cpu_times()
    return float(times.user + times.system)


def test_ten_thousand_hostile_bodies_are_answered_without_a_mistake(service: Running) -> None:
    right = service.recommend([1, 2, 3], k=5)
    statuses: Counter[tuple[str, int]] = Counter()
    slowest_s, wrong = [0.0] * N_THREADS, []

    def send(number: int) -> None:
        rng = random.Random(number)
        for _ in range(N_BODIES // N_THREADS):
            path, body = rng.choice(PATHS), hostile(rng)
            started = time.monotonic()
            status, answer = service.ask("POST", path, body)
            slowest_s[number] = max(slowest_s[number], time.monotonic() - started)
            statuses[path, status] += 1
            if status != 200 and not is_problem(status, answer):
                wrong.append((path, body, status, answer))

    before = rss(service)
    in_threads(send)
    assert wrong == []
    assert sum(statuses.values()) == N_BODIES
    assert min(statuses[path, status] for path in PATHS for status in (200, 422)) > 30  # it went both ways
    assert {status for _, status in statuses} <= {200, 404, 422}
    assert max(slowest_s) < SLOWEST_S
    assert rss(service) < before + GROWTH_BYTES
    assert service.recommend([1, 2, 3], k=5) == right
    assert "traceback" not in service.said()


@pytest.mark.parametrize("path", PATHS)
def test_large_body_is_refused_soon_and_briefly(service: Running, path: str) -> None:
    service.ask("POST", path, large()["wrong ids"])
    before = rss(service)
    for name, body in large().items():
        before_s = cpu_s(service)
        status, answer = service.ask("POST", path, body)
        assert cpu_s(service) - before_s < MOST_CPU_S, name
        assert is_problem(status, answer), (name, answer)
        assert status == 422, name
        assert len(answer["error"]["message"]) < 1100, name
    assert rss(service) < before + GROWTH_BYTES


def test_ten_megabytes_are_not_read(service: Running) -> None:
    before = rss(service)
    for path in PATHS:
        for head in ("Content-Length: 10000000", "Transfer-Encoding: chunked"):
            with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
                connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode())
                try:
                    for _ in range(10):
                        connection.sendall(b"F4240\r\n" + b" " * 1_000_000 + b"\r\n")
                except OSError:  # it has been cut off already
                    continue
                assert connection.recv(100).startswith(b"HTTP/1.1 413 ")
    assert rss(service) < before + 20_000_000
    assert service.recommend([1, 2, 3], k=1)["items"]


def is_problem(status: int, answer: Any) -> bool:
    """Tell whether an answer says, in the agreed form, that the caller was wrong."""
    return 400 <= status < 500 and list(answer) == ["error"] and sorted(answer["error"]) == ["code", "message"]


def in_threads(work: Callable[[int], None]) -> None:
    failures: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(N_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


# --- the OpenAPI document, by another program ---

RESPONSES = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,unsupported_method,allow_header_conformance,ignored_auth,negative_data_rejection"
)
SCHEMATHESIS = f"""
[auth.openapi.api_key]
bearer = "{KEYS["GRU4REC_API_KEYS"]}"
[auth.openapi.admin_key]
bearer = "{KEYS["GRU4REC_ADMIN_KEYS"]}"
[checks.negative_data_rejection]
expected-statuses = ["401", "404", "405", "413", "422"]
"""


@pytest.mark.parametrize(
    ("env", "phases", "checks"),
    [
        # to JSON Schema 7.0 is an integer and to us it is none: only the coverage phase leaves it out
        ({}, "coverage", f"{RESPONSES},positive_data_acceptance"),
        (KEYS, "fuzzing,stateful", RESPONSES),
    ],
    ids=["open", "keys"],
)
def test_openapi_document_says_what_the_service_does(
    tmp_path: Path, env: dict[str, str], phases: str, checks: str
) -> None:
    program = shutil.which("schemathesis", path=sysconfig.get_path("scripts"))
    if program is None:
        pytest.skip("no schemathesis: pip install schemathesis")
    (tmp_path / "schemathesis.toml").write_text(SCHEMATHESIS)
    with served(random_model(tmp_path / "m.gru4rec"), "--drain", 0, log=tmp_path / "log", env=env) as service:
        document = f"http://127.0.0.1:{service.port}/openapi.json"
        words = ["--seed", "1", "--max-examples", "15", "--phases", phases, "--checks", checks, "--no-color"]
        done = subprocess.run(
            [program, "run", document, *words], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout[-5000:]
        n_operations = 11 if env else 10  # without an admin key there is no /admin/reload
        assert f"{n_operations} selected / {n_operations} total" in done.stdout
        n_answered = service.metric("gru4rec_requests_total")
        assert n_answered > 150, done.stdout
        assert "traceback" not in service.said()
