"""Where a training step's time goes: ``python benchmarks/profile_step.py --batch_size 32 --layer 100``.

On a CPU the kernels and products that a step calls are wrapped in timers from outside; on a GPU, where calls return
before their work is done, the kernels' own times are read with torch's profiler. (Not called profile.py: a script's
folder comes first on the path, and the standard library's profile, which torch loads, would be hidden.)
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from benchmarks.machine import cpu_name
from benchmarks.tables import Column, Part, Row
from benchmarks.timing import Setup, matrix_rate, timed
from benchmarks.workload import (
    ENGINES,
    Popularity,
    Shape,
    new_model,
    run_epoch,
    shape_of,
    steps_per_run,
    tiny,
    training_batches,
    training_step,
)
from gru4rec.data.batches import Batch, SessionDataIterator
from gru4rec.data.negatives import SampleStore
from gru4rec.model.device import cpu_threads, denormals_flushed, resolve_device
from gru4rec.model.network import GRU4RecModel
from gru4rec.train import fast_step
from gru4rec.train.optim import IndexedAdagradM
from gru4rec.train.products import Products
from gru4rec.train.step import PlainStep, Step

KERNELS = {
    "reset_after_forward": "gates",
    "reset_after_backward": "gates",
    "apply_dropout": "dropout",
    "scale_kept": "dropout",
    "gather": "gather",
    "column_offset": "loss kernel",
    "cross_entropy": "loss kernel",
    "bpr_max": "loss kernel",
    "update_rows": "row update",
    "update_dense": "dense update",
}
"""Functions of a kernels module, and the part of a step that each belongs to."""
PARTS = (
    "batch making", "sampling", "gather", "dropout", "GRU products", "gates", "rounding to bf16", "score product",
    "loss kernel", "gradient of rows", "gradient of hidden", "forward", "loss", "backward", "row update",
    "dense update",
)  # fmt: skip


class Stopwatch:
    """Adds up the time of wrapped functions by part; a part inside another one counts for itself only.

    Attributes:
        seconds: By part.
        n_calls: Of all parts together.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.n_calls = 0
        self._inside = 0.0

    def wrap(self, function: Callable[..., Any], part: str | Callable[..., str]) -> Callable[..., Any]:
        """Return a function that does the same and is timed; ``part`` may depend on its arguments."""

        def timed_function(*args: Any, **kwargs: Any) -> Any:
            before, self._inside = self._inside, 0.0
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                seconds = time.perf_counter() - started
                self.seconds[part if isinstance(part, str) else part(*args)] += seconds - self._inside
                self.n_calls += 1
                self._inside = before + seconds

        return timed_function

    @contextlib.contextmanager
    def wrapping(self, *names: tuple[Any, str, str | Callable[..., str]]) -> Iterator[None]:
        """Wrap (object, attribute, part) until the block ends."""
        originals = [(owner, name, getattr(owner, name)) for owner, name, _ in names]
        for owner, name, part in names:
            setattr(owner, name, self.wrap(getattr(owner, name), part))
        try:
            yield
        finally:
            for owner, name, original in originals:
                setattr(owner, name, original)


def timer_overhead_s() -> float:
    """Return what timing one call costs."""
    nothing: Callable[[], None] = lambda: None  # noqa: E731
    watched, n_calls = Stopwatch().wrap(nothing, "nothing"), 20_000

    def seconds(function: Callable[[], None]) -> float:
        started = time.perf_counter()
        for _ in range(n_calls):
            function()
        return time.perf_counter() - started

    return max(0.0, min(seconds(watched) for _ in range(3)) - min(seconds(nothing) for _ in range(3))) / n_calls


def wrapped_names(shape: Shape, step: Step) -> list[tuple[Any, str, str | Callable[..., str]]]:
    """Return what to wrap. Products are told apart by their sizes."""
    n_columns, gather = shape.n_lanes + shape.n_sample, "gather"
    names: list[tuple[Any, str, str | Callable[..., str]]] = [
        (SampleStore, "next", "sampling"),
        (torch, "rand", "dropout"),
    ]
    if isinstance(step, PlainStep):
        return [
            *names,
            (GRU4RecModel, "gather", gather),
            (GRU4RecModel, "forward", "forward"),
            (step, "loss_function", "loss"),
            (torch.autograd, "backward", "backward"),
            (IndexedAdagradM, "step", "dense update"),
            (IndexedAdagradM, "step_rows", "row update"),
        ]

    def product(_products: Products, out: Tensor, left: Tensor, _right: Tensor) -> str:
        if out.shape[1] == n_columns:
            return "score product"
        if out.shape[0] == n_columns:
            return "gradient of rows"
        return "gradient of hidden" if left.shape[1] == n_columns else "GRU products"

    kernels = fast_step.cpu_kernels()
    assert isinstance(step, fast_step.FastStep)
    return [
        *names,
        (Products, "factor", "rounding to bf16"),
        (Products, "into", product),
        (Products, "add_to", product),
        *((kernels, name, part) for name, part in KERNELS.items()),
    ]


