"""The ways of finding lists, measured on this model and machine: how exact, how fast, how large; and which to take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from gru4rec.evaluate.evaluator import Scorer, State
from gru4rec.serve.search import SEARCH_KINDS, ScanSearch, Search, SearchKind, can_scan, make_search
from gru4rec.serve.settings import SearchChoice
from gru4rec.serve.topk import Wanted

_CLICKS = 3


@dataclass(frozen=True)
class Reading:
    """One way, measured.

    Attributes:
        search: Its name.
        recall: Share of the exact lists' items that its lists hold.
        same_lists: Share of lists that are the exact ones, scores and order.
        ms_alone: Median milliseconds for one session.
        ms_together: Median milliseconds a session, :attr:`n_together` at once.
        n_together: Sessions.
        n_bytes: Memory beside the model, in bytes.
        build_s: Seconds until it was ready.
    """

    search: SearchKind
    recall: float
    same_lists: float
    ms_alone: float
    ms_together: float
    n_together: int
    n_bytes: int
    build_s: float


def read_dial(
    scorer: Scorer, support: np.ndarray, *, k: int = 20, n_sessions: int = 200, threads: int = 1, seed: int = 0
) -> Iterator[Reading]:
    """Measure every way that this model can be searched, one after the other.

    Args:
        scorer: The model.
        support: (n_items,), training events of each item: sessions are drawn by it.
        k: List length.
        n_sessions: Made-up sessions whose lists are compared.
        threads: Parts of a scan side by side.
        seed: Of the sessions.
    """
    state = _sample_states(scorer, support, n_sessions, seed)
    wanted = [Wanted(min(k, scorer.n_items), np.empty(0, dtype=np.int32))] * n_sessions
    exact = make_search(scorer, "dense").best(state, wanted)
    for search in SEARCH_KINDS if can_scan(scorer) else SEARCH_KINDS[:1]:
        started = time.perf_counter()
        finder = make_search(scorer, search, threads=threads)
        build_s = time.perf_counter() - started
        lists = finder.best(state, wanted)
        held = [
            len(np.intersect1d(a.item_idx, b.item_idx)) / len(b.item_idx) for a, b in zip(lists, exact, strict=True)
        ]
        same = [
            np.array_equal(a.item_idx, b.item_idx) and np.array_equal(a.scores, b.scores)
            for a, b in zip(lists, exact, strict=True)
        ]
        n_together = min(16, n_sessions)
        yield Reading(
            search,
            float(np.mean(held)),
            float(np.mean(same)),
            _median_ms(finder, state, wanted, 1),
            _median_ms(finder, state, wanted, n_together) / n_together,
            n_together,
            finder.table.n_bytes if isinstance(finder, ScanSearch) else 0,
            build_s,
        )


def search_of(scorer: Scorer, choice: SearchChoice, *, threads: int = 1) -> tuple[SearchKind, Search]:
    """Return what finds a model's lists in the way that was chosen, and the name of the way.

    Args:
        scorer: The model.
        choice: The way; ``auto``: the fastest.
        threads: Parts of a scan side by side.

    Raises:
        ConfigError: The model cannot be scanned.
    """
    if choice == "auto":
        return fastest(scorer, threads=threads)
    return choice, make_search(scorer, choice, threads=threads)


def fastest(scorer: Scorer, *, threads: int = 1) -> tuple[SearchKind, Search]:
    """Return the fastest way of finding lists, and its name; measured in a moment. All ways are exact.

    Args:
        scorer: The model.
        threads: Parts of a scan side by side.
    """
    dense = make_search(scorer, "dense")
    if not can_scan(scorer):
        return "dense", dense
    scan = make_search(scorer, "int8", threads=threads)
    state = _sample_states(scorer, np.ones(scorer.n_items), 4, 0)
    wanted = [Wanted(min(20, scorer.n_items), np.empty(0, dtype=np.int32))] * 4
    dense_ms, scan_ms = (_median_ms(each, state, wanted, 1, n_times=3) for each in (dense, scan))
    return ("int8", scan) if scan_ms < dense_ms else ("dense", dense)


def _sample_states(scorer: Scorer, support: np.ndarray, n_sessions: int, seed: int) -> State:
    """Return the states after a few clicks, drawn by how often items were clicked in training."""
    rng = np.random.default_rng(seed)
    share = (support + 1e-9) / (support + 1e-9).sum()
    state = scorer.start(n_sessions)
    for _ in range(_CLICKS):
        state = scorer.advance(state, rng.choice(scorer.n_items, size=n_sessions, p=share))
    return state


def _median_ms(search: Search, state: State, wanted: list[Wanted], at_once: int, *, n_times: int = 20) -> float:
    def ms(turn: int) -> float:
        rows = torch.arange(turn * at_once, (turn + 1) * at_once) % len(wanted)
        of_turn = tuple(part[rows] for part in state)
        started = time.perf_counter()
        search.best(of_turn, wanted[:at_once])
        return (time.perf_counter() - started) * 1000

    ms(0)  # compiles
    return float(np.median([ms(turn) for turn in range(n_times)]))
