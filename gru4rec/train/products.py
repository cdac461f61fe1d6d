"""Matrix products of a step, in the precision that was asked for; results and weights stay in the model's own type."""

from __future__ import annotations

import torch
from torch import Tensor

from gru4rec.config import Precision


class Products:
    """Products into buffers.

    Args:
        precision: ``float32`` multiplies in the buffers' own type, and so does ``tf32``, which is a switch of the GPU.
            ``bf16`` rounds both factors to bfloat16.
    """

    def __init__(self, precision: Precision) -> None:
        self._is_low = precision == "bf16"

    def factor(self, values: Tensor) -> Tensor:
        """Return ``values`` as a factor of several products, rounded once."""
        return values.bfloat16() if self._is_low else values

    def into(self, out: Tensor, left: Tensor, right: Tensor) -> None:
        """Set ``out`` to left @ right."""
        if not self._is_low:
            torch.mm(left, right, out=out)
        elif out.is_cuda:
            torch.mm(left.bfloat16(), right.bfloat16(), out_dtype=out.dtype, out=out)
        else:
            out.copy_(torch.mm(left.bfloat16(), right.bfloat16()))

    def add_to(self, out: Tensor, left: Tensor, right: Tensor) -> None:
        """Add left @ right to ``out``."""
        if not self._is_low:
            torch.addmm(out, left, right, out=out)
        else:
            out.add_(torch.mm(left.bfloat16(), right.bfloat16()))
