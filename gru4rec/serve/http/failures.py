"""What the service raises, as answers that say what, where and what to do, and repeat little of what was sent."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from gru4rec.errors import GRU4RecError
from gru4rec.serve.batcher import BusyError, TooLateError
from gru4rec.serve.http.answers import BROKEN, problem
from gru4rec.serve.http.door import busy
from gru4rec.serve.service import ConflictError, NotFoundError
from gru4rec.serve.store import StoreUnavailableError

_MOST_ERRORS = 1000
"""To write more of them down would take longer than to answer a request."""
_MOST_LETTERS = 64
_ROUTING = {
    404: "there is no such path here. /docs shows those there are",
    405: "this path is not asked in this way. The header Allow says how",
}


def add_answers_to_errors(app: FastAPI) -> None:
    """Turn what the service raises into answers."""

    @app.exception_handler(RequestValidationError)
    async def of_parameters(request: Request, error: RequestValidationError) -> Response:
        return problem(422, _said(error.errors()))

    @app.exception_handler(ValidationError)
    async def of_body(request: Request, error: ValidationError) -> Response:
        if error.error_count() > _MOST_ERRORS:
            return problem(422, f"body: more than {_MOST_ERRORS:,} fields are wrong. /docs says what it may hold")
        return problem(422, _said(error.errors(include_url=False, include_context=False, include_input=False)))

    @app.exception_handler(HTTPException)
    async def of_routing(request: Request, error: HTTPException) -> Response:
        response = problem(error.status_code, _ROUTING.get(error.status_code, str(error.detail)))
        if error.status_code == 405:
            response.headers["Allow"] = ", ".join(sorted(_methods_of(request)))
        return response

    @app.exception_handler(Exception)
    async def of_mistakes(request: Request, error: Exception) -> Response:
        return problem(500, BROKEN)

    @app.exception_handler(GRU4RecError)
    async def of_input(request: Request, error: GRU4RecError) -> Response:
        return problem(422, str(error))

    @app.exception_handler(NotFoundError)
    async def of_missing(request: Request, error: NotFoundError) -> Response:
        return problem(404, str(error))

    @app.exception_handler(ConflictError)
    async def of_conflict(request: Request, error: ConflictError) -> Response:
        return problem(409, str(error))

    @app.exception_handler(BusyError)
    async def of_much(request: Request, error: BusyError) -> Response:
        return busy(error)

    @app.exception_handler(TooLateError)
    async def of_late(request: Request, error: TooLateError) -> Response:
        return problem(503, "the request waited too long and was given up. Send it again", retry_after_s=1)

    @app.exception_handler(StoreUnavailableError)
    async def of_store(request: Request, error: StoreUnavailableError) -> Response:
        return problem(503, "the session store does not answer. Send the request again", retry_after_s=1)


def _methods_of(request: Request) -> set[str]:
    """Return how a path can be asked, by all its routes: the router names those of the first alone."""
    fitting = [route for route in request.app.routes if route.matches(request.scope)[0] != Match.NONE]
    methods = {method for route in fitting for method in route.methods}
    return methods | ({"HEAD"} if "GET" in methods else set())


def _said(found: Any) -> str:
    """Return what pydantic found as one line: where and what, of what was sent no more than names."""
    return "; ".join(_said_of(each) for each in found[:5])


def _said_of(wrong: Any) -> str:
    parts = [str(part)[:_MOST_LETTERS] for part in wrong["loc"] if part not in ("query", "path")]
    what = wrong["msg"].removeprefix("Value error, ")
    if wrong["type"] == "extra_forbidden":
        what = "there is no such field. /docs shows those there are"
    return f"{'.'.join(parts) or 'body'}: {what}"
