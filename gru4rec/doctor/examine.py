"""Run all checks on a log, and on a test log beside it."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gru4rec.config import HyperParameters, hyper_parameters
from gru4rec.data.files import Columns
from gru4rec.doctor.clock import check_clock
from gru4rec.doctor.cost import check_cost
from gru4rec.doctor.drift import check_drift
from gru4rec.doctor.duplicates import check_duplicates
from gru4rec.doctor.findings import SEVERITIES, Checked, Finding, count, gravest_first
from gru4rec.doctor.gaps import check_gaps
from gru4rec.doctor.leaks import check_leaks
from gru4rec.doctor.ordered import OrderedLog
from gru4rec.doctor.sequence import check_sequence
from gru4rec.doctor.shape import check_bots, check_shape
from gru4rec.doctor.units import timing_of


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
        log: What the log is called.
        test: What the test log is called, if there is one.
        numbers: By check, plain values.
        findings: The gravest first.
        curves: Arrays for the page.
    """

    log: str
    test: str | None
    numbers: dict[str, dict[str, Any]]
    findings: list[Finding]
    curves: dict[str, np.ndarray]

    @property
    def counts(self) -> dict[str, int]:
        """Number of findings by severity."""
        return {severity: sum(f.severity == severity for f in self.findings) for severity in SEVERITIES}

    @property
    def is_clean(self) -> bool:
        """Whether there is neither an error nor a warning."""
        return not (self.counts["error"] or self.counts["warning"])

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the curves, as JSON can hold it."""
        findings = [{"name": f.name, "severity": f.severity, "message": f.message} for f in self.findings]
        log = {"log": self.log, "test": self.test, "clean": self.is_clean}
        return {"event": "doctor", **log, "findings": findings, "numbers": self.numbers}


def examine(
    data: Any,
    test: Any = None,
    *,
    columns: Columns | None = None,
    trust_pickle: bool = False,
    settings: HyperParameters | None = None,
    timing: bool = True,
    device: str = "auto",
    threads: int | None = None,
    tell: Callable[[str], None] = lambda message: None,
) -> Report:
    """Examine a log.

    Args:
        data: A path, or a pandas, polars or Arrow table.
        test: The log that a model of ``data`` will be tested on, if there is one.
        columns: Names of their columns.
        trust_pickle: See :func:`gru4rec.data.events.load_events`.
        settings: What will be trained, for memory and time; the defaults if left out.
        timing: Whether to train some hundred steps, to say how long training takes.
        device: Where to train them.
        threads: CPU threads to train them with.
        tell: Called with what is being done.

    Raises:
        DataError: A log cannot be read.
        DeviceError: The device is not there.
    """
    log = OrderedLog.read(data, columns=columns, trust_pickle=trust_pickle)
    tell(f"{log.log.source}: {count(log.n_events, 'event')} in {count(log.n_sessions, 'session')}")
    test_log = None if test is None else OrderedLog.read(test, columns=columns, trust_pickle=trust_pickle)
    checked, sane = _checks(log, _raw(data, columns or Columns()))
    if test_log is not None:
        tell(f"{test_log.log.source}: {count(test_log.n_events, 'event')} in {count(test_log.n_sessions, 'session')}")
        clocks = timing_of(log.time_E), timing_of(test_log.time_E)
        test_faults, sane_test = _test_faults(test_log)
        checked["leaks"] = check_leaks(log, test_log, *clocks, sane=sane, sane_test=sane_test)
        checked["test"] = test_faults
    if timing:
        tell("training a little, to say how long it takes (--no-timing leaves it out)")
    checked["cost"] = check_cost(
        log.sessions, settings or hyper_parameters({}), timing=timing, device=device, threads=threads
    )
    return Report(
        log=log.log.source,
        test=None if test_log is None else test_log.log.source,
        numbers={name: each.numbers for name, each in checked.items()},
        findings=gravest_first(finding for each in checked.values() for finding in each.findings),
        curves={name: curve for each in checked.values() for name, curve in each.curves.items()},
    )


def _raw(data: Any, columns: Columns) -> str:
    """Return the words by which ``gru4rec prepare`` reads the log, its sessions taken for users."""
    name = shlex.quote(str(data)) if isinstance(data, (str, Path)) else "LOG"
    user, item, time = map(shlex.quote, columns.names)
    return f"{name} -o DIR --user_key {user} --item_key {item} --time_key {time}"


def _checks(log: OrderedLog, raw: str) -> tuple[dict[str, Checked], OrderedLog]:
    """Run the checks of one log; copies and impossible times are told once, and then left out.

    Returns:
        What each check found, and the log without what was left out.
    """
    duplicates, unique = check_duplicates(log)
    timing = timing_of(unique.time_E)
    clock, sane = check_clock(unique, timing)
    return {
        "rows": Checked({"n_rows": log.n_events, "n_copies_left_out": log.n_events - unique.n_events}),
        "duplicates": duplicates,
        "clock": clock,
        "shape": check_shape(sane, timing),
        "bots": check_bots(sane, timing),
        "gaps": check_gaps(sane, timing, raw),
        "sequence": check_sequence(sane),
        "drift": check_drift(sane, timing),
    }, sane


def _test_faults(test: OrderedLog) -> tuple[Checked, OrderedLog]:
    """Look for faults of the test log itself, those that decide what is measured: its copies and its clock.

    Returns:
        What was found, and the test log without what was left out.
    """
    duplicates, unique = check_duplicates(test)
    clock, sane = check_clock(unique, timing_of(unique.time_E))
    findings = [
        Finding(f"test-{found.name}", found.severity, f"in the test log, {found.message}")
        for found in (*duplicates.findings, *clock.findings)
        if found.severity != "note"
    ]
    return Checked({"duplicates": duplicates.numbers, "clock": clock.numbers}, findings), sane
