"""Compiled loops over arrays: Numba where it is installed, else the caller's torch or NumPy way.

Importing this module loads Numba (half a second), so only modules that hold compiled loops import it, and those are
imported where they are used. Knows nothing of models or data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

try:
    import numba
except ImportError:  # pragma: no cover - part of the dependencies, but not there on every platform
    numba = None  # type: ignore[assignment]

HAVE_NUMBA = numba is not None
"""Whether :func:`compiled` compiles; where not, its loops run as Python, thousands of times slower."""

_REORDER = {"reassoc", "contract", "arcp", "nsz"}
"""Sums may be taken in another (fixed) order and use wide registers; NaN and infinity keep their meaning."""

Loop = Callable[..., Any]


def compiled(function: Loop) -> Loop:
    """Compile a loop over arrays at its first call; machine code is kept on disk, and threads run beside it."""
    return _compile(function, fastmath=_REORDER)


def compiled_exactly(function: Loop) -> Loop:
    """Compile like :func:`compiled`, but with every operation in the order it is written."""
    return _compile(function, fastmath=False)


def scalar_helper(function: Loop) -> Loop:
    """Compile a scalar function that compiled loops call; only multiply-add pairs may be fused in it."""
    return _compile(function, fastmath={"contract"})


def _compile(function: Loop, *, fastmath: Any) -> Loop:
    if numba is None:
        return function
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": fastmath}
    try:
        return cast(Loop, numba.njit(function, cache=True, **options))
    except RuntimeError:  # nowhere to keep machine code: neither beside the package nor in the user's folder
        return cast(Loop, numba.njit(function, **options))
