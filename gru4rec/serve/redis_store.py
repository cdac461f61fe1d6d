"""Sessions in Redis, shared by workers and machines. A Redis that is lost costs one short wait a second, no more."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from gru4rec.errors import ConfigError
from gru4rec.serve.kept_session import TAG_BYTES
from gru4rec.serve.store import StoreUnavailableError

_REST_S = 1.0
"""Seconds for which a store that failed is not asked."""
_CONNECTIONS = 64

# An answer that was lost makes the client send again: a value that is there already with its new tag was kept.
_REPLACE = """
local tag = redis.call('GETRANGE', KEYS[1], 0, tonumber(ARGV[4]) - 1)
if tag ~= ARGV[1] and tag ~= string.sub(ARGV[2], 1, tonumber(ARGV[4])) then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""

Answer = TypeVar("Answer")


class RedisStore:
    """Sessions in Redis; :class:`~gru4rec.serve.store.Store` says what the methods do.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``, as redis-py reads them.
        prefix: Before each key.
        ttl_s: Seconds for which a session is kept after its last click.
        timeout_s: For connecting and for an answer.

    Raises:
        ConfigError: The URL is none.
    """

    def __init__(self, url: str, *, prefix: str, ttl_s: float, timeout_s: float) -> None:
        try:
            pool = redis.asyncio.BlockingConnectionPool.from_url(
                url,
                max_connections=_CONNECTIONS,
                timeout=timeout_s,
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                retry=Retry(NoBackoff(), 1),  # a connection from before a restart of Redis is opened anew
            )
        except (ValueError, RedisError) as error:
            raise ConfigError(f"--redis {url!r} is no URL of a Redis ({error}). Write redis://HOST:6379/0") from None
        self._redis = redis.asyncio.Redis(connection_pool=pool)
        self._replace = self._redis.register_script(_REPLACE)
        self._prefix, self._ttl_ms = prefix, int(ttl_s * 1000)
        self._rests_until = 0.0

    async def get(self, session_id: str) -> bytes | None:
        """Return what is kept; None where nothing is."""
        kept: bytes | None = await self._asked(lambda: self._redis.get(self._key(session_id)))
        return kept

    async def replace(self, session_id: str, old_tag: bytes, value: bytes) -> bool:
        """Keep ``value`` where the tag of what is kept is ``old_tag``."""
        arguments: list[bytes | int] = [old_tag, value, self._ttl_ms, TAG_BYTES]
        return bool(await self._asked(lambda: self._replace(keys=[self._key(session_id)], args=arguments)))

    async def delete(self, session_id: str) -> bool:
        """Forget a session; return whether there was one."""
        return bool(await self._asked(lambda: self._redis.delete(self._key(session_id))))

    async def close(self) -> None:
        """Let go of connections."""
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()

    def n_sessions(self) -> None:
        """Return None: Redis knows, and counting would cost it."""

    def _key(self, session_id: str) -> str:
        return f"{self._prefix}{session_id}"

    async def _asked(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Ask, unless a question went unanswered a moment ago.

        Raises:
            StoreUnavailableError: No answer.
        """
        now = time.monotonic()
        if now < self._rests_until:
            raise StoreUnavailableError("it failed a moment ago")
        try:
            return await ask()
        except (RedisError, OSError) as error:
            self._rests_until = time.monotonic() + _REST_S
            raise StoreUnavailableError(str(error)) from error
