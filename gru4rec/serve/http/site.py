"""The pages: a playground at ``/``, the description of the interface at ``/docs``, pictures of the catalogue.

Files lie in ``gru4rec/serve/page`` and are served as they are. A content security policy keeps pages from asking anyone
but this service, and the origins the catalogue's pictures come from.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from gru4rec.serve.http.answers import json_response, problem
from gru4rec.serve.service import Service

_FOLDER = Path(__file__).parent.parent / "page"
_PAGES = {"/": "index.html", "/docs": "docs.html"}
_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
"""Not the operating system's: some call scripts text/plain, which browsers then refuse to run."""
_MOST_ORIGINS = 50
_OF_A_PICTURE = {"Content-Security-Policy": "default-src 'none'", "Cache-Control": "private, max-age=600"}
"""Each list shows some of the pictures of the list before."""
_CAUTIONS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache"}


def add_site(app: FastAPI, service: Service, document: dict[str, Any]) -> None:
    """Add the pages' routes.

    Args:
        app: To which.
        service: Whose catalogue has pictures.
        document: The OpenAPI document.
    """
    files = {path.name: path.read_bytes() for path in _FOLDER.iterdir() if path.suffix in _KINDS}
    parts = {name: content for name, content in files.items() if name not in _PAGES.values()}

    async def page(request: Request) -> Response:
        content = files[_PAGES[request.scope["path"]]]
        policy = await asyncio.to_thread(_policy, service)  # the first call looks through all pictures
        return Response(content, media_type="text/html", headers=_CAUTIONS | {"Content-Security-Policy": policy})

    async def openapi(request: Request) -> Response:
        return json_response(document)

    async def part(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in parts:
            return problem(404, "there is no such file")
        return Response(parts[name], media_type=_KINDS[Path(name).suffix], headers=_CAUTIONS)

    async def picture(request: Request) -> Response:
        path = await asyncio.to_thread(_picture_file, service, request.path_params["item_id"])
        if path is None:
            return problem(404, "there is no such picture")
        return FileResponse(path, headers=_CAUTIONS | _OF_A_PICTURE)

    for path in _PAGES:
        app.add_route(path, page, include_in_schema=False)
    app.add_route("/openapi.json", openapi, include_in_schema=False)
    app.add_route("/page/{name}", part, include_in_schema=False)
    app.add_route("/v1/items/{item_id:path}/picture", picture, include_in_schema=False)


def _policy(service: Service) -> str:
    """Return what a page may load and ask: its own files, this service, and the catalogue's pictures."""
    origins = sorted({origin for model in service.models.values() for origin in model.details.picture_origins})
    if len(origins) > _MOST_ORIGINS:  # a header is short
        origins = ["https:", "http:"]
    pictures = " ".join(["'self'", "data:", "blob:", *origins])
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src {pictures}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _picture_file(service: Service, item_id: str) -> Path | None:
    """Return the file of an item's picture, whichever model knows the item; None where there is none."""
    for model in service.models.values():
        item_idx = model.items.index_of(item_id)
        if item_idx is not None:
            return model.details.picture_file(item_idx)
    return None
