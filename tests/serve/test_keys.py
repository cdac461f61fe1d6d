"""Keys: whoever has none gets nothing, however the request is put."""

from __future__ import annotations

import hmac
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from serve.running import COMMAND, Running, free_port, served
from serve.small_models import random_model

from gru4rec.errors import ConfigError
from gru4rec.serve.http import keys as keys_module
from gru4rec.serve.http.keys import read_keys

API, OTHER_API, ADMIN = "Api-key-0123456789", "api+key/of=another~", "Admin-key-987654321"
OPEN = ["/", "/docs", "/healthz", "/readyz", "/metrics", "/openapi.json", "/page/playground.js"]
REFUSED, NONE = 401, 404


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Both kinds of keys, from files."""
    folder = tmp_path_factory.mktemp("keys")
    (folder / "api.txt").write_text(f"# the shop\n{API}\n\n  {OTHER_API}  \n")
    (folder / "admin.txt").write_text(f"{ADMIN}\n")
    words = [random_model(folder / "m.gru4rec"), "--keys", folder / "api.txt", "--admin-keys", folder / "admin.txt"]
    with served(*words, "--drain", 0, log=folder / "log") as service:
        yield service


@pytest.fixture(scope="module")
def half_open(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """API keys from the environment, and no admin key."""
    folder = tmp_path_factory.mktemp("half_open")
    env = {"GRU4REC_API_KEYS": f"{API}\n{OTHER_API}"}
    with served(random_model(folder / "m.gru4rec"), "--drain", 0, log=folder / "log", env=env) as service:
        yield service


def talk(service: Running, target: str | bytes, *headers: str, method: str = "GET", body: bytes = b"") -> bytes:
    """Send a request as it is spelled, on a connection of its own; return all that comes."""
    raw = target.encode() if isinstance(target, str) else target
    lines = ["Host: x", "Connection: close", f"Content-Length: {len(body)}", *headers]
    head = method.encode() + b" " + raw + b" HTTP/1.1\r\n" + "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
        connection.sendall(head + body)
        answer = b""
        while part := connection.recv(65_536):
            answer += part
    return answer


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def bearer(key: str) -> str:
    return f"Authorization: Bearer {key}"


def closed_operations(service: Running) -> list[tuple[str, str]]:
    """Return method and path of all that the OpenAPI document says wants a key, and paths that are in no document."""
    paths = service.ask("GET", "/openapi.json")[1]["paths"]
    found = [
        (method.upper(), re.sub(r"{\w+}", "7", path))
        for path, methods in paths.items()
        for method in methods
        if path not in OPEN
    ]
    assert len(found) == 8  # one that is added is asked too; whoever adds it counts it here
    found += [("GET", "/v1/items/7/picture"), ("GET", "/v1/nothing"), ("GET", "/nothing"), ("PUT", "/v1/model")]
    return [*found, ("GET", "/v1/items/a/page/7/similar"), ("GET", "/v1/items//page/7/picture")]  # ids may hold slashes


def wrong_headers(key: str) -> list[list[str]]:
    """Return headers without a key that fits: what somebody without it sends, or with a mistake."""
    return [
        [],
        ["Authorization:"],
        ["Authorization: Bearer"],
        [bearer("nonsense-of-20-chars")],
        [bearer(key[:-1])],
        [bearer(key + "x")],
        [bearer(f"{key[:4]} {key[4:]}")],
        [bearer(key.swapcase())],
        [bearer(f'"{key}"')],
        [bearer(f"{key},{key}")],
        [bearer(f"{key}\xe9")],
        [f"Authorization: {key}"],
        [f"Authorization: Bearer{key}"],
        [f"Authorization: Bearer\t{key}"],
        [f"Authorization: Basic {key}"],
        [f"Authorization: Token {key}"],
        [bearer(key), bearer(key)],
        [bearer(key), bearer("nonsense-of-20-chars")],
        [bearer("nonsense-of-20-chars"), bearer(key)],
        [f"X-API-Key: {key}"],
        [f"Proxy-Authorization: Bearer {key}"],
        [f"Authorization_: Bearer {key}"],
        [f"Cookie: Authorization=Bearer {key}; key={key}"],
        [f"X-Forwarded-For: 127.0.0.1, {key}", "X-Original-URL: /healthz", "X-HTTP-Method-Override: GET"],
    ]


def test_every_path_refuses_every_wrong_key_and_takes_the_right_one(service: Running) -> None:
    for method, path in closed_operations(service):
        right, of_other_kind = (ADMIN, API) if path.startswith("/admin") else (API, ADMIN)
        for headers in [*wrong_headers(right), [bearer(of_other_kind)]]:
            answer = talk(service, path, *headers, method=method)
            assert status_of(answer) == REFUSED, (method, path, headers)
            assert b"www-authenticate: Bearer" in answer
            assert b'"code":"unauthorized"' in answer
        assert status_of(talk(service, f"{path}?key={right}&access_token={right}", method=method)) == REFUSED
        assert status_of(talk(service, path, bearer(right), method=method)) != REFUSED


def test_refusal_says_what_to_send_and_not_what_was_sent(service: Running) -> None:
    answer = talk(service, "/v1/model", bearer("nonsense-of-20-chars"))
    assert b'"message":"this path wants an API key: Authorization: Bearer KEY"' in answer
    assert b"this path wants an admin key" in talk(service, "/admin/reload", method="POST")
    assert b"nonsense" not in answer
    assert "nonsense" not in service.said()


@pytest.mark.parametrize("key", [API, OTHER_API])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_each_key_opens(service: Running, half_open: Running, key: str, scheme: str) -> None:
    for each in (service, half_open):
        assert status_of(talk(each, "/v1/model", f"Authorization: {scheme} {key}")) == 200


@pytest.mark.parametrize("path", OPEN)
def test_open_path_needs_no_key_and_minds_no_wrong_one(service: Running, half_open: Running, path: str) -> None:
    for each in (service, half_open):
        assert status_of(talk(each, path)) == 200
        assert status_of(talk(each, path, bearer("nonsense-of-20-chars"))) == 200
        assert status_of(talk(each, path, method="HEAD")) == 200


def test_admin_does_not_exist_without_an_admin_key(half_open: Running) -> None:
    for headers in ([], [bearer(API)], [bearer("")], [bearer(ADMIN)]):
        for target in ("/admin/reload", "/admin", "/Admin/reload", "//admin/reload", "/%61dmin/reload"):
            assert status_of(talk(half_open, target, *headers, method="POST")) == NONE
    assert half_open.metric("gru4rec_reloads_total") == 0


def spelled(path: str) -> list[str | bytes]:
    """Return request targets that some program might take for a path or for an open one."""
    first, rest = path[1:].split("/", 1)
    return [
        f"/{path}",
        f"/{first}//{rest}",
        f"/{first.upper()}/{rest}",
        f"/{path[1:].title()}",
        f"{path}/",
        f"{path}/.",
        f"/.{path}",
        f"/x/..{path}",
        f"/%2e{path}",
        f"/%2e%2e{path}",
        f"/%2F{path[1:]}",
        f"/{first}%2f{rest}",
        f"/{first}%252f{rest}",
        f"/{first}\\{rest}",
        f"/%{ord(first[0]):x}{path[2:]}",
        f"/healthz/..{path}",
        f"/healthz/%2e%2e{path}",
        f"/healthz%2f..{path}",
        f"/healthz%00{path}",
        f"/healthz;{path}",
        f"/page/..{path}",
        f"/page/../..{path}",
        f"/page/%2e%2e{path}",
        f"/page/..%2f{path[1:]}",
        f"/page/%2e%2e%2f{path[1:].replace('/', '%2f')}",
        f"/page/{path}",
        f"/admin/..{path}",
        f"/docs/..{path}",
        f"{path};x=y",
        f"{path};/page/",
        f"{path}%00",
        f"{path}%00/page/",
        f"{path}%20",
        f"{path}%0a",
        f"{path}%3f/page/",
        f"{path}?/page/",
        f"{path}?/healthz",
        f"{path}#/page/",
        f"http://x{path}",
        f"http://x/healthz/..{path}",
        f"http://127.0.0.1{path}",
        f"https://user:{API}@x{path}",
        f"{path} /healthz",
        f"/healthz {path}",
        f"*{path}",
        path[1:],
        path.encode() + b"\x00",
        path.encode() + b"\xc3\xa9",
        path.replace(first[0], "%ef%bc%" + f"{0x80 + ord(first[0]) - 0x60:x}").encode(),  # its full-width twin
    ]


@pytest.mark.parametrize(
    ("path", "method", "body"),
    [
        ("/v1/model", "GET", b""),
        ("/v1/items", "GET", b""),
        ("/v1/items/7/similar", "GET", b""),
        ("/v1/sessions/known", "GET", b""),
        ("/v1/recommend", "POST", b'{"session": [7]}'),
        ("/v1/sessions/new/events", "POST", b'{"item": 7}'),
        ("/admin/reload", "POST", b""),
    ],
)
def test_no_spelling_of_a_path_gets_past_the_keys(service: Running, path: str, method: str, body: bytes) -> None:
    known = talk(service, "/v1/sessions/known/events", bearer(API), method="POST", body=b'{"item": 7}')
    assert status_of(known) == 200
    n_reloads = service.metric("gru4rec_reloads_total")
    for target in spelled(path):
        for headers in ([], [bearer("nonsense-of-20-chars")], [bearer(ADMIN if path.startswith("/v1") else API)]):
            answer = talk(service, target, *headers, method=method, body=body)
            status, _, content = status_of(answer), *answer.partition(b"\r\n\r\n")[1:]
            is_health = status == 200 and b'"status":"ok"' in content
            assert status in (400, 401, 404, 405) or is_health, (target, answer)
            assert not any(data in content for data in (b'"items"', b'"models"', b'"n_clicks"', b'"session"')), target
    assert service.metric("gru4rec_reloads_total") == n_reloads
    assert status_of(talk(service, "/v1/sessions/new", bearer(API))) == NONE


def test_no_spelling_reaches_a_reload_where_only_the_admin_has_a_key(tmp_path: Path) -> None:
    env = {"GRU4REC_ADMIN_KEYS": ADMIN}
    with served(random_model(tmp_path / "m.gru4rec"), "--drain", 0, log=tmp_path / "log", env=env) as service:
        for target in spelled("/admin/reload"):
            assert status_of(talk(service, target, bearer(API), method="POST")) in (400, 401, 404, 405), target
        assert service.metric("gru4rec_reloads_total") == 0
        assert status_of(talk(service, "/v1/model")) == 200
        assert status_of(talk(service, "/admin/reload", bearer(ADMIN), method="POST")) == 200
        assert service.metric("gru4rec_reloads_total") == 1


def test_web_socket_gets_nothing(service: Running) -> None:
    upgrade = ["Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"]
    lines = ["GET /v1/model HTTP/1.1", "Host: x", "Connection: Upgrade", *upgrade]
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n")
        assert status_of(connection.recv(65_536)) in (400, 401, 403)


def test_request_that_is_smuggled_behind_an_open_one_wants_its_own_key(service: Running) -> None:
    inner = b"GET /v1/model HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    first = f"GET /healthz HTTP/1.1\r\nHost: x\r\n{bearer(API)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
        connection.sendall(first + inner)
        answer = b""
        while part := connection.recv(65_536):
            answer += part
    assert [int(status) for status in re.findall(rb"HTTP/1.1 (\d+)", answer)] == [200, 401]


def test_all_keys_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def noted(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return compare(one, other)

    monkeypatch.setattr(keys_module.hmac, "compare_digest", noted)
    digests = [keys_module._digest(key) for key in (API, OTHER_API, ADMIN)]
    for key, fits in ((API, True), (ADMIN, True), ("", False), (API[:-1], False), ("é" * 10_000, False)):
        compared.clear()
        assert keys_module._fits(key.encode(), digests) is fits
        assert compared == [(32, 32)] * 3  # as many, and as long, whichever fits


# --- files ---


def test_keys_are_read_line_by_line(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"# remark\r\n\r\n{API}\r\n  {OTHER_API}\t\r\n")
    assert read_keys(str(tmp_path / "keys"), None, what="API keys") == (API, OTHER_API)
    assert read_keys(None, f"{API}\n{OTHER_API}\n", what="API keys") == (API, OTHER_API)
    assert read_keys(str(tmp_path / "keys"), "of-the-environment-00", what="API keys") == (API, OTHER_API)
    assert read_keys(None, None, what="API keys") == ()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read the {what} in {file}: No such file or directory. Write one key a line"),
        ("folder", "cannot read the {what} in {file}: Is a directory. Write one key a line"),
        (b"", "{file} holds no {what}. Write one a line, or leave it away"),
        (b"\n# nothing\n \n", "{file} holds no {what}. Write one a line, or leave it away"),
        (b"\x80\xff\x00key", "cannot read the {what} in {file}: it is not text. Write one key a line"),
        (b"\x00" * 40, "the {what} number 1 is no key"),
        (b"long-enough-for-a-key\nshort-key-of-15\n", "the {what} number 2 is no key: it takes 16 letters or more"),
        (b"long enough but with spaces", "the {what} number 1 is no key"),
        ("höchst-geheimer-schlüssel".encode(), "the {what} number 1 is no key"),
    ],
)
def test_key_file_that_cannot_be_used_says_why(tmp_path: Path, content: bytes | str | None, said: str) -> None:
    file = tmp_path / "keys.txt"
    if content == "folder":
        file.mkdir()
    elif isinstance(content, bytes):
        file.write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        read_keys(str(file), None, what="admin keys")
    (message,) = str(raised.value).splitlines()
    assert said.format(what="admin keys", file=file) in message
    assert "of-15" not in message


def test_environment_that_holds_no_key_does_not_open_the_service() -> None:
    with pytest.raises(ConfigError, match=r"the environment holds no API keys\. Write one a line, or leave it away"):
        read_keys(None, "", what="API keys")


@pytest.mark.parametrize(
    ("words", "env", "said"),
    [
        (["--keys", "short.txt"], {}, "the API keys number 1 is no key"),
        (["--admin-keys", "none.txt"], {}, "cannot read the admin keys in none.txt"),
        ([], {"GRU4REC_API_KEYS": "too-short"}, "the API keys number 1 is no key"),
        ([], {"GRU4REC_ADMIN_KEYS": ""}, "the environment holds no admin keys"),
    ],
)
def test_start_without_usable_keys_exits_2_with_one_message(
    tmp_path: Path, words: list[str], env: dict[str, str], said: str
) -> None:
    (tmp_path / "short.txt").write_text("too-short\n")
    command = [*COMMAND, "serve", str(random_model(tmp_path / "m.gru4rec")), "--port", str(free_port()), *words]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    (message,) = done.stderr.splitlines()
    assert said in message
    assert "too-short" not in message
