"""What training on this log will take here: memory by arithmetic, time by training a few hundred steps."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from gru4rec.config import HyperParameters
from gru4rec.data.sessions import Sessions
from gru4rec.doctor.findings import Checked, Finding
from gru4rec.doctor.units import spoken

FLOAT_BYTES = 4
SCHEDULE_BYTES = 7
"""For each pair of input and target; see :class:`gru4rec.data.batches.LaneSchedule`."""

STORE_IDS = 10_000_000
"""Negatives drawn at once, as ``-ss`` has it."""

READING_BYTES = 64
"""For each event at the peak while a log is read: the table, its codes, and the copies that sorting makes."""

PROGRAM_BYTES = 500_000_000
"""Python, torch, Arrow and compiled loops, before any data."""

WARM_UP_STEPS, MEASURED_STEPS = 50, 350
"""The first steps compile loops and fill caches, and are not counted."""

MEASURED_S = 10.0
"""Measuring stops after this, however few steps were done."""

GPU_CHUNKS = 4
"""On a GPU 256 steps are launched at once, so that many more are needed to time any."""

DRAWS_AT_ONCE = 32
"""Steps whose negatives are drawn together while measuring: in a long run draws take their share of every step."""

TIGHT_FRAC = 0.8
"""Share of the free memory from which on other programs feel it."""


def n_weights(settings: HyperParameters, n_items: int) -> int:
    """Count the numbers of a model: item matrices, biases and GRU layers.

    Example:
        >>> n_weights(HyperParameters(layers=(100,)), 1_000)  # 1,000 x 101, and 3 x 100 x (100 + 100 + 2)
        161600
    """
    layers, first = settings.layers, settings.layers[0]
    biases = 2 if settings.gru_variant == "reset_after" else 1
    n = n_items * (layers[-1] + 1)
    sizes = (settings.embedding_size, *layers)
    if settings.input_mode == "none":
        n += 3 * first * (n_items + first + 1)
        sizes = layers
    elif settings.input_mode == "separate":
        n += n_items * settings.embedding_size
    return n + sum(3 * hidden * (size + hidden + biases) for size, hidden in itertools.pairwise(sizes))


def memory_bytes(settings: HyperParameters, sessions: Sessions) -> dict[str, int]:
    """Estimate what training holds in memory, by part, in bytes."""
    n_items, n_steps = sessions.items.n_items, max(sessions.n_targets // settings.batch_size, 1)
    n_sample = n_items if settings.n_sample == "all" else settings.n_sample
    drawn = 0 if settings.n_sample == "all" else min(STORE_IDS, n_steps * settings.n_epochs * n_sample)
    copies = 3 if settings.momentum > 0 else 2
    return {
        "weights_and_optimiser": n_weights(settings, n_items) * FLOAT_BYTES * copies,
        "log": 4 * sessions.n_events + 16 * sessions.n_sessions + 24 * n_items,
        "schedule": SCHEDULE_BYTES * sessions.n_targets,
        "negatives": 4 * drawn,
        "step": 4 * FLOAT_BYTES * settings.batch_size * (settings.batch_size + n_sample),
        "program": PROGRAM_BYTES,
    }


def check_cost(
    sessions: Sessions, settings: HyperParameters, *, timing: bool, device: str, threads: int | None
) -> Checked:
    """Estimate the memory of training, and measure how long it will take.

    Args:
        sessions: The log.
        settings: Of the training run.
        timing: Whether to train a little.
        device: Where to train.
        threads: CPU threads, None for what the command would take.

    Raises:
        DeviceError: The device is not there.
    """
    parts = memory_bytes(settings, sessions)
    training = sum(parts.values())
    reading = PROGRAM_BYTES + READING_BYTES * sessions.n_events
    available = available_bytes()
    numbers = {
        "memory_bytes": parts, "training_bytes": training, "reading_bytes": reading, "available_bytes": available,
        "n_epochs": settings.n_epochs, "n_targets": sessions.n_targets, "device": device,
    }  # fmt: skip
    findings = _memory(max(training, reading), available)
    if timing and not (findings and findings[0].severity == "error"):
        measured, diverged = _measure(sessions, settings, device, threads)
        return Checked(numbers | measured, findings + diverged)
    return Checked(numbers, findings)


def available_bytes() -> int | None:
    """Return the memory that programs may still take, where the system tells (Linux)."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def _memory(needed: int, available: int | None) -> list[Finding]:
    if available is None or needed < TIGHT_FRAC * available:
        return []
    advice = "Lower layers or embedding, leave out rare items, or take another machine"
    return [Finding(
        "memory", "error" if needed > available else "warning",
        f"training needs about {needed / 1e9:.1f} GB of memory, and {available / 1e9:.1f} GB are free here. {advice}",
    )]  # fmt: skip


