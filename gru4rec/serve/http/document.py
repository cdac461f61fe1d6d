"""The OpenAPI document: what FastAPI finds, and what it cannot see (bodies that are read by hand, keys, limits)."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from gru4rec.serve.http import schemas
from gru4rec.serve.settings import ServeSettings

_BODIES: dict[str, type[schemas.ListOptions]] = {
    "/v1/recommend": schemas.RecommendRequest,
    "/v1/sessions/{session_id}/events": schemas.ClickRequest,
}
_WORDS = {
    401: "No key that fits.",
    404: "There is no such thing here.",
    408: "The body took too long.",
    409: "Others kept changing the session.",
    413: "The body is too large.",
    422: "The request is wrong; the message says where.",
    429: "Too much is waiting; come again after Retry-After seconds.",
    503: "It could not be answered now; try again.",
}


def errors(*statuses: int, body: bool = False) -> dict[int | str, dict[str, Any]]:
    """Return the description of errors a route answers with.

    Args:
        statuses: Of the route itself.
        body: Whether it reads a body.
    """
    found = (*statuses, *((408, 413) if body else ()))
    return {
        status: {"model": schemas.ErrorResponse, "description": _WORDS[status]}
        | ({"headers": {"Retry-After": {"schema": {"type": "integer"}}}} if status in (429, 503) else {})
        for status in found
    }


def document_of(app: FastAPI, settings: ServeSettings) -> dict[str, Any]:
    """Return the OpenAPI document of a service with these limits and keys."""
    document = get_openapi(
        title="gru4rec",
        version=app.version,
        description="Next items of sessions. Item ids are integers or text, as in the log the model was trained on.",
        routes=app.routes,
    )
    components = document["components"]["schemas"]
    for path, kind in _BODIES.items():
        components[kind.__name__] = kind.model_json_schema(ref_template="#/components/schemas/{model}")
        document["paths"][path]["post"]["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}},
        }
    if not settings.admin_keys:  # then there is no such path
        document["paths"] = {
            path: methods for path, methods in document["paths"].items() if not path.startswith("/admin")
        }
    _write_limits(document, settings)
    _write_keys(document, settings)
    return document


def _write_limits(document: dict[str, Any], settings: ServeSettings) -> None:
    limits, components = settings.limits, document["components"]["schemas"]
    for kind in _BODIES.values():
        components[kind.__name__]["properties"]["k"]["maximum"] = limits.k
        if settings.catalogue is None:
            components[kind.__name__]["properties"]["where"]["maxProperties"] = 0
    request = components["RecommendRequest"]
    session, sessions = request["properties"]["session"], request["properties"]["sessions"]
    session["anyOf"][0]["maxItems"] = limits.session_items
    sessions["anyOf"][0]["items"]["maxItems"] = limits.session_items
    sessions["anyOf"][0]["maxItems"] = limits.sessions_a_request
    request["oneOf"] = [
        {"required": ["session"], "properties": {"session": {"type": "array"}, "sessions": {"type": "null"}}},
        {"required": ["sessions"], "properties": {"sessions": {"type": "array"}, "session": {"type": "null"}}},
    ]
    for path in ("/v1/items", "/v1/items/{item_id}/similar"):
        for parameter in document["paths"][path]["get"]["parameters"]:
            if parameter["name"] in ("k", "limit"):
                parameter["schema"]["maximum"] = limits.k


def _write_keys(document: dict[str, Any], settings: ServeSettings) -> None:
    """Say which paths want which key."""
    refused = {
        "description": _WORDS[401],
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorResponse"}}},
    }
    document["components"]["securitySchemes"] = {
        "api_key": {"type": "http", "scheme": "bearer"},
        "admin_key": {"type": "http", "scheme": "bearer"},
    }
    for path, methods in document["paths"].items():
        is_admin = path.startswith("/admin")
        if is_admin or (settings.api_keys and path.startswith("/v1")):
            for method in methods.values():
                method["security"] = [{"admin_key" if is_admin else "api_key": []}]
                method["responses"].setdefault("401", refused)
