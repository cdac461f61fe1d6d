"""Evaluation of a model that several processes hold: each counts its own items, and the counts are added up.

Dimensions: W processes, R sessions, N items, K list length.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gru4rec.distributed.group import Group
from gru4rec.evaluate.best import BestItems
from gru4rec.evaluate.evaluator import block_width, check_scores, count_blocks, target_scores
from gru4rec.model.network import GRU4RecModel
from gru4rec.model.scorer import GRUScorer, State
from gru4rec.model.shard import Shard


class ShardedScorer:
    """One process's part of a scorer; see :class:`gru4rec.evaluate.evaluator.SpreadScorer`.

    All processes make the same calls. States and results are the same in all of them.

    Args:
        model: Its item matrices hold the shard's rows.
        group: The processes.
        shard: Which rows.

    Attributes:
        n_items: Items N of all processes.
    """

    def __init__(self, model: GRU4RecModel, group: Group, shard: Shard) -> None:
        self._part, self._model, self._group, self._shard = GRUScorer(model), model, group, shard
        self.n_items = shard.n_items

    def start(self, n_sessions: int) -> State:
        """Return the state of sessions without events; it is all zeros."""
        return self._part.start(n_sessions)

    def advance(self, state: State, item_idx: Any) -> State:
        """Return the sessions' states after one more event each: item_idx (R,)."""
        table = self._model.input_table.weight.detach()
        place, row = (torch.from_numpy(part).to(table.device) for part in self._shard.held(np.asarray(item_idx)))
        input_RE = table.new_zeros(len(item_idx), table.shape[1]).index_copy_(0, place, table.index_select(0, row))
        self._group.sum(input_RE)
        return self._part.advance_by(state, input_RE)

    def ready(self, state: State) -> State:
        """Return the state: scores come from it alone."""
        return state

    def count(
        self, ready: State, target_idx: np.ndarray, block_items: int | None, list_length: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compare all items with each session's target; see :func:`gru4rec.evaluate.evaluator.count_items`."""
        device, shard = ready[-1].device, self._shard
        place, row = shard.held(target_idx)
        width = block_width(max(1, shard.n_rows), block_items, device)
        own = target_scores(self._part, tuple(part[place] for part in ready), row, width) if len(row) else None
        target_score_R = self._told(ready[-1], place, own)
        check_scores(target_score_R)
        below = torch.from_numpy(-(-(target_idx.astype(np.int64) - shard.rank) // shard.n_ranks)).to(device)
        best = BestItems(target_score_R, list_length) if list_length else None
        counts, own_score_R = count_blocks(self._part, ready, below, target_score_R, width, best)
        own_score_R = self._told(ready[-1], place, own_score_R[place])
        if not torch.equal(own_score_R, target_score_R):  # the same answer in all processes
            counts, _ = count_blocks(self._part, ready, below, own_score_R, width)
        self._group.sum(counts)
        lists = np.empty((len(target_idx), 0), dtype=np.int32) if best is None else self._merged(best)
        return counts.cpu().numpy(), lists

    def _told(self, like: Tensor, place: np.ndarray, values: Tensor | None) -> Tensor:
        """Return (R,) of what each process knows of its own targets."""
        told = like.new_zeros(len(like))
        if values is not None:
            told[torch.from_numpy(place).to(told.device)] = values
        self._group.sum(told)
        return told

    def _merged(self, best: BestItems) -> np.ndarray:
        """Return the best of all processes' items, int32 (R, K): by score, equal ones in item-index order."""
        found = best.items()
        item_idx = np.where(found < 0, self._shard.n_items, found * self._shard.n_ranks + self._shard.rank)
        items_WRK = self._group.gather(torch.from_numpy(item_idx).to(best.scores_RK.device)).cpu().numpy()
        scores_WRK = self._group.gather(best.scores_RK).cpu().numpy()
        n_rows, k = found.shape
        items_RC, scores_RC = (np.moveaxis(values, 0, 1).reshape(n_rows, -1) for values in (items_WRK, scores_WRK))
        order = np.lexsort((items_RC, -scores_RC), axis=1)[:, :k]
        merged: np.ndarray = np.take_along_axis(items_RC, order, axis=1).astype(np.int32)
        return merged
