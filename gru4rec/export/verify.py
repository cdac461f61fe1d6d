"""Does an exported file say what its model says? Random sessions, click by click, through both.

Both keep their own states, as in use, so that what differs at one click is carried on to the next.

Dimensions: B sessions of a batch, K list length.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gru4rec import __version__
from gru4rec.baselines.files import fitted_gru
from gru4rec.bundle import load_bundle, version_of
from gru4rec.errors import ModelFileError
from gru4rec.evaluate.evaluator import Scorer, State
from gru4rec.export.about import Exported, Step
from gru4rec.serve.recommender import Recommendations, Recommender

TOLERANCE = 1e-4
"""Allowed difference of states and scores; two items tie where the model's own scores are no further apart."""

_MEAN_CLICKS, _MOST_CLICKS = 5, 50
_MOST_SESSIONS_AT_ONCE = 256
_SCORES_AT_ONCE = 16_000_000
_LARGEST = float(np.finfo(np.float32).max)


@dataclass
class Outcome:
    """How a check went; it adds up while the check runs.

    Attributes:
        sessions: Sessions that were run.
        seed: They were drawn from.
        k: Length of the lists.
        runtime: What ran the file.
        tolerance: Allowed difference.
        clicks: Clicks of all sessions; after each, one list was compared.
        state_difference: Largest of any state's number.
        score_difference: Largest of any listed score.
        same_lists: Lists of the same ids in the same order.
        tied_lists: Lists that differ only among items whose scores tie.
        other_lists: Lists that differ otherwise.
    """

    sessions: int
    seed: int
    k: int
    runtime: str
    tolerance: float = TOLERANCE
    clicks: int = 0
    state_difference: float = 0.0
    score_difference: float = 0.0
    same_lists: int = 0
    tied_lists: int = 0
    other_lists: int = 0

    @property
    def agrees(self) -> bool:
        """Whether the file says what the model says."""
        return not self.other_lists and max(self.state_difference, self.score_difference) <= self.tolerance

    def described(self) -> dict[str, Any]:
        """Return the outcome as it is printed and recorded."""
        return {"agrees": self.agrees, **asdict(self), "gru4rec_version": __version__}


def verify(path: str | Path, model_path: str | Path, *, n_sessions: int = 1000, seed: int = 0) -> Outcome:
    """Run random sessions through an exported file and through its model, and record the outcome in the file.

    Args:
        path: The exported file, ONNX or .pt2. Opening a .pt2 file executes what is pickled in it.
        model_path: The model file that it was exported from.
        n_sessions: Sessions to run.
        seed: To draw them from.

    Raises:
        ModelFileError: One of the files cannot be used, or the file was exported from another model.
        DataError: The outcome cannot be written.
        ConfigError: What reads ONNX files is not installed.
    """
    exported = open_export(path)
    fitted = fitted_gru(load_bundle(model_path))
    version = version_of(model_path)
    if exported.about.model_version != version:
        raise ModelFileError(
            f"{path} was exported from model version {exported.about.model_version}, and {model_path} is version "
            f"{version}. Export it again, or give the model that it was exported from"
        )
    if exported.item_ids != fitted.items.item_ids.to_pylist():
        raise ModelFileError(f"{path} is damaged: its item ids are not those of {model_path}. Export it again")
    recommender = Recommender(fitted.scorer, fitted.items, fitted.support)
    comparison = _Comparison(exported, fitted.scorer, recommender, n_sessions, seed)
    rng = np.random.default_rng(seed)
    for sessions in _batches(random_sessions(n_sessions, fitted.support, rng), len(fitted.support), rng):
        comparison.add(sessions)
    exported.record(comparison.outcome.described())
    return comparison.outcome


def open_export(path: str | Path) -> Exported:
    """Open an exported file of any format.

    Raises:
        ModelFileError: There is none, or it cannot be used.
        ConfigError: What reads ONNX files is not installed.
    """
    try:
        with open(path, "rb") as file:
            is_archive = file.read(2) == b"PK"
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {os.strerror(error.errno or 0)}. Check the path") from None
    if is_archive:
        from gru4rec.export.pt2_file import Pt2File

        return Pt2File(path)
    from gru4rec.export.onnx_file import OnnxFile

    return OnnxFile(path)


