"""The service itself: models, sessions and the scoring thread. Knows requests as values, and nothing of HTTP."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any, TypeVar

import numpy as np

from gru4rec.errors import GRU4RecError
from gru4rec.serve.batcher import Batcher, BusyError, Scored, Task, TooLateError
from gru4rec.serve.items.catalogue import Catalogue
from gru4rec.serve.kept_session import TAG_BYTES, KeptSession, rows_of, state_of
from gru4rec.serve.metrics import Metrics
from gru4rec.serve.questions import Answer, Asked, SimilarItems
from gru4rec.serve.recommender import Filters
from gru4rec.serve.served_model import ServedModel, load_served
from gru4rec.serve.settings import ServeSettings, SessionSettings
from gru4rec.serve.store import MemoryStore, Store, StoreUnavailableError

_TRIES = 10
_MOST_ASIDE = 16
_MOST_ON_A_SESSION = 32
"""Clicks of one session at once: nobody clicks so fast, and each waits for those before it."""
Found = TypeVar("Found")
logger = logging.getLogger("gru4rec.serve")


class NotFoundError(Exception):
    """There is no such session, item or model, or this service keeps none; the message says which."""


class ConflictError(Exception):
    """A session was changed by others again and again while a click was to be added."""


class _SessionLock(asyncio.Lock):
    """Lets one click of a session pass after the other.

    Attributes:
        n_clicks: Those that wait, and the one that passes.
    """

    n_clicks = 0


class Service:
    """Answers requests.

    Args:
        settings: As the service was started with.
        metrics: Where it counts.
    """

    def __init__(self, settings: ServeSettings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.models: dict[str, ServedModel] = {}
        self.store = None if settings.sessions is None else _store(settings.sessions)
        self.batcher = Batcher(
            batch_sessions=settings.batch_sessions,
            batch_wait_s=settings.batch_wait_ms / 1000,
            longest_wait_s=settings.limits.wait_ms / 1000,
            on_turn=metrics.note_turn,
        )
        self.is_draining = False
        self._locks: weakref.WeakValueDictionary[str, _SessionLock] = weakref.WeakValueDictionary()
        self._reloading = asyncio.Lock()
        self._one_aside, self._n_aside = asyncio.Lock(), 0

    # --- life ---

    def load(self) -> None:
        """Load the models, before anything else.

        Raises:
            GRU4RecError: A model or the catalogue cannot be used.
        """
        self.models = self._load()
        self._greet()

    def start(self) -> None:
        """Begin to answer, in the running event loop."""
        self.batcher.start()

    async def reload(self) -> None:
        """Read the model files again and serve what is in them; requests under way are answered by the models they met.

        Raises:
            GRU4RecError: A file cannot be used; the models stay as they are.
        """
        async with self._reloading:
            try:
                models = await asyncio.to_thread(self._load)
            except GRU4RecError as error:
                self.metrics.reloads.labels("failed").inc()
                logger.error("reload failed, the old model stays", extra={"error": str(error)})
                raise
            for model in self.models.values():
                self.metrics.model.labels(model.name, model.version).set(0)
            self.models = models
            self._greet()
            self.metrics.reloads.labels("done").inc()
            logger.info("reloaded", extra={"model_version": models["main"].version})

    async def stop(self) -> None:
        """Answer what waits, then let go of threads and connections."""
        await asyncio.to_thread(self.batcher.stop)
        if self.store is not None:
            await self.store.close()

    def _load(self) -> dict[str, ServedModel]:
        settings = self.settings
        catalogue = None
        if settings.catalogue is not None:
            catalogue = Catalogue.read(settings.catalogue, id_column=settings.catalogue_id)
        files = {"main": settings.model} | ({} if settings.compare is None else {"compare": settings.compare})
        return {
            name: load_served(path, name, search=settings.search, threads=settings.threads, catalogue=catalogue)
            for name, path in files.items()
        }

    def _greet(self) -> None:
        """Take note of new models, and keep the collector from walking over all that was loaded: that stops all."""
        gc.freeze()
        self.batcher.expect(self.models["main"].session_s)
        for model in self.models.values():
            self.metrics.model.labels(model.name, model.version).set(1)
            if self.settings.catalogue is not None and not model.details.n_described:
                logger.warning("the catalogue describes none of the model's items", extra={"model": model.name})

    # --- answers ---

    def check_room(self) -> None:
        """Refuse what could not be answered in time, before work is put into it.

        Raises:
            BusyError: Too much waits.
        """
        try:
            self.batcher.check_room()
        except BusyError:
            self.metrics.shed.inc()
            raise

    def model(self, name: str = "main") -> ServedModel:
        """Return a model by name.

        Raises:
            NotFoundError: There is none.
        """
        if name not in self.models:
            raise NotFoundError(f"there is no model {name!r} here, only {', '.join(self.models)}")
        return self.models[name]

    async def recommend(
        self, sessions: Sequence[Sequence[Any]], asked: Asked, model_name: str = "main"
    ) -> list[Answer]:
        """Return the list of each session, all of one model.

        Raises:
            BusyError: Too much waits.
            TooLateError: It waited too long.
            NotFoundError: There is no such model.
            ConfigError: A column that the catalogue does not have.
        """
        model = self.model(model_name)
        filters = asked.filters(model)
        clicked = [model.items.indices_of(session) for session in sessions]
        known = [item_idx[item_idx >= 0] for item_idx in clicked]
        scored = await self._scored([self._task(model, item_idx, item_idx, filters) for item_idx in known])
        return [
            self._answer(model, each, [item_id for item_id, idx in zip(session, item_idx, strict=True) if idx < 0])
            for each, session, item_idx in zip(scored, sessions, clicked, strict=True)
        ]

    async def click(self, session_id: str, item_id: Any, asked: Asked) -> Answer:
        """Add a click to a session and return its list. A store that is lost costs the session's past, not the answer.

        Raises:
            BusyError: Too much waits.
            TooLateError: It waited too long.
            ConflictError: Others kept changing the session.
            NotFoundError: This service keeps no sessions.
            ConfigError: A column that the catalogue does not have.
        """
        store = self._sessions()
        lock = self._locks.setdefault(session_id, _SessionLock())
        if lock.n_clicks >= _MOST_ON_A_SESSION:
            self.metrics.shed.inc()
            raise BusyError(1.0)
        lock.n_clicks += 1
        try:
            async with lock:
                return await self._click_kept(store, session_id, item_id, asked)
        finally:
            lock.n_clicks -= 1

    async def session(self, session_id: str) -> KeptSession:
        """Return a session as it is kept.

        Raises:
            NotFoundError: There is none, or this service keeps none.
            StoreUnavailableError: The store does not answer.
        """
        kept = await self._kept(self._sessions(), session_id)
        if not kept.n_clicks:
            raise NotFoundError("there is no such session: it was never begun, was deleted, or its time is over")
        return kept

    async def forget(self, session_id: str) -> None:
        """Delete a session.

        Raises:
            NotFoundError: There is none, or this service keeps none.
            StoreUnavailableError: The store does not answer.
        """
        with self._store_timed():
            was_there = await self._sessions().delete(session_id)
        if not was_there:
            raise NotFoundError("there is no such session: it was never begun, was deleted, or its time is over")

    async def similar(self, item_id: Any, k: int, model_name: str = "main") -> SimilarItems:
        """Return the k items most like one.

        Raises:
            NotFoundError: There is no such item or model.
            BusyError: Too much of the kind waits.
        """
        model = self.model(model_name)
        item_idx = model.items.index_of(item_id)
        if item_idx is None:
            raise NotFoundError("the model does not know this item")
        best, by = await self._aside(lambda: model.similar(item_idx, k))
        return SimilarItems(model, model.items.ids_of(best.item_idx), best.scores.tolist(), by)

    async def find(self, text: str, limit: int) -> list[dict[str, Any]]:
        """Return items whose title or id fits, clicked most first.

        Raises:
            BusyError: Too much of the kind waits.
        """
        model = self.model()
        found = await self._aside(lambda: model.details.search(text, limit))
        return [
            {
                "id": item_id,
                "title": model.details.title(item_idx),
                "picture": model.details.picture(item_idx),
                "n_events": int(model.fitted.support[item_idx]),
            }
            for item_id, item_idx in zip(model.items.ids_of(found), found.tolist(), strict=True)
        ]

    def described(self) -> dict[str, Any]:
        """Return what anyone may know about the models and limits."""
        details = self.model().details
        columns = {"n_described": details.n_described, "columns": list(details.columns)}
        return {
            "models": [model.described() for model in self.models.values()],
            "limits": asdict(self.settings.limits),
            "catalogue": None if self.settings.catalogue is None else columns,
            "keeps_sessions": self.store is not None,
        }

    async def _aside(self, work: Callable[[], Found]) -> Found:
        """Do what is not a list in a thread of its own, one piece at a time."""
        if self._n_aside >= _MOST_ASIDE:
            self.metrics.shed.inc()
            raise BusyError(1.0)
        self._n_aside += 1
        try:
            async with self._one_aside:
                return await asyncio.to_thread(work)
        finally:
            self._n_aside -= 1

    # --- parts of a click ---

    async def _click_kept(self, store: Store, session_id: str, item_id: Any, asked: Asked) -> Answer:
        for _ in range(_TRIES):
            try:
                kept = await self._kept(store, session_id)
            except StoreUnavailableError:
                return await self._clicked_alone(item_id, asked)
            answer, now_kept = await self._click(kept, item_id, asked)
            try:
                if await self._keep(store, session_id, kept, now_kept):
                    return answer
            except StoreUnavailableError:
                self.metrics.degraded.inc()
                return replace(answer, degraded=True)
            self.metrics.conflicts.inc()
        raise ConflictError(f"the session was changed by others {_TRIES} times in a row. Send the click again")

    async def _click(self, kept: KeptSession, item_id: Any, asked: Asked) -> tuple[Answer, KeptSession]:
        model = self.model()
        if kept.model_version != model.version:
            kept = self._moved(kept, model)
        filters = asked.filters(model)
        item_idx = model.items.index_of(item_id)
        after = kept.after(item_id, item_idx, None, most_ids=self.settings.limits.session_items)
        clicks = after.item_idx
        if kept.state is not None:
            clicks = clicks[:0] if item_idx is None else clicks[-1:]
        task = self._task(model, clicks, after.item_idx, filters)
        task.state = None if kept.state is None else state_of(kept.state)
        (scored,) = await self._scored([task])
        if model.keeps_state and len(after.item_idx):
            after = replace(after, state=rows_of(scored.state))
        answer = self._answer(model, scored, [item_id] if item_idx is None else [])
        return replace(answer, n_clicks=after.n_clicks), after

    async def _clicked_alone(self, item_id: Any, asked: Asked) -> Answer:
        self.metrics.degraded.inc()
        (answer,) = await self.recommend([[item_id]], asked)
        return replace(answer, n_clicks=1, degraded=True)

    def _moved(self, kept: KeptSession, model: ServedModel) -> KeptSession:
        """Return a session of another model as one of this model: its clicks will be read again."""
        if kept.n_clicks:
            self.metrics.replayed.inc()
        item_idx = model.items.indices_of(kept.item_ids)
        return replace(kept, model_version=model.version, item_idx=item_idx[item_idx >= 0], state=None)

    async def _kept(self, store: Store, session_id: str) -> KeptSession:
        """Return what is kept of a session; one without clicks where nothing is, or what is cannot be read."""
        with self._store_timed():
            packed = await store.get(session_id)
        if packed is None:
            return KeptSession(self.model().version)
        try:
            return KeptSession.unpack(packed)
        except ValueError:
            logger.error("a kept session could not be read and begins anew")
            return KeptSession(self.model().version, tag=packed[:TAG_BYTES])

    async def _keep(self, store: Store, session_id: str, old: KeptSession, new: KeptSession) -> bool:
        assert self.settings.sessions is not None
        packed = new.pack(self.settings.sessions.state_type)
        with self._store_timed():
            return await store.replace(session_id, old.tag, packed)

    def _sessions(self) -> Store:
        if self.store is None:
            raise NotFoundError("this service keeps no sessions. Send them whole to /v1/recommend")
        return self.store

    @contextmanager
    def _store_timed(self) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        except StoreUnavailableError:
            self.metrics.store_failures.inc()
            raise
        finally:
            self.metrics.stage_seconds.labels("store").observe(time.monotonic() - started)

    # --- scoring ---

    def _task(self, model: ServedModel, clicks: np.ndarray, seen: np.ndarray, filters: Filters) -> Task:
        deadline = time.monotonic() + self.settings.limits.answer_s
        return Task(model.recommender, clicks, seen, filters, None, deadline)

    async def _scored(self, tasks: Sequence[Task]) -> list[Scored]:
        self.check_room()
        try:
            return await self.batcher.score(tasks)
        except TooLateError:
            self.metrics.too_late.inc()
            raise

    def _answer(self, model: ServedModel, scored: Scored, unknown: list[Any]) -> Answer:
        if unknown:
            self.metrics.unknown_items.inc(len(unknown))
        found = scored.found
        return Answer(model, found.item_ids, found.scores, unknown, scored.is_popular)


def _store(settings: SessionSettings) -> Store:
    if settings.redis_url is None:
        return MemoryStore(settings.ttl_s, settings.memory_bytes)
    from gru4rec.serve.redis_store import RedisStore

    return RedisStore(
        settings.redis_url,
        prefix=settings.redis_prefix,
        ttl_s=settings.ttl_s,
        timeout_s=settings.redis_timeout_s,
    )
