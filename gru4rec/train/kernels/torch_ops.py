"""The element-wise parts of a hand-written step, in torch: the readable form, on any device.

Every function works in place on buffers of its caller. Dimensions: B lanes, H hidden units, M score columns, N items, R
rows of an item matrix, D numbers a row; "gates" are stacked side by side as in :mod:`gru4rec.model.network`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gru4rec.model.losses import TINY


def reset_after_forward(
    gates_x: Tensor, gates_h: Tensor, bias_x: Tensor, bias_h: Tensor, hidden: Tensor, out: Tensor
) -> None:
    """Finish a step of :class:`GRUCell` from its two products.

    Args:
        gates_x: (B, 3 H) input product; becomes reset, update and candidate.
        gates_h: (B, 3 H) recurrent product; biases are added.
        bias_x: (3 H,).
        bias_h: (3 H,).
        hidden: (B, H) state before the step.
        out: (B, H) becomes the state after it.
    """
    n_hidden = hidden.shape[1]
    gates_x += bias_x
    gates_h += bias_h
    gates_x[:, : 2 * n_hidden].add_(gates_h[:, : 2 * n_hidden]).sigmoid_()
    reset, update, candidate = gates_x.chunk(3, dim=1)
    candidate.addcmul_(reset, gates_h[:, 2 * n_hidden :]).tanh_()
    torch.lerp(candidate, hidden, update, out=out)


def reset_after_backward(
    d_out: Tensor, hidden: Tensor, gates_x: Tensor, gates_h: Tensor, d_bias_x: Tensor, d_bias_h: Tensor
) -> None:
    """Turn ``gates_x`` and ``gates_h`` of :func:`reset_after_forward` into their gradients; add the biases' to theirs.

    Args:
        d_out: (B, H) gradient of the state after the step.
        hidden: (B, H) state before the step.
        gates_x: (B, 3 H), as the forward pass left it.
        gates_h: (B, 3 H), likewise.
        d_bias_x: (3 H,), is added to.
        d_bias_h: (3 H,), is added to.
    """
    reset, update, candidate = gates_x.chunk(3, dim=1)
    recurrent = gates_h.chunk(3, dim=1)[2]
    d_candidate = d_out * (1 - update) * (1 - candidate**2)
    d_update = d_out * (hidden - candidate) * update * (1 - update)
    d_reset = d_candidate * recurrent * reset * (1 - reset)
    torch.cat([d_reset, d_update, d_candidate * reset], dim=1, out=gates_h)
    torch.cat([d_reset, d_update, d_candidate], dim=1, out=gates_x)
    d_bias_x += gates_x.sum(dim=0)
    d_bias_h += gates_h.sum(dim=0)


def reset_before_gates(gates_x: Tensor, gates_h: Tensor, bias: Tensor, hidden: Tensor, reset_hidden: Tensor) -> None:
    """Compute reset and update gate of a reset-before cell.

    Args:
        gates_x: (B, 3 H), the input's part of candidate, reset and update; biases are added, gates pass the sigmoid.
        gates_h: (B, 2 H), the state's part of reset and update.
        bias: (3 H,).
        hidden: (B, H) state before the step.
        reset_hidden: (B, H) becomes reset times state.
    """
    n_hidden = hidden.shape[1]
    gates_x += bias
    gates_x[:, n_hidden:].add_(gates_h).sigmoid_()
    torch.mul(gates_x[:, n_hidden : 2 * n_hidden], hidden, out=reset_hidden)


def reset_before_output(gates_x: Tensor, candidate_h: Tensor, hidden: Tensor, out: Tensor) -> None:
    """Compute the state after a step, ``out`` (B, H), from the state's part of the candidate (B, H)."""
    candidate, _, update = gates_x.chunk(3, dim=1)
    candidate.add_(candidate_h).tanh_()
    torch.lerp(hidden, candidate, update, out=out)


def reset_before_output_backward(d_out: Tensor, hidden: Tensor, gates_x: Tensor, d_candidate: Tensor) -> None:
    """Turn candidate and update of ``gates_x`` into gradients; ``d_candidate`` (B, H) becomes the candidate's."""
    candidate, _, update = gates_x.chunk(3, dim=1)
    torch.mul(d_out * update, 1 - candidate**2, out=d_candidate)
    update.copy_(d_out * (candidate - hidden) * update * (1 - update))
    candidate.copy_(d_candidate)


def reset_before_gates_backward(
    d_reset_hidden: Tensor, hidden: Tensor, gates_x: Tensor, gates_h: Tensor, d_bias: Tensor
) -> None:
    """Turn the reset gate in ``gates_x`` and both in ``gates_h`` into gradients; add the biases' to ``d_bias``."""
    _, reset, d_update = gates_x.chunk(3, dim=1)
    reset.copy_(d_reset_hidden * hidden * reset * (1 - reset))
    torch.cat([reset, d_update], dim=1, out=gates_h)
    d_bias += gates_x.sum(dim=0)


