"""Training steps: how long they take (part ``steps``), and how that grows with sizes and logs (part ``growth``)."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.tables import Column, Part, Row
from benchmarks.timing import (
    Candidate,
    Measurement,
    Setup,
    matrix_ms,
    measure_in_turn,
    median_ms,
    timed,
    times_faster,
    times_matrix,
)
from benchmarks.workload import (
    REFERENCE,
    Popularity,
    Shape,
    engines_on,
    new_model,
    parameter_file_shapes,
    reference_shapes,
    run_epoch,
    shape_of,
    steps_per_run,
    tiny,
    training_batches,
    training_step,
)
from gru4rec.data.batches import LaneSchedule
from gru4rec.model.device import threads_that_help

LOSSES = ("cross-entropy", "bpr-max")
GROWTH = {
    "n_lanes": (16, 32, 64, 128, 256, 512),
    "n_hidden": (64, 128, 256, 512, 1024),
    "n_sample": (0, 512, 2048, 8192),
    "n_items": (10_000, 100_000, 1_000_000, 10_000_000),
}
LOG_EVENTS = (10_000, 100_000, 1_000_000, 10_000_000)
_STEPS_OF_A_LOG = {"cpu": 100, "cuda": 2000}
_SIZES = [
    Column("B", "n_lanes", ",d"),
    Column("H", "n_hidden", ",d"),
    Column("S", "n_sample", ",d"),
    Column("N", "n_items", ",d"),
    Column("loss", "loss"),
    Column("threads", "threads", "d"),
    Column("matrix ms", "matrix_ms", ".3f"),
]
_TIMES = [
    *(Column(f"{engine} ms", f"{engine}_ms", ".3f") for engine in ("plain", "fast", "tf32", "bf16")),
    *(Column(f"{engine} x matrix", f"{engine}_x_matrix", ".2f") for engine in ("fast", "bf16")),
    *(Column(f"{engine} x plain", f"{engine}_x_plain", ".1f") for engine in ("fast", "tf32", "bf16")),
]


def step_times(setup: Setup) -> Part:
    """Time every engine on the parameter files and on three sizes with both losses."""
    shapes = [*parameter_file_shapes(), *reference_shapes()]
    if setup.quick:
        shapes = [tiny(shape) for shape in shapes[::5]]
    rows = []
    for shape in shapes:
        rows += _rows(shape, setup, engines_on(setup.device), setup.threads)
    return Part(
        title="Training step",
        note=(
            "Whole epochs of made-up sessions (popularity 1/rank, all lanes full), schedule and sampling included; "
            f"median of {setup.n_rounds} runs taken in turn after one to warm up. matrix: FLOP = 30 B H^2 + "
            f"6 B H (B + S) at the rate of a {setup.matrix_size}^2 float32 product just before and after; "
            "x plain: times faster than the plain step with as many threads; both are medians of the rounds' ratios. "
            "small, middle, large: momentum, no dropout."
        ),
        columns=[
            Column("settings", "settings"),
            *_SIZES,
            *_TIMES,
            Column("fast events/s", "fast_events_per_s", ",.0f"),
        ],
        rows=rows,
        group="settings",
    )


def growth(setup: Setup) -> Part:
    """Time steps as one size grows and the others stay, and schedules as the log grows."""
    n_lanes, n_hidden, n_items = (4, 8, 500) if setup.quick else REFERENCE["middle"]
    rows: list[Row] = []
    for loss in LOSSES:
        base = shape_of("", n_lanes, n_hidden, n_items, loss)
        for what, values in GROWTH.items():
            for value in values[:2] if setup.quick else values:
                shape, all_engines = _grown(base, what, value), what in ("n_lanes", "n_hidden")
                engines = engines_on(setup.device) if all_engines else ["fast"]
                threads = min(threads_that_help(shape.settings), setup.threads[-1])
                for row in _rows(shape, setup, engines, (threads,), n_rounds=_few(setup)):
                    rows.append({"grows": what, "value": value, **row})
    for n_events in LOG_EVENTS[:2] if setup.quick else LOG_EVENTS:
        rows.append({"grows": "n_events", "value": n_events, **_log_row(n_events, setup)})
    return Part(
        title="How the cost of a step grows",
        note=(
            f"Measured like part steps, {_few(setup)} runs, with as many threads as fit() takes. With N: H = 32. With "
            f"the log's events: the time to lay out its schedule, and the mean of its first steps."
        ),
        columns=[
            Column("grows", "grows"),
            *_SIZES,
            *_TIMES[:6],
            Column("fast events/s", "fast_events_per_s", ",.0f"),
            Column("log", "n_events", ",d"),
            Column("schedule ms", "schedule_ms", ",.1f"),
            Column("ns/event", "schedule_ns_per_event", ",.1f"),
        ],
        rows=rows,
        group="grows",
    )


def _few(setup: Setup) -> int:
    return min(3, setup.n_rounds)


def _grown(base: Shape, what: str, value: int) -> Shape:
    if what == "n_items":
        return base.with_settings(n_items=value, layers=[32])
    name = {"n_lanes": "batch_size", "n_hidden": "layers", "n_sample": "n_sample"}[what]
    return base.with_settings(**{name: value})


def _rows(
    shape: Shape, setup: Setup, engines: Iterable[str], threads: tuple[int, ...], n_rounds: int | None = None
) -> list[Row]:
    """Measure a shape's engines, all thread settings in turn; returns a row for each thread setting."""
    popularity, candidates = Popularity(shape.n_items), {}
    for engine in engines:
        step = training_step(shape, new_model(shape, setup.device), popularity.support, engine)
        batches = training_batches(shape, popularity, max_steps=steps_per_run(shape, setup, engine))
        for n_threads in threads:
            work = lambda step=step, batches=batches: run_epoch(step, batches)  # noqa: E731
            candidates[f"{engine} {n_threads}"] = Candidate(work, n_threads)
    measured = measure_in_turn(candidates, setup, n_rounds=n_rounds)
    return [
        _row(shape, n_threads, {engine: measured[f"{engine} {n_threads}"] for engine in engines})
        for n_threads in threads
    ]


