"""How answers are written: JSON bytes, and errors that say what, where and what to do."""

from __future__ import annotations

import math
from typing import Any

import pydantic_core
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

BROKEN = "this should not have happened; the log says more"
_LONGEST_MESSAGE = 1000
_CAUTIONS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
_CODES = {
    400: "invalid_request",
    401: "unauthorized",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    409: "conflict",
    413: "too_large",
    422: "invalid_request",
    429: "busy",
    500: "internal_error",
    503: "unavailable",
}


def json_response(content: Any, status: int = 200) -> Response:
    """Return JSON that nobody keeps, and no browser takes for anything else."""
    return Response(pydantic_core.to_json(content), status, _CAUTIONS, media_type="application/json")


def problem(status: int, message: str, *, retry_after_s: float | None = None) -> Response:
    """Return an error as JSON, with ``Retry-After`` in whole seconds where waiting helps."""
    if len(message) > _LONGEST_MESSAGE:  # it may repeat a name that was sent
        message = f"{message[:_LONGEST_MESSAGE]}..."
    response = json_response({"error": {"code": _CODES.get(status, "error"), "message": message}}, status)
    if retry_after_s is not None:
        response.headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


class HeadAsGet:
    """Answers HEAD like GET, as HTTP has it; the server leaves the body out.

    Args:
        app: What answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope.get("method") == "HEAD":
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)
