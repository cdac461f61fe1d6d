"""What the parts of benchmarks/serve.py share: how to measure, a quiet moment to do it in, and columns of tables.

A row says what was measured, its goal, and whether that was met.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.serve_load import Load, Plan, send
from benchmarks.serve_process import Service
from benchmarks.serve_shop import Shop
from benchmarks.tables import Column, Row

CALLERS = 64
"""In a closed loop."""
_QUIET_CPU_P = 25.0
"""What others may take of the processors, where 100% is one of them."""

WHAT = [Column("items", "n_items", ","), Column("H", "n_hidden")]
TIMES = [
    Column("p50 ms", "p50_ms", ".1f"),
    Column("p90 ms", "p90_ms", ".1f"),
    Column("p99 ms", "p99_ms", ".1f"),
    Column("max ms", "max_ms", ".1f"),
]
SENDER = [
    Column("sender's lag p99 ms", "lag_p99_ms", ".2f"),
    Column("sender CPU %", "sender_cpu_p", ".0f"),
    Column("service CPU %", "service_cpu_p", ".0f"),
    Column("others' CPU %", "others_cpu_p", ".0f"),
]
GOAL = [Column("goal", "goal"), Column("met", "met")]
QUIET_NOTE = (
    f"Where other programs took more than {_QUIET_CPU_P:g}% of a processor meanwhile, a measurement was repeated, "
    "twice at most, unless --patience 0 was given."
)


@dataclass(frozen=True)
class Bench:
    """How to measure.

    Attributes:
        folder: For model files.
        quick: Small catalogues and short runs, to see that everything works: no results.
        overload_s: Seconds of overload.
        patience_s: How long a quiet moment is waited for before a measurement; 0: not at all, and none is repeated.
    """

    folder: Path
    quick: bool
    overload_s: float
    patience_s: float

    @property
    def seconds(self) -> float:
        """Of a measurement, the warm-up excluded."""
        return 2.0 if self.quick else 20.0

    @property
    def warm_up_s(self) -> float:
        return 0.5 if self.quick else 3.0

    @property
    def n_tries(self) -> int:
        """How often a measurement is made, at most, until one is not disturbed."""
        return 3 if self.patience_s else 1

    def shop(self, n_items: int, n_hidden: int, *, seed: int = 0) -> Shop:
        return Shop.build(self.folder, 5_000 if self.quick else n_items, n_hidden, seed=seed)

    def measured(self, service: Service, plan: Callable[[int], Plan]) -> tuple[Load, Row]:
        """Send a plan; return what became of it, and a row.

        Args:
            service: Of the plan.
            plan: Makes it, given the number of the try.
        """
        for attempt in range(self.n_tries):
            wait_until_quiet(self)
            load, row = self._measured_once(service, plan(attempt))
            if row["others_cpu_p"] <= _QUIET_CPU_P:
                break
        return load, row | {"n_tries": attempt + 1, "said": said(row["statuses"])}

    def _measured_once(self, service: Service, plan: Plan) -> tuple[Load, Row]:
        service_s, busy_s, started = service.cpu_s(), _busy_s(), time.monotonic()
        load = send(plan)
        seconds = time.monotonic() - started
        row = load.summary(warm_up_s=self.warm_up_s)
        row["service_cpu_p"] = 100 * (service.cpu_s() - service_s) / seconds
        busy_p = 100 * (_busy_s() - busy_s) / seconds
        row["others_cpu_p"] = max(0.0, busy_p - row["service_cpu_p"] - row["sender_cpu_p"])
        return load, row


def of(goal: str, is_met: bool) -> Row:
    """Return what a row says of its goal."""
    return {"goal": goal, "met": "yes" if is_met else "no"}


def sizes(shop: Shop) -> Row:
    """Return what a row says of a shop."""
    return {"n_items": shop.n_items, "n_hidden": shop.n_hidden}


def said(statuses: dict[str, int]) -> str:
    return ", ".join(f"{count:,} x {status}" for status, count in statuses.items())


def wait_until_quiet(bench: Bench) -> None:
    """Wait for a moment in which the machine does little, but not for ever."""
    until = time.monotonic() + bench.patience_s
    is_quiet = False
    while not is_quiet and time.monotonic() < until:
        before = _busy_s()
        time.sleep(2.0)
        is_quiet = 100 * (_busy_s() - before) / 2.0 <= _QUIET_CPU_P


def _busy_s() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)
