"""Counts and times every request, logs what went wrong, and closes connections while the service is ending."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gru4rec.serve.http.answers import BROKEN, problem
from gru4rec.serve.metrics import Metrics

logger = logging.getLogger("gru4rec.serve.http")
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class Ledger:
    """Where every answer is counted, timed and, if wanted, written down: route, status, time; no ids or addresses.

    Args:
        metrics: Where requests are counted.
        access_log: Whether each request gets a line.
    """

    def __init__(self, metrics: Metrics, *, access_log: bool) -> None:
        self._metrics, self._access_log = metrics, access_log
        self._counters: dict[tuple[str, int], Any] = {}

    def note(self, route: str, status: int, seconds: float) -> None:
        """Note an answer."""
        if (route, status) not in self._counters:  # looking labels up takes longer than counting
            metrics = self._metrics
            counter, seconds_of = metrics.requests.labels(route, str(status)), metrics.request_seconds.labels(route)
            self._counters[route, status] = (counter, seconds_of)
        counter, seconds_of = self._counters[route, status]
        counter.inc()
        seconds_of.observe(seconds)
        if self._access_log:
            logger.info("request", extra={"route": route, "status": status, "ms": round(seconds * 1000, 2)})


class Observe:
    """The outermost layer: nothing that happens inside leaves it as anything but an answer.

    Args:
        app: What answers.
        ledger: Where requests are noted.
        is_draining: Whether the service is about to end, so that connections should not be used again.
    """

    def __init__(self, app: ASGIApp, *, ledger: Ledger, is_draining: Callable[[], bool]) -> None:
        self._app, self._ledger, self._is_draining = app, ledger, is_draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and note what became of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._is_draining():
                    message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        try:
            await self._app(scope, receive, send_noted)
        except Exception:
            logger.exception("a request failed", extra={"route": _route(scope)})
            if not status:
                await problem(500, BROKEN)(scope, receive, send_noted)
        self._ledger.note(_route(scope), status, time.perf_counter() - started)


def _route(scope: Scope) -> str:
    """Return the path with names for what is in it, so that no id gets into numbers and logs."""
    route = scope.get("route")
    return str(getattr(route, "path_format", "other"))


class JsonLines(logging.Formatter):
    """Log records as JSON lines."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _PLAIN}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def log_json_lines(*, quiet: bool = False, access_log: bool = False) -> None:
    """Send the logs of the service and its server to standard error, as JSON lines.

    Args:
        quiet: Warnings and errors only.
        access_log: Of each request too, all the same.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name, level in (("gru4rec", logging.WARNING if quiet else logging.INFO), ("uvicorn", logging.WARNING)):
        log = logging.getLogger(name)
        log.handlers, log.propagate = [handler], False
        log.setLevel(level)
    logger.setLevel(logging.INFO if access_log else logging.NOTSET)
