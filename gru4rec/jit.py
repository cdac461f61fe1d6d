"""Compiled loops over arrays: Numba where it is installed, else the caller's torch or NumPy way.

Importing this module loads Numba (half a second), so only modules that hold compiled loops import it, and those are
imported where they are used. Knows nothing of models or data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

try:
    import numba
except ImportError:  # pragma: no cover - part of the dependencies, but not there on every platform
    numba = None

HAVE_NUMBA = numba is not None
"""Whether :func:`compiled` compiles; where not, its loops run as Python, thousands of times slower."""

_REORDER = {"reassoc", "contract", "arcp", "nsz"}
"""Sums may be taken in another (fixed) order and use wide registers; NaN and infinity keep their meaning."""

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile a loop over arrays at its first call; machine code is kept on disk, and threads run beside it."""
    return _compile(function, fastmath=_REORDER)


def compiled_exactly(function: Function) -> Function:
    """Compile like :func:`compiled`, but with every operation in the order it is written."""
    return _compile(function, fastmath=False)


def inlined(function: Function) -> Function:
    """Compile a scalar helper into the loops that call it."""
    return function if numba is None else cast(Function, numba.njit(function, inline="always"))


def _compile(function: Function, *, fastmath: Any) -> Function:
    if numba is None:
        return function
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": fastmath}
    try:
        return cast(Function, numba.njit(function, cache=True, **options))
    except RuntimeError:  # nowhere to keep machine code: neither beside the package nor in the user's folder
        return cast(Function, numba.njit(function, **options))
