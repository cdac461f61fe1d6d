"""Comparing a block of scores with the targets' scores on CPU, in one pass; see :mod:`gru4rec.evaluate.counting`."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from gru4rec.jit import compiled


def count_with_numba(
    scores_RC: Tensor, start: int, target_idx_R: Tensor, target_score_R: Tensor, counts: Tensor, own_score_R: Tensor
) -> None:
    """Do what :func:`gru4rec.evaluate.counting.count_with_torch` does."""
    rest = (tensor.numpy() for tensor in (target_idx_R, target_score_R, counts, own_score_R))
    _count(np.ascontiguousarray(scores_RC.numpy()), start, *rest)


@compiled
def _count(scores_RC, start, target_idx_R, target_score_R, counts, own_score_R):
    n_rows, n_columns = scores_RC.shape
    for row in range(n_rows):
        scores_C, target_score = scores_RC[row], target_score_R[row]
        n_higher = n_equal = np.int32(0)  # no wider than a score, so that as many fit into a register
        for column in range(n_columns):
            n_higher = np.int32(n_higher + (scores_C[column] > target_score))
            n_equal = np.int32(n_equal + (scores_C[column] == target_score))
        counts[0, row] += n_higher
        counts[1, row] += n_equal
        place = target_idx_R[row] - start
        if 0 <= place < n_columns:
            own_score_R[row] = scores_C[place]
        if n_equal > 0:
            for column in range(max(0, min(place, n_columns))):
                counts[2, row] += scores_C[column] == target_score
