"""Full-ranking evaluation of any scorer on the sessions of a test log.

Every event but a session's first is a target, ranked among all items. Items are scored in blocks, so memory does not
grow with the catalogue, and results depend neither on the batch size nor on the block size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from gru4rec.data.batches import SessionDataIterator
from gru4rec.data.sessions import Sessions
from gru4rec.errors import ConfigError, DivergedError
from gru4rec.evaluate.best import BestItems
from gru4rec.evaluate.counting import block_counter
from gru4rec.evaluate.metrics import event_values, mrr_at_k, recall_at_k
from gru4rec.evaluate.ranks import RankCounts, TieMode
from gru4rec.evaluate.statistics import bootstrap_intervals

ROWS = 1024
"""Targets ranked at once: products of fewer rows are slower, those of 32 rows half as fast."""
BLOCK_ITEMS = 512
"""Items scored at once on CPU: with ROWS targets 2 MB of scores, which are counted while they are in the cache."""
BLOCK_ITEMS_CUDA = 8192
"""Items scored at once on CUDA, 32 MB of scores: starting kernels costs more than memory."""
_MIN_BLOCK_ITEMS = 256

State = tuple[Tensor, ...]


class Scorer(Protocol):
    """What can be evaluated: the model and every baseline. R sessions are scored at once.

    A state is a tuple of tensors with one row a session; all zeros is a session without events.
    """

    @property
    def n_items(self) -> int:
        """Items N that are scored."""

    def start(self, n_sessions: int) -> State:
        """Return the state of sessions without events."""

    def advance(self, state: State, item_idx: Any) -> State:
        """Return the sessions' states after one more event each: item_idx (R,)."""

    def ready(self, state: State) -> State:
        """Return what the scores of the sessions come from: work that is the same for all blocks is done here."""

    def score_block(self, ready: State, start: int, stop: int) -> Tensor:
        """Return the scores (R, stop - start) of items start..stop-1; higher is better."""

    def score_items(self, ready: State, item_idx: Any) -> Tensor:
        """Return the scores (R, C) of the given C items."""


