"""What a request may cost before it is understood: its size, and the time its body takes."""

from __future__ import annotations

import asyncio

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gru4rec.serve.http.answers import problem
from gru4rec.serve.settings import Limits


class BodyLimit:
    """Reads a request's whole body first, and answers 413 or 408 where it is too large or too slow.

    Args:
        app: What answers those that pass.
        limits: Size and time.
    """

    def __init__(self, app: ASGIApp, *, limits: Limits) -> None:
        self._app, self._limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its body in one piece."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = self._limits.body_bytes
        try:
            async with asyncio.timeout(self._limits.body_s):
                body = await _body(scope, receive, most)
        except TimeoutError:
            await _close(
                problem(408, f"the body took longer than {self._limits.body_s:g} s. Send it at once"),
                scope,
                receive,
                send,
            )
            return
        except _TooLargeError:
            await _close(
                problem(413, f"the body is larger than {most:,} bytes. Send less at once"), scope, receive, send
            )
            return
        if body is None:  # the caller has gone
            return
        first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_again() -> Message:
            return first.pop() if first else await receive()

        await self._app(scope, receive_again, send)


class _TooLargeError(Exception):
    pass


async def _body(scope: Scope, receive: Receive, most: int) -> bytes | None:
    declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    if not declared.isdigit() or int(declared[:20]) > most:
        raise _TooLargeError
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > most:
            raise _TooLargeError
        if not message.get("more_body", False):
            return bytes(body)


async def _close(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer and close the connection: the rest of the body is not read."""
    response.headers["Connection"] = "close"
    await response(scope, receive, send)
