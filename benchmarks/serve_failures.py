"""What goes wrong while requests come: a worker is killed, a model replaced, the service ended, Redis gone."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.serve_load import Load, LoadProcess, Plan, poisson_times
from benchmarks.serve_parts import GOAL, TIMES, WHAT, Bench, of, said, sizes, wait_until_quiet
from benchmarks.serve_process import ADMIN_KEY, Service, free_port, gru4rec_serve, redis_server
from benchmarks.serve_shop import Shop, stateful_clicks, stateless_clicks
from benchmarks.tables import Column, Part, Row

_RATE = 150.0
_N_ITEMS, _N_HIDDEN = 100_000, 100


def failures(bench: Bench) -> Part:
    shop = bench.shop(_N_ITEMS, _N_HIDDEN)
    seconds = 4.0 if bench.quick else 20.0
    wait_until_quiet(bench)
    rows = [
        _killed_worker(shop, seconds),
        _reload(bench, shop, seconds, "POST /admin/reload"),
        _reload(bench, shop, seconds, "SIGHUP"),
        _ended(shop, seconds),
        _redis_gone(shop, seconds),
    ]
    columns = [
        Column("event", "event"), *WHAT, Column("due/s", "due_per_s", ".0f"), Column("requests", "n_requests", ","),
        Column("failed", "n_failed", ","), Column("failed %", "failed_p", ".2f"), Column("statuses", "said"),
        *TIMES, Column("what else", "else"), *GOAL,
    ]  # fmt: skip
    return Part(
        "Failures under load",
        f"Open loop at {_RATE:g} a second for {seconds:g} s, without a second try of anything; the event comes after a "
        "quarter of the time. Failed: any answer but 200, or none.",
        columns,
        [sizes(shop) | row for row in rows],
    )


def _under_load(
    service: Service, requests: list[bytes], seconds: float, *events: tuple[float, Callable[[], Any]], **given: Any
) -> Load:
    """Send requests at the usual rate, and let events happen at their shares of the time."""
    due_s = poisson_times(_RATE, seconds)
    process = LoadProcess(Plan(service.port, requests, due_s, keep_bodies=True, **given))
    for share, happen in events:
        time.sleep(max(0.0, process.started + share * seconds - time.monotonic()))
        happen()
    return process.result()


def _row(event: str, load: Load, failed: np.ndarray, goal: str, is_met: bool, also: str) -> Row:
    summary = load.summary()
    return summary | {
        "event": event,
        "n_failed": int(failed.sum()),
        "failed_p": 100 * float(failed.mean()),
        "said": said(summary["statuses"]),
        "else": also,
        **of(goal, is_met),
    }


def _stateless(shop: Shop) -> list[bytes]:
    return [click.request for click in stateless_clicks(shop, 4096)]


def _killed_worker(shop: Shop, seconds: float) -> Row:
    with gru4rec_serve(shop.path, "--workers", "2", "--stateless") as service:
        _wait_for(lambda: _n_started(service) == 2)
        load = _under_load(service, _stateless(shop), seconds, (0.25, service.workers()[0].kill))
        _wait_for(lambda: _n_started(service) == 3)
        n_workers = len(service.workers())
    failed = load.status != 200
    is_met = failed.mean() < 0.01 and n_workers == 2
    return _row(
        "kill -9 of one of two workers", load, failed, "failed < 1%, replaced", is_met, f"{n_workers} workers after"
    )


def _n_started(service: Service) -> int:
    return service.written().count('"event": "serving"')


def _reload(bench: Bench, shop: Shop, seconds: float, how: str) -> Row:
    other = Shop.build(bench.folder, shop.n_items, shop.n_hidden, seed=1)
    path = bench.folder / "served.pt"
    shutil.copyfile(shop.path, path)
    with gru4rec_serve(path) as service:

        def reload() -> None:
            copy = path.with_suffix(".new")
            shutil.copyfile(other.path, copy)
            copy.replace(path)
            if how == "SIGHUP":
                service.process.send_signal(signal.SIGHUP)
            else:
                service.ask("/admin/reload", method="POST", key=ADMIN_KEY)

        versions = [_version(service)]
        load = _under_load(service, _stateless(shop), seconds, (0.25, reload))
        versions.append(_version(service))
    failed = load.status != 200
    n_by_new = sum(f'"{versions[1]}"'.encode() in body for body in load.bodies)
    is_met = not failed.any() and versions[0] != versions[1] and 0 < n_by_new < len(load.status)
    return _row(f"reload by {how}", load, failed, "none failed", is_met, f"{n_by_new:,} answers by the new model")


def _version(service: Service) -> str:
    return str(service.ask("/v1/model")["models"][0]["version"])


def _ended(shop: Shop, seconds: float) -> Row:
    """Tell the service to end; what was sent before is to be answered, what comes when nobody listens is refused."""
    signalled = []

    def end() -> None:
        signalled.append(time.monotonic())
        service.process.send_signal(signal.SIGTERM)

    with gru4rec_serve(shop.path) as service:
        load = _under_load(service, _stateless(shop), seconds / 2, (0.5, end), patience_s=5.0)
        status = service.process.wait(20)
    sent_before = load.sent_s < signalled[0] - load.started
    unanswered = sent_before & (load.status != 200)
    cut_off = ~sent_before & (load.status == -2)
    n_under_way = int((sent_before & (load.done_s > signalled[0] - load.started)).sum())
    also = f"{n_under_way} under way at the signal; exit status {status}; {int(cut_off.sum())} sent later were cut off"
    return _row(
        "SIGTERM",
        load,
        unanswered,
        "all sent before it answered, exit status 0",
        not unanswered.any() and not status,
        also,
    )


def _redis_gone(shop: Shop, seconds: float) -> Row:
    port = free_port()
    redis = redis_server(port)
    redis.wait_until_ready()
    clicks = stateful_clicks(shop, int(2 * _RATE * seconds), name="redis", n_visitors=200)
    try:
        with gru4rec_serve(shop.path, "--redis", f"redis://127.0.0.1:{port}/0") as service:

            def start_again() -> None:
                nonlocal redis
                redis = redis_server(port)
                redis.wait_until_ready()

            requests = [click.request for click in clicks]
            load = _under_load(service, requests, seconds, (0.25, redis.stop), (0.6, start_again))
    finally:
        redis.stop()
    failed = load.status != 200
    degraded = np.array([b'"degraded":true' in body.replace(b" ", b"") for body in load.bodies])
    tail = load.due_s > 0.6 * seconds + 2.5
    also = f"{int(degraded.sum()):,} degraded answers, {int((degraded & tail).sum())} of them 2.5 s after the start"
    is_met = (
        not (load.status >= 500).any()
        and not (load.status < 0).any()
        and degraded.any()
        and not (degraded & tail).any()
    )
    return _row("Redis stopped, then started", load, failed, "no 5xx, whole again after", is_met, also)


def _wait_for(is_so: Callable[[], bool], *, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > until:
            raise TimeoutError("the service's workers did not come")
        time.sleep(0.1)
