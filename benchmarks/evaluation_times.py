"""Evaluation: time for a thousand targets, beside matrix time, and the memory it needs above the model's."""

from __future__ import annotations

from benchmarks.tables import Column, Part, Row
from benchmarks.timing import Candidate, Setup, extra_peak_bytes, matrix_ms, measure_in_turn, median_ms, times_matrix
from benchmarks.workload import Popularity, new_model, shape_of
from gru4rec.data.sessions import Sessions
from gru4rec.evaluate.evaluator import evaluate
from gru4rec.model.scorer import GRUScorer

_LANES = 512


def evaluation_times(setup: Setup) -> Part:
    """Time :func:`gru4rec.evaluate.evaluator.evaluate` on two catalogues and three layer sizes."""
    n_lanes = 32 if setup.quick else _LANES
    catalogues = ((500, 4), (2_000, 1)) if setup.quick else ((40_000, 4), (1_000_000, 1))
    rows: list[Row] = []
    _extra_bytes(setup, 300, 8, 2, n_lanes)  # loads compiled loops, which are no part of what is measured
    for n_items, n_steps in catalogues:
        for n_hidden in (16,) if setup.quick else (100, 224, 512):
            rows += _rows(setup, n_items, n_hidden, n_steps, n_lanes)
    return Part(
        title="Evaluation",
        note=(
            f"All items ranked for every target of made-up sessions, {n_lanes} side by side; median of "
            f"{setup.n_rounds} runs. matrix: 2 N H for the scores and 12 H^2 for the GRU, per target. extra: rise of "
            "the process's memory (on a GPU: of its allocations) above the model during a first run."
        ),
        columns=[
            Column("N", "n_items", ",d"),
            Column("H", "n_hidden", "d"),
            Column("targets", "n_targets", ",d"),
            Column("threads", "threads", "d"),
            Column("ms per 1,000 targets", "ms_per_1000", ",.1f"),
            Column("matrix ms", "matrix_ms_per_1000", ",.1f"),
            Column("x matrix", "x_matrix", ".2f"),
            Column("extra MB", "extra_mb", ",.1f"),
        ],
        rows=rows,
        group="n_items",
    )


def _rows(setup: Setup, n_items: int, n_hidden: int, n_steps: int, n_lanes: int) -> list[Row]:
    scorer, sessions, extra_bytes = _extra_bytes(setup, n_items, n_hidden, n_steps, n_lanes)

    def work() -> int:
        return evaluate(scorer, sessions, batch_size=n_lanes).n_targets

    flop = 2 * n_items * n_hidden + 12 * n_hidden**2
    measured = measure_in_turn({str(n): Candidate(work, n) for n in setup.threads}, setup)
    return [
        {
            "n_items": n_items,
            "n_hidden": n_hidden,
            "n_targets": sessions.n_targets,
            "threads": n_threads,
            "ms_per_1000": 1e3 * median_ms(measured[str(n_threads)]),
            "matrix_ms_per_1000": 1e3 * matrix_ms(measured[str(n_threads)], flop),
            "x_matrix": times_matrix(measured[str(n_threads)], flop),
            "extra_mb": None if extra_bytes is None else extra_bytes / 1e6,
        }
        for n_threads in setup.threads
    ]


def _extra_bytes(
    setup: Setup, n_items: int, n_hidden: int, n_steps: int, n_lanes: int
) -> tuple[GRUScorer, Sessions, int | None]:
    """Return a scorer, sessions for it, and what a first evaluation needs above them."""
    scorer = GRUScorer(new_model(shape_of("", n_lanes, n_hidden, n_items), setup.device))
    sessions = Popularity(n_items).even_sessions(n_lanes=n_lanes, n_steps=n_steps)
    return scorer, sessions, extra_peak_bytes(lambda: evaluate(scorer, sessions, batch_size=n_lanes), setup.device)
