"""Who may ask for what: bearer keys, compared in constant time, before a request is looked at any further."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from gru4rec.errors import ConfigError
from gru4rec.serve.http.answers import problem

OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"})
"""What needs no key: no path below holds anything of a shop's."""
OPEN_FOLDER = "/page/"
_SHORTEST = 16
Headers = Iterable[tuple[bytes, bytes]]


class Keys:
    """Lets requests pass whose key fits: an API key for everything but the open paths, an admin key for ``/admin``.

    Args:
        app: What answers those that pass.
        api: API keys; none: no key is asked for, except below ``/admin``.
        admin: Admin keys; none: ``/admin`` does not exist.
    """

    def __init__(self, app: ASGIApp, *, api: Sequence[str], admin: Sequence[str]) -> None:
        self._app = app
        self._api, self._admin = [_digest(key) for key in api], [_digest(key) for key in admin]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 401, or 404 where there is no admin key that could fit."""
        if scope["type"] == "http":
            path = scope["path"]
            is_admin = path.lower().lstrip("/").startswith("admin")
            if is_admin and not self._admin:
                await problem(404, "there is no such path")(scope, receive, send)
                return
            keys = self._admin if is_admin else self._api
            if keys and not _is_open(path) and not _fits(_bearer(scope["headers"]), keys):
                kind = "admin key" if is_admin else "API key"
                await problem(401, f"this path wants an {kind}: Authorization: Bearer KEY")(scope, receive, send)
                return
        await self._app(scope, receive, send)


def opener(keys: Sequence[str]) -> Callable[[Headers], bool]:
    """Return what tells whether a request's headers hold one of the keys; without keys, all do."""
    digests = [_digest(key) for key in keys]
    return lambda headers: not digests or _fits(_bearer(headers), digests)


def _is_open(path: str) -> bool:
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDER)


def read_keys(file: str | None, text: str | None, *, what: str) -> tuple[str, ...]:
    """Read keys, one a line, ``#`` before a remark: from a file, else from a text such as an environment variable.

    Raises:
        ConfigError: The file cannot be read, holds no key, or a key is too short or not plain ASCII.
    """
    if file is not None:
        try:
            text = Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise ConfigError(f"cannot read the {what} in {file}: {reason}. Write one key a line") from None
    lines = [line.strip() for line in (text or "").splitlines()]
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if text is not None and not keys:
        raise ConfigError(f"{file or 'the environment'} holds no {what}. Write one a line, or leave it away")
    for number, key in enumerate(keys, start=1):
        if len(key) < _SHORTEST or not all("!" <= letter <= "~" for letter in key):
            raise ConfigError(
                f"the {what} number {number} is no key: it takes {_SHORTEST} letters or more of plain ASCII, without "
                "spaces. Make one with: python -c 'import secrets; print(secrets.token_urlsafe())'"
            )
    return keys


def _bearer(headers: Headers) -> bytes:
    found = [value for name, value in headers if name == b"authorization"]
    scheme, _, key = found[0].partition(b" ") if len(found) == 1 else (b"", b"", b"")
    return key.strip() if scheme.lower() == b"bearer" else b""


def _fits(key: bytes, digests: Sequence[bytes]) -> bool:
    """Compare with every key, each in the same time, whatever was found."""
    digest = hashlib.sha256(key).digest()
    return any([hmac.compare_digest(digest, each) for each in digests])


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