def apply_dropout(values: Tensor, uniform: Tensor, probability: float) -> None:
    """Zero some values, scale up the rest; draws from 0 to 1 in ``uniform`` become 1 where a value is kept, else 0."""
    uniform.copy_(uniform >= probability)
    scale_kept(values, uniform, probability)


def scale_kept(values: Tensor, kept: Tensor, probability: float) -> None:
    """Multiply by what :func:`apply_dropout` made of its draws, scaled up: the gradient's way back."""
    values.mul_(kept).div_(1 - probability)


def gather(table: Tensor, item_idx: Tensor, out: Tensor) -> None:
    """Fill ``out`` (R, D) with rows of an item matrix (N, D): those of the items ``item_idx``, int32 (R,)."""
    torch.index_select(table, 0, item_idx, out=out)


def column_offset(bias: Tensor, item_idx: Tensor, correction: Tensor | None, scale: float, out: Tensor) -> None:
    """Fill ``out`` (M,) with what is added to a column of scores: its item's bias less ``scale`` times its correction.

    Args:
        bias: (N, 1).
        item_idx: Int32 (M,), the columns' items.
        correction: (N,), or None for none.
        scale: No unit.
        out: (M,).
    """
    torch.index_select(bias[:, 0], 0, item_idx, out=out)
    if correction is not None:
        out.sub_(correction.index_select(0, item_idx), alpha=scale)


def column_offsets(
    bias: Tensor,
    item_idx: Tensor,
    is_left_out: Tensor,
    correction: Tensor | None,
    target_scale: float,
    negative_scale: float,
    out: Tensor,
) -> None:
    """Fill ``out`` (M,) for targets and negatives at once, as :func:`column_offset` does; the GPU's step needs it.

    Args:
        bias: (N, 1).
        item_idx: Int32 (M,), the columns' items, B targets first.
        is_left_out: Int32 (B,), not 0 for a target that is no column: -inf in ``out``.
        correction: (N,), or None for none.
        target_scale: Of the targets' corrections.
        negative_scale: Of the negatives'.
        out: (M,).
    """
    n_lanes = len(is_left_out)
    column_offset(bias, item_idx[:n_lanes], correction, target_scale, out[:n_lanes])
    column_offset(bias, item_idx[n_lanes:], correction, negative_scale, out[n_lanes:])
    out[:n_lanes].masked_fill_(is_left_out > 0, -torch.inf)


def cross_entropy(scores: Tensor, offset: Tensor, target: Tensor, share: float, d_offset: Tensor) -> Tensor:
    """Turn scores into their gradient under :func:`gru4rec.model.losses.cross_entropy_loss`.

    Args:
        scores: (B, M), without ``offset``; becomes ``share`` times the loss's gradient.
        offset: (M,), added to each lane's scores; -inf leaves a column out.
        target: Int32 or int64 (B,), each lane's target column; -1 for a lane that is empty.
        share: One over the nominal batch size.
        d_offset: (M,) becomes the gradient of ``offset``.

    Returns:
        Scalar, ``share`` times the sum of the lanes' losses.
    """
    place, is_active = _targets(target)
    p = scores.add_(offset).softmax(dim=1)
    p_target = p.gather(1, place)
    slope = share * p_target / (p_target + TINY)
    torch.mul(p, slope, out=scores)
    scores.scatter_add_(1, place, -slope).masked_fill_(~is_active, 0)
    torch.sum(scores, dim=0, out=d_offset)
    return -share * torch.log(p_target + TINY).masked_fill(~is_active, 0).sum()


