"""Turns requests for lists away (429) while those that wait already would keep them waiting too long.

Where much more comes than can be answered, this is what a service does most: so it goes by the head of a request,
before its body is there and anything is made for it. Knows bytes, and nothing of the application.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

from starlette.responses import Response

from gru4rec.serve.batcher import BusyError
from gru4rec.serve.http.answers import problem
from gru4rec.serve.http.keys import Headers


class Door:
    """Knows whom to turn away, and what they are told.

    A request that is not for sure one for a list passes, and one without a key, or from a web page of who knows which
    origin; they are answered, or turned away, further in.

    Args:
        check_room: Raises BusyError while there is no room.
        has_key: Tells whether a request's headers hold a key that fits.
        on_refusal: Told the route of each request that is turned away.
    """

    def __init__(
        self,
        *,
        check_room: Callable[[], None],
        has_key: Callable[[Headers], bool],
        on_refusal: Callable[[str], None],
    ) -> None:
        self._check_room, self._has_key, self._on_refusal = check_room, has_key, on_refusal

    def refusal(self, target: bytes, headers: Headers) -> tuple[bytes, bytes] | None:
        """Return what is said to a POST that is turned away, the head without its end, and the body; None: it passes.

        Args:
            target: As the request spells it.
            headers: Names in small letters.
        """
        try:
            self._check_room()
        except BusyError as error:
            route = _route(target)
            if route is None or any(name == b"origin" for name, _ in headers) or not self._has_key(headers):
                return None
            self._on_refusal(route)
            return _spelled(_seconds(error))
        return None


def busy(error: BusyError) -> Response:
    """Return the answer to who has to come again."""
    return _busy(_seconds(error))


def _seconds(error: BusyError) -> int:
    return max(1, math.ceil(error.wait_s))


def _busy(seconds: int) -> Response:
    return problem(429, "too much is waiting. Come again after the seconds in Retry-After", retry_after_s=seconds)


@functools.cache
def _spelled(seconds: int) -> tuple[bytes, bytes]:
    response = _busy(seconds)
    head = [b"HTTP/1.1 429 Too Many Requests", *(b"%s: %s" % header for header in response.raw_headers), b""]
    return b"\r\n".join(head), bytes(response.body)


def _route(target: bytes) -> str | None:
    """Return the route of a target that is spelled as documented; None: it is another one, or spelled otherwise."""
    if target == b"/v1/recommend":
        return "/v1/recommend"
    is_click = target.startswith(b"/v1/sessions/") and target.endswith(b"/events") and target.count(b"/") == 4
    return "/v1/sessions/{session_id}/events" if is_click and b"?" not in target else None
