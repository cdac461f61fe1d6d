"""The two losses and the activation that belongs to each, as plain functions.

Dimensions: B lanes of the step that are not empty, M score columns. With sampling M = B + S: column b is lane b's own
target; the other lanes' targets and the S sampled items are its negatives. Without, M = N: every item has one column.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gru4rec.errors import ShapeError

TINY = 1e-24
"""Added inside each logarithm, so that a probability of zero gives a large loss, not an infinite one."""


def cross_entropy_loss(
    logits_BM: Tensor, *, target_B: Tensor | None = None, log_p_M: Tensor | None = None, logq: float = 0.0
) -> Tensor:
    """Compute the cross-entropy of each lane's target among the step's columns.

    Negatives that are sampled by popularity push popular items down too often; subtracting logq times the log of each
    column's sampling weight takes that back.

    Args:
        logits_BM: Float (B, M), scores before softmax.
        target_B: Int64 (B,), each lane's target column. None: column b is lane b's.
        log_p_M: Float (M,), log of each column's sampling weight (any constant factor). Needed where logq > 0.
        logq: Strength of the correction, >= 0, no unit. 0 turns it off.

    Returns:
        Float scalar, the sum over B. The caller divides by the nominal batch size.

    Raises:
        ShapeError: M < B, so some lane has no target column, or ``log_p_M`` does not fit.

    References:
        Hidasi and Karatzoglou, CIKM 2018, arXiv:1706.03847, section 3.1, for the loss.

    Example:
        >>> round(cross_entropy_loss(torch.zeros(2, 4)).item(), 4)  # 2 ln 4
        2.7726
    """
    target_B1 = _target_columns(logits_BM, target_B)
    if logq > 0:
        if log_p_M is None or log_p_M.shape != logits_BM.shape[1:]:
            raise ShapeError(f"logq={logq} needs one log weight for each of the {logits_BM.shape[1]} columns")
        logits_BM = logits_BM - logq * log_p_M
    return -torch.log(torch.softmax(logits_BM, dim=1).gather(1, target_B1) + TINY).sum()


def bpr_max_loss(scores_BM: Tensor, *, target_B: Tensor | None = None, bpreg: float = 1.0) -> Tensor:
    """Compute the BPR-max loss, a smooth stand-in for "the target beats the hardest negative".

    Each negative weighs by its softmax share among the negatives, so the gradient follows the ones that compete.

    Args:
        scores_BM: Float (B, M), after the final activation.
        target_B: Int64 (B,), each lane's target column. None: column b is lane b's.
        bpreg: Strength of the score penalty, >= 0, no unit. 0 turns it off.

    Returns:
        Float scalar, the sum over B. The caller divides by the nominal batch size.

    Raises:
        ShapeError: M < B, so some lane has no target column, or M = 1, so there is no negative.

    References:
        Hidasi and Karatzoglou, CIKM 2018, arXiv:1706.03847, section 3.3 (BPR-max with score regularisation).

    Example:
        >>> round(bpr_max_loss(torch.zeros(2, 4), bpreg=0.0).item(), 4)  # 2 ln 2
        1.3863
    """
    target_B1 = _target_columns(scores_BM, target_B)
    if scores_BM.shape[1] < 2:
        raise ShapeError("one score column is a target without a negative. Give two columns or more")
    weights_BM = softmax_over_negatives(scores_BM, target_B)
    own_score_B1 = scores_BM.gather(1, target_B1)
    beaten_B = (torch.sigmoid(own_score_B1 - scores_BM) * weights_BM).sum(dim=1)
    penalty_B = (scores_BM**2 * weights_BM).sum(dim=1)
    return (-torch.log(beaten_B + TINY) + bpreg * penalty_B).sum()


def softmax_over_negatives(scores_BM: Tensor, target_B: Tensor | None = None) -> Tensor:
    """Return each row's softmax over its negatives, (B, M), with 0 in the target's column (b if none is given).

    The row maximum that is subtracted for stability counts the target's score as 0.
    """
    target_B1 = _target_columns(scores_BM, target_B)
    is_target_BM = torch.zeros_like(scores_BM, dtype=torch.bool).scatter_(1, target_B1, True)
    without_target_BM = scores_BM.masked_fill(is_target_BM, 0.0)
    highest_B1 = without_target_BM.max(dim=1, keepdim=True).values
    weights_BM = torch.exp(without_target_BM - highest_B1).masked_fill(is_target_BM, 0.0)
    return weights_BM / weights_BM.sum(dim=1, keepdim=True)


def elu(scores_BM: Tensor, *, elu_param: float) -> Tensor:
    """Return the scores through ELU with alpha = ``elu_param``; unchanged where it is 0.

    Example:
        >>> [round(x, 4) for x in elu(torch.tensor([2.0, -1.0]), elu_param=0.5).tolist()]  # 0.5 (exp(-1) - 1)
        [2.0, -0.3161]
    """
    return nn.functional.elu(scores_BM, elu_param) if elu_param > 0 else scores_BM


def _target_columns(scores_BM: Tensor, target_B: Tensor | None) -> Tensor:
    """Return each lane's target column, int64 (B, 1)."""
    n_lanes, n_columns = scores_BM.shape
    if target_B is not None:
        return target_B.unsqueeze(1)
    if n_columns < n_lanes:
        raise ShapeError(f"{n_lanes} lanes but only {n_columns} score columns: column b must be lane b's target")
    return torch.arange(n_lanes, device=scores_BM.device).unsqueeze(1)
