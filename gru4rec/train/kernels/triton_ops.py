"""Kernels for GPUs: the functions of ``torch_ops`` over Triton's. Importing this module loads Triton.

Buffers are contiguous. Launches neither wait nor look at data, so a CUDA graph can hold them. What only training on all
items needs is torch's own.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from gru4rec.model.losses import TINY
from gru4rec.train.kernels import triton_kernels as kernels
from gru4rec.train.kernels.torch_ops import activate as activate
from gru4rec.train.kernels.torch_ops import bpr_gradient as bpr_gradient
from gru4rec.train.kernels.torch_ops import bpr_sums as bpr_sums
from gru4rec.train.kernels.torch_ops import gather as gather
from gru4rec.train.kernels.torch_ops import softmax_gradient as softmax_gradient
from gru4rec.train.kernels.torch_ops import softmax_sums as softmax_sums
from gru4rec.train.kernels.torch_ops import update_rows as update_rows

EXACT_IN_FLOAT64 = tuple(int(part) for part in triton.__version__.split(".")[:2]) >= (3, 4)
"""Whether Triton hands settings over in float64; before 3.4 it rounds them to float32."""

_FLAT = 1024
"""Elements of a program where rows do not matter."""

_UNITS, _LANES = 16, 64
"""Hidden units and lanes that a program of a bias gradient looks at at a time."""

_COLUMNS = 4096
"""Score columns that a program keeps in registers; it walks over more."""

_ROWS = 8
"""Gradients of one item that are summed at a time."""


def reset_after_forward(
    gates_x: Tensor, gates_h: Tensor, bias_x: Tensor, bias_h: Tensor, hidden: Tensor, out: Tensor
) -> None:
    """See :func:`gru4rec.train.kernels.torch_ops.reset_after_forward`; of ``gates_h`` only the candidate's part."""
    grid, n_hidden, block = _gate_grid(hidden)
    kernels.reset_after_forward[grid](gates_x, gates_h, bias_x, bias_h, hidden, out, n_hidden, BLOCK=block)


def reset_after_backward(
    d_out: Tensor, hidden: Tensor, gates_x: Tensor, gates_h: Tensor, d_bias_x: Tensor, d_bias_h: Tensor
) -> None:
    """See :func:`gru4rec.train.kernels.torch_ops.reset_after_backward`."""
    grid = (triton.cdiv(hidden.shape[1], _UNITS),)
    kernels.reset_after_backward[grid](
        d_out, hidden, gates_x, gates_h, d_bias_x, d_bias_h, *hidden.shape, LANES=_LANES, BLOCK=_UNITS
    )


def reset_before_gates(gates_x: Tensor, gates_h: Tensor, bias: Tensor, hidden: Tensor, reset_hidden: Tensor) -> None:
    """See :func:`gru4rec.train.kernels.torch_ops.reset_before_gates`."""
    grid, n_hidden, block = _gate_grid(hidden)
    kernels.reset_before_gates[grid](gates_x, gates_h, bias, hidden, reset_hidden, n_hidden, BLOCK=block)


def reset_before_output(gates_x: Tensor, candidate_h: Tensor, hidden: Tensor, out: Tensor) -> None:
    """See :func:`gru4rec.train.kernels.torch_ops.reset_before_output`."""
    grid, n_hidden, block = _gate_grid(hidden)
    kernels.reset_before_output[grid](gates_x, candidate_h, hidden, out, n_hidden, BLOCK=block)


def reset_before_output_backward(d_out: Tensor, hidden: Tensor, gates_x: Tensor, d_candidate: Tensor) -> None:
    """See :func:`gru4rec.train.kernels.torch_ops.reset_before_output_backward`."""
    grid, n_hidden, block = _gate_grid(hidden)
    kernels.reset_before_output_backward[grid](d_out, hidden, gates_x, d_candidate, n_hidden, BLOCK=block)


def reset_before_gates_backward(
    d_reset_hidden: Tensor, hidden: Tensor, gates_x: Tensor, gates_h: Tensor, d_bias: Tensor
) -> None:
    """See :func:`gru4rec.train.kernels.torch_ops.reset_before_gates_backward`."""
    grid = (triton.cdiv(hidden.shape[1], _UNITS),)
    kernels.reset_before_gates_backward[grid](
        d_reset_hidden, hidden, gates_x, gates_h, d_bias, *hidden.shape, LANES=_LANES, BLOCK=_UNITS
    )


def apply_dropout(values: Tensor, uniform: Tensor, probability: float) -> None:
    """See :func:`gru4rec.train.kernels.torch_ops.apply_dropout`."""
    n = values.numel()
    kernels.apply_dropout[(triton.cdiv(n, _FLAT),)](values, uniform, probability, n, BLOCK=_FLAT)


