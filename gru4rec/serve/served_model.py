"""A model that is being served: read from its file, checked, made ready to be searched, and named by a version."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gru4rec.baselines.files import Fitted, load
from gru4rec.bundle import VERSION_DIGITS, version_of
from gru4rec.config import setting_values
from gru4rec.data.session_map import ids_as_bytes
from gru4rec.data.vocabulary import Vocabulary
from gru4rec.errors import ModelFileError
from gru4rec.model.scorer import GRUScorer
from gru4rec.serve.dial import search_of
from gru4rec.serve.items.catalogue import Catalogue, ItemDetails
from gru4rec.serve.recommender import Recommender
from gru4rec.serve.search import Best, DenseSearch
from gru4rec.serve.settings import SearchChoice
from gru4rec.serve.topk import top_k

_TRIES = 3


@dataclass(frozen=True)
class ServedModel:
    """A model and what is said of it.

    Attributes:
        name: ``main`` or ``compare``.
        version: The first digits of the SHA-256 of its file.
        file: Name of the file.
        fitted: What was in it.
        recommender: Finds its lists.
        search: How they are found.
        details: Titles, pictures and columns of its items.
        loaded_at: Time, as ISO text.
        session_s: Seconds that a short session took when it was tried.
    """

    name: str
    version: str
    file: str
    fitted: Fitted
    recommender: Recommender
    search: str
    details: ItemDetails
    loaded_at: str
    session_s: float = 0.0

    @property
    def items(self) -> Vocabulary:
        """The vocabulary."""
        return self.fitted.items

    @property
    def keeps_state(self) -> bool:
        """Whether a session goes on from a small state; if not, it is read again from its clicks."""
        return isinstance(self.fitted.scorer, GRUScorer)

    def described(self) -> dict[str, Any]:
        """Return what anyone may know about the model."""
        settings = self.fitted.settings
        is_gru = self.fitted.kind == "gru4rec"
        return {
            "name": self.name,
            "version": self.version,
            "file": self.file,
            "kind": self.fitted.kind,
            "settings": setting_values(settings) if is_gru else settings.model_dump(mode="json"),
            "n_items": self.items.n_items,
            "data_fingerprint": self._data_fingerprint,
            "search": self.search,
            "loaded_at": self.loaded_at,
        }

    def similar(self, item_idx: int, k: int) -> tuple[Best, str]:
        """Return the k items most like one, and by what: cosine of output vectors, or the list of a session of it."""
        if not isinstance(self.fitted.scorer, GRUScorer):
            filters = self.recommender.filters(min(k, self.items.n_items), exclude="current")
            state = self.recommender.states_of([[item_idx]])
            return DenseSearch(self.fitted.scorer).best(state, [filters.wanted([item_idx])])[0], "scores"
        weight_NH = self.fitted.scorer.output_weights()[0]
        with torch.no_grad():
            length_N = self._lengths
            cosine_N = (weight_NH @ weight_NH[item_idx]) / (length_N * length_N[item_idx])
        scores_N = cosine_N.cpu().numpy()
        best = top_k(scores_N, k, excluded_idx=np.array([item_idx]))
        return Best(best, scores_N[best]), "cosine"

    @cached_property
    def _lengths(self) -> torch.Tensor:
        assert isinstance(self.fitted.scorer, GRUScorer)
        lengths: torch.Tensor = torch.linalg.vector_norm(self.fitted.scorer.output_weights()[0], dim=1).clamp_min(1e-12)
        return lengths

    @cached_property
    def _data_fingerprint(self) -> str:
        """A digest of the training log's items and how often each was clicked."""
        digest = hashlib.sha256(np.ascontiguousarray(self.fitted.support).tobytes())
        digest.update(ids_as_bytes(self.items))
        return digest.hexdigest()[:VERSION_DIGITS]


def load_served(
    path: str | Path, name: str, *, search: SearchChoice = "auto", threads: int = 1, catalogue: Catalogue | None = None
) -> ServedModel:
    """Read a model file, make sure that it answers, and make it ready.

    Args:
        path: The file.
        name: Under which it is served.
        search: How its lists are found; ``auto``: the fastest exact way on this machine.
        threads: Parts of a scan side by side.
        catalogue: Describes its items; None: they have ids only.

    Raises:
        ModelFileError: The file cannot be used, or was replaced while it was read.
        ConfigError: The model cannot be searched in this way.
    """
    before = _stamp(path)
    fitted = load(path)
    version = version_of(path)
    if before != _stamp(path):
        raise ModelFileError(f"{path} was replaced while it was read. Load it again")
    found_by, finder = search_of(fitted.scorer, search, threads=threads)
    recommender = Recommender(fitted.scorer, fitted.items, fitted.support, search=finder)
    details = ItemDetails(fitted.items, fitted.support, catalogue)
    loaded_at = datetime.now(UTC).isoformat(timespec="seconds")
    model = ServedModel(name, version, Path(path).name, fitted, recommender, found_by, details, loaded_at)
    return replace(model, session_s=_tried(model))


def _tried(model: ServedModel) -> float:
    """Answer some times, which compiles loops, and return the seconds that the quickest answer took.

    Raises:
        ModelFileError: The model cannot answer.
    """
    popular = int(np.argmax(model.fitted.support))
    session, k = model.items.ids_of([popular] * 3), min(20, model.items.n_items)
    seconds = []
    for _ in range(_TRIES):
        started = time.perf_counter()
        if not np.isfinite(model.recommender.recommend(session, k).scores).all():
            raise ModelFileError(f"{model.file} gives scores that are not numbers. Train or save the model again")
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def _stamp(path: str | Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None  # reading it says what is wrong
    return found.st_ino, found.st_size, found.st_mtime_ns
