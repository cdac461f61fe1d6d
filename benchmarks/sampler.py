"""Negative samples: nanoseconds a draw, and the time to get ready."""

from __future__ import annotations

import time

from benchmarks.tables import Column, Part, Row
from benchmarks.timing import Candidate, Setup, measure_in_turn
from benchmarks.workload import Popularity

_N_SAMPLE = 2048


def sampler_times(setup: Setup) -> Part:
    """Time :class:`gru4rec.data.negatives.SampleStore` on three catalogues."""
    n_steps = 4 if setup.quick else 1000
    rows: list[Row] = []
    for n_items in (500, 2_000) if setup.quick else (18_000, 1_000_000, 20_000_000):
        popularity = Popularity(n_items)
        started = time.perf_counter()
        store = popularity.draws(n_sample=_N_SAMPLE, alpha=0.5, cache_size=10_000_000)
        store.expect_steps(n_steps)
        store.next()
        ready_s = time.perf_counter() - started

        def work(store=store) -> int:  # type: ignore[no-untyped-def]
            for _ in range(n_steps):
                store.next()
            return n_steps * _N_SAMPLE

        measured = measure_in_turn({"store": Candidate(work, 1)}, setup)["store"]
        runs_ns = sorted(1e9 * run.unit_s for run in measured)
        rows.append({"n_items": n_items, "ns_per_draw": runs_ns[len(runs_ns) // 2], "ready_ms": 1e3 * ready_s})
    return Part(
        title="Negative samples",
        note=(
            f"{n_steps:,} steps of {_N_SAMPLE:,} draws in proportion to support^0.5, one thread; median of "
            f"{setup.n_rounds} runs. first: to make a "
            "store and fill it, loading its loops too where they are not yet."
        ),
        columns=[
            Column("N", "n_items", ",d"),
            Column("ns a draw", "ns_per_draw", ".2f"),
            Column("first ms", "ready_ms", ",.1f"),
        ],
        rows=rows,
    )