def flop_of_parts(shape: Shape) -> dict[str, int]:
    """Return the FLOP of each part's matrix products, per step."""
    gru = 2 * shape.n_lanes * shape.n_hidden**2
    scores = 2 * shape.n_lanes * shape.n_hidden * (shape.n_lanes + shape.n_sample)
    return {
        "GRU products": 15 * gru,
        "score product": scores,
        "gradient of rows": scores,
        "gradient of hidden": scores,
        "forward": 6 * gru + scores,
        "backward": 9 * gru + 2 * scores,
        "total": shape.flop,
    }


class TimedBatches:
    """Batches whose making is timed, for a step's epoch."""

    def __init__(self, batches: SessionDataIterator, watch: Stopwatch) -> None:
        self._batches, self._watch = batches, watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batches, name)

    def from_step(self, first_step: int) -> Iterator[Batch]:
        """See :meth:`SessionDataIterator.from_step`."""
        batches = self._batches.from_step(first_step)
        following = self._watch.wrap(lambda: next(batches, None), "batch making")
        while (batch := following()) is not None:
            yield batch


def _step_and_batches(shape: Shape, engine: str, setup: Setup, n_steps: int) -> tuple[Step, SessionDataIterator]:
    popularity = Popularity(shape.n_items)
    step = training_step(shape, new_model(shape, setup.device), popularity.support, engine)
    return step, training_batches(shape, popularity, max_steps=n_steps)


def profile_on_cpu(shape: Shape, engine: str, setup: Setup, n_steps: int) -> Part:
    """Time the parts of a step with as many threads as the setup's last setting."""
    step, batches = _step_and_batches(shape, engine, setup, n_steps)
    watch = Stopwatch()
    with cpu_threads(setup.threads[-1]), denormals_flushed():
        run_epoch(step, batches)
        untimed_s = timed(lambda: run_epoch(step, batches), setup.device)[0] / n_steps
        rate = matrix_rate(setup)
        with watch.wrapping(*wrapped_names(shape, step)):
            timed_batches: Any = TimedBatches(batches, watch)
            total_s = timed(lambda: run_epoch(step, timed_batches), setup.device)[0]
        rate = (rate + matrix_rate(setup)) / 2
    assert watch.seconds.keys() <= set(PARTS)
    parts = {name: watch.seconds[name] for name in PARTS if name in watch.seconds}
    parts |= {"rest": total_s - sum(parts.values()), "total": total_s}
    flop, rows = flop_of_parts(shape), []
    for name, seconds in parts.items():
        row: Row = {"part": name, "ms": 1e3 * seconds / n_steps, "share": 100 * seconds / total_s}
        if name in flop:
            row |= {"matrix_ms": 1e3 * flop[name] / rate, "x_matrix": seconds / n_steps * rate / flop[name]}
        rows.append(row)
    overhead_us, n_calls = 1e6 * timer_overhead_s(), watch.n_calls / n_steps
    return Part(
        title=f"A step on {cpu_name()}",
        note=(
            f"{n_steps} steps, {setup.threads[-1]} thread(s), {rate / 1e9:.0f} GFLOP/s in a float32 matrix product. "
            f"Timers: {n_calls:.0f} calls a step at {overhead_us:.2f} us each, {n_calls * overhead_us / 1e3:.3f} ms a "
            f"step, most of it in the rest; a step took {1e3 * untimed_s:.3f} ms in the epoch before, without timers."
        ),
        columns=_COLUMNS,
        rows=rows,
    )


