"""The most that a service answers, and what it does when asked for more: parts C and D of benchmarks/serve.py."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Sequence

from benchmarks.serve_load import Plan, poisson_times
from benchmarks.serve_parts import CALLERS, GOAL, QUIET_NOTE, SENDER, TIMES, WHAT, Bench, of, sizes
from benchmarks.serve_process import Service, gru4rec_serve, plain_serve
from benchmarks.serve_shop import Shop, stateless_clicks
from benchmarks.tables import Column, Part, Row

_WAITS_LONG = ("--max-wait-ms", "10000")
"""So that a closed loop is answered and not turned away: the plain service turns nobody away either."""
_CONNECTIONS = 2000


def saturation(bench: Bench) -> Part:
    """Let many callers ask as fast as they are answered, ours and the plain service in turn."""
    rows: list[Row] = []
    for n_items in (100_000,) if bench.quick else (1_000_000, 100_000):
        rows += _saturation(bench, bench.shop(n_items, 100))
    columns = [
        *WHAT, Column("service", "service"), Column("answered/s", "per_s", ".0f"), *TIMES,
        Column("x plain", "x_plain", ".2f"), Column("matrix ms a session", "matrix_ms", ".3f"),
        Column("ms an answer", "answer_ms", ".3f"), Column("x matrix", "x_matrix", ".2f"), *SENDER, *GOAL,
    ]  # fmt: skip
    return Part(
        "Saturation",
        f"Closed loop, {CALLERS} callers who bring their sessions, services in turn: medians of rounds, and the "
        "median of the rounds' ratios to the better plain one. plain: FastAPI and torch, one request at a time, the "
        f"handler async or a thread (benchmarks/serve_plain.py). matrix: torch.mm of the scores of {CALLERS} sessions "
        f"together, one thread, a session's share. {QUIET_NOTE}",
        columns,
        rows,
        group="n_items",
    )


def _saturation(bench: Bench, shop: Shop) -> list[Row]:
    requests = [click.request for click in stateless_clicks(shop, 4096)]
    seconds = bench.warm_up_s + bench.seconds / 2
    rounds: dict[str, list[Row]] = {"gru4rec": [], "gru4rec, 2 threads": [], "plain, def": [], "plain, async": []}
    with contextlib.ExitStack() as stack:
        services = {
            "gru4rec": stack.enter_context(gru4rec_serve(shop.path, *_WAITS_LONG)),
            "gru4rec, 2 threads": stack.enter_context(gru4rec_serve(shop.path, *_WAITS_LONG, "--threads", "2")),
            "plain, def": stack.enter_context(plain_serve(shop.path, "def")),
            "plain, async": stack.enter_context(plain_serve(shop.path, "async")),
        }
        for _ in range(1 if bench.quick else 3):
            for name, service in services.items():
                plan = Plan(service.port, requests, n_connections=CALLERS, seconds=seconds)
                rounds[name].append(bench.measured(service, lambda _, plan=plan: plan)[1])
    matrix_ms = shop.matrix_ms(CALLERS)
    plain = max(("plain, def", "plain, async"), key=lambda name: _median(rounds[name], "per_s"))
    return [sizes(shop) | _saturated(name, rounds[name], rounds[plain], matrix_ms) for name in rounds]


def _saturated(name: str, rounds: list[Row], plain: list[Row], matrix_ms: float) -> Row:
    row: Row = {key: _median(rounds, key) for key, value in rounds[0].items() if isinstance(value, float)}
    ratio = statistics.median(ours["per_s"] / theirs["per_s"] for ours, theirs in zip(rounds, plain, strict=True))
    answer_ms = 1e3 / row["per_s"]
    row |= {"service": name, "rounds": rounds, "x_plain": ratio, "matrix_ms": matrix_ms, "answer_ms": answer_ms}
    row["x_matrix"] = answer_ms / matrix_ms
    return row | (of(">= 3 x plain", ratio >= 3) if name == "gru4rec" else {})


def _median(rows: Sequence[Row], key: str) -> float:
    return float(statistics.median(row[key] for row in rows))


def overload(bench: Bench) -> Part:
    """Ask for five times as much as the service can do."""
    rows: list[Row] = []
    for n_items in (100_000,) if bench.quick else (1_000_000, 100_000):
        shop = bench.shop(n_items, 100)
        with gru4rec_serve(shop.path) as service:
            rows += [sizes(shop) | row for row in _overload(bench, service, shop)]
    columns = [
        *WHAT, Column("load", "load"), Column("due/s", "due_per_s", ".0f"), Column("answered/s", "per_s", ".0f"),
        *TIMES, Column("statuses", "said"), Column("memory before, MB", "before_mb", ".0f"),
        Column("most, MB", "most_mb", ".0f"), Column("growth %", "growth_p", ".1f"),
        Column("p99 x that at 70%", "x_p99", ".2f"), *SENDER, *GOAL,
    ]  # fmt: skip
    return Part(
        "Overload",
        f"Capacity: what {CALLERS} callers in a closed loop are answered a second; who is turned away comes back "
        "after 50 ms. Then open loop at 70% of it, and at five times it. Latencies of answers of 200, from when "
        f"requests were due. {QUIET_NOTE}",
        columns,
        rows,
        group="n_items",
    )


def _overload(bench: Bench, service: Service, shop: Shop) -> list[Row]:
    requests = [click.request for click in stateless_clicks(shop, 4096)]

    def at(rate: float, seconds: float) -> Row:
        due_s = poisson_times(rate, bench.warm_up_s + seconds)
        plan = Plan(service.port, requests, due_s, n_connections=_CONNECTIONS)
        return bench.measured(service, lambda _: plan)[1]

    pids = {worker.pid for worker in service.workers()}
    closed = Plan(service.port, requests, n_connections=CALLERS, seconds=bench.warm_up_s + bench.seconds / 2)
    capacity = bench.measured(service, lambda _: closed)[1]
    usual = at(0.7 * capacity["per_s"], bench.seconds)
    with service.most_rss() as noted:
        over = at(5 * capacity["per_s"], bench.overload_s)
    service.ask("/v1/recommend", {"session": []})
    is_alive = {worker.pid for worker in service.workers()} == pids
    over |= {"before_mb": noted[0] / 1e6, "most_mb": max(noted) / 1e6, "x_p99": over["p99_ms"] / usual["p99_ms"]}
    over["growth_p"] = 100 * (max(noted) / noted[0] - 1)
    is_met = is_alive and over["growth_p"] <= 10 and over["x_p99"] <= 3 and set(over["statuses"]) <= {"200", "429"}
    over |= of("no crash, memory <= 10% more, only 200 and 429, p99 <= 3 x", is_met)
    return [{"load": "capacity"} | capacity, {"load": "70%"} | usual, {"load": f"5 x, {bench.overload_s:g} s"} | over]
