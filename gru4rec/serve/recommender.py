"""Sessions in, items out: recommendations from a trained model.

Starts from a model file; knows no training, no data frames. A GRU4Rec costs one GRU step a click, however long the
session; the scores are those of the evaluation, to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gru4rec.baselines.files import load
from gru4rec.data.vocabulary import Vocabulary
from gru4rec.errors import ConfigError
from gru4rec.evaluate.evaluator import Scorer, State, score_blocks
from gru4rec.serve.topk import top_k

Exclude = Literal["seen"] | Iterable[Any] | None
Denied = Literal["seen"] | np.ndarray | None

_SCORES_AT_ONCE = 16_000_000
"""Scores held at a time: sessions of a batch are cut so that sessions x items stays below (64 MB)."""


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
    """Recommends the next items of sessions.

    Args:
        scorer: A trained model, a baseline or a hybrid.
        items: Its vocabulary.
        support: (n_items,), training events of each item; sessions without known items get the highest.
    """

    def __init__(self, scorer: Scorer, items: Vocabulary, support: np.ndarray) -> None:
        self._scorer = scorer
        self._support = np.asarray(support, dtype=np.float64)
        self.items = items

    @classmethod
    def load(cls, path: str | Path, *, device: str = "cpu") -> Recommender:
        """Read a model file of any kind: GRU4Rec, a baseline, a hybrid.

        Raises:
            ModelFileError: The file cannot be used.
        """
        fitted = load(path, device=device)
        return cls(fitted.scorer, fitted.items, fitted.support)

    def recommend(self, session: Sequence[Any], k: int = 20, *, exclude: Exclude = None) -> Recommendations:
        """Recommend for one session; see :meth:`recommend_batch`."""
        return self.recommend_batch([session], k, exclude=exclude)[0]

    def recommend_batch(
        self, sessions: Sequence[Sequence[Any]], k: int = 20, *, exclude: Exclude = None
    ) -> list[Recommendations]:
        """Recommend the next items of each session.

        Args:
            sessions: Item ids of each session, oldest first, any number. Unknown ids are skipped and counted.
            k: List length, 1 up to the number of items.
            exclude: ``"seen"`` leaves out the items of the session itself; a collection of ids leaves out those.

        Raises:
            ConfigError: k out of range, a session that is a single text, or an ``exclude`` of another kind.
        """
        denied = self._denied(exclude)
        clicked = [self._known(session) for session in sessions]
        unknown = [len(session) - len(item_idx) for session, item_idx in zip(sessions, clicked, strict=True)]
        at_once = max(1, min(512, _SCORES_AT_ONCE // self.items.n_items))
        lists: list[Recommendations] = []
        for first in range(0, len(clicked), at_once):
            part = slice(first, first + at_once)
            lists += self._lists(self._read_sessions(clicked[part]), clicked[part], unknown[part], k, denied)
        return lists

    def session(self) -> LiveSession:
        """Start a session that is told its clicks one by one."""
        return LiveSession(self)

    def _known(self, session: Sequence[Any]) -> list[int]:
        if isinstance(session, str | bytes):
            raise ConfigError(f"a session is a list of item ids, not the text {session!r}. Write [{session!r}]")
        return [idx for idx in map(self.items.index_of, session) if idx is not None]

    def _read_sessions(self, clicked: Sequence[Sequence[int]]) -> State:
        """Return the states after all clicks, one GRU step at a time for all sessions that have one left."""
        state = self._scorer.start(len(clicked))
        lengths = np.array([len(item_idx) for item_idx in clicked])
        for step in range(int(lengths.max(initial=0))):
            rows = np.flatnonzero(lengths > step).tolist()
            after = self._scorer.advance(tuple(part[rows] for part in state), [clicked[row][step] for row in rows])
            for part, new_part in zip(state, after, strict=True):
                part[rows] = new_part
        return state

    def _lists(
        self, state: State, clicked: Sequence[Sequence[int]], unknown: Sequence[int], k: int, denied: Denied
    ) -> list[Recommendations]:
        """Turn R states into R lists."""
        if not 1 <= k <= self.items.n_items:
            raise ConfigError(f"k={k} is out of range: the model has {self.items.n_items} items. Give k from 1 to that")
        scores_RN = np.empty((0, 0))
        for start, scores in score_blocks(self._scorer, self._scorer.ready(state)):
            block = scores.cpu().numpy()
            if not start:
                scores_RN = np.empty((len(clicked), self.items.n_items), dtype=block.dtype)
            scores_RN[:, start : start + block.shape[1]] = block
        lists = []
        for row, item_idx in enumerate(clicked):
            scores_N = scores_RN[row] if len(item_idx) else self._support
            seen_or_denied = np.array(item_idx, dtype=np.int64) if isinstance(denied, str) else denied
            best = top_k(scores_N, k, excluded_idx=seen_or_denied)
            lists.append(Recommendations(self.items.ids_of(best), scores_N[best].tolist(), unknown[row]))
        return lists

    def _denied(self, exclude: Exclude) -> Denied:
        """Turn what to leave out into item indices, once for all sessions; "seen" differs from session to session."""
        if exclude is None:
            return None
        if isinstance(exclude, str):
            if exclude == "seen":
                return "seen"
            raise ConfigError(f"unknown exclude {exclude!r}. Give 'seen' or a collection of item ids")
        return np.array(self._known(list(exclude)), dtype=np.int64)


class LiveSession:
    """A visitor's session: tell it each click, ask it for a list at any time. Costs one GRU step a click.

    Attributes:
        n_unknown: Clicks so far on items that the model does not know.
    """

    def __init__(self, recommender: Recommender) -> None:
        self._recommender = recommender
        self._state = recommender._scorer.start(1)
        self._clicked: list[int] = []
        self.n_unknown = 0

    def update(self, item_id: Any) -> bool:
        """Take one click.

        Returns:
            False where the model does not know the item: the click is counted in ``n_unknown`` and no more.
        """
        item_idx = self._recommender.items.index_of(item_id)
        if item_idx is None:
            self.n_unknown += 1
            return False
        self._state = self._recommender._scorer.advance(self._state, [item_idx])
        self._clicked.append(item_idx)
        return True

    def recommend(self, k: int = 20, *, exclude: Exclude = None) -> Recommendations:
        """Recommend the next items; see :meth:`Recommender.recommend_batch`."""
        denied = self._recommender._denied(exclude)
        return self._recommender._lists(self._state, [self._clicked], [self.n_unknown], k, denied)[0]
