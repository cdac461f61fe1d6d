"""Figures of a sample that may have been written by another version, or half of it: what is no number is not there."""

from __future__ import annotations

import math
from collections.abc import Mapping


def number_of(values: Mapping[str, object], name: str) -> float | None:
    """Return a number; None where it is missing, not finite or something else."""
    return as_number(values.get(name))


def numbers_of(values: Mapping[str, object], name: str) -> list[float]:
    """Return a list of numbers; an empty one where it is missing or something else."""
    found = values.get(name)
    numbers = [as_number(value) for value in found] if isinstance(found, list) else []
    return [number for number in numbers if number is not None]


def as_number(value: object) -> float | None:
    """Return a finite number as a float, all else as None."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None  # type: ignore[arg-type]