class _EnoughError(Exception):
    """Ends a training run that has told enough."""


class _Stopwatch:
    """Counts the events of steps after the first ones, and stops training when it knows enough."""

    def __init__(self, batch_size: int, chunks: int) -> None:
        self.warm_up, self.wanted = WARM_UP_STEPS * batch_size, MEASURED_STEPS * batch_size * chunks
        self.n_seen = self.n_timed = 0
        self.first_s = self.started = self.seconds = 0.0
        self.began = time.perf_counter()

    def on_step(self, n_events: int) -> None:
        now = time.perf_counter()
        self.n_seen += n_events
        if self.started:
            self.n_timed, self.seconds = self.n_timed + n_events, now - self.started
        elif self.n_seen >= self.warm_up:
            self.started, self.first_s = now, now - self.began
        if self.n_timed >= self.wanted or (self.n_timed and now - self.began > MEASURED_S):
            raise _EnoughError


def _measure(
    sessions: Sessions, settings: HyperParameters, device: str, threads: int | None
) -> tuple[dict[str, float | str], list[Finding]]:
    """Train on the first sessions, with the whole log's items, and scale up."""
    from gru4rec.api import GRU4Rec
    from gru4rec.config import setting_values
    from gru4rec.errors import DivergedError

    gru = GRU4Rec(device=device, **setting_values(settings))
    chunks = GPU_CHUNKS if gru.device.type == "cuda" else 1
    watch = _Stopwatch(settings.batch_size, chunks)
    few = _first_sessions(sessions, 2 * chunks * (WARM_UP_STEPS + MEASURED_STEPS) * settings.batch_size)
    store = DRAWS_AT_ONCE * (settings.n_sample if isinstance(settings.n_sample, int) else 1)
    diverged: list[Finding] = []
    try:
        gru.fit(few, sample_cache_max_size=store, on_epoch=lambda report: None, on_step=watch.on_step, threads=threads)
    except _EnoughError:
        pass
    except DivergedError as error:
        diverged.append(Finding("diverges", "error", f"the first steps with these settings fail: {error}"))
    if not watch.seconds:
        return {"device": str(gru.device)}, diverged
    rate = watch.n_timed / watch.seconds
    epoch_s = sessions.n_targets / rate
    return {
        "device": str(gru.device), "events_per_s": rate, "measured_events": watch.n_timed,
        "measured_s": watch.seconds, "epoch_s": epoch_s, "training_s": epoch_s * settings.n_epochs,
    }, diverged  # fmt: skip


def _first_sessions(sessions: Sessions, n_targets: int) -> Sessions:
    """Return the first sessions, up to so many targets, with the items and the support of all."""
    targets_before = sessions.offsets - range(len(sessions.offsets))
    n = min(int((targets_before < n_targets).sum()), sessions.n_sessions)
    return replace(
        sessions,
        item_idx=sessions.item_idx[: sessions.offsets[n]],
        offsets=sessions.offsets[: n + 1],
        start_time=sessions.start_time[:n],
        item_support=sessions.support(),
    )


def spoken_cost(numbers: dict[str, Any]) -> list[tuple[str, str]]:
    """Say what training takes, as (subject, sentence); see :func:`check_cost` for the numbers."""
    training, reading = numbers["training_bytes"] / 1e9, numbers["reading_bytes"] / 1e9
    lines = [("memory", f"about {training:.1f} GB to train, {reading:.1f} GB while the log is read, by arithmetic")]
    if "training_s" in numbers:
        measured = f"{numbers['measured_events']:,} events in {numbers['measured_s']:.1f} s"
        how = (
            f"{numbers['n_epochs']} epochs on {numbers['device']}, at {numbers['events_per_s']:,.0f} events/s "
            f"(measured: {measured} on this machine, as busy as it was; a third more or less is possible)"
        )
        lines.append(("time", f"about {spoken(numbers['training_s'])} for {how}"))
    return lines
