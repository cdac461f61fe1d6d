"""Measure what it costs to turn a request away: processor time of the event loop's thread, without sockets.

``python benchmarks/serve_refusals.py MODEL`` gives the service's own protocol the bytes of requests for lists while too
much waits, over 200 connections that lead nowhere.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import Any

import uvicorn
import uvloop
from uvicorn.server import ServerState

from benchmarks.serve_load import post
from gru4rec.serve.batcher import BusyError
from gru4rec.serve.http.app import make_app
from gru4rec.serve.http.heads import LimitedHeads, heads_at
from gru4rec.serve.settings import ServeSettings

_KEY = "key-of-the-benchmark"
_CONNECTIONS, _ROUNDS, _TIMES = 200, 50, 5


class Nowhere(asyncio.Transport):
    """A connection whose other side is not there; counts what is written."""

    n_written = 0

    def write(self, data: Any) -> None:
        Nowhere.n_written += data.startswith(b"HTTP/1.1 429 ")

    def is_closing(self) -> bool:
        return False

    def resume_reading(self) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL")
    arguments = parser.parse_args()
    for what, keys in (("open", ()), ("with a key", (_KEY,))):
        seconds = uvloop.run(measured(ServeSettings(arguments.model, api_keys=keys)))
        print(f"{what}: {1e6 * seconds:.1f} us a request that is turned away")


async def measured(settings: ServeSettings) -> float:
    """Return the seconds a request takes: the best of some times."""
    app, door, _ = make_app(settings)

    def no_room() -> None:
        raise BusyError(0.07)

    door._check_room = no_room
    config = uvicorn.Config(app, ws="none", log_config=None, server_header=False, proxy_headers=False, lifespan="off")
    config.load()
    protocols = [connected(heads_at(door), config) for _ in range(_CONNECTIONS)]
    request = post("/v1/recommend", b'{"session": [1, 2, 3]}', authorization=f"Bearer {_KEY}")
    seconds = []
    for _ in range(_TIMES):
        started, written = time.thread_time(), Nowhere.n_written
        for _ in range(_ROUNDS):
            for protocol in protocols:
                protocol.data_received(request)
            await asyncio.sleep(0)
        n_requests = _ROUNDS * _CONNECTIONS
        assert Nowhere.n_written - written == n_requests, "all are turned away"
        seconds.append((time.thread_time() - started) / n_requests)
    return min(seconds)


def connected(kind: type[LimitedHeads], config: uvicorn.Config) -> LimitedHeads:
    protocol = kind(config=config, server_state=ServerState(), app_state={})
    protocol.connection_made(Nowhere())
    return protocol


if __name__ == "__main__":
    main()