def bpr_max(
    scores: Tensor, offset: Tensor, target: Tensor, share: float, d_offset: Tensor, *, elu_param: float, bpreg: float
) -> Tensor:
    """Turn scores into their gradient under :func:`gru4rec.model.losses.bpr_max_loss`, ELU included.

    With w the softmax over a lane's negatives, q_j = sigmoid(s_target - s_j), P = sum w q and R = sum w s^2 the loss is
    -log P + bpreg R. Its gradient is w_j ((P - q_j^2) / P + bpreg (s_j^2 + 2 s_j - R)) for a negative's score, and
    -sum w q (1 - q) / P for the target's.

    Args:
        scores: (B, M), without ``offset`` and before ELU; becomes ``share`` times the loss's gradient.
        offset: (M,), added to each lane's scores; -inf leaves a column out.
        target: Int32 or int64 (B,), each lane's target column; -1 for a lane that is empty.
        share: One over the nominal batch size.
        d_offset: (M,) becomes the gradient of ``offset``.
        elu_param: Alpha of the activation; 0 leaves scores as they are.
        bpreg: Strength of the score penalty.

    Returns:
        Scalar, ``share`` times the sum of the lanes' losses.
    """
    place, is_active = _targets(target)
    is_left_out = torch.isneginf(offset)
    scores.add_(torch.where(is_left_out, 0, offset))
    s = torch.nn.functional.elu(scores, elu_param) if elu_param > 0 else scores.clone()
    own = s.gather(1, place)
    negative = s.masked_fill(is_left_out, -torch.inf).scatter_(1, place, 0.0)
    w = torch.exp(negative - negative.max(dim=1, keepdim=True).values).scatter_(1, place, 0.0)
    w /= w.sum(dim=1, keepdim=True)
    q = torch.sigmoid(own - s)
    beaten, penalty = (w * q).sum(dim=1, keepdim=True), (w * s**2).sum(dim=1, keepdim=True)
    strength = 1 / (beaten + TINY)
    gradient = w * (strength * (beaten - q**2) + bpreg * (s**2 + 2 * s - penalty))
    gradient.scatter_(1, place, -strength * (w * q * (1 - q)).sum(dim=1, keepdim=True))
    if elu_param > 0:
        gradient *= torch.where(scores > 0, 1, s + elu_param)
    torch.mul(gradient, share, out=scores).masked_fill_(~is_active, 0)
    torch.sum(scores, dim=0, out=d_offset)
    return share * (bpreg * penalty - torch.log(beaten + TINY)).masked_fill(~is_active, 0).sum()


def activate(scores: Tensor, offset: Tensor, elu_param: float) -> None:
    """Add ``offset`` (M,) to scores (B, M), then ELU where ``elu_param`` is above 0: the scores of a block of items."""
    scores.add_(offset)
    if elu_param > 0:
        torch.nn.functional.elu_(scores, elu_param)


def softmax_sums(scores: Tensor, highest: Tensor, sums: Tensor) -> None:
    """Take a block of scores (B, M) into the running softmax of each lane.

    Args:
        scores: Of one block of items.
        highest: (B,), each lane's highest score so far; -inf at first.
        sums: (1, B), each lane's sum of exp(score - highest); 0 at first.
    """
    sums *= _raise(highest, scores)
    sums[0] += torch.exp(scores - highest.unsqueeze(1)).sum(dim=1)


def softmax_gradient(
    scores: Tensor, target: Tensor, highest: Tensor, sums: Tensor, slope: Tensor, d_offset: Tensor
) -> None:
    """Turn a block of scores into their gradient under cross-entropy over all items.

    Args:
        scores: (B, M).
        target: Int64 (B,), each lane's target as a column of this block; below 0 or above M - 1 where it is elsewhere.
        highest: (B,), of all blocks.
        sums: (1, B), of all blocks.
        slope: (B,), the factor of (softmax - one-hot).
        d_offset: (M,) becomes the gradient of the block's offset.
    """
    lane, column = _targets_in_block(scores, target)
    scores.sub_(highest.unsqueeze(1)).exp_().mul_((slope / sums[0]).unsqueeze(1))
    scores[lane, column] -= slope[lane]
    torch.sum(scores, dim=0, out=d_offset)


def bpr_sums(scores: Tensor, target: Tensor, own: Tensor, highest: Tensor, sums: Tensor) -> None:
    """Take a block of activated scores (B, M) into what BPR-max needs of each lane.

    Args:
        scores: Of one block of items.
        target: As for :func:`softmax_gradient`; a lane's target is no negative.
        own: (B,), each lane's score of its target.
        highest: (B,), each lane's highest score of a negative so far; -inf at first.
        sums: (4, B), with e = exp(score - highest) and q = sigmoid(own - score) the sums of e, e q, e q (1 - q) and
            e score^2; 0 at first.
    """
    lane, column = _targets_in_block(scores, target)
    negative = scores.clone()
    negative[lane, column] = -torch.inf
    sums *= _raise(highest, negative)
    e, q = torch.exp(negative - highest.unsqueeze(1)), torch.sigmoid(own.unsqueeze(1) - scores)
    for row, values in zip(sums, (e, e * q, e * q * (1 - q), e * scores**2), strict=True):
        row += values.sum(dim=1)


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
    """Turn a block of activated scores into the gradient of what was activated; see :func:`bpr_max` and `bpr_sums`."""
    lane, column = _targets_in_block(scores, target)
    exp_sum, beaten, slope, penalty = (row.unsqueeze(1) for row in (sums[0], *(sums[1:] / sums[0])))
    strength = 1 / (beaten + TINY)
    w, q = torch.exp(scores - highest.unsqueeze(1)) / exp_sum, torch.sigmoid(own.unsqueeze(1) - scores)
    gradient = w * (strength * (beaten - q**2) + bpreg * (scores**2 + 2 * scores - penalty))
    gradient[lane, column] = -(strength * slope)[lane, 0]
    if elu_param > 0:
        gradient *= torch.where(scores > 0, 1, scores + elu_param)
    torch.mul(gradient, share, out=scores)
    torch.sum(scores, dim=0, out=d_offset)