def scale_kept(values: Tensor, kept: Tensor, probability: float) -> None:
    """See :func:`gru4rec.train.kernels.torch_ops.scale_kept`."""
    n = values.numel()
    kernels.scale_kept[(triton.cdiv(n, _FLAT),)](values, kept, probability, n, BLOCK=_FLAT)


def column_offset(bias: Tensor, item_idx: Tensor, correction: Tensor | None, scale: float, out: Tensor) -> None:
    """See :func:`gru4rec.train.kernels.torch_ops.column_offset`."""
    column_offsets(bias, item_idx, item_idx[:0], correction, 0.0, scale, out)


def column_offsets(
    bias: Tensor,
    item_idx: Tensor,
    is_left_out: Tensor,
    correction: Tensor | None,
    target_scale: float,
    negative_scale: float,
    out: Tensor,
) -> None:
    """See :func:`gru4rec.train.kernels.torch_ops.column_offsets`."""
    block, n_columns = 256, len(item_idx)
    kernels.column_offsets[(triton.cdiv(n_columns, block),)](
        bias, item_idx, is_left_out, bias if correction is None else correction, target_scale, negative_scale, out,
        len(is_left_out), n_columns, HAS_CORRECTION=correction is not None, BLOCK=block,
    )  # fmt: skip


def cross_entropy(scores: Tensor, offset: Tensor, target: Tensor, share: float, d_offset: Tensor) -> Tensor:
    """See :func:`gru4rec.train.kernels.torch_ops.cross_entropy`."""
    n_lanes, n_columns, block, n_warps = _score_blocks(scores)
    losses = scores.new_empty(n_lanes)
    kernels.cross_entropy[(n_lanes,)](
        scores, offset, target, losses, share, TINY, N_COLUMNS=n_columns, BLOCK=block, num_warps=n_warps
    )
    torch.sum(scores, dim=0, out=d_offset)
    return losses.sum()


def bpr_max(
    scores: Tensor, offset: Tensor, target: Tensor, share: float, d_offset: Tensor, *, elu_param: float, bpreg: float
) -> Tensor:
    """See :func:`gru4rec.train.kernels.torch_ops.bpr_max`."""
    n_lanes, n_columns, block, n_warps = _score_blocks(scores)
    losses = scores.new_empty(n_lanes)
    kernels.bpr_max[(n_lanes,)](
        scores, offset, target, losses, share, TINY, elu_param, bpreg,
        HAS_ELU=elu_param > 0, N_COLUMNS=n_columns, BLOCK=block, num_warps=n_warps,
    )  # fmt: skip
    torch.sum(scores, dim=0, out=d_offset)
    return losses.sum()


def update_dense(
    weight: Tensor,
    accumulator: Tensor,
    velocity: Tensor | None,
    gradient: Tensor,
    *,
    lr: float,
    momentum: float,
    eps: float,
    share: float = 1.0,
) -> None:
    """See :func:`gru4rec.train.kernels.torch_ops.update_dense`."""
    n = weight.numel()
    kernels.update_dense[(triton.cdiv(n, _FLAT),)](
        weight, accumulator, accumulator if velocity is None else velocity, gradient, lr, momentum, eps, share, n,
        HAS_VELOCITY=velocity is not None, BLOCK=_FLAT,
    )  # fmt: skip


def update_segments(
    table: Tensor,
    accumulator: Tensor,
    velocity: Tensor | None,
    order: Tensor,
    item_idx: Tensor,
    count: Tensor,
    gradient: Tensor,
    *,
    lr: float,
    momentum: float,
    eps: float,
    share: float = 1.0,
) -> None:
    """See :func:`gru4rec.train.kernels.torch_ops.update_segments`."""
    n_gradients, size = gradient.shape
    block = min(triton.next_power_of_2(size), 512)
    kernels.update_segments[(len(order), triton.cdiv(size, block))](
        table, accumulator, accumulator if velocity is None else velocity, order, item_idx, count, gradient,
        lr, momentum, eps, share, n_gradients, size,
        HAS_VELOCITY=velocity is not None, ROWS=_ROWS, BLOCK=block, num_warps=max(1, block // 128),
    )  # fmt: skip


def _gate_grid(hidden: Tensor) -> tuple[tuple[int, int], int, int]:
    """Return a grid of lanes by blocks of hidden units, the number of units and a block's."""
    n_lanes, n_hidden = hidden.shape
    block = min(triton.next_power_of_2(n_hidden), 256)
    return (n_lanes, triton.cdiv(n_hidden, block)), n_hidden, block


def _score_blocks(scores: Tensor) -> tuple[int, int, int, int]:
    """Return lanes, columns, the columns of a block and the warps that work on one."""
    n_lanes, n_columns = scores.shape
    block = min(triton.next_power_of_2(n_columns), _COLUMNS)
    return n_lanes, n_columns, block, max(1, min(block // 512, 8))
