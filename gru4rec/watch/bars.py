"""Bars and sparklines of characters."""

from __future__ import annotations

from collections.abc import Sequence

FULL, EMPTY = "━", "─"
BLOCKS = "▁▂▃▄▅▆▇█"
ASCII = str.maketrans({FULL: "#", EMPTY: "-", "…": "~", "°": " ", **dict(zip(BLOCKS, "_.-:=+*#", strict=True))})
"""What stands for these characters at a terminal that has ASCII only."""


def bar(share: float, width: int) -> str:
    """Draw a share from 0 to 1.

    Example:
        >>> bar(0.25, 8)
        '━━──────'
    """
    n_full = round(min(max(share, 0.0), 1.0) * width)
    return FULL * n_full + EMPTY * (width - n_full)


def sparkline(values: Sequence[float], width: int, *, low: float | None = None, high: float | None = None) -> str:
    """Draw the last values, a character each, between their least and their greatest.

    Args:
        values: Finite numbers.
        width: Characters, at most.
        low: What the lowest character stands for, instead of the least.
        high: Likewise the highest.

    Example:
        >>> sparkline([9, 1, 2, 5], 3)
        '▁▃█'
    """
    shown = values[-width:] if width > 0 else []
    if not shown:
        return ""
    low, high = min(shown) if low is None else low, max(shown) if high is None else high
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round(min(max((value - low) * scale, 0.0), len(BLOCKS) - 1))] for value in shown)
