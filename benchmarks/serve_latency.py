"""Latency under a given load, and what a click costs in a long session: parts A and B of benchmarks/serve.py."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.serve_load import Load, Plan, poisson_times, post, send
from benchmarks.serve_parts import GOAL, QUIET_NOTE, SENDER, TIMES, WHAT, Bench, of, sizes, wait_until_quiet
from benchmarks.serve_process import Service, gru4rec_serve
from benchmarks.serve_shop import Click, Shop, held, stateful_clicks, stateless_clicks
from benchmarks.tables import Column, Part, Row

_COMPARED = 200
_LATE = 190


@dataclass(frozen=True)
class _Case:
    n_items: int
    n_hidden: int
    rate: float
    goal_ms: float
    goal_recall: float


_CASES = [
    _Case(1_000_000, 32, 300, 50, 1.0),
    _Case(1_000_000, 100, 150, 60, 0.999),
    _Case(100_000, 100, 500, 25, 0.999),
]


def latency(bench: Bench) -> Part:
    """Ask at a given rate, with whole sessions and click by click."""
    cases = _CASES[-1:] if bench.quick else _CASES
    columns = [
        Column("requests", "kind"), *WHAT, Column("due/s", "due_per_s", ".0f"), Column("answered/s", "per_s", ".0f"),
        *TIMES, Column("statuses", "said"), Column("recall@20", "recall", ".4f"), Column("same lists", "same", ".1%"),
        Column("matrix ms", "matrix_ms", ".2f"), *SENDER, *GOAL,
    ]  # fmt: skip
    return Part(
        "Latency",
        "Open loop: requests come at random (Poisson), whatever has become of those before, and latency counts from "
        f"when each was due; the first {bench.warm_up_s:g} s are left out. Lists of 20. recall@20, same lists: of "
        f"{_COMPARED} answers under that load, against scoring everything. matrix: torch.mm of the scores of one "
        f"session, one thread, in the same run. {QUIET_NOTE}",
        columns,
        [row for case in cases for row in _latency(bench, case)],
    )


def _latency(bench: Bench, case: _Case) -> Iterator[Row]:
    shop = bench.shop(case.n_items, case.n_hidden)
    due_s = poisson_times(case.rate, bench.warm_up_s + bench.seconds)

    def stateless(attempt: int) -> list[Click]:
        return stateless_clicks(shop, len(due_s))

    def stateful(attempt: int) -> list[Click]:
        return stateful_clicks(shop, len(due_s), name=f"visitor-{attempt}")

    with gru4rec_serve(shop.path) as service:
        yield _asked(bench, case, service, shop, due_s, stateless)
        yield _asked(bench, case, service, shop, due_s, stateful)


def _asked(
    bench: Bench,
    case: _Case,
    service: Service,
    shop: Shop,
    due_s: np.ndarray,
    clicks_of: Callable[[int], list[Click]],
) -> Row:
    def plan(attempt: int) -> Plan:
        return Plan(service.port, [click.request for click in clicks_of(attempt)], due_s, keep_bodies=True)

    load, row = bench.measured(service, plan)
    recall, same = _compared(load, clicks_of(row["n_tries"] - 1), shop, bench.warm_up_s)
    is_met = row["p99_ms"] <= case.goal_ms and recall >= case.goal_recall and set(row["statuses"]) == {"200"}
    lists = "lists exact" if case.goal_recall == 1 else f"recall >= {case.goal_recall}"
    row |= {"kind": clicks_of.__name__, "recall": recall, "same": same, "matrix_ms": shop.matrix_ms(1)}
    return sizes(shop) | row | of(f"p99 <= {case.goal_ms:g} ms, only 200, {lists}", is_met)


def _compared(load: Load, clicks: Sequence[Click], shop: Shop, warm_up_s: float) -> tuple[float, float]:
    """Compare answers from all over the load with the right lists."""
    good = [place for place in _whole(load, clicks) if load.due_s[place] >= warm_up_s]
    some = [good[at] for at in np.linspace(0, len(good) - 1, min(_COMPARED, len(good))).astype(int)]
    return held([clicks[place] for place in some], [load.bodies[place] for place in some], shop)


def _whole(load: Load, clicks: Sequence[Click]) -> Iterator[int]:
    """Give the places of answers to whole sessions: a click that was turned away is missing from all that follow."""
    broken: set[str] = set()
    for place, (click, status) in enumerate(zip(clicks, load.status.tolist(), strict=True)):
        if status != 200:
            broken.add(click.session_id)
        elif not click.session_id or click.session_id not in broken:
            yield place


def long_sessions(bench: Bench) -> Part:
    """Click in long and in short sessions in turn, one click at a time."""
    n_long, n_each = (2, 10) if bench.quick else (10, 20)
    rows = []
    for n_items in (10_000,) if bench.quick else (10_000, 100_000):
        shop = bench.shop(n_items, 100)
        with gru4rec_serve(shop.path) as service:
            for options in ({}, {"exclude_seen": True}):
                wait_until_quiet(bench)
                rows.append(sizes(shop) | _long_and_short(service, shop, n_long, n_each, options))
    columns = [
        *WHAT, Column("options", "options"), Column("pairs", "n_pairs"), Column("click 2, ms", "short_ms", ".3f"),
        Column("late click, ms", "long_ms", ".3f"), Column("ratio", "ratio", ".3f"), *GOAL,
    ]  # fmt: skip
    note = (
        f"Stateful clicks, one at a time: the second of a session, then one of the clicks {_LATE} to "
        f"{_LATE + n_each - 1} of another, and so on. Median times of an answer, and the median of their ratios."
    )
    return Part("A click in a long session", note, columns, rows)


def _long_and_short(service: Service, shop: Shop, n_long: int, n_each: int, options: dict[str, Any]) -> Row:
    rng = np.random.default_rng(1)
    name = "seen" if options else "all"

    def click(session: str) -> bytes:
        body = {"item": int(shop.clicks(1, rng)[0])} | options
        return post(f"/v1/sessions/{name}-{session}/events", json.dumps(body).encode())

    before = [click(f"long-{number}") for _ in range(_LATE - 1) for number in range(n_long)]
    pairs = []
    for turn in range(n_each * n_long):
        pairs += [click(f"short-{turn}"), click(f"short-{turn}"), click(f"long-{turn % n_long}")]
    send(Plan(service.port, before, n_connections=1))
    load = send(Plan(service.port, pairs, n_connections=1))
    assert (load.status == 200).all(), load.statuses(load.due_s >= 0)
    short_ms, long_ms = load.latency_ms[1::3], load.latency_ms[2::3]
    ratio = statistics.median((long_ms / short_ms).tolist())
    return {
        "options": json.dumps(options) if options else "none",
        "n_pairs": n_each * n_long,
        "short_ms": float(np.median(short_ms)),
        "long_ms": float(np.median(long_ms)),
        "ratio": ratio,
        **of("ratio <= 1.1", ratio <= 1.1),
    }