def profile_on_gpu(shape: Shape, engine: str, setup: Setup, n_steps: int, n_kernels: int = 15) -> Part:
    """Let torch's profiler say how long each kernel ran; what no kernel covers is idle."""
    step, batches = _step_and_batches(shape, engine, setup, n_steps)
    run_epoch(step, batches)
    untimed_s = timed(lambda: run_epoch(step, batches), setup.device)[0] / n_steps
    rate = matrix_rate(setup)
    kinds = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[kinds.CPU, kinds.CUDA]) as profiler:
        total_s = timed(lambda: run_epoch(step, batches), setup.device)[0]
    on_gpu = [event for event in profiler.key_averages() if event.device_type.name == "CUDA"]
    on_gpu.sort(key=lambda event: -event.self_device_time_total)
    busy = {event.key: (event.self_device_time_total / 1e6, event.count) for event in on_gpu}
    rows = [_gpu_row(name[:90], *busy[name], n_steps, total_s) for name in list(busy)[:n_kernels]]
    others = [busy[name] for name in list(busy)[n_kernels:]]
    rows.append(_gpu_row("other kernels", sum(s for s, _ in others), sum(n for _, n in others), n_steps, total_s))
    rows.append(_gpu_row("rest", total_s - sum(s for s, _ in busy.values()), 0, n_steps, total_s))
    total = _gpu_row("total", total_s, sum(n for _, n in busy.values()), n_steps, total_s)
    total |= {"matrix_ms": 1e3 * shape.flop / rate, "x_matrix": total_s / n_steps * rate / shape.flop}
    return Part(
        title=f"A step on {torch.cuda.get_device_name(setup.device)}",
        note=(
            f"{n_steps} steps, {rate / 1e12:.1f} TFLOP/s in a float32 product of {setup.matrix_size}^2. rest: no "
            f"kernel runs. A step took {1e3 * untimed_s:.3f} ms in the epoch before, without the profiler."
        ),
        columns=[_COLUMNS[0], Column("calls a step", "calls", ".2f"), *_COLUMNS[1:]],
        rows=[*rows, total],
    )


def _gpu_row(name: str, seconds: float, n_calls: int, n_steps: int, total_s: float) -> Row:
    return {"part": name, "calls": n_calls / n_steps, "ms": 1e3 * seconds / n_steps, "share": 100 * seconds / total_s}


_COLUMNS = [
    Column("part", "part"),
    Column("ms a step", "ms", ".3f"),
    Column("share %", "share", ".1f"),
    Column("matrix ms", "matrix_ms", ".3f"),
    Column("x matrix", "x_matrix", ".2f"),
]


def main() -> None:
    parser = _parser()
    arguments = parser.parse_args()
    device = resolve_device(arguments.device)
    if arguments.engine == "tf32" and device.type == "cpu":
        parser.error("tf32 is a mode of NVIDIA GPUs. Give --engine fast or bf16 on a CPU")
    setup = Setup(device, (arguments.threads,), arguments.quick)
    shape = shape_of("", arguments.batch_size, arguments.layer, arguments.n_items, arguments.loss)
    shape = shape.with_settings(
        n_sample=arguments.n_sample, dropout_p_hidden=arguments.dropout, dropout_p_embed=arguments.dropout
    )
    shape = tiny(shape) if arguments.quick else shape
    n_steps = arguments.n_steps or steps_per_run(shape, setup, arguments.engine) * (5 if setup.on_cpu else 1)
    profile = profile_on_cpu if setup.on_cpu else profile_on_gpu
    part = profile(shape, arguments.engine, setup, n_steps)
    console = Console(width=None if Console().is_terminal else 150)
    console.print(f"{arguments.engine}: {', '.join(f'{key} {value}' for key, value in shape.sizes().items() if value)}")
    console.print(part.rich(), part.note)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch_size", type=int, default=32, help="lanes B")
    parser.add_argument("--layer", type=int, default=100, help="hidden units H of the one layer")
    parser.add_argument("--n_sample", type=int, default=2048, help="negatives S")
    parser.add_argument("--n_items", type=int, default=18_000, help="items N")
    parser.add_argument("--loss", choices=["cross-entropy", "bpr-max"], default="cross-entropy")
    parser.add_argument("--dropout", type=float, default=0.0, help="of input vectors and layer")
    parser.add_argument("--engine", choices=ENGINES, default="fast", help="plain, or fast in a precision")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--n_steps", type=int, help="steps to time")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that everything works")
    return parser


if __name__ == "__main__":
    main()
