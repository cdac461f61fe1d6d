"""Both stores keep, replace and forget in the same way; Redis is a real one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from serve.running import Redis, redis

from gru4rec.errors import ConfigError
from gru4rec.serve.redis_store import RedisStore
from gru4rec.serve.store import MemoryStore, Store, StoreUnavailableError

A, B, C = b"aaaaaaaa", b"bbbbbbbb", b"cccccccc"


@pytest.fixture(scope="module")
def server() -> Iterator[Redis]:
    with redis() as running:
        yield running


@pytest.fixture(params=["memory", "redis"])
def open_store(request: pytest.FixtureRequest) -> Callable[..., Store]:
    if request.param == "memory":
        return lambda ttl_s=60.0: MemoryStore(ttl_s, 2**20)
    server = request.getfixturevalue("server")
    prefix = f"{request.node.name}:"
    return lambda ttl_s=60.0: RedisStore(server.url, prefix=prefix, ttl_s=ttl_s, timeout_s=1.0)


def run(open_store: Callable[..., Store], talk: Callable[[Store], Awaitable[Any]], **options: Any) -> Any:
    async def all_of_it() -> Any:
        store = open_store(**options)
        try:
            return await talk(store)
        finally:
            await store.close()

    return asyncio.run(all_of_it())


def test_store_keeps_replaces_and_forgets(open_store: Callable[..., Store]) -> None:
    async def talk(store: Store) -> None:
        assert await store.get("s") is None
        assert await store.replace("s", b"", A + b"1")
        assert await store.get("s") == A + b"1"
        assert await store.get("other") is None
        assert await store.replace("s", A, B + b"2")
        assert await store.get("s") == B + b"2"
        assert await store.delete("s")
        assert not await store.delete("s")
        assert await store.get("s") is None

    run(open_store, talk)


def test_store_refuses_what_was_changed_meanwhile(open_store: Callable[..., Store]) -> None:
    async def talk(store: Store) -> None:
        assert not await store.replace("s", A, B)  # it is gone
        assert await store.replace("s", b"", A)
        assert not await store.replace("s", b"", B)  # another one began it
        assert not await store.replace("s", C, B)
        assert await store.get("s") == A

    run(open_store, talk)


def test_store_forgets_after_the_time_to_live_of_the_last_click(open_store: Callable[..., Store]) -> None:
    async def talk(store: Store) -> None:
        await store.replace("s", b"", A)
        await asyncio.sleep(0.25)
        await store.replace("s", A, B)
        await asyncio.sleep(0.25)
        assert await store.get("s") == B
        await asyncio.sleep(0.3)
        assert await store.get("s") is None

    run(open_store, talk, ttl_s=0.4)


def test_memory_store_counts_and_lets_the_longest_unused_go() -> None:
    async def talk(store: Store) -> None:
        for name in "abc":
            await store.replace(name, b"", A + b"." * 592)  # with what an entry takes beside it: 1000 bytes
        assert store.n_sessions() == 3
        assert await store.get("a") is not None  # used: b is the oldest now
        await store.replace("d", b"", A + b"." * 592)
        assert store.n_sessions() == 3
        assert [await store.get(name) is not None for name in "abcd"] == [True, False, True, True]
        assert await store.replace("huge", b"", A + b"." * 5000)  # larger than all: answered, not kept
        assert await store.get("huge") is None

    run(lambda: MemoryStore(60, 3500), talk)


def test_redis_store_writes_once_where_an_answer_was_lost(server: Redis) -> None:
    async def talk(store: Store) -> None:
        assert await store.replace("again", b"", A + b"1")
        assert await store.replace("again", b"", A + b"1")  # sent again: it is there already, with its own tag
        assert await store.get("again") == A + b"1"

    run(lambda: RedisStore(server.url, prefix="lost:", ttl_s=60, timeout_s=1), talk)


def test_redis_store_lost_and_found(server: Redis) -> None:
    own = Redis()

    async def talk(store: Store) -> None:
        assert await store.replace("s", b"", A)
        own.stop()
        started = time.monotonic()
        with pytest.raises(StoreUnavailableError):
            await store.get("s")
        with pytest.raises(StoreUnavailableError, match="a moment ago"):  # it is not asked again at once
            await store.replace("s", A, B)
        assert time.monotonic() - started < 0.9
        own.start()
        await asyncio.sleep(1.1)
        assert await store.get("s") is None  # this Redis keeps nothing on disk
        assert await store.replace("s", b"", C)
        assert await store.get("s") == C

    try:
        run(lambda: RedisStore(own.url, prefix="", ttl_s=60, timeout_s=0.2), talk)
    finally:
        own.stop()


@pytest.mark.parametrize("url", ["nonsense", "http://127.0.0.1:1", "redis://127.0.0.1:port"])
def test_redis_store_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"is no URL of a Redis .* Write redis://HOST:6379/0"):
        RedisStore(url, prefix="", ttl_s=1, timeout_s=1)
