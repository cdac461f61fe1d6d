"""Times of raw logs: which unit numbers are in, durations as people write them, moments as people write them.

Inside ``prepare`` times are *ticks*: the log's own numbers, or microseconds where the log has ISO text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

import numpy as np

from gru4rec.errors import ConfigError, DataError
from gru4rec.prepare.layout import TimeUnit

TICKS_PER_S: dict[str, int] = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}

EARLIEST_S, LATEST_S = 631_152_000, 4_102_444_800  # 1990 to 2100: the ranges of the units do not touch


@dataclass(frozen=True)
class Clock:
    """What a log's ticks mean.

    Attributes:
        unit: Unit of a tick since 1970; None where times are a mere order.
        from_text: The log has ISO text. Ticks are microseconds then, and seconds are written.
    """

    unit: str | None
    from_text: bool = False

    def ticks(self, seconds: float, what: str) -> int | float:
        """Turn a duration or a moment in seconds into ticks; a whole number where that is exact.

        Raises:
            ConfigError: The unit of the log is not known.
        """
        if self.unit is None:
            raise ConfigError(
                f"{what} needs the unit of the times, and their size does not tell it: they are no seconds, ms, us or "
                "ns since 1970. Pass --time_unit, or, if times are a mere order, --gap none and --test_fraction"
            )
        ticks = seconds * TICKS_PER_S[self.unit]
        return int(ticks) if float(ticks).is_integer() else ticks

    def moment(self, tick: float) -> str:
        """Say when a tick was, for people."""
        if self.unit is None:
            return f"{tick:,.10g}"
        try:
            when = datetime.fromtimestamp(tick / TICKS_PER_S[self.unit], UTC)
        except (OverflowError, ValueError, OSError):
            return f"{tick:,.10g}"
        return when.strftime("%Y-%m-%d %H:%M:%S")


def clock_of(times: np.ndarray, time_unit: TimeUnit, source: str) -> Clock:
    """Tell the unit of numeric times by their size.

    Args:
        times: (n,) numbers in row order.
        time_unit: ``auto``, or what the caller knows.
        source: What messages call the log.

    Raises:
        DataError: Times are in more than one unit, or in another one than the caller says.
    """
    for unit in TICKS_PER_S if time_unit == "auto" else (time_unit,):
        if fits(np.array([times.min(), times.max()]), unit).all():
            return Clock(unit)
    like = {unit: fits(times, unit) for unit in TICKS_PER_S}
    counts = {unit: int(is_like.sum()) for unit, is_like in like.items()}
    unit = max(counts, key=lambda name: counts[name])
    if time_unit not in ("auto", unit) and 2 * counts[unit] > len(times):
        raise DataError(
            f"the times of {source} look like {unit} since 1970 (such as {times[np.argmax(like[unit])]}), and not like "
            f"--time_unit {time_unit}. Leave --time_unit out"
        )
    odd = next((other for other in counts if other != unit and counts[other]), None)
    if odd is not None:
        raise DataError(
            f"{source} mixes units of time: {counts[unit]:,} rows look like {unit} since 1970 and {counts[odd]:,} like "
            f"{odd} (the first is {times[np.argmax(like[odd])]}). Bring them to one unit"
        )
    if time_unit != "auto":
        return Clock(time_unit)
    return Clock(unit if 2 * counts[unit] > len(times) else None)


def fits(times: np.ndarray, unit: str) -> np.ndarray:
    """Return bool (n,): the time is of the years 1990 to 2100 in this unit."""
    ticks = TICKS_PER_S[unit]
    return cast(np.ndarray, (times >= EARLIEST_S * ticks) & (times < LATEST_S * ticks))


def unit_of(times: np.ndarray) -> str | None:
    """Return the unit in which all times are of the years 1990 to 2100; None where there is none.

    Example:
        >>> unit_of(np.array([1_400_000_000, 1_400_000_060])), unit_of(np.array([1, 2, 3]))
        ('s', None)
    """
    ends = np.array([times.min(), times.max()])
    return next((unit for unit in TICKS_PER_S if fits(ends, unit).all()), None)


def seconds_of(text: str) -> float:
    """Read a duration: a number and one of s, m, h, d, w.

    Raises:
        ConfigError: It is none, or not above 0.

    Example:
        >>> seconds_of("1h"), seconds_of("1.5d")
        (3600.0, 129600.0)
    """
    found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([smhdw])", text.strip())
    if not found or float(found[1]) == 0:
        raise ConfigError(f"{text!r} is no duration. Give a number above 0 and a unit: 90s, 30m, 1h, 7d, 4w")
    return float(found[1]) * _SECONDS[found[2]]


def moment_of(text: str) -> float:
    """Read a date or a moment (ISO 8601, UTC where no zone is given) as seconds since 1970.

    Raises:
        ConfigError: It is none.

    Example:
        >>> moment_of("2014-09-29"), moment_of("2014-09-29T02:00:00+02:00")
        (1411948800.0, 1411948800.0)
    """
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{text!r} is no date. Give one such as 2014-09-29 or 2014-09-29T12:00:00Z") from None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