def _raise(highest: Tensor, scores: Tensor) -> Tensor:
    """Set each lane's highest score to that of a block if higher; returns the factor (B,) of sums taken before."""
    before = highest.clone()
    torch.maximum(highest, scores.amax(dim=1), out=highest)
    return torch.where(before == highest, 1, torch.exp(before - highest))


def _targets_in_block(scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lanes whose target is a column of the block, and these columns."""
    lane = torch.nonzero((target >= 0) & (target < scores.shape[1]))[:, 0]
    return lane, target[lane]


def _targets(target: Tensor) -> tuple[Tensor, Tensor]:
    """Return each lane's target column (B, 1), 0 for an empty lane, and whether a lane counts (B, 1)."""
    return target.long().clamp(min=0).unsqueeze(1), (target >= 0).unsqueeze(1)


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
    """Update a weight by ``share`` times a gradient; see :class:`gru4rec.train.optim.IndexedAdagradM`."""
    gradient = gradient * share
    accumulator.add_(gradient**2)
    update = gradient * -lr / torch.sqrt(accumulator + eps)
    weight.add_(update if velocity is None else velocity.mul_(momentum).add_(update))


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
    """Update the rows of an item matrix that occur, gradients of equal rows summed first.

    Args:
        table: Item matrix (N, D).
        accumulator: (N, D).
        velocity: (N, D), or None without momentum.
        item_idx: (R,), may repeat.
        gradient: (R, D); its contents are lost.
        scratch: Int32 (N,) of zeros, which the compiled version needs, and leaves as zeros.
        lr: Step size.
        momentum: Share of the last update that is repeated.
        eps: Added inside the root.
        share: Factor of the gradient.
    """
    touched, place = torch.unique(item_idx.long(), return_inverse=True)
    summed = torch.zeros(len(touched), table.shape[1], dtype=table.dtype, device=table.device)
    summed.index_add_(0, place, gradient)
    # index_select and index_copy_ move whole rows; indexing with brackets is several times slower on a CPU
    rows = [state.index_select(0, touched) for state in (table, accumulator, velocity) if state is not None]
    update_dense(
        rows[0], rows[1], rows[2] if len(rows) > 2 else None, summed, lr=lr, momentum=momentum, eps=eps, share=share
    )
    for state, new_rows in zip((table, accumulator, velocity), rows, strict=False):
        if state is not None:
            state.index_copy_(0, touched, new_rows)


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
    """Do what :func:`update_rows` does in shapes that no item decides, as a CUDA graph needs.

    Places are sorted by item, equal items as they came, so that rows to be summed are neighbours.

    Args:
        table: Item matrix (N, D).
        accumulator: (N, D).
        velocity: (N, D), or None without momentum.
        order: Int32 (P,), which gradient each place stands for. Those from G on have none: they do not count, and an
            item with none but these keeps its row.
        item_idx: Int32 (P,), each place's item.
        count: Int32 (P,), at the first place of an item how many it has, 0 at the others. After the last item may come
            places of no item, all of them 0.
        gradient: (G, D).
        lr: Step size.
        momentum: Share of the last update that is repeated.
        eps: Added inside the root.
        share: Factor of the gradient.
    """
    has_gradient = order < len(gradient)
    rows = gradient.index_select(0, order.clamp(max=len(gradient) - 1)).masked_fill_(~has_gradient.unsqueeze(1), 0)
    summed = torch.segment_reduce(rows, "sum", lengths=count, axis=0, initial=0, unsafe=True)
    # Every place does the work of the last item that began, so that all write the same to the same row; places before
    # the first item that is updated write back what they read.
    is_updated = has_gradient & (count > 0)
    place = torch.where(is_updated, torch.arange(len(order), device=order.device), 0).cummax(dim=0).values
    item, is_updated = item_idx.index_select(0, place).long(), is_updated.index_select(0, place).unsqueeze(1)
    states = [state for state in (table, accumulator, velocity) if state is not None]
    rows, new_accumulator, *new_velocity = new = [state.index_select(0, item) for state in states]
    update_dense(
        rows, new_accumulator, new_velocity[0] if new_velocity else None, summed.index_select(0, place),
        lr=lr, momentum=momentum, eps=eps, share=share,
    )  # fmt: skip
    for state, new_rows in zip(states, new, strict=True):
        state.index_copy_(0, item, torch.where(is_updated, new_rows, state.index_select(0, item)))
