"""Comparing a block of scores with the targets' scores: the part of the evaluation that is not a matrix product.

:func:`count_with_torch` is the definition. A compiled loop on CPU and a Triton kernel on CUDA do the same in one pass
over the scores; each is loaded at its first use, where it can be had. Knows no models.

Dimensions: R targets, C items of a block.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

BlockCounter = Callable[[Tensor, int, Tensor, Tensor, Tensor, Tensor], None]


def block_counter(device: torch.device, dtype: torch.dtype) -> BlockCounter:
    """Return the fastest function there is for scores of this kind; all do what :func:`count_with_torch` does."""
    if device.type == "cpu" and dtype in (torch.float32, torch.float64):
        from gru4rec.jit import HAVE_NUMBA

        if HAVE_NUMBA:
            from gru4rec.evaluate.counting_numba import count_with_numba

            return count_with_numba
    if device.type == "cuda":
        from gru4rec.evaluate.counting_triton import HAVE_TRITON, count_with_triton

        if HAVE_TRITON:
            return count_with_triton
    return count_with_torch


def count_with_torch(
    scores_RC: Tensor, start: int, target_idx_R: Tensor, target_score_R: Tensor, counts: Tensor, own_score_R: Tensor
) -> None:
    """Count the items of a block that score higher than each row's target, or the same.

    Args:
        scores_RC: Float (R, C), the scores of items start, start + 1, ... in any memory layout.
        start: Index of the block's first item.
        target_idx_R: Int64 (R,), each row's target.
        target_score_R: (R,), what the row is compared with; of the scores' dtype.
        counts: Int64 (3, R). Added to: items above the target, equal to it, and equal with a smaller index.
        own_score_R: (R,). Overwritten where the target is in the block: the score that it has there.
    """
    place_R1 = (target_idx_R - start).unsqueeze(1)
    columns = torch.arange(scores_RC.shape[1], device=scores_RC.device)
    equal_RC = scores_RC == target_score_R.unsqueeze(1)
    counts[0] += (scores_RC > target_score_R.unsqueeze(1)).sum(dim=1)
    counts[1] += equal_RC.sum(dim=1)
    counts[2] += (equal_RC & (columns < place_R1)).sum(dim=1)
    nearest_R1 = place_R1.clamp(0, len(columns) - 1)
    is_own_R1 = nearest_R1 == place_R1
    own_score_R.copy_(torch.where(is_own_R1, scores_RC.gather(1, nearest_R1), own_score_R.unsqueeze(1))[:, 0])