def _row(shape: Shape, n_threads: int, measured: dict[str, list[Measurement]]) -> Row:
    row: Row = {**shape.sizes(), "threads": n_threads}
    row["matrix_ms"] = matrix_ms([one for runs in measured.values() for one in runs], shape.flop)
    for engine, runs in measured.items():
        ms = median_ms(runs)
        row |= {
            f"{engine}_ms": ms,
            f"{engine}_batches_per_s": 1e3 / ms,
            f"{engine}_events_per_s": 1e3 / ms * shape.n_lanes,
            f"{engine}_x_matrix": times_matrix(runs, shape.flop),
            f"{engine}_runs_ms": [round(1e3 * run.unit_s, 4) for run in runs],
        }
        if "plain" in measured and engine != "plain":
            row[f"{engine}_x_plain"] = times_faster(runs, measured["plain"])
    return row


def _log_row(n_events: int, setup: Setup) -> Row:
    """Lay out the schedule of a log, and train on its first steps."""
    shape = shape_of("", *((4, 8, 500) if setup.quick else REFERENCE["small"]))
    popularity = Popularity(shape.n_items)
    sessions = popularity.log(n_events)
    schedule_s, _ = timed(lambda: LaneSchedule.build(sessions, shape.n_lanes).n_steps, setup.device)
    max_steps = _STEPS_OF_A_LOG[setup.device.type]
    batches = training_batches(shape, popularity, max_steps=max_steps, sessions=sessions)
    step = training_step(shape, new_model(shape, setup.device), popularity.support, "fast")
    candidate = Candidate(lambda: run_epoch(step, batches), 1)
    measured = measure_in_turn({"fast": candidate}, setup, n_rounds=_few(setup))
    return {
        **_row(shape, 1, measured),
        "n_events": sessions.n_events,
        "schedule_ms": 1e3 * schedule_s,
        "schedule_ns_per_event": 1e9 * schedule_s / sessions.n_events,
    }
