"""Matrix products of a step, in the precision that was asked for; results and weights stay in the model's own type."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from gru4rec.config import Precision

_KEEPS_FLOAT32 = hasattr(torch.ops.aten.mm, "dtype")
"""Whether torch (2.8 or newer) can give a product of bfloat16 factors in float32 on a GPU."""


@contextlib.contextmanager
def gpu_products(precision: Precision) -> Iterator[None]:
    """Run a block whose float32 products on a GPU round their factors to TF32, or do not; give back what was set."""
    matmul, is_tf32 = torch.backends.cuda.matmul, precision == "tf32"
    has_name = hasattr(matmul, "fp32_precision")  # torch 2.9 or newer, which warns of the other
    name, values = ("fp32_precision", ("ieee", "tf32")) if has_name else ("allow_tf32", (False, True))
    before = getattr(matmul, name)
    setattr(matmul, name, values[is_tf32])
    try:
        yield
    finally:
        setattr(matmul, name, before)


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
        elif _gives_float32(out):
            torch.mm(left.bfloat16(), right.bfloat16(), out_dtype=torch.float32, out=out)
        else:
            out.copy_(torch.mm(left.bfloat16(), right.bfloat16()))

    def add_to(self, out: Tensor, left: Tensor, right: Tensor) -> None:
        """Add left @ right to ``out``."""
        if not self._is_low:
            torch.addmm(out, left, right, out=out)
        elif _gives_float32(out):
            out.add_(torch.mm(left.bfloat16(), right.bfloat16(), out_dtype=torch.float32))
        else:
            out.add_(torch.mm(left.bfloat16(), right.bfloat16()))


def _gives_float32(out: Tensor) -> bool:
    return _KEEPS_FLOAT32 and out.is_cuda and out.dtype == torch.float32
