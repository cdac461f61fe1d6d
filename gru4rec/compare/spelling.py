"""How the report writes numbers, durations, sizes and moments."""

from __future__ import annotations

import math

import numpy as np

from gru4rec.prepare.times import Clock, unit_of

MINUS, NONE = "\u2212", "\u2013"
"""Typographic minus, and the dash that stands for no value."""


def number(value: float | None, digits: int = 4) -> str:
    """Write a number with a fixed count of digits, and a real minus; a dash where there is none.

    Example:
        >>> number(0.51239), number(-0.00001), number(-0.5, 2) == MINUS + "0.50", number(None) == NONE
        ('0.5124', '0.0000', True, True)
    """
    if value is None or not math.isfinite(value):
        return NONE
    return f"{value:,.{digits}f}".replace("-", MINUS) if round(value, digits) else f"{0:.{digits}f}"


def probability(value: float, *, sign: bool = False) -> str:
    """Write a p-value, with its sign where asked for.

    Example:
        >>> probability(0.0421), probability(0.0421, sign=True), probability(0.00004)
        ('0.042', '= 0.042', '< 0.001')
    """
    return "< 0.001" if value < 0.001 else f"{'= ' if sign else ''}{value:.3f}"


def duration(seconds: float | None) -> str:
    """Say a duration in the unit that suits it; a dash where there is none.

    Example:
        >>> duration(0.0213), duration(12.34), duration(150), duration(9_000)
        ('0.021 s', '12 s', '2.5 min', '2.5 h')
    """
    if seconds is None:
        return NONE
    if seconds < 99.5:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.1f} min" if seconds < 6_000 else f"{seconds / 3_600:,.1f} h"


def size(n_bytes: int | None) -> str:
    """Say how large something is; a dash where that is not known.

    Example:
        >>> size(900), size(12_345_678)
        ('900 B', '12 MB')
    """
    if n_bytes is None:
        return NONE
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= scale:
            return f"{n_bytes / scale:,.{0 if n_bytes >= 10 * scale else 1}f} {unit}"
    return f"{n_bytes} B"


def moment(time: float) -> str:
    """Say when an event was, where the size of its time tells the unit.

    Example:
        >>> moment(1_767_225_600), moment(17)
        ('2026-01-01 00:00:00', '17')
    """
    return Clock(unit_of(np.array([time]))).moment(time)


def rank_text(rank: float) -> str:
    """Write a rank, which is whole but in the middle of equal scores.

    Example:
        >>> rank_text(14.0), rank_text(1234.5)
        ('14', '1,234.5')
    """
    return f"{rank:,.0f}" if rank == int(rank) else f"{rank:,.1f}"
