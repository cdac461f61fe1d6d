"""What the head of a request may cost before there is a request: its size, and the time it takes to arrive."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_HEAD_BYTES = 64 * 1024
_HEAD_S = 10.0


class LimitedHeads(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 with limits on heads: it has none of its own, and keeps every header it is sent."""

    _n_head_bytes = 0
    _is_in_head = True
    _too_slow: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Expect a request soon."""
        super().connection_made(transport)
        self._begin_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing more."""
        self._end_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes in, and give up on a head that has become too large."""
        super().data_received(data)
        self._n_head_bytes += len(data) if self._is_in_head else 0
        if self._n_head_bytes > _HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"The head of the request is larger than {_HEAD_BYTES} bytes.")

    def on_message_begin(self) -> None:
        """Begin to count and to wait."""
        super().on_message_begin()
        self._begin_head()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._end_head()
        super().on_headers_complete()

    def _begin_head(self) -> None:
        self._end_head()
        self._is_in_head = True
        self._too_slow = self.loop.call_later(_HEAD_S, self.transport.close)

    def _end_head(self) -> None:
        self._is_in_head, self._n_head_bytes = False, 0
        if self._too_slow is not None:
            self._too_slow.cancel()
            self._too_slow = None
