"""The K best items of each session, gathered while blocks of scores go by. Knows no models.

Equal scores are in item-index order, as in the lists that a session is recommended.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class BestItems:
    """The best items so far of R sessions. Blocks come in the order of the items.

    Args:
        like_R: (R,), has the device and the number type of the scores.
        k: Items that are kept.
    """

    def __init__(self, like_R: Tensor, k: int) -> None:
        self._score_RK = like_R.new_full((len(like_R), k), -torch.inf)
        self._item_RK = torch.full((len(like_R), k), -1, dtype=torch.int32, device=like_R.device)

    def see(self, scores_RC: Tensor, start: int) -> None:
        """Take a block in: scores of the items start, start + 1, ..."""
        from gru4rec.jit import HAVE_NUMBA

        if HAVE_NUMBA and scores_RC.device.type == "cpu":
            from gru4rec.evaluate.best_numba import keep_best

            keep_best(np.ascontiguousarray(scores_RC.numpy()), start, self._score_RK.numpy(), self._item_RK.numpy())
        else:
            self.see_with_torch(scores_RC, start)

    def see_with_torch(self, scores_RC: Tensor, start: int) -> None:
        """Do what :meth:`see` does; the definition, and the way on GPUs."""
        n_rows, k = self._score_RK.shape
        item_C = torch.arange(start, start + scores_RC.shape[1], dtype=torch.int32, device=scores_RC.device)
        all_scores = torch.cat([self._score_RK, scores_RC], dim=1)
        all_items = torch.cat([self._item_RK, item_C.expand(n_rows, -1)], dim=1)
        order = torch.sort(all_scores, dim=1, descending=True, stable=True).indices[:, :k]
        self._score_RK, self._item_RK = all_scores.gather(1, order), all_items.gather(1, order)

    @property
    def scores_RK(self) -> Tensor:
        """The best items' scores, best first; -inf where fewer than K were seen."""
        return self._score_RK

    def items(self) -> np.ndarray:
        """Return int32 (R, K), best first."""
        return self._item_RK.cpu().numpy()
