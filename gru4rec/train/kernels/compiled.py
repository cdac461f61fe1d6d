"""Kernels for CPUs: the functions of ``torch_ops`` over compiled loops. Importing this module loads Numba."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gru4rec.model.losses import TINY
from gru4rec.train.kernels import loops


def reset_after_forward(
    gates_x: Tensor, gates_h: Tensor, bias_x: Tensor, bias_h: Tensor, hidden: Tensor, out: Tensor
) -> None:
    """See :func:`gru4rec.train.kernels.torch_ops.reset_after_forward`."""
    loops.reset_after_forward(*_arrays(gates_x, gates_h, bias_x, bias_h, hidden, out))


def reset_after_backward(
    d_out: Tensor, hidden: Tensor, gates_x: Tensor, gates_h: Tensor, d_bias_x: Tensor, d_bias_h: Tensor
) -> None:
    """See :func:`gru4rec.train.kernels.torch_ops.reset_after_backward`."""
    loops.reset_after_backward(*_arrays(d_out, hidden, gates_x, gates_h, d_bias_x, d_bias_h))


def reset_before_gates(gates_x: Tensor, gates_h: Tensor, bias: Tensor, hidden: Tensor, reset_hidden: Tensor) -> None:
    """See :func:`gru4rec.train.kernels.torch_ops.reset_before_gates`."""
    loops.reset_before_gates(*_arrays(gates_x, gates_h, bias, hidden, reset_hidden))


def reset_before_output(gates_x: Tensor, candidate_h: Tensor, hidden: Tensor, out: Tensor) -> None:
    """See :func:`gru4rec.train.kernels.torch_ops.reset_before_output`."""
    loops.reset_before_output(*_arrays(gates_x, candidate_h, hidden, out))


def reset_before_output_backward(d_out: Tensor, hidden: Tensor, gates_x: Tensor, d_candidate: Tensor) -> None:
    """See :func:`gru4rec.train.kernels.torch_ops.reset_before_output_backward`."""
    loops.reset_before_output_backward(*_arrays(d_out, hidden, gates_x, d_candidate))


def reset_before_gates_backward(
    d_reset_hidden: Tensor, hidden: Tensor, gates_x: Tensor, gates_h: Tensor, d_bias: Tensor
) -> None:
    """See :func:`gru4rec.train.kernels.torch_ops.reset_before_gates_backward`."""
    loops.reset_before_gates_backward(*_arrays(d_reset_hidden, hidden, gates_x, gates_h, d_bias))


def apply_dropout(values: Tensor, uniform: Tensor, probability: float) -> None:
    """See :func:`gru4rec.train.kernels.torch_ops.apply_dropout`."""
    number = _number_type(values)
    loops.apply_dropout(*_arrays(values, uniform), np.float32(probability), number(1 / (1 - probability)))


def scale_kept(values: Tensor, kept: Tensor, probability: float) -> None:
    """See :func:`gru4rec.train.kernels.torch_ops.scale_kept`."""
    loops.scale_kept(*_arrays(values, kept), _number_type(values)(1 / (1 - probability)))


def gather(table: Tensor, item_idx: Tensor, out: Tensor) -> None:
    """See :func:`gru4rec.train.kernels.torch_ops.gather`."""
    loops.gather(*_arrays(table, item_idx, out))


def column_offset(bias: Tensor, item_idx: Tensor, correction: Tensor | None, scale: float, out: Tensor) -> None:
    """See :func:`gru4rec.train.kernels.torch_ops.column_offset`."""
    if correction is None:
        torch.index_select(bias[:, 0], 0, item_idx, out=out)
    else:
        biases, items, corrections, offset = _arrays(bias, item_idx, correction, out)
        loops.column_offset(biases, items, corrections, offset.dtype.type(scale), offset)


def cross_entropy(scores: Tensor, offset: Tensor, target: Tensor, share: float, d_offset: Tensor) -> Tensor:
    """See :func:`gru4rec.train.kernels.torch_ops.cross_entropy`; every lane counts, and every column."""
    number = _number_type(scores)
    arrays = _arrays(scores, offset, target, d_offset)
    return scores.new_tensor(loops.cross_entropy(*arrays, number(share), number(TINY)))


def bpr_max(
    scores: Tensor, offset: Tensor, target: Tensor, share: float, d_offset: Tensor, *, elu_param: float, bpreg: float
) -> Tensor:
    """See :func:`gru4rec.train.kernels.torch_ops.bpr_max`; every lane counts, and every column."""
    number = _number_type(scores)
    arrays = _arrays(scores, offset, target, d_offset)
    return scores.new_tensor(loops.bpr_max(*arrays, number(share), number(TINY), number(elu_param), number(bpreg)))


def activate(scores: Tensor, offset: Tensor, elu_param: float) -> None:
    """See :func:`gru4rec.train.kernels.torch_ops.activate`."""
    loops.activate(*_arrays(scores, offset), _number_type(scores)(elu_param))


def softmax_sums(scores: Tensor, highest: Tensor, sums: Tensor) -> None:
    """See :func:`gru4rec.train.kernels.torch_ops.softmax_sums`."""
    loops.softmax_sums(*_arrays(scores, highest, sums))


def softmax_gradient(
    scores: Tensor, target: Tensor, highest: Tensor, sums: Tensor, slope: Tensor, d_offset: Tensor
) -> None:
    """See :func:`gru4rec.train.kernels.torch_ops.softmax_gradient`."""
    loops.softmax_gradient(*_arrays(scores, target, highest, sums, slope, d_offset))


def bpr_sums(scores: Tensor, target: Tensor, own: Tensor, highest: Tensor, sums: Tensor) -> None:
    """See :func:`gru4rec.train.kernels.torch_ops.bpr_sums`."""
    loops.bpr_sums(*_arrays(scores, target, own, highest, sums))


def bpr_gradient(
    scores: Tensor,
    target: Tensor,
    own: Tensor,
    highest: Tensor,
    sums: Tensor,
    d_offset: Tensor,
    *,
    share: float,
    elu_param: float,
    bpreg: float,
) -> None:
    """See :func:`gru4rec.train.kernels.torch_ops.bpr_gradient`."""
    number = _number_type(scores)
    numbers = (number(value) for value in (share, TINY, elu_param, bpreg))
    loops.bpr_gradient(*_arrays(scores, target, own, highest, sums, d_offset), *numbers)


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
    number = _number_type(weight)
    velocity, momentum = (accumulator, 0.0) if velocity is None else (velocity, momentum)
    arrays = _arrays(*(x.view(-1) for x in (weight, accumulator, velocity, gradient)))
    loops.update(*arrays, number(lr), number(momentum), number(eps), number(share))


def update_rows(
    table: Tensor,
    accumulator: Tensor,
    velocity: Tensor | None,
    item_idx: Tensor,
    gradient: Tensor,
    scratch: Tensor | None = None,
    *,
    lr: float,
    momentum: float,
    eps: float,
    share: float = 1.0,
) -> None:
    """See :func:`gru4rec.train.kernels.torch_ops.update_rows`."""
    number = _number_type(table)
    if scratch is None:
        scratch = torch.zeros(len(table), dtype=torch.int32)
    velocity, momentum = (accumulator, 0.0) if velocity is None else (velocity, momentum)
    states, numbers = (table, accumulator, velocity), map(number, (lr, momentum, eps, share))
    if table.shape[1] > 1:
        loops.update_rows(*_arrays(*states, item_idx, gradient, scratch), *numbers)
    else:
        flat = (state[:, 0] for state in states)
        loops.update_numbers(*_arrays(*flat, item_idx, gradient[:, 0], scratch), *numbers)


def _arrays(*tensors: Tensor) -> tuple[np.ndarray, ...]:
    return tuple(tensor.numpy() for tensor in tensors)


def _number_type(tensor: Tensor) -> Any:
    """Return the NumPy type that makes a scalar of the tensor's kind; a wider one would slow down a whole loop."""
    return np.float32 if tensor.dtype == torch.float32 else np.float64
