"""What a comparison says of itself: plan, protocol, logs, machine, versions, and the command of each model."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from gru4rec import __version__
from gru4rec.baselines.files import HYBRID
from gru4rec.compare.fitting import Machine
from gru4rec.compare.logs import FIRST_PART, LAST_PART, Logs, described
from gru4rec.compare.page import FORMAT, FORMAT_VERSION
from gru4rec.compare.plan import GRU4REC, SAVED, Plan, Row
from gru4rec.data.sessions import Sessions

_PACKAGES = ("torch", "numpy", "numba", "pyarrow", "pydantic", "safetensors", "optuna")


def heading(plan: Plan, logs: Logs, digests: Mapping[int, str], machine: Machine, command: str) -> dict[str, Any]:
    """Return what results.json begins with.

    Args:
        plan: What was done.
        logs: With what.
        digests: Of the logs, by ``id``.
        machine: Where.
        command: By which command.
    """
    evaluation = plan.evaluation
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "title": plan.title,
        "made": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "gru4rec_version": __version__,
        "versions": {"python": platform.python_version(), **dict(_versions())},
        "machine": _described_machine(machine),
        "command": command,
        "plan": plan.text,
        "protocol": {
            "targets": evaluation.targets, "tie_mode": evaluation.ties, "k": list(evaluation.k),
            "primary": list(plan.primary), "seed": evaluation.seed, "n_resamples": evaluation.resamples,
            "n_permutations": evaluation.permutations, "level": evaluation.level,
            "candidates": evaluation.candidates, "n_trials": plan.n_trials, "valid_rule": logs.valid_rule,
            "test_use": _test_use(plan),
        },
        "data": _logs_described(plan, logs, digests),
    }  # fmt: skip


def _logs_described(plan: Plan, logs: Logs, digests: Mapping[int, str]) -> list[dict[str, Any]]:
    data, train = plan.data, str(plan.data.train)
    is_cut = logs.valid_rule is not None
    named: list[tuple[str, str, str | None, Sessions]] = [
        ("train", train, None, logs.train),
        ("test", str(data.test), None, logs.test),
    ]
    if logs.train_tr is not None and logs.train_valid is not None:
        first, last = (FIRST_PART, LAST_PART) if is_cut else (None, None)
        named.append(("train_tr", train if is_cut else str(data.train_tr), first, logs.train_tr))
        named.append(("train_valid", train if is_cut else str(data.train_valid), last, logs.train_valid))
    return [described(role, path, part, sessions, digests[id(sessions)]) for role, path, part, sessions in named]


def command_of(row: Row, settings: Mapping[str, Any], plan: Plan) -> str:
    """Return the command that trains and saves a model alone, with the settings it was measured with."""
    if row.kind in (HYBRID, SAVED):
        return ""
    words = ["gru4rec", "train", str(plan.data.train), "-t", str(plan.data.test), "-o", "MODEL.gru4rec"]
    words += ["-m", *map(str, plan.evaluation.k), "-e", plan.evaluation.ties]
    words += _columns(plan)
    if row.kind == GRU4REC:
        for name, value in settings.items():
            if value is not None and name != "seed":
                words += [f"--{name}", "/".join(map(str, value)) if isinstance(value, list) else str(value)]
        words += ["--seed", str(row.seeds[0])]
    else:
        words += ["--model", row.kind]
        pairs = ",".join(f"{name}={value}" for name, value in settings.items())
        words += ["-ps", pairs] if pairs else []
    return shlex.join(words)


def _columns(plan: Plan) -> list[str]:
    """Return the flags of columns that are called otherwise than usual."""
    usual = {"-sk": ("session_key", "SessionId"), "-ik": ("item_key", "ItemId"), "-tk": ("time_key", "Time")}
    found = ((flag, getattr(plan.data, name), default) for flag, (name, default) in usual.items())
    return [word for flag, value, default in found if value != default for word in (flag, value)]


def _versions() -> Iterator[tuple[str, str]]:
    for package in _PACKAGES:
        try:
            yield package, metadata.version(package)
        except metadata.PackageNotFoundError:
            continue


def _described_machine(machine: Machine) -> dict[str, Any]:
    """Return what the report says about the machine."""
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (OSError, ValueError):
        memory = 0.0
    return {
        "cpu": cpu,
        "n_cores": os.cpu_count() or 1,
        "threads": machine.threads,
        "device": machine.device,
        "memory_gb": round(memory, 1),
    }


def _test_use(plan: Plan) -> str:
    """Say what the test log was used for."""
    once = "Every model scored the test log once, after all settings were fixed."
    if not plan.needs_valid:
        return f"{once} No setting was chosen by this comparison: they stand in the plan."
    return f"{once} Settings were chosen on the validation log alone, with models that were fitted to train_tr."
