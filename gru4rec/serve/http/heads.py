"""What the head of a request may cost before there is a request: its size, its time; and whether it is let in."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gru4rec.serve.http.door import Door

_HEAD_BYTES = 64 * 1024
_HEAD_S = 10.0


class LimitedHeads(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 with limits on heads: it has none of its own, and keeps every header it is sent.

    Attributes:
        door: Turns requests away; None: all are let in.
    """

    door: Door | None = None
    _is_refused = False
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
        self._is_refused = False
        self._begin_head()

    def on_headers_complete(self) -> None:
        """The head is whole: let the request in, or turn it away."""
        self._end_head()
        if not self._refuse():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body, which is nothing to who was turned away."""
        if not self._is_refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        if not self._is_refused:
            super().on_message_complete()

    def _refuse(self) -> bool:
        """Turn a request away if it has to be; return whether it was. Answers keep the order of requests."""
        is_first = self.cycle is None or self.cycle.response_complete
        if self.door is None or not is_first or self.parser.get_method() != b"POST" or self.parser.should_upgrade():
            return False
        refusal = self.door.refusal(self.url, self.headers)
        if refusal is None:
            return False
        self._is_refused = True
        stays_open = self.parser.should_keep_alive() and not self.expect_100_continue  # else a body may or may not come
        head, body = refusal
        lines = [b"%s: %s\r\n" % header for header in self.server_state.default_headers]
        lines += [] if stays_open else [b"connection: close\r\n"]
        self.transport.write(b"".join([head, *lines, b"\r\n", body]))
        if not stays_open:
            self.transport.close()
        self.on_response_complete()
        return True

    def _begin_head(self) -> None:
        self._end_head()
        self._is_in_head = True
        self._too_slow = self.loop.call_later(_HEAD_S, self.transport.close)

    def _end_head(self) -> None:
        self._is_in_head, self._n_head_bytes = False, 0
        if self._too_slow is not None:
            self._too_slow.cancel()
            self._too_slow = None


def heads_at(door: Door) -> type[LimitedHeads]:
    """Return the protocol of a service with this door."""
    return type("HeadsAtDoor", (LimitedHeads,), {"door": door})
