"""What the times of a log are: numbers without a unit, so their size has to tell.

Seconds, milliseconds, microseconds and nanoseconds since 1970 of the years 1990 to 2100 lie in four ranges that do not
touch. Times in which none of them is common are a mere order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gru4rec.prepare.times import TICKS_PER_S, Clock, fits

DURATIONS_S = {
    "1m": 60, "2m": 120, "5m": 300, "10m": 600, "15m": 900, "20m": 1_200, "30m": 1_800, "45m": 2_700, "1h": 3_600,
    "90m": 5_400, "2h": 7_200, "3h": 10_800, "4h": 14_400, "6h": 21_600, "8h": 28_800, "12h": 43_200, "1d": 86_400,
    "2d": 172_800, "7d": 604_800,
}  # fmt: skip
"""Durations that people would choose, in the words that ``gru4rec prepare --gap`` takes."""


@dataclass(frozen=True)
class Timing:
    """The clock of a log, and how many of its events speak for it.

    Attributes:
        clock: Its unit is None for a mere order.
        n_rows: Rows by the unit that their time looks like, those above 0.
    """

    clock: Clock
    n_rows: dict[str, int]

    @property
    def ticks_per_s(self) -> float | None:
        """Ticks in a second, None for a mere order."""
        return None if self.clock.unit is None else float(TICKS_PER_S[self.clock.unit])

    def seconds(self, time_E: np.ndarray) -> np.ndarray | None:
        """Return times or time differences as float64 seconds, None for a mere order."""
        return None if self.ticks_per_s is None else time_E / self.ticks_per_s


def timing_of(time_E: np.ndarray) -> Timing:
    """Guess the unit: the one that most events look like, where together more than half look like any."""
    n_rows = {unit: int(np.count_nonzero(fits(time_E, unit))) for unit in TICKS_PER_S}
    n_rows = {unit: n for unit, n in n_rows.items() if n}
    is_real = 2 * sum(n_rows.values()) > len(time_E)
    return Timing(Clock(max(n_rows, key=lambda unit: n_rows[unit]) if is_real else None), n_rows if is_real else {})


def plain_duration(seconds: float) -> str:
    """Return the duration people would choose that is nearest, by ratio.

    Example:
        >>> plain_duration(1_750), plain_duration(5)
        ('30m', '1m')
    """
    return min(DURATIONS_S, key=lambda name: abs(np.log(DURATIONS_S[name] / max(seconds, 1e-9))))


def spoken(seconds: float) -> str:
    """Say a duration in the unit that suits it.

    Example:
        >>> spoken(45), spoken(5_400), spoken(200_000), spoken(0.02), spoken(1e9)
        ('45 s', '1.5 h', '2.3 days', '0.02 s', '31.7 years')
    """
    for limit, unit, size in ((60, "s", 1), (7_200 / 2, "min", 60), (172_800, "h", 3_600), (6.3e7, "days", 86_400)):
        if seconds < limit:
            return f"{seconds / size:.3g} {unit}" if unit == "s" else f"{_short(seconds / size)} {unit}"
    return f"{_short(seconds / 31_557_600)} years"


def _short(value: float) -> str:
    return f"{value:,.1f}".removesuffix(".0")
