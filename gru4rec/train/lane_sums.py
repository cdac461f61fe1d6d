"""What each lane's loss needs of all its scores, taken up block by block; then the blocks' gradients.

The loss over many columns is a sum of sums over blocks, so neither one process nor one buffer has to see all scores.
Dimensions: B lanes, M columns of a block.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from gru4rec.config import HyperParameters
from gru4rec.model.losses import TINY


class LaneSums:
    """Running sums of a step's lanes, the loss, and the gradient of each block's scores.

    Args:
        settings: The loss is read from here.
        kernels: Element-wise parts, with the functions of ``kernels.torch_ops``.
        own: (B,), each lane's score of its target, final activation included.
        share: One over the nominal batch size.

    Attributes:
        values: (1 + n, B), each lane's highest score so far, then n sums that count from it; see the kernels
            ``softmax_sums`` and ``bpr_sums``.
    """

    def __init__(self, settings: HyperParameters, kernels: ModuleType, own: Tensor, share: float) -> None:
        self._settings, self._kernels, self._own, self._share = settings, kernels, own, share
        self._is_bpr = settings.loss == "bpr-max"
        self.values = own.new_zeros(5 if self._is_bpr else 2, len(own))
        self.values[0].fill_(-torch.inf)

    def see(self, scores: Tensor, place: Tensor) -> None:
        """Take up a block.

        Args:
            scores: (B, M), final activation included.
            place: Int64 (B,), each lane's target as a column of the block; below 0 or above M - 1 where it is in
                another one.
        """
        if self._is_bpr:
            self._kernels.bpr_sums(scores, place, self._own, self.values[0], self.values[1:])
        else:
            self._kernels.softmax_sums(scores, self.values[0], self.values[1:])

    def merge(self, values: Tensor) -> None:
        """Put the ``values`` (W, 1 + n, B) of W parts of the columns together: they become this object's own."""
        highest, sums = values[:, :1], values[:, 1:]
        self.values[0] = highest.amax(dim=0)
        counted = sums * torch.exp(highest - self.values[0])
        self.values[1:] = torch.where(torch.isneginf(highest), 0, counted).sum(dim=0)  # a part may have no negative

    def loss(self) -> Tensor:
        """Return the step's loss, once all blocks were seen; then come the gradients."""
        highest, sums = self.values[0], self.values[1:]
        if self._is_bpr:
            beaten, _, penalty = sums[1:] / sums[0]
            loss: Tensor = (self._settings.bpreg * penalty - torch.log(beaten + TINY)).sum() * self._share
            return loss
        p_target = torch.exp(self._own - highest) / sums[0]
        self._slope = self._share * p_target / (p_target + TINY)
        return -self._share * torch.log(p_target + TINY).sum()

    def gradient(self, scores: Tensor, place: Tensor, d_offset: Tensor) -> None:
        """Turn a block's scores (B, M) into the gradient of what was activated; ``d_offset`` (M,) becomes its sum."""
        highest, sums, settings = self.values[0], self.values[1:], self._settings
        if self._is_bpr:
            self._kernels.bpr_gradient(
                scores, place, self._own, highest, sums, d_offset,
                share=self._share, elu_param=settings.elu_param, bpreg=settings.bpreg,
            )  # fmt: skip
        else:
            self._kernels.softmax_gradient(scores, place, highest, sums, self._slope, d_offset)
