"""Comparing a block of scores with the targets' scores on CUDA, in one pass; see :mod:`gru4rec.evaluate.counting`.

Importing this module loads Triton, which comes with torch for CUDA. ``TRITON_INTERPRET=1`` runs the kernel on CPU.
"""

from __future__ import annotations

from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None

HAVE_TRITON = triton is not None
"""Whether :func:`count_with_triton` can be called."""
_WIDTH = 1024
"""Scores of a row that are compared at once."""


def count_with_triton(
    scores_RC: Tensor, start: int, target_idx_R: Tensor, target_score_R: Tensor, counts: Tensor, own_score_R: Tensor
) -> None:
    """Do what :func:`gru4rec.evaluate.counting.count_with_torch` does, without waiting for the device."""
    n_rows, n_columns = scores_RC.shape
    row_stride, column_stride = scores_RC.stride()
    per_row = (target_idx_R, target_score_R, *counts, own_score_R)
    _kernel[(n_rows,)](scores_RC, row_stride, column_stride, n_columns, start, *per_row, WIDTH=_WIDTH)


def _count_row(  # a kernel knows no names but Triton's, not even in annotations
    scores, row_stride, column_stride, n_columns, start,
    target_idx, target_score, n_higher, n_equal, n_equal_before, own_score, WIDTH: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    row_scores = scores + row.to(tl.int64) * row_stride
    target = tl.load(target_score + row)
    place = tl.load(target_idx + row) - start
    higher = tl.zeros([WIDTH], tl.int32)
    equal = tl.zeros([WIDTH], tl.int32)
    before = tl.zeros([WIDTH], tl.int32)
    for first in range(0, n_columns, WIDTH):
        column = first + tl.arange(0, WIDTH)
        # NaN, beyond the block's end, is neither higher than anything nor equal to it
        score = tl.load(row_scores + column * column_stride, mask=column < n_columns, other=float("nan"))
        higher += (score > target).to(tl.int32)
        equal += (score == target).to(tl.int32)
        before += ((score == target) & (column < place)).to(tl.int32)
    tl.store(n_higher + row, tl.load(n_higher + row) + tl.sum(higher))
    tl.store(n_equal + row, tl.load(n_equal + row) + tl.sum(equal))
    tl.store(n_equal_before + row, tl.load(n_equal_before + row) + tl.sum(before))
    is_own = (place >= 0) & (place < n_columns)
    own = tl.load(row_scores + place * column_stride, mask=is_own)
    tl.store(own_score + row, tl.where(is_own, own, tl.load(own_score + row)))


_kernel = triton and triton.jit(_count_row, do_not_specialize=["n_columns", "start"])
