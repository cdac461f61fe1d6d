"""What a check hands back: numbers, curves for the page, and findings. Knows no check."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""Gravest first. An error makes the results wrong, a warning probably worse, a note is good to know."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found in a log.

    Attributes:
        name: Its kind, a word for programs, such as ``shared-sessions``.
        severity: How much it matters.
        message: What it is, with numbers, and what to do.
    """

    name: str
    severity: Severity
    message: str


@dataclass(frozen=True)
class Checked:
    """What one check found.

    Attributes:
        numbers: Plain values by name, that JSON can hold.
        findings: In no order.
        curves: Arrays that the page draws, by name.
    """

    numbers: dict[str, Any]
    findings: list[Finding] = field(default_factory=list)
    curves: dict[str, np.ndarray] = field(default_factory=dict)


def gravest_first(findings: Iterable[Finding]) -> list[Finding]:
    """Sort findings by severity; those of one severity keep their order.

    Example:
        >>> [f.name for f in gravest_first([Finding("a", "note", ""), Finding("b", "error", "")])]
        ['b', 'a']
    """
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def percent(frac: float) -> str:
    """Write a share for people; a small one keeps a digit that is not zero.

    Example:
        >>> percent(0.5), percent(0.034), percent(0.00012), percent(0.0)
        ('50 %', '3.4 %', '0.012 %', '0 %')
    """
    value = 100 * frac
    return f"{value:.0f} %" if value >= 9.95 or value == 0 else f"{value:.2g} %"


def count(n: int, noun: str) -> str:
    """Write a number with its noun.

    Example:
        >>> count(1, "row"), count(2000, "row")
        ('1 row', '2,000 rows')
    """
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def quantiles(values: np.ndarray) -> dict[str, float]:
    """Return the least, the median, the 90th and 99th percentile, the greatest and the mean; empty for no values."""
    if not len(values):
        return {}
    least, median, p90, p99, greatest = np.quantile(values, [0, 0.5, 0.9, 0.99, 1]).tolist()
    return {"min": least, "median": median, "p90": p90, "p99": p99, "max": greatest, "mean": float(values.mean())}
