"""The lists of sessions: their k best items, best first, equal scores in item-index order. Exact, whichever way.

:class:`DenseSearch` scores everything and is the definition. :class:`ScanSearch` scans a small copy of the item matrix
for candidates and scores these as the evaluation does: the same lists, to the last bit of every score, only sooner.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
import torch

from gru4rec.errors import ConfigError
from gru4rec.evaluate.evaluator import Scorer, State, block_width, score_blocks
from gru4rec.model.scorer import GRUScorer
from gru4rec.serve.topk import Wanted, top_k

SearchKind = Literal["dense", "float32", "bf16", "int8"]
"""Score everything, or scan a copy of the item matrix in one of three number types."""
SEARCH_KINDS: tuple[SearchKind, ...] = get_args(SearchKind)

_SCORES_AT_ONCE = 16_000_000
"""Scores held at a time: sessions are cut so that sessions x items stays below (64 MB)."""

_ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class Best:
    """A list: item indices, best first, and their scores."""

    item_idx: np.ndarray
    scores: np.ndarray


class Search(Protocol):
    """What finds lists."""

    def best(self, state: State, wanted: Sequence[Wanted]) -> list[Best]:
        """Return the list of each session: ``wanted[r].k`` items, fewer where fewer may stand in it."""


class DenseSearch:
    """Scores every item for every session.

    Args:
        scorer: Of any kind.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    def best(self, state: State, wanted: Sequence[Wanted]) -> list[Best]:
        """Return the list of each session."""
        at_once = max(1, _SCORES_AT_ONCE // self._scorer.n_items)
        lists: list[Best] = []
        for first in range(0, len(wanted), at_once):
            part = slice(first, first + at_once)
            scores_RN = all_scores(self._scorer, tuple(tensor[part] for tensor in state))
            lists += [best_of(scores_N, each) for scores_N, each in zip(scores_RN, wanted[part], strict=True)]
        return lists


class ScanSearch:
    """Finds candidates in a :class:`ScanTable`, and scores them as the evaluation does.

    Args:
        scorer: A GRU4Rec in float32 on the CPU.
        kind: Of the table.
        threads: Parts that are scanned side by side.

    Attributes:
        table: The table.
    """

    def __init__(self, scorer: GRUScorer, kind: Literal["float32", "bf16", "int8"], *, threads: int = 1) -> None:
        from gru4rec.serve.scan import ScanTable

        weight_NH, bias_N = scorer.output_weights()
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self.table = ScanTable(weight_NH.numpy(), bias_N.numpy(), kind, pool=self._pool, n_parts=threads)
        self._scorer, self._dense = scorer, DenseSearch(scorer)
        self._width = block_width(scorer.n_items, None, scorer.device)

    def best(self, state: State, wanted: Sequence[Wanted]) -> list[Best]:
        """Return the list of each session."""
        lists: list[Best] = []
        for first in range(0, len(wanted), _ROWS_AT_ONCE):
            part = slice(first, first + _ROWS_AT_ONCE)
            lists += self._best(tuple(tensor[part] for tensor in state), wanted[part])
        return lists

    def _best(self, state: State, wanted: Sequence[Wanted]) -> list[Best]:
        ready = self._scorer.ready(state)
        found = self.table.candidates(ready[-1].numpy(), wanted)
        items = np.unique(np.concatenate([each for each in found if each is not None] or [np.empty(0, dtype=np.int32)]))
        scores_RC = self._scores(ready, items)
        lists = []
        for row, (candidates, each) in enumerate(zip(found, wanted, strict=True)):
            if candidates is None:
                lists += self._dense.best(tuple(tensor[row : row + 1] for tensor in state), [each])
                continue
            candidates = np.sort(candidates)
            scores = scores_RC[row, np.searchsorted(items, candidates)]
            best = top_k(scores, each.k)
            lists.append(Best(candidates[best], scores[best]))
        return lists

    def _scores(self, ready: State, items: np.ndarray) -> np.ndarray:
        """Return the scores of some items, from products as wide as the evaluation's: then they are the same bits."""
        scores_RC = np.empty((len(ready[-1]), len(items)), dtype=np.float32)
        for start in range(0, len(items), self._width):
            part = items[start : start + self._width]
            scores = self._scorer.score_items(ready, np.resize(part, self._width))
            scores_RC[:, start : start + len(part)] = scores[:, : len(part)].numpy()
        return scores_RC


def can_scan(scorer: Scorer) -> bool:
    """Tell whether a scorer's lists can be found by a scan: a GRU4Rec in float32 on the CPU, and compiled loops."""
    from gru4rec.jit import HAVE_NUMBA

    if not (HAVE_NUMBA and isinstance(scorer, GRUScorer)):
        return False
    return scorer.output_weights()[0].dtype == torch.float32 and scorer.device.type == "cpu"


def make_search(scorer: Scorer, kind: SearchKind, *, threads: int = 1) -> Search:
    """Return what finds a model's lists in one of the ways.

    Args:
        scorer: The model.
        kind: The way.
        threads: Parts of a scan side by side.

    Raises:
        ConfigError: The model cannot be scanned.
    """
    if kind == "dense":
        return DenseSearch(scorer)
    if not can_scan(scorer) or not isinstance(scorer, GRUScorer):
        raise ConfigError(
            f"{kind} scans the item matrix of a GRU4Rec in float32 with compiled loops, and this model or machine has "
            "none. Choose dense"
        )
    return ScanSearch(scorer, kind, threads=threads)


def all_scores(scorer: Scorer, state: State) -> np.ndarray:
    """Return the scores (R, N) of all items for R sessions."""
    scores_RN = np.empty((0, 0))
    for start, scores in score_blocks(scorer, scorer.ready(state)):
        block = scores.cpu().numpy()
        if not start:
            scores_RN = np.empty((len(block), scorer.n_items), dtype=block.dtype)
        scores_RN[:, start : start + block.shape[1]] = block
    return scores_RN


def best_of(scores_N: np.ndarray, wanted: Wanted) -> Best:
    """Return the list that a row of scores gives."""
    if wanted.allowed_idx is None:
        best = top_k(scores_N, wanted.k, excluded_idx=wanted.excluded_idx)
        return Best(best, scores_N[best])
    allowed = np.setdiff1d(wanted.allowed_idx, wanted.excluded_idx, assume_unique=True)
    best = allowed[top_k(scores_N[allowed], wanted.k)]
    return Best(best, scores_N[best])
