"""What one request may ask and cost, and what the answer says: right lists, clear refusals, no trace of who asked."""

from __future__ import annotations

import csv
import http.client
import json
import socket
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from serve.running import Running, served
from serve.small_models import random_model

from gru4rec.bundle import load_bundle
from gru4rec.serve.recommender import Recommender

N_ITEMS = 60
BRANDS = ("acme", "bolt", "7")
SMALL_LIMITS = ["--max-k", 50, "--max-clicks", 6, "--max-sessions", 3, "--max-body", 60_000, "--body-timeout", 2]
ADMIN = {"GRU4REC_ADMIN_KEYS": "the-admin-key-0001"}


def catalogue_row(item_id: int) -> dict[str, Any]:
    """Return what the catalogue says of an item: a brand, a price, whether it is new; every tenth item is not in it."""
    return {
        "ItemId": item_id,
        "Title": f"Lamp {item_id}",
        "brand": BRANDS[item_id % 3],
        "price": item_id / 2,
        "isNew": "true" if item_id % 4 == 0 else "false",
    }


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model(tmp_path_factory.mktemp("limits") / "m.gru4rec", n_items=N_ITEMS)


@pytest.fixture(scope="module")
def service(model: Path) -> Iterator[Running]:
    rows = [catalogue_row(item_id) for item_id in range(N_ITEMS) if item_id % 10]
    with open(model.parent / "items.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    words = [model, "--catalogue", model.parent / "items.csv", "--access-log", "--drain", 0, *SMALL_LIMITS]
    with served(*words, log=model.parent / "log", env=ADMIN) as service:
        yield service


@pytest.fixture(scope="module")
def text_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Twelve items whose ids are text, and a web origin that may ask."""
    folder = tmp_path_factory.mktemp("text")
    path = random_model(folder / "t.gru4rec", n_items=12, text_ids=True)
    with served(path, "--cors", "https://shop.example", "--drain", 0, log=folder / "log") as service:
        yield service


def refused(service: Running, body: Any, status: int = 422, path: str = "/v1/recommend") -> str:
    """Send what has to be refused; return the message."""
    answered, answer = service.ask("POST", path, body)
    assert answered == status, answer
    assert list(answer) == ["error"]
    return str(answer["error"]["message"])


def talk(service: Running, content: bytes, *, timeout: float = 10) -> bytes:
    """Send bytes, and return what comes until the other side closes the connection."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=timeout) as connection:
        connection.sendall(content)
        answer = b""
        while part := connection.recv(65_536):
            answer += part
    return answer


def headed(
    service: Running, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = {}
) -> tuple[int, Any]:
    """Send a request on a new connection; return status and headers."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=10)
    connection.request(method, path, body, dict(headers))
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status, response.headers


# --- bodies ---

HEAD = b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\n"


def test_body_that_is_declared_too_large_is_refused_before_it_comes(service: Running) -> None:
    started = time.monotonic()
    answer = talk(service, HEAD + b"Content-Length: 60001\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.endswith(b'"message":"the body is larger than 60,000 bytes. Send less at once"}}')
    assert time.monotonic() - started < 1


def test_body_of_unknown_length_is_refused_once_it_is_too_large(service: Running) -> None:
    chunk = b"1388\r\n" + b" " * 5000 + b"\r\n"
    answer = talk(service, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + 13 * chunk)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer


def test_largest_body_is_read_whichever_way_it_comes(service: Running) -> None:
    body = json.dumps({"session": [1], "k": 3}).encode().ljust(60_000)
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:7], body[7:9000], body[9000:]))
    close = b"Connection: close\r\n"
    for rest in (
        b"Content-Length: 60000\r\n\r\n" + body,
        b"Transfer-Encoding: chunked\r\n\r\n" + chunked + b"0\r\n\r\n",
    ):
        answer = talk(service, HEAD + close + rest)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2]) == service.recommend([1], k=3)


def test_body_that_trickles_is_given_up(service: Running) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
        connection.sendall(HEAD + b"Content-Length: 100\r\n\r\n")
        started = time.monotonic()
        answer = b""
        connection.settimeout(0.2)
        while not answer:
            connection.sendall(b" ")
            try:
                answer = connection.recv(10_000)
            except TimeoutError:
                assert time.monotonic() - started < 4.5
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"the body took longer than 2 s. Send it at once" in answer
    assert b"connection: close" in answer
    assert time.monotonic() - started > 1.9


@pytest.mark.parametrize(
    "length", ["abc", "-5", "5.0", "0x10", "", "1e3", "5, 6", "99999999999999999999999", "5\r\nContent-Length: 6"]
)
def test_content_length_that_is_none_is_refused(service: Running, length: str) -> None:
    answer = talk(service, HEAD + f"Content-Length: {length}\r\n\r\n".encode() + b"      ")
    assert answer.split(b" ")[1] in (b"400", b"413")


# --- what a request may ask ---


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"session": [1], "k": 51}, "k: 51 is above 50. Ask for fewer"),
        ({"session": [1], "k": 0}, "k: Input should be greater than or equal to 1"),
        ({"session": [1], "k": "5"}, "k: Input should be a valid integer"),
        ({"session": [1] * 7}, "session: 7 clicks, and it may have 6. Send the newest ones"),
        ({"sessions": [[1], [1] * 7]}, "session: 7 clicks, and it may have 6. Send the newest ones"),
        ({"sessions": [[1]] * 4}, "sessions: 4 of them, and a request may have 3. Send several"),
        ({"sessions": []}, "sessions: List should have at least 1 item after validation, not 0"),
        ({"session": [1], "sessions": [[1]]}, "body: give either session or sessions"),
        ({}, "body: give either session or sessions"),
        ({"session": [1], "colour": "red"}, "colour: there is no such field. /docs shows those there are"),
        ({"session": [1.5]}, "session.0: an item id is an integer of 64 bits, or text of up to 512 characters"),
        ({"sessions": [[1], [2, True]]}, "sessions.1.1: an item id is an integer of 64 bits, or text of up to 512 ch"),
        ({"session": [2**63]}, "session.0: an item id is an integer of 64 bits"),
        ({"session": ["x" * 513]}, "session.0: an item id is an integer of 64 bits"),
        ({"session": [1], "exclude": [1] * 10_001}, "exclude: List should have at most 10000 items"),
        ({"session": [1], "allow": [1] * 10_001}, "allow: List should have at most 10000 items"),
        ({"session": [1], "allow": 5}, "allow: Input should be a valid array"),
        ({"session": [1], "where": {"brand": ["a"] * 10_001}}, "where.brand: List should have at most 10000 items"),
        ({"session": [1], "where": {"brand": [{}]}}, "where.brand.0: a value is a number, true, false, or text of up"),
        ({"session": [1], "where": {str(n): [] for n in range(21)}}, "where: Dictionary should have at most 20 items"),
        (
            {"session": [1], "where": {"size": [1]}},
            "no column 'size' to filter by (the catalogue has: brand, price, isN",
        ),
        ({"session": [1], "model": "best"}, "model: Input should be 'main' or 'compare'"),
        ({"session": [1], "x" * 9000: 1}, "x" * 64 + ": there is no such field"),
        ({str(n): 1 for n in range(1001)}, "body: more than 1,000 fields are wrong. /docs says what it may hold"),
        ([1], "body: Input should be an object"),
    ],
)
def test_request_that_is_wrong_is_told_what_and_where(service: Running, body: Any, message: str) -> None:
    assert refused(service, json.dumps(body, separators=(",", ":")).encode()).startswith(message)


def test_request_for_a_model_that_is_not_there_is_told_which_are(service: Running) -> None:
    message = refused(service, {"session": [1], "model": "compare"}, 404)
    assert message == "there is no model 'compare' here, only main"


def test_only_the_first_wrong_id_is_named(service: Running) -> None:
    message = refused(service, {"sessions": [[1, None, None], [None]]})
    assert message == "sessions.0.1: an item id is an integer of 64 bits, or text of up to 512 characters"


def test_message_repeats_little_of_what_was_sent(service: Running) -> None:
    message = refused(service, {"session": [1], "where": {"x" * 15_000: [1]}})
    assert len(message) == 1003
    assert message.endswith("...")


@pytest.mark.parametrize("path", ["/v1/items?limit=51", "/v1/items/1/similar?k=51"])
def test_lists_in_the_query_are_limited_too(service: Running, path: str) -> None:
    status, answer = service.ask("GET", path)
    assert (status, answer["error"]["code"]) == (422, "invalid_request")
    assert answer["error"]["message"].endswith(": 51 is above 50. Ask for fewer")


def test_session_id_of_other_characters_is_refused(service: Running) -> None:
    for name in ("a%20b", "a%2fb", "%c3%a9", "x" * 129, "a%0a", "a%00"):
        for method, rest, body in (("GET", "", None), ("DELETE", "", None), ("POST", "/events", b'{"item": 1}')):
            status, answer = service.ask(method, f"/v1/sessions/{name}{rest}", body)
            assert status in (404, 422), name
            assert status == 404 or answer["error"]["message"].startswith("session_id: String should match pattern")


# --- lists ---


def all_scores(model: Path, session: list[int]) -> dict[int, float]:
    """Return the score of every item, by a recommender of our own."""
    found = Recommender.load(model).recommend(session, N_ITEMS)
    return dict(zip(found.item_ids, found.scores, strict=True))


FILTERS: list[dict[str, Any]] = [
    {},
    {"exclude": [3, 14, "15", 999, "nothing"]},
    {"exclude_seen": True},
    {"exclude_current": True},
    {"allow": [1, 2, 3, "4", 5, 12, 999]},
    {"allow": []},
    {"where": {"brand": ["acme"]}},
    {"where": {"brand": ["acme", 7]}},
    {"where": {"price": [1, 2.5, "3", 1000]}},
    {"where": {"isNew": [True], "brand": ["bolt", "7"]}},
    {"where": {"brand": []}},
    {"where": {"brand": ["nobody"]}},
    {"exclude": [1], "exclude_seen": True, "allow": [1, 2, 3, 5, 12, 24, 25, 44], "where": {"isNew": [True, False]}},
    {"exclude": list(range(N_ITEMS))},
]


def may_stand(item_id: int, session: list[int], options: Mapping[str, Any]) -> bool:
    """Tell whether an item may stand in a list, one rule after the other."""
    row = catalogue_row(item_id) if item_id % 10 else {}
    row = {name: str(value).removesuffix(".0").lower() for name, value in row.items()}
    for column, values in options.get("where", {}).items():
        if row.get(column) not in [str(value).removesuffix(".0").lower() for value in values]:
            return False
    if "allow" in options and str(item_id) not in map(str, options["allow"]):
        return False
    if options.get("exclude_seen") and item_id in session:
        return False
    if options.get("exclude_current") and item_id == session[-1]:
        return False
    return str(item_id) not in map(str, options.get("exclude", []))


@pytest.mark.parametrize("options", FILTERS)
@pytest.mark.parametrize("k", [1, 5, 50])
def test_list_holds_the_best_items_that_may_stand_in_it(
    service: Running, model: Path, options: dict[str, Any], k: int
) -> None:
    session = [12, 3, 44, 3, 25]
    scores = all_scores(model, session)
    wanted = sorted((item_id for item_id in scores if may_stand(item_id, session, options)), key=lambda i: -scores[i])
    answer = service.recommend(session, k=k, **options)
    assert [item["id"] for item in answer["items"]] == wanted[:k]
    assert [item["score"] for item in answer["items"]] == [scores[item_id] for item_id in wanted[:k]]
    assert (answer["unknown"], answer["popular"]) == ([], False)


@pytest.mark.parametrize("options", FILTERS)
def test_kept_session_gets_the_same_list(service: Running, options: dict[str, Any]) -> None:
    service.ask("DELETE", "/v1/sessions/same")
    for item_id in (12, 3, 44, 3):
        service.click("same", item_id)
    answer = service.click("same", 25, **options)
    whole = service.recommend([12, 3, 44, 3, 25], **options)
    assert {name: answer[name] for name in whole} == whole
    assert (answer["n_clicks"], answer["degraded"]) == (5, False)


def test_several_sessions_get_the_lists_they_get_alone(service: Running) -> None:
    sessions: list[list[Any]] = [[1, 2, 3], [], ["4", 999]]
    status, answer = service.ask("POST", "/v1/recommend", {"sessions": sessions, "k": 4, "details": True})
    assert status == 200
    assert sorted(answer) == ["lists", "model", "model_version"]
    for session, found in zip(sessions, answer["lists"], strict=True):
        alone = service.recommend(session, k=4, details=True)
        assert {name: alone[name] for name in found} == found
    assert answer["lists"][0]["items"][0].keys() == {"id", "score", "title", "picture"}


def test_default_length_is_twenty_and_no_longer_than_the_model(service: Running, text_service: Running) -> None:
    assert len(service.recommend([1])["items"]) == 20
    assert len(text_service.recommend(["item-1"])["items"]) == 12
    assert len(text_service.recommend([], k=100)["items"]) == 12


def test_unknown_ids_are_skipped_and_named(service: Running) -> None:
    answer = service.recommend([1, 999, "2", "", -1, "nothing"], k=5)
    assert answer["unknown"] == [999, "", -1, "nothing"]
    assert answer["items"] == service.recommend([1, 2], k=5)["items"]
    assert not answer["popular"]


@pytest.mark.parametrize("session", [[], [999], ["nothing", -5]])
def test_session_without_a_known_item_gets_what_was_clicked_most(
    service: Running, model: Path, session: list[Any]
) -> None:
    bundle = load_bundle(model)
    order = np.argsort(-bundle.support)
    answer = service.recommend(session, k=10)
    assert [item["id"] for item in answer["items"]] == bundle.items.ids_of(order[:10])
    assert [item["score"] for item in answer["items"]] == bundle.support[order[:10]].tolist()
    assert (answer["popular"], answer["unknown"]) == (True, session)


def test_text_and_integers_that_spell_the_same_are_one_item(service: Running) -> None:
    for session in ([5, 7], ["5", "7"], [5, "7"]):
        assert service.recommend(session)["items"] == service.recommend([5, 7])["items"]
    assert service.recommend(["05", "7.0", " 7"])["unknown"] == ["05", "7.0", " 7"]


def test_text_ids_come_back_as_text(text_service: Running) -> None:
    answer = text_service.recommend(["item-3", 3, "item-12"], k=3)
    assert answer["unknown"] == [3, "item-12"]
    assert all(item["id"].startswith("item-") for item in answer["items"])


# --- similar items ---


@pytest.mark.parametrize("k", [1, 10, 50])
def test_similar_items_are_those_with_the_smallest_angle(service: Running, model: Path, k: int) -> None:
    bundle = load_bundle(model)
    vectors = bundle.weights["Wy.weight"].astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    item_idx = bundle.items.index_of(17)
    cosine = vectors @ vectors[item_idx]
    cosine[item_idx] = -np.inf
    order = np.argsort(-cosine)[:k]
    status, answer = service.ask("GET", f"/v1/items/17/similar?k={k}&details=true")
    assert (status, answer["by"], answer["model"]) == (200, "cosine", "main")
    assert [item["id"] for item in answer["items"]] == bundle.items.ids_of(order)
    assert [item["score"] for item in answer["items"]] == pytest.approx(cosine[order].tolist(), abs=1e-5)
    assert {item["title"] for item in answer["items"]} <= {None, *(f"Lamp {item_id}" for item_id in range(N_ITEMS))}


def test_similar_items_are_all_others_where_there_are_fewer(text_service: Running) -> None:
    status, answer = text_service.ask("GET", "/v1/items/item-3/similar?k=100")
    assert (status, len(answer["items"])) == (200, 11)


@pytest.mark.parametrize("item_id", ["999", "nothing", "%c3%a9", "a%2fb", "", "%00"])
def test_similar_to_nothing_is_not_found(service: Running, item_id: str) -> None:
    status, answer = service.ask("GET", f"/v1/items/{item_id}/similar")
    assert (status, answer["error"]["message"]) == (404, "the model does not know this item")


# --- methods, headers, other origins ---


def test_head_is_answered_like_get_without_a_body(service: Running) -> None:
    for path in ("/", "/docs", "/healthz", "/readyz", "/v1/model", "/v1/items", "/openapi.json"):
        status, headers = headed(service, "GET", path)
        head_status, head_headers = headed(service, "HEAD", path)
        assert (head_status, head_headers["Content-Type"]) == (status, headers["Content-Type"]), path
        assert head_headers["Content-Length"] == headers["Content-Length"], path
    answer = talk(service, b"HEAD /v1/nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/recommend", "POST"),
        ("/v1/model", "GET, HEAD"),
        ("/v1/sessions/someone", "DELETE, GET, HEAD"),
        ("/v1/sessions/someone/events", "POST"),
        ("/", "GET, HEAD"),
    ],
)
@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_told_those_there_are(service: Running, path: str, allowed: str, method: str) -> None:
    status, headers = headed(service, method, path)
    assert (status, headers["Allow"]) == (405, allowed)
    assert service.ask(method, path)[1]["error"]["code"] == "method_not_allowed"


def test_path_that_is_none_says_so_and_leads_nowhere(service: Running) -> None:
    for path in ("/v1/nothing", "/v1/model/", "/favicon.ico", "/page/nothing.js", "/page/..%2fsettings.py"):
        status, headers = headed(service, "GET", path)
        assert status == 404
        assert "Location" not in headers
        assert service.ask("GET", path)[1]["error"]["code"] == "not_found"


def test_answers_are_kept_by_nobody_and_taken_for_nothing_else(service: Running) -> None:
    for method, path, body in (
        ("GET", "/v1/model", None),
        ("POST", "/v1/recommend", b'{"session": [1]}'),
        ("POST", "/v1/recommend", b"nonsense"),
        ("GET", "/nothing", None),
    ):
        headers = headed(service, method, path, body)[1]
        assert headers["Content-Type"] == "application/json"
        assert (headers["X-Content-Type-Options"], headers["Cache-Control"]) == ("nosniff", "no-store")
        assert "Server" not in headers
    for path in ("/", "/docs"):
        headers = headed(service, "GET", path)[1]
        assert (headers["X-Content-Type-Options"], headers["Referrer-Policy"]) == ("nosniff", "no-referrer")
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "script-src 'self';" in headers["Content-Security-Policy"]


ORIGIN = {"Origin": "https://shop.example"}
PREFLIGHT = ORIGIN | {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}


def test_pages_of_other_origins_may_not_ask(service: Running, text_service: Running) -> None:
    assert headed(service, "OPTIONS", "/v1/recommend", headers=PREFLIGHT)[0] == 405
    for asked, headers in ((service, ORIGIN), (text_service, {"Origin": "https://other.example"})):
        answer = headed(asked, "GET", "/v1/model", headers=headers)[1]
        assert not any(name.lower().startswith("access-control-allow-origin") for name in answer)
    other = PREFLIGHT | {"Origin": "https://other.example"}
    assert headed(text_service, "OPTIONS", "/v1/recommend", headers=other)[0] == 400


def test_pages_of_a_named_origin_may_ask(text_service: Running) -> None:
    status, headers = headed(text_service, "OPTIONS", "/v1/recommend", headers=PREFLIGHT)
    assert (status, headers["Access-Control-Allow-Origin"]) == (200, "https://shop.example")
    assert headers["Access-Control-Allow-Methods"] == "GET, POST, DELETE"
    status, headers = headed(text_service, "POST", "/v1/recommend", b"{}", ORIGIN)
    assert (status, headers["Access-Control-Allow-Origin"]) == (422, "https://shop.example")
    assert headers["Access-Control-Expose-Headers"] == "Retry-After"
    assert "Access-Control-Allow-Credentials" not in headers


# --- what is written down ---

TELLING = [
    "visitor-4711",
    "sku-0815",
    "815081508150815",
    "secret-key-of-20-chars",
    "brand-2222",
    "query-3333",
    "agent-44",
]


def test_logs_and_metrics_hold_nothing_of_who_asked_for_what(service: Running) -> None:
    visitor, sku, number, key, brand, query, agent = TELLING
    headers = {
        "Authorization": f"Bearer {key}",
        "User-Agent": agent,
        "X-Forwarded-For": "203.0.113.77",
        "Cookie": f"visitor={visitor}",
        "Referer": f"https://shop.example/{sku}",
    }
    body = {"session": [sku, int(number)], "where": {"brand": [brand]}}
    calls: list[tuple[str, str, Any, int]] = [
        ("POST", "/v1/recommend", body, 200),
        ("POST", "/v1/recommend", {sku: visitor}, 422),
        ("POST", "/v1/recommend", {"session": [1], "where": {sku: [1]}}, 422),
        ("POST", f"/v1/sessions/{visitor}/events", {"item": sku}, 200),
        ("POST", f"/v1/sessions/{visitor}/events", b'{"item": "' + sku.encode(), 422),
        ("GET", f"/v1/sessions/{visitor}", None, 200),
        ("DELETE", f"/v1/sessions/{visitor}", None, 204),
        ("GET", f"/v1/sessions/{visitor}", None, 404),
        ("GET", f"/v1/items/{sku}/similar", None, 404),
        ("GET", f"/v1/items/{sku}/picture", None, 404),
        ("GET", f"/v1/items?query={query}", None, 200),
        ("GET", f"/{visitor}/{sku}?{query}", None, 404),
        ("PUT", f"/v1/sessions/{visitor}", None, 405),
        ("POST", "/admin/reload", None, 401),
    ]
    for method, path, content, status in calls:
        assert service.ask(method, path, content, headers=headers)[0] == status, path
    talk(service, f"GET /{sku} {visitor} HTTP/9.9\r\nHost: {key}\r\n\r\n".encode())
    lines = [event for event in service.events() if event["event"] == "request"]
    assert all(line.keys() == {"time", "level", "event", "route", "status", "ms"} for line in lines)
    assert {line["route"] for line in lines} >= {"/v1/sessions/{session_id}", "/v1/items/{item_id}/similar", "other"}
    written = service.said() + service.ask("GET", "/metrics")[1]
    assert [telling for telling in [*TELLING, "203.0.113.77"] if telling in written] == []


def test_metrics_add_up_to_what_was_sent(service: Running) -> None:
    before = counted(service)
    for _ in range(3):
        service.recommend([1, 999, "nothing"])
    refused(service, b"{")
    service.ask("GET", "/nothing/at/all")
    service.ask("DELETE", "/v1/sessions/never-begun")
    service.click("counted", 5)
    service.ask("GET", "/v1/sessions/counted")
    sent = counted(service) - before
    requests = {key[1:]: n for key, n in sent.items() if key[0] == "gru4rec_requests_total"}
    assert requests == {
        ("/v1/recommend", "200"): 3,
        ("/v1/recommend", "422"): 1,
        ("other", "404"): 1,
        ("/v1/sessions/{session_id}", "404"): 1,
        ("/v1/sessions/{session_id}/events", "200"): 1,
        ("/v1/sessions/{session_id}", "200"): 1,
        ("/metrics", "200"): 1,  # the first of the two
    }
    assert sent["gru4rec_request_seconds_count", "/v1/recommend"] == 4
    assert sent["gru4rec_unknown_items_total",] == 6
    assert sent["gru4rec_batch_sessions_sum",] == 4


def counted(service: Running) -> Counter[Any]:
    """Return what Prometheus would read: numbers by name and labels, without the buckets and times of making."""
    families = text_string_to_metric_families(service.ask("GET", "/metrics")[1])
    return Counter(
        {
            (sample.name, *(sample.labels[name] for name in ("route", "status") if name in sample.labels)): sample.value
            for family in families
            for sample in family.samples
            if not sample.name.endswith(("_bucket", "_created"))
        }
    )


def test_answers_that_say_come_again_say_when(tmp_path: Path) -> None:
    big = random_model(tmp_path / "big.gru4rec", n_items=20_000, layers=(64,))
    words = [big, "--search", "dense", "--batch", 1, "--max-wait-ms", 1, "--timeout-ms", 1, "--drain", 0]
    with served(*words, log=tmp_path / "log") as service:
        body = json.dumps({"sessions": [[1, 2, 3]] * 50}).encode()
        answers = [headed(service, "POST", "/v1/recommend", body) for _ in range(3)]  # 50 are more than 1 ms
        assert {status for status, _ in answers} == {503}
        assert all(headers["Retry-After"] == "1" for _, headers in answers)
        pipelined = b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        connections = [socket.create_connection(("127.0.0.1", service.port), timeout=30) for _ in range(8)]
        for connection in connections:
            connection.sendall(pipelined)
        answers_of_many = [connection.recv(1000) for connection in connections]
        for connection in connections:
            connection.close()
        refusals = [answer for answer in answers_of_many if answer.startswith(b"HTTP/1.1 429 ")]
        assert refusals
        for refusal in refusals:
            assert b"\r\nretry-after: " in refusal
            assert b"too much is waiting. Come again after the seconds in Retry-After" in refusal
