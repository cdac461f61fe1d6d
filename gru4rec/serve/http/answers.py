"""How answers are written: JSON bytes, and errors that say what, where and what to do."""

from __future__ import annotations

import math
from typing import Any

import pydantic_core
from starlette.responses import Response

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
    """Return JSON."""
    return Response(pydantic_core.to_json(content), status, media_type="application/json")


def problem(status: int, message: str, *, retry_after_s: float | None = None) -> Response:
    """Return an error as JSON, with ``Retry-After`` in whole seconds where waiting helps."""
    response = json_response({"error": {"code": _CODES.get(status, "error"), "message": message}}, status)
    if retry_after_s is not None:
        response.headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response
