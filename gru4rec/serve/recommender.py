"""Sessions in, items out: recommendations from a trained model.

Starts from a model file; knows no training, no data frames. A GRU4Rec costs one GRU step a click, however long the
session; the scores are those of the evaluation, to the last bit.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gru4rec.baselines.files import load
from gru4rec.data.vocabulary import Vocabulary
from gru4rec.errors import ConfigError
from gru4rec.evaluate.evaluator import Scorer, State
from gru4rec.serve.dial import search_of
from gru4rec.serve.search import DenseSearch, Search, best_of
from gru4rec.serve.settings import SearchChoice
from gru4rec.serve.topk import Wanted

_SESSIONS_AT_ONCE = 512

Clicks = Sequence[int] | np.ndarray
Exclude = Literal["seen", "current"] | Iterable[Any] | None


@dataclass(frozen=True)
class Recommendations:
    """A list of items for one session, best first; equal scores in item-index order.

    Attributes:
        item_ids: Ids (int or str), k of them, fewer where exclusions leave fewer.
        scores: Their scores, before the final activation. For a session without known items: training events.
        n_unknown: Clicks of the session that were skipped because the model does not know the item.
    """

    item_ids: list[Any]
    scores: list[float]
    n_unknown: int


class Recommender:
    """Recommends the next items of sessions. Threads may share it.

    Args:
        scorer: A trained model, a baseline or a hybrid.
        items: Its vocabulary.
        support: (n_items,), training events of each item; sessions without known items get the highest.
        search: Finds the lists; None: a :class:`~gru4rec.serve.search.DenseSearch`.
    """

    def __init__(self, scorer: Scorer, items: Vocabulary, support: np.ndarray, *, search: Search | None = None) -> None:
        self._scorer = scorer
        self._support = np.asarray(support, dtype=np.float64)
        self._search = DenseSearch(scorer) if search is None else search
        self.items = items

    @classmethod
    def load(cls, path: str | Path, *, device: str = "cpu", search: SearchChoice = "dense") -> Recommender:
        """Read a model file of any kind: GRU4Rec, a baseline, a hybrid.

        Args:
            path: The file.
            device: Where a GRU4Rec computes.
            search: How its lists are found. All ways are exact: ``dense`` scores everything; ``int8``, ``bf16`` and
                ``float32`` scan a copy of the item matrix, on the CPU; ``auto`` is the fastest.

        Raises:
            ModelFileError: The file cannot be used.
            ConfigError: The model cannot be scanned.
        """
        fitted = load(path, device=device)
        return cls(fitted.scorer, fitted.items, fitted.support, search=search_of(fitted.scorer, search)[1])

    def recommend(
        self, session: Sequence[Any], k: int = 20, *, exclude: Exclude = None, allow: Iterable[Any] | None = None
    ) -> Recommendations:
        """Recommend for one session; see :meth:`recommend_batch`."""
        return self.recommend_batch([session], k, exclude=exclude, allow=allow)[0]

    def recommend_batch(
        self,
        sessions: Sequence[Sequence[Any]],
        k: int = 20,
        *,
        exclude: Exclude = None,
        allow: Iterable[Any] | None = None,
    ) -> list[Recommendations]:
        """Recommend the next items of each session.

        Args:
            sessions: Item ids of each session, oldest first, any number. Unknown ids are skipped and counted.
            k: List length, 1 up to the number of items.
            exclude: ``"seen"`` leaves out the items of the session itself, ``"current"`` its newest; a collection of
                ids leaves out those.
            allow: Ids of the only items that may be recommended; None: all.

        Raises:
            ConfigError: k out of range, a session that is a single text, or an ``exclude`` of another kind.
        """
        filters = self.filters(k, exclude=exclude, allow=allow)
        clicked = [self.known(session) for session in sessions]
        unknown = [len(session) - len(item_idx) for session, item_idx in zip(sessions, clicked, strict=True)]
        lists: list[Recommendations] = []
        for first in range(0, len(clicked), _SESSIONS_AT_ONCE):
            part = slice(first, first + _SESSIONS_AT_ONCE)
            states = self.states_of(clicked[part])
            lists += self.lists(states, clicked[part], unknown[part], [filters] * len(clicked[part]))
        return lists

    def session(self) -> LiveSession:
        """Start a session that is told its clicks one by one."""
        return LiveSession(self)

    def start(self, n_sessions: int) -> State:
        """Return the state of sessions without events."""
        return self._scorer.start(n_sessions)

    def known(self, session: Sequence[Any]) -> list[int]:
        """Return the item indices of a session's known items.

        Raises:
            ConfigError: It is a single text.
        """
        if isinstance(session, str | bytes):
            raise ConfigError(f"a session is a list of item ids, not the text {session!r}. Write [{session!r}]")
        item_idx = self.items.indices_of(session)
        known: list[int] = item_idx[item_idx >= 0].tolist()
        return known

    def states_of(self, clicked: Sequence[Clicks], state: State | None = None) -> State:
        """Return the states after all clicks, one GRU step at a time for all sessions that have one left.

        Args:
            clicked: Item indices of R sessions.
            state: Before the clicks; may be changed in place. None: sessions without events.
        """
        state = self.start(len(clicked)) if state is None else state
        lengths = np.array([len(item_idx) for item_idx in clicked])
        for step in range(int(lengths.max(initial=0))):
            rows = np.flatnonzero(lengths > step).tolist()
            newest = [clicked[row][step] for row in rows]
            if len(rows) == len(clicked):
                state = self._scorer.advance(state, newest)
                continue
            after = self._scorer.advance(tuple(part[rows] for part in state), newest)
            for part, new_part in zip(state, after, strict=True):
                part[rows] = new_part
        return state

    def filters(self, k: int, *, exclude: Exclude = None, allow: Iterable[Any] | None = None) -> Filters:
        """Check what a list is to hold, and turn ids into item indices.

        Raises:
            ConfigError: k out of range, or an ``exclude`` or ``allow`` of another kind.
        """
        if not 1 <= k <= self.items.n_items:
            raise ConfigError(f"k={k} is out of range: the model has {self.items.n_items} items. Give k from 1 to that")
        if isinstance(allow, str | bytes):
            raise ConfigError(f"allow is a collection of item ids, not the text {allow!r}. Write [{allow!r}]")
        allowed = None if allow is None else _ascending(self.known(list(allow)))
        if isinstance(exclude, str | bytes):
            if exclude in ("seen", "current"):
                return Filters(k, _ascending([]), allowed, exclude_seen=exclude == "seen", exclude_current=True)
            raise ConfigError(f"unknown exclude {exclude!r}. Give 'seen', 'current' or a collection of item ids")
        return Filters(k, _ascending([] if exclude is None else self.known(list(exclude))), allowed)

    def lists(
        self, state: State, clicked: Sequence[Clicks], unknown: Sequence[int], filters: Sequence[Filters]
    ) -> list[Recommendations]:
        """Turn R states into R lists; sessions without a known item get the popular ones.

        Args:
            state: After the clicks.
            clicked: Item indices of each session.
            unknown: Number of other clicks of each.
            filters: Of each session.
        """
        wanted = [each.wanted(item_idx) for each, item_idx in zip(filters, clicked, strict=True)]
        begun = [row for row, item_idx in enumerate(clicked) if len(item_idx)]
        of_begun = state if len(begun) == len(clicked) else tuple(part[begun] for part in state)
        found = iter(self._search.best(of_begun, [wanted[row] for row in begun]) if begun else [])
        lists = []
        for each, item_idx, n_unknown in zip(wanted, clicked, unknown, strict=True):
            best = next(found) if len(item_idx) else best_of(self._support, each)
            lists.append(Recommendations(self.items.ids_of(best.item_idx), best.scores.tolist(), n_unknown))
        return lists


@dataclass(frozen=True)
class Filters:
    """What a list is to hold, whatever the session: :meth:`Recommender.filters` makes it from ids.

    Attributes:
        k: List length.
        excluded_idx: Items that may not stand in it: int32, ascending, distinct.
        allowed_idx: The only items that may: likewise; None: all.
        exclude_seen: Whether the session's own items may not.
        exclude_current: Whether its newest item may not.
    """

    k: int
    excluded_idx: np.ndarray
    allowed_idx: np.ndarray | None = None
    exclude_seen: bool = False
    exclude_current: bool = False

    def wanted(self, clicked: Clicks) -> Wanted:
        """Return what the list of a session is to hold."""
        own = clicked if self.exclude_seen else clicked[-1:] if self.exclude_current else []
        excluded = np.union1d(self.excluded_idx, _ascending(own)) if len(own) else self.excluded_idx
        return Wanted(self.k, excluded, self.allowed_idx)


def _ascending(item_idx: Clicks) -> np.ndarray:
    return np.unique(np.array(item_idx, dtype=np.int32))


class LiveSession:
    """A visitor's session: tell it each click, ask it for a list at any time. Costs one GRU step a click.

    Threads may share it, as they may share a recommender.

    Attributes:
        n_unknown: Clicks so far on items that the model does not know.
    """

    def __init__(self, recommender: Recommender) -> None:
        self._recommender = recommender
        self._state = recommender.start(1)
        self._clicked: list[int] = []
        self._lock = threading.Lock()
        self.n_unknown = 0

    def update(self, item_id: Any) -> bool:
        """Take one click.

        Returns:
            False where the model does not know the item: the click is counted in ``n_unknown`` and no more.
        """
        item_idx = self._recommender.items.index_of(item_id)
        with self._lock:
            if item_idx is None:
                self.n_unknown += 1
                return False
            self._state = self._recommender.states_of([[item_idx]], self._state)
            self._clicked.append(item_idx)
            return True

    def recommend(self, k: int = 20, *, exclude: Exclude = None, allow: Iterable[Any] | None = None) -> Recommendations:
        """Recommend the next items; see :meth:`Recommender.recommend_batch`."""
        filters = self._recommender.filters(k, exclude=exclude, allow=allow)
        with self._lock:
            state, clicked, n_unknown = self._state, list(self._clicked), self.n_unknown
        return self._recommender.lists(state, [clicked], [n_unknown], [filters])[0]