@runtime_checkable
class SpreadScorer(Protocol):
    """A scorer whose items are spread over processes, so that it counts them itself; else as :class:`Scorer`."""

    @property
    def n_items(self) -> int:
        """Items N that are scored."""

    def start(self, n_sessions: int) -> State:
        """Return the state of sessions without events."""

    def advance(self, state: State, item_idx: Any) -> State:
        """Return the sessions' states after one more event each: item_idx (R,)."""

    def ready(self, state: State) -> State:
        """Return what the scores of the sessions come from."""

    def count(
        self, ready: State, target_idx: np.ndarray, block_items: int | None, list_length: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return what :func:`count_items` returns."""


@dataclass(frozen=True)
class Evaluation:
    """Ranks of all targets of a test log, session by session, and the metrics over them.

    Attributes:
        counts: What decides each target's rank, in the order of the sessions' events.
        sessions: The test log.
        lists_TK: Int32 (n_targets, K), the K items that score highest at each target, best first, equal scores in
            item-index order; None where they were not asked for.
    """

    counts: RankCounts
    sessions: Sessions
    lists_TK: np.ndarray | None = None

    @property
    def n_targets(self) -> int:
        """Events that were predicted."""
        return len(self.counts.n_higher)

    def metrics(
        self, cutoff: Sequence[int], mode: TieMode = "standard", *, seed: int = 0
    ) -> tuple[dict[int, float], dict[int, float]]:
        """Return (recall, mrr), each by list length k.

        Raises:
            ConfigError: A k below 1 or above the number of items, or an unknown mode.
        """
        check_cutoffs(cutoff, self.sessions.items.n_items)
        ranks = self.counts.ranks(mode, seed=seed)
        return {k: recall_at_k(ranks, k) for k in cutoff}, {k: mrr_at_k(ranks, k) for k in cutoff}

    def intervals(
        self, cutoff: Sequence[int], mode: TieMode = "standard", *, seed: int = 0, level: float = 0.95
    ) -> dict[str, dict[int, tuple[float, float]]]:
        """Return (low, high) of Recall and MRR, by ``recall`` or ``mrr`` and list length k: bootstrap over sessions.

        Raises:
            ConfigError: A k below 1 or above the number of items, or an unknown mode.
        """
        check_cutoffs(cutoff, self.sessions.items.n_items)
        ranks = self.counts.ranks(mode, seed=seed)
        session_T = np.repeat(np.arange(self.sessions.n_sessions), self.sessions.lengths - 1)
        keys = [(metric, k) for metric in ("recall", "mrr") for k in cutoff]
        values_TM = np.stack([event_values(ranks, metric, k) for metric, k in keys], axis=1)
        found: dict[str, dict[int, tuple[float, float]]] = {"recall": {}, "mrr": {}}
        for (metric, k), interval in zip(
            keys, bootstrap_intervals(values_TM, session_T, level=level, seed=seed), strict=True
        ):
            found[metric][k] = (interval.low, interval.high)
        return found


def check_cutoffs(cutoff: Sequence[int], n_items: int) -> None:
    """Refuse list lengths that no list of the model's items can have.

    Raises:
        ConfigError: No k at all, a k below 1, or one above ``n_items``.
    """
    if not cutoff:
        raise ConfigError("no list length k to measure at. Give one or more, such as -m 20")
    for k in cutoff:
        if not 1 <= k <= n_items:
            raise ConfigError(
                f"cannot measure at k={k}: the model has {n_items} items. Give k from 1 to {n_items} with -m"
            )


@torch.no_grad()
def evaluate(
    scorer: Scorer | SpreadScorer,
    sessions: Sessions,
    *,
    batch_size: int = 512,
    block_items: int | None = None,
    list_length: int = 0,
    on_step: Callable[[int], None] | None = None,
) -> Evaluation:
    """Rank every target of the sessions among all items.

    Args:
        scorer: The model (``GRUScorer``), a baseline, or one of several processes that all call this.
        sessions: Encoded with the scorer's vocabulary.
        batch_size: Sessions read side by side.
        block_items: Items scored at once. None: what suits the device.
        list_length: Items of the lists that are kept, at most all; 0 keeps none.
        on_step: Called whenever targets were ranked (up to ``ROWS`` of them), with their number.

    Raises:
        DataError: No session has two events.
        ConfigError: ``batch_size`` or ``block_items`` below 1, or lists longer than the catalogue.
        DivergedError: A score is not a number, so ranks would mean nothing.
    """
    if block_items is not None and block_items < 1:
        raise ConfigError(f"block_items={block_items} scores nothing. Give 1 or more")
    if list_length:
        check_cutoffs([list_length], sessions.items.n_items)
    counts = np.zeros((3, sessions.n_events), dtype=np.int64)
    lists = np.zeros((sessions.n_events if list_length else 0, list_length), dtype=np.int32)
    for state, position in states_to_rank(scorer, SessionDataIterator(sessions, batch_size=batch_size)):
        target_idx, ready = sessions.items_at(position + 1), scorer.ready(state)
        if isinstance(scorer, SpreadScorer):
            counts[:, position + 1], best = scorer.count(ready, target_idx, block_items, list_length)
        else:
            counts[:, position + 1], best = count_items(scorer, ready, target_idx, block_items, list_length)
        if list_length:
            lists[position + 1] = best
        if on_step is not None:
            on_step(len(position))
    is_target = np.ones(sessions.n_events, dtype=bool)
    is_target[sessions.offsets[:-1]] = False
    return Evaluation(RankCounts(*counts[:, is_target]), sessions, lists[is_target] if list_length else None)


def states_to_rank(scorer: Scorer | SpreadScorer, batches: SessionDataIterator) -> Iterator[tuple[State, np.ndarray]]:
    """Read the sessions side by side, and collect their states over the steps until there are enough for a product.

    Yields:
        The states at ROWS events (in the end: at the rest), and the events' places in the log.
    """
    state, waiting, n_waiting = scorer.start(batches.n_lanes), list[tuple[State, np.ndarray]](), 0
    for batch in batches:
        lanes = torch.as_tensor(batch.lanes, device=state[0].device)
        keep = torch.as_tensor(~batch.resets, device=state[0].device)
        before = tuple(part[lanes] * keep.view(-1, *[1] * (part.dim() - 1)) for part in state)
        after = scorer.advance(before, batch.input_idx)
        for part, new_part in zip(state, after, strict=True):
            part[lanes] = new_part
        waiting.append((after, batch.position))
        n_waiting += len(batch.position)
        if n_waiting >= ROWS:
            states, position = _joined(waiting)
            n_ready, n_waiting = n_waiting - n_waiting % ROWS, n_waiting % ROWS
            for start in range(0, n_ready, ROWS):
                yield tuple(part[start : start + ROWS] for part in states), position[start : start + ROWS]
            waiting = [(tuple(part[n_ready:] for part in states), position[n_ready:])]
    if n_waiting:
        yield _joined(waiting)


def _joined(waiting: Sequence[tuple[State, np.ndarray]]) -> tuple[State, np.ndarray]:
    """Put the states and the places of several steps one after the other."""
    states, positions = zip(*waiting, strict=True)
    return tuple(torch.cat(parts) for parts in zip(*states, strict=True)), np.concatenate(positions)


def count_items(
    scorer: Scorer, ready: State, target_idx: np.ndarray, block_items: int | None, list_length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Compare all items with each session's target.

    A target's own score comes from a product of the same kind as the blocks', and is compared with what its block says:
    should the last bit differ, the blocks' scores are taken and the counting starts again.

    Returns:
        Int64 (3, R), items above each target, equal to it, and equal with a smaller index; and the best items, int32
        (R, list_length).
    """
    device = ready[0].device
    targets = torch.as_tensor(target_idx.astype(np.int64), device=device)
    width = block_width(scorer.n_items, block_items, device)
    target_score_R = target_scores(scorer, ready, target_idx, width)
    check_scores(target_score_R)
    best = BestItems(target_score_R, list_length) if list_length else None
    counts, own_score_R = count_blocks(scorer, ready, targets, target_score_R, width, best)
    if not torch.equal(own_score_R, target_score_R):
        counts, _ = count_blocks(scorer, ready, targets, own_score_R, width)
    return counts.cpu().numpy(), best.items() if best is not None else np.empty((len(targets), 0), dtype=np.int32)


def check_scores(target_score_R: Tensor) -> None:
    """Make sure that ranks mean something.

    Raises:
        DivergedError: A score is not a number.
    """
    if not bool(torch.isfinite(target_score_R).all()):
        raise DivergedError("the model's scores are not finite numbers, so it diverged in training. Train it again")


def target_scores(scorer: Scorer, ready: State, target_idx: np.ndarray, width: int) -> Tensor:
    """Return each session's score of its own target (R,), from products of as many columns as a block has."""
    scores = []
    for start in range(0, len(target_idx), width):
        part = slice(start, start + width)
        columns = np.resize(target_idx[part], width)
        scores.append(scorer.score_items(tuple(tensor[part] for tensor in ready), columns).diagonal())
    return torch.cat(scores)


def count_blocks(
    scorer: Scorer,
    ready: State,
    targets: Tensor,
    target_score_R: Tensor,
    width: int,
    best: BestItems | None = None,
) -> tuple[Tensor, Tensor]:
    """Compare all items, block by block, with each session's target score; show the blocks to ``best`` too.

    Returns:
        counts: Int64 (3, R).
        own_score_R: The targets' scores as the blocks have them.
    """
    counts = torch.zeros(3, len(targets), dtype=torch.int64, device=targets.device)
    own_score_R = target_score_R.clone()
    count_block = block_counter(target_score_R.device, target_score_R.dtype)
    for start, scores_RC in score_blocks(scorer, ready, block_items=width):
        count_block(scores_RC, start, targets, target_score_R, counts, own_score_R)
        if best is not None:
            best.see(scores_RC, start)
    return counts, own_score_R


def score_blocks(scorer: Scorer, ready: State, *, block_items: int | None = None) -> Iterator[tuple[int, Tensor]]:
    """Score all items for R sessions, block by block.

    Args:
        scorer: The model or a baseline.
        ready: What its ``ready`` returned for the sessions' states.
        block_items: Items scored at once. None: what suits the device.

    Yields:
        The first item index of a block, and its scores (R, items of the block). Each item is in one block.
    """
    width = block_width(scorer.n_items, block_items, ready[0].device)
    for start in range(0, scorer.n_items, width):
        first = min(start, scorer.n_items - width)  # the last product overlaps the one before: all are equally wide
        yield start, scorer.score_block(ready, first, first + width)[:, start - first :]


def block_width(n_items: int, block_items: int | None, device: torch.device) -> int:
    """Return the columns of every product: as asked, but not so few that matrix libraries round in another way."""
    if block_items is None:
        block_items = BLOCK_ITEMS_CUDA if device.type == "cuda" else BLOCK_ITEMS
    return min(n_items, max(block_items, _MIN_BLOCK_ITEMS))
