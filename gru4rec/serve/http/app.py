"""The routes. Each reads a request, asks the service, and writes the answer; layers around them keep the rest out."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Path, Query, Request
from pydantic import BaseModel
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from gru4rec import __version__
from gru4rec.serve.http import schemas
from gru4rec.serve.http.answers import HeadAsGet, json_response, problem
from gru4rec.serve.http.document import document_of, errors
from gru4rec.serve.http.door import Door
from gru4rec.serve.http.failures import add_answers_to_errors
from gru4rec.serve.http.keys import Keys, opener
from gru4rec.serve.http.limits import BodyLimit
from gru4rec.serve.http.observe import Ledger, Observe
from gru4rec.serve.http.site import add_site
from gru4rec.serve.metrics import Metrics
from gru4rec.serve.service import Service
from gru4rec.serve.settings import ServeSettings

_GAUGES_S = 0.5

SessionId = Annotated[
    str, Path(pattern=r"^[A-Za-z0-9._~:@-]{1,128}$", description="The visitor's session, by any name.")
]
ItemId = Annotated[str, Path(max_length=512, description="An item id.")]
Length = Annotated[int, Query(ge=1, description="List length.")]
Model = Annotated[schemas.ModelName, Query(description="Which model answers.")]
Body = TypeVar("Body", bound=BaseModel)


def make_app(settings: ServeSettings) -> tuple[ASGIApp, Door, Service]:
    """Return the application, what turns requests away before it, and the service that is asked.

    Args:
        settings: As the service was started with.
    """
    metrics = Metrics(settings.metrics_dir)
    service = Service(settings, metrics)
    app = FastAPI(
        title="gru4rec",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,  # it would redirect to whatever host the request names
        lifespan=_life(service),
    )
    add_answers_to_errors(app)
    _add_recommendations(app, service)
    _add_sessions(app, service)
    _add_items(app, service)
    _add_operation(app, service)
    document = document_of(app, settings)
    add_site(app, service, document)
    ledger = Ledger(metrics, access_log=settings.access_log)
    return _layers(app, service, ledger), _door(service, ledger), service


def _door(service: Service, ledger: Ledger) -> Door:
    def check_room() -> None:
        if not service.is_draining:  # then answers are to say that the connection ends
            service.batcher.check_room()

    def note(route: str) -> None:
        service.metrics.shed.inc()
        ledger.note(route, 429, 0.0)

    return Door(check_room=check_room, has_key=opener(service.settings.api_keys), on_refusal=note)


def _layers(app: ASGIApp, service: Service, ledger: Ledger) -> ASGIApp:
    """Put around the routes what a request passes first: the last named is the outermost."""
    settings = service.settings
    app = BodyLimit(app, limits=settings.limits)
    app = Keys(app, api=settings.api_keys, admin=settings.admin_keys)
    if settings.cors_origins:
        app = CORSMiddleware(
            app,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["Retry-After"],
        )
    app = Observe(app, ledger=ledger, is_draining=lambda: service.is_draining)
    return HeadAsGet(app)


def _life(service: Service) -> Any:
    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        gauges = asyncio.create_task(_keep_gauges(service))
        yield
        gauges.cancel()
        with suppress(asyncio.CancelledError):
            await gauges
        await service.stop()

    return life


async def _keep_gauges(service: Service) -> None:
    while True:
        service.metrics.waiting.set(service.batcher.n_waiting)
        n_sessions = None if service.store is None else service.store.n_sessions()
        if n_sessions is not None:
            service.metrics.sessions.set(n_sessions)
        await asyncio.sleep(_GAUGES_S)


def _add_recommendations(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/recommend", response_model=schemas.RecommendResponse, responses=errors(422, 429, 503, 404, body=True)
    )
    async def recommend(request: Request) -> Response:
        """Recommend the next items of sessions that are sent whole."""
        service.check_room()
        asked = await _read(request, schemas.RecommendRequest)
        if wrong := schemas.too_much(asked, service.settings.limits):
            return problem(422, wrong)
        sessions = asked.sessions if asked.session is None else [asked.session]
        answers = await service.recommend(sessions or [], asked.asked(), asked.model)
        lists = [schemas.list_of(answer, details=asked.details) for answer in answers]
        content: dict[str, Any] = {"lists": lists} if asked.session is None else lists[0]
        model = answers[0].model
        return json_response(content | {"model": model.name, "model_version": model.version})


def _add_sessions(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/sessions/{session_id}/events",
        response_model=schemas.ClickResponse,
        responses=errors(404, 409, 422, 429, 503, body=True),
    )
    async def click(session_id: SessionId, request: Request) -> Response:
        """Add a click to a session that the service keeps, and recommend the next items."""
        service.check_room()
        asked = await _read(request, schemas.ClickRequest)
        if wrong := schemas.too_long(asked, service.settings.limits):
            return problem(422, wrong)
        answer = await service.click(session_id, asked.item, asked.asked())
        return json_response(
            schemas.list_of(answer, details=asked.details)
            | {
                "model": answer.model.name,
                "model_version": answer.model.version,
                "n_clicks": answer.n_clicks,
                "degraded": answer.degraded,
            }
        )

    @app.get("/v1/sessions/{session_id}", response_model=schemas.SessionResponse, responses=errors(404, 422, 503))
    async def session(session_id: SessionId) -> Response:
        """Tell what is kept of a session."""
        kept = await service.session(session_id)
        return json_response({"session": kept.item_ids, "n_clicks": kept.n_clicks, "model_version": kept.model_version})

    @app.delete("/v1/sessions/{session_id}", status_code=204, response_class=Response, responses=errors(404, 422, 503))
    async def forget(session_id: SessionId) -> Response:
        """Forget a session."""
        await service.forget(session_id)
        return Response(status_code=204)


def _add_items(app: FastAPI, service: Service) -> None:
    @app.get(
        "/v1/items/{item_id:path}/similar", response_model=schemas.SimilarResponse, responses=errors(404, 422, 429, 503)
    )
    async def similar(item_id: ItemId, k: Length = 20, model: Model = "main", details: bool = False) -> Response:
        """Find the items most like one."""
        if k > service.settings.limits.k:
            return problem(422, f"k: {k} is above {service.settings.limits.k}. Ask for fewer")
        answer = await service.similar(item_id, k, model)
        items = schemas.items_of(answer, details=details)
        return json_response(
            {"items": items, "by": answer.by, "model": answer.model.name, "model_version": answer.model.version}
        )

    @app.get("/v1/items", response_model=schemas.FoundItems, responses=errors(422, 429))
    async def items(
        query: Annotated[str, Query(max_length=200, description="Part of a title, or the beginning of an id.")] = "",
        limit: Length = 20,
    ) -> Response:
        """Look for items; an empty query gives those clicked most."""
        if limit > service.settings.limits.k:
            return problem(422, f"limit: {limit} is above {service.settings.limits.k}. Ask for fewer")
        return json_response({"items": await service.find(query, limit)})


def _add_operation(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", responses={200: {"description": "The process answers."}})
    async def healthz() -> Response:
        """Tell that the process is alive."""
        return json_response({"status": "ok"})

    @app.get("/readyz", responses=errors(503) | {200: {"description": "Requests are welcome."}})
    async def readyz() -> Response:
        """Tell whether requests should be sent here."""
        if service.is_draining:
            return problem(503, "the service is ending", retry_after_s=1)
        return json_response({"status": "ready"})

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Give numbers to Prometheus."""
        return Response(await asyncio.to_thread(service.metrics.text), media_type="text/plain; version=0.0.4")

    @app.get("/v1/model", response_model=schemas.ModelsResponse)
    async def model() -> Response:
        """Describe the models and limits of the service."""
        return json_response(service.described())

    @app.post("/admin/reload", response_model=schemas.ModelsResponse, responses=errors(401, 404, 422))
    async def reload() -> Response:
        """Read the model files again, check them, and serve what is in them; in all workers."""
        await service.reload()
        if service.settings.n_workers > 1:
            os.kill(os.getppid(), signal.SIGHUP)
        return json_response(service.described())


async def _read(request: Request, kind: type[Body]) -> Body:
    return kind.model_validate_json(await request.body())
