"""Where sessions are kept between clicks, with a time to live: the memory of one process here, Redis next door.

A store knows bytes and keys. A value begins with a tag of :data:`~gru4rec.serve.kept_session.TAG_BYTES` bytes, and
writing says which tag is to be replaced, so that of two writers at once one is told to look again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from cachetools import TTLCache

from gru4rec.serve.kept_session import TAG_BYTES

_BYTES_BESIDE = 400
"""What an entry of a Python dictionary takes beside its value, about."""


class StoreUnavailableError(Exception):
    """The store does not answer. Never leaves the service: it goes on without sessions."""


class Store(Protocol):
    """Where sessions are kept."""

    async def get(self, session_id: str) -> bytes | None:
        """Return what is kept; None where nothing is.

        Raises:
            StoreUnavailableError: It cannot be known.
        """

    async def replace(self, session_id: str, old_tag: bytes, value: bytes) -> bool:
        """Keep ``value`` where the tag of what is kept is ``old_tag`` (empty: nothing is kept), from now on.

        Returns:
            False where something else is kept.

        Raises:
            StoreUnavailableError: It could not be kept, or it is not known.
        """

    async def delete(self, session_id: str) -> bool:
        """Forget a session; return whether there was one.

        Raises:
            StoreUnavailableError: It could not be.
        """

    async def close(self) -> None:
        """Let go of connections."""

    def n_sessions(self) -> int | None:
        """Return the number of sessions kept; None where only the store itself knows."""


class MemoryStore:
    """Sessions in the memory of this process: used longest ago, first out.

    Args:
        ttl_s: Seconds for which a session is kept after its last click.
        memory_bytes: Limit of all together.
        timer: Seconds that pass.
    """

    def __init__(self, ttl_s: float, memory_bytes: int, *, timer: Callable[[], float] = time.monotonic) -> None:
        self._kept: TTLCache[str, bytes] = TTLCache(
            memory_bytes, ttl_s, timer=timer, getsizeof=lambda value: len(value) + _BYTES_BESIDE
        )

    async def get(self, session_id: str) -> bytes | None:
        """Return what is kept; None where nothing is."""
        return self._kept.get(session_id)

    async def replace(self, session_id: str, old_tag: bytes, value: bytes) -> bool:
        """Keep ``value`` where the tag of what is kept is ``old_tag``."""
        kept = self._kept.get(session_id)
        if (b"" if kept is None else kept[:TAG_BYTES]) != old_tag:
            return False
        if len(value) + _BYTES_BESIDE <= self._kept.maxsize:
            self._kept[session_id] = value
        return True

    async def delete(self, session_id: str) -> bool:
        """Forget a session; return whether there was one."""
        return self._kept.pop(session_id, None) is not None

    async def close(self) -> None:
        """Do nothing: there are no connections."""

    def n_sessions(self) -> int:
        """Return the number of sessions kept."""
        self._kept.expire()
        return len(self._kept)