def random_sessions(n_sessions: int, support: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Draw sessions of 1 to 50 clicks, 5 on average: of every two, one of popular items and one of any.

    Args:
        n_sessions: How many.
        support: (n_items,), training events of each item.
        rng: To draw from.

    Returns:
        Int64 item indices of each session.
    """
    lengths = np.minimum(rng.geometric(1 / _MEAN_CLICKS, n_sessions), _MOST_CLICKS)
    popularity = (support + 1) / (support + 1).sum()  # also of models that know no support
    chances = (popularity, None)
    return [rng.choice(len(support), length, p=chances[place % 2]) for place, length in enumerate(lengths)]


def _batches(sessions: Sequence[np.ndarray], n_items: int, rng: np.random.Generator) -> Iterator[Sequence[np.ndarray]]:
    """Cut sessions into batches of random sizes: a graph that holds for one size only must fail."""
    most = max(1, min(_MOST_SESSIONS_AT_ONCE, _SCORES_AT_ONCE // n_items))
    first = 0
    while first < len(sessions):
        size = int(rng.integers(1, most + 1))
        yield sessions[first : first + size]
        first += size


class _Comparison:
    """Runs batches of sessions through a file and its model, and adds up what differs."""

    def __init__(
        self, exported: Exported, scorer: Scorer, recommender: Recommender, n_sessions: int, seed: int
    ) -> None:
        self._exported, self._scorer, self._recommender = exported, scorer, recommender
        self._filters = recommender.filters(exported.about.k)
        self.outcome = Outcome(n_sessions, seed, exported.about.k, exported.runtime)

    def add(self, sessions: Sequence[np.ndarray]) -> None:
        """Run a batch until its longest session ends; a session that has ended clicks nothing."""
        state = self._scorer.start(len(sessions))
        found_state = [np.zeros(part.shape, dtype=np.float32) for part in state]
        lengths = np.array([len(item_idx) for item_idx in sessions])
        for n_done in range(int(lengths.max())):
            item_idx = np.array([clicks[n_done] if n_done < len(clicks) else -1 for clicks in sessions])
            found = self._exported.step(item_idx, found_state)
            found_state = found.next_state
            rows = np.flatnonzero(item_idx >= 0)
            after = self._scorer.advance(tuple(part[rows] for part in state), item_idx[rows])
            for part, part_after in zip(state, after, strict=True):
                part[rows] = part_after
            self._add_states(found_state, state)
            self._add_lists(found, rows, after, [sessions[row][: n_done + 1].tolist() for row in rows.tolist()])

    def _add_states(self, found_state: Sequence[np.ndarray], state: State) -> None:
        outcome = self.outcome
        for found, part in zip(found_state, state, strict=True):
            outcome.state_difference = max(outcome.state_difference, largest_difference(found, part.numpy()))

    def _add_lists(self, found: Step, rows: np.ndarray, state: State, clicked: Sequence[Sequence[int]]) -> None:
        """Compare the lists of the sessions that clicked; ``state`` and ``clicked`` are theirs."""
        lists = self._recommender.lists(state, clicked, [0] * len(rows), [self._filters] * len(rows))
        self.outcome.clicks += len(rows)
        for place, (row, wanted) in enumerate(zip(rows.tolist(), lists, strict=True)):
            if found.top_ids[row] == wanted.item_ids:
                self.outcome.same_lists += 1
                self._add_scores(found.scores[row], wanted.scores)
            else:
                of_row = tuple(part[place : place + 1] for part in state)
                self._add_other_list(found.top_idx[row], found.top_ids[row], found.scores[row], wanted, of_row)

    def _add_other_list(
        self, top_idx: np.ndarray, top_ids: list[Any], scores: np.ndarray, wanted: Recommendations, state: State
    ) -> None:
        """Tell whether a list of other ids holds, place by place, items that the model scores as high as its own."""
        is_list = len(set(top_idx.tolist())) == len(top_idx) and 0 <= top_idx.min() <= top_idx.max() < self._n_items
        if not is_list or self._recommender.items.ids_of(top_idx) != top_ids:
            self.outcome.other_lists += 1
            return
        own_scores = self._scorer.score_items(self._scorer.ready(state), top_idx)[0].numpy()
        self._add_scores(scores, own_scores)
        if largest_difference(own_scores, wanted.scores) <= TOLERANCE:
            self.outcome.tied_lists += 1
        else:
            self.outcome.other_lists += 1

    @property
    def _n_items(self) -> int:
        return self._scorer.n_items

    def _add_scores(self, found: np.ndarray, own: Sequence[float] | np.ndarray) -> None:
        self.outcome.score_difference = max(self.outcome.score_difference, largest_difference(found, own))


def largest_difference(found: np.ndarray, own: np.ndarray | Sequence[float]) -> float:
    """Return the largest absolute difference; where something is no number, the largest one there is.

    Example:
        >>> largest_difference(np.array([1.0, 2.5]), [1.0, 2.0]), largest_difference(np.array([np.nan]), [1.0]) > 1e38
        (0.5, True)
    """
    difference = np.abs(found - np.asarray(own, dtype=np.float64))
    return float(np.nan_to_num(difference, nan=_LARGEST, posinf=_LARGEST).max(initial=0.0))
