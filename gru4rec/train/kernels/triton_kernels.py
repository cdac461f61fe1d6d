"""The kernels behind ``triton_ops``, untyped: Triton compiles each for the numbers it is given, float32 or float64.

Settings come in float64 (before Triton 3.4 in float32); ``number_like`` rounds them to the buffers' type. An element
is read and written by one thread, and sums are taken in a fixed order, without atomics: the same bits in every run.
"""

from __future__ import annotations

import triton
import triton.language as tl

# The loops over score columns have constant bounds: where one block holds all columns, the compiler drops the loop and
# reads a row of scores once.


@triton.jit
def number_like(value, buffer):
    return tl.full((), value, buffer.dtype.element_ty)


@triton.jit
def sigmoid(x):
    return 1 / (1 + tl.exp(-x))


@triton.jit
def tanh(x):
    return 1 - 2 / (1 + tl.exp(2 * x))


@triton.jit
def reset_after_forward(gates_x, gates_h, bias_x, bias_h, hidden, out, n_hidden, BLOCK: tl.constexpr):
    lane, j = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside, z, n = j < n_hidden, n_hidden, 2 * n_hidden
    x, h, at = gates_x + lane * 3 * n_hidden + j, gates_h + lane * 3 * n_hidden + j, lane * n_hidden + j
    bias_x, bias_h = bias_x + j, bias_h + j
    reset_x = tl.load(x, mask=inside) + tl.load(bias_x, mask=inside)
    reset = sigmoid(reset_x + tl.load(h, mask=inside) + tl.load(bias_h, mask=inside))
    update_x = tl.load(x + z, mask=inside) + tl.load(bias_x + z, mask=inside)
    update = sigmoid(update_x + tl.load(h + z, mask=inside) + tl.load(bias_h + z, mask=inside))
    recurrent = tl.load(h + n, mask=inside) + tl.load(bias_h + n, mask=inside)
    candidate = tanh(tl.load(x + n, mask=inside) + tl.load(bias_x + n, mask=inside) + reset * recurrent)
    tl.store(x, reset, mask=inside)
    tl.store(x + z, update, mask=inside)
    tl.store(x + n, candidate, mask=inside)
    tl.store(h + n, recurrent, mask=inside)
    tl.store(out + at, candidate + update * (tl.load(hidden + at, mask=inside) - candidate), mask=inside)


@triton.jit
def reset_after_backward(
    d_out, hidden, gates_x, gates_h, d_bias_x, d_bias_h, n_lanes, n_hidden, LANES: tl.constexpr, BLOCK: tl.constexpr
):
    j, z, n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), n_hidden, 2 * n_hidden
    sum_reset = tl.zeros((BLOCK,), d_out.dtype.element_ty)
    sum_update, sum_candidate, sum_recurrent = sum_reset, sum_reset, sum_reset
    for first in range(0, n_lanes, LANES):
        lane = (first + tl.arange(0, LANES))[:, None]
        inside = (lane < n_lanes) & (j < n_hidden)[None, :]
        at, place = lane * n_hidden + j[None, :], lane * 3 * n_hidden + j[None, :]
        x, h = gates_x + place, gates_h + place
        d, state = tl.load(d_out + at, mask=inside, other=0.0), tl.load(hidden + at, mask=inside, other=0.0)
        reset, update = tl.load(x, mask=inside, other=0.0), tl.load(x + z, mask=inside, other=0.0)
        candidate, recurrent = tl.load(x + n, mask=inside, other=0.0), tl.load(h + n, mask=inside, other=0.0)
        d_candidate = d * (1 - update) * (1 - candidate * candidate)
        d_update = d * (state - candidate) * update * (1 - update)
        d_reset = d_candidate * recurrent * reset * (1 - reset)
        tl.store(x, d_reset, mask=inside)
        tl.store(x + z, d_update, mask=inside)
        tl.store(x + n, d_candidate, mask=inside)
        tl.store(h, d_reset, mask=inside)
        tl.store(h + z, d_update, mask=inside)
        tl.store(h + n, d_candidate * reset, mask=inside)
        sum_reset += tl.sum(d_reset, axis=0)
        sum_update += tl.sum(d_update, axis=0)
        sum_candidate += tl.sum(d_candidate, axis=0)
        sum_recurrent += tl.sum(d_candidate * reset, axis=0)
    add_to(d_bias_x + j, sum_reset, j < n_hidden)
    add_to(d_bias_x + z + j, sum_update, j < n_hidden)
    add_to(d_bias_x + n + j, sum_candidate, j < n_hidden)
    add_to(d_bias_h + j, sum_reset, j < n_hidden)
    add_to(d_bias_h + z + j, sum_update, j < n_hidden)
    add_to(d_bias_h + n + j, sum_recurrent, j < n_hidden)


@triton.jit
def add_to(place, values, inside):
    tl.store(place, tl.load(place, mask=inside) + values, mask=inside)


@triton.jit
def reset_before_gates(gates_x, gates_h, bias, hidden, reset_hidden, n_hidden, BLOCK: tl.constexpr):
    lane, j = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside, r, z = j < n_hidden, n_hidden, 2 * n_hidden
    x, h, at = gates_x + lane * 3 * n_hidden + j, gates_h + lane * 2 * n_hidden + j, lane * n_hidden + j
    tl.store(x, tl.load(x, mask=inside) + tl.load(bias + j, mask=inside), mask=inside)
    reset_x = tl.load(x + r, mask=inside) + tl.load(bias + r + j, mask=inside)
    reset = sigmoid(reset_x + tl.load(h, mask=inside))
    update_x = tl.load(x + z, mask=inside) + tl.load(bias + z + j, mask=inside)
    update = sigmoid(update_x + tl.load(h + n_hidden, mask=inside))
    tl.store(x + r, reset, mask=inside)
    tl.store(x + z, update, mask=inside)
    tl.store(reset_hidden + at, reset * tl.load(hidden + at, mask=inside), mask=inside)


@triton.jit
def reset_before_output(gates_x, candidate_h, hidden, out, n_hidden, BLOCK: tl.constexpr):
    lane, j = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside, x, at = j < n_hidden, gates_x + lane * 3 * n_hidden + j, lane * n_hidden + j
    candidate = tanh(tl.load(x, mask=inside) + tl.load(candidate_h + at, mask=inside))
    update, state = tl.load(x + 2 * n_hidden, mask=inside), tl.load(hidden + at, mask=inside)
    tl.store(x, candidate, mask=inside)
    tl.store(out + at, state + update * (candidate - state), mask=inside)


@triton.jit
def reset_before_output_backward(d_out, hidden, gates_x, d_candidate, n_hidden, BLOCK: tl.constexpr):
    lane, j = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside, x, at = j < n_hidden, gates_x + lane * 3 * n_hidden + j, lane * n_hidden + j
    candidate, update = tl.load(x, mask=inside), tl.load(x + 2 * n_hidden, mask=inside)
    d, state = tl.load(d_out + at, mask=inside), tl.load(hidden + at, mask=inside)
    before_tanh = d * update * (1 - candidate * candidate)
    tl.store(d_candidate + at, before_tanh, mask=inside)
    tl.store(x, before_tanh, mask=inside)
    tl.store(x + 2 * n_hidden, d * (candidate - state) * update * (1 - update), mask=inside)


@triton.jit
def reset_before_gates_backward(
    d_reset_hidden, hidden, gates_x, gates_h, d_bias, n_lanes, n_hidden, LANES: tl.constexpr, BLOCK: tl.constexpr
):
    j, r, z = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), n_hidden, 2 * n_hidden
    sum_candidate = tl.zeros((BLOCK,), hidden.dtype.element_ty)
    sum_reset, sum_update = sum_candidate, sum_candidate
    for first in range(0, n_lanes, LANES):
        lane = (first + tl.arange(0, LANES))[:, None]
        inside = (lane < n_lanes) & (j < n_hidden)[None, :]
        at, x = lane * n_hidden + j[None, :], gates_x + lane * 3 * n_hidden + j[None, :]
        h = gates_h + lane * 2 * n_hidden + j[None, :]
        d, state = tl.load(d_reset_hidden + at, mask=inside, other=0.0), tl.load(hidden + at, mask=inside, other=0.0)
        reset, d_update = tl.load(x + r, mask=inside, other=0.0), tl.load(x + z, mask=inside, other=0.0)
        d_reset = d * state * reset * (1 - reset)
        tl.store(x + r, d_reset, mask=inside)
        tl.store(h, d_reset, mask=inside)
        tl.store(h + n_hidden, d_update, mask=inside)
        sum_candidate += tl.sum(tl.load(x, mask=inside, other=0.0), axis=0)
        sum_reset += tl.sum(d_reset, axis=0)
        sum_update += tl.sum(d_update, axis=0)
    add_to(d_bias + j, sum_candidate, j < n_hidden)
    add_to(d_bias + r + j, sum_reset, j < n_hidden)
    add_to(d_bias + z + j, sum_update, j < n_hidden)


@triton.jit
def apply_dropout(values, uniform, probability: tl.float64, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    is_kept = tl.load(uniform + at, mask=inside) >= number_like(probability, uniform)
    tl.store(uniform + at, is_kept.to(uniform.dtype.element_ty), mask=inside)
    kept_values = tl.load(values + at, mask=inside) * is_kept.to(values.dtype.element_ty)
    tl.store(values + at, kept_values / (1 - number_like(probability, values)), mask=inside)


@triton.jit
def scale_kept(values, kept, probability: tl.float64, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    kept_values = tl.load(values + at, mask=inside) * tl.load(kept + at, mask=inside).to(values.dtype.element_ty)
    tl.store(values + at, kept_values / (1 - number_like(probability, values)), mask=inside)


@triton.jit
def column_offsets(
    bias, item_idx, is_left_out, correction, target_scale: tl.float64, negative_scale: tl.float64, out,
    n_lanes, n_columns, HAS_CORRECTION: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    m = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = m < n_columns
    item = tl.load(item_idx + m, mask=inside, other=0)
    offset = tl.load(bias + item, mask=inside)
    if HAS_CORRECTION:
        scale = tl.where(m < n_lanes, number_like(target_scale, out), number_like(negative_scale, out))
        offset -= scale * tl.load(correction + item, mask=inside)
    left_out = tl.load(is_left_out + m, mask=m < n_lanes, other=0) > 0
    tl.store(out + m, tl.where(left_out, float("-inf"), offset), mask=inside)


@triton.jit
def cross_entropy(
    scores, offset, target, losses, share: tl.float64, tiny: tl.float64, N_COLUMNS: tl.constexpr, BLOCK: tl.constexpr
):
    lane = tl.program_id(0)
    row, own = scores + lane.to(tl.int64) * N_COLUMNS, tl.load(target + lane)
    share, tiny, nothing = number_like(share, scores), number_like(tiny, scores), number_like(0.0, scores)
    highest, own_score = number_like(float("-inf"), scores), nothing
    for first in range(0, N_COLUMNS, BLOCK):
        m = first + tl.arange(0, BLOCK)
        s = _moved_scores(row, offset, m, N_COLUMNS)
        highest = tl.maximum(highest, tl.max(s, axis=0))
        own_score += tl.sum(tl.where(m == own, s, 0.0), axis=0)
    exp_sum = nothing
    for first in range(0, N_COLUMNS, BLOCK):
        m = first + tl.arange(0, BLOCK)
        exp_sum += tl.sum(tl.exp(_moved_scores(row, offset, m, N_COLUMNS) - highest), axis=0)
    p_own = tl.exp(own_score - highest) / exp_sum
    slope = share * p_own / (p_own + tiny)
    for first in range(0, N_COLUMNS, BLOCK):
        m = first + tl.arange(0, BLOCK)
        p = tl.exp(_moved_scores(row, offset, m, N_COLUMNS) - highest) / exp_sum
        gradient = slope * tl.where(m == own, p - 1, p)
        tl.store(row + m, tl.where(own >= 0, gradient, 0.0), mask=m < N_COLUMNS)
    tl.store(losses + lane, tl.where(own >= 0, -share * tl.log(p_own + tiny), 0.0))


@triton.jit
def _moved_scores(row, offset, m, N_COLUMNS: tl.constexpr):
    inside = m < N_COLUMNS
    return tl.load(row + m, mask=inside, other=float("-inf")) + tl.load(offset + m, mask=inside, other=0.0)


@triton.jit
def bpr_max(
    scores, offset, target, losses, share: tl.float64, tiny: tl.float64, elu_param: tl.float64, bpreg: tl.float64,
    HAS_ELU: tl.constexpr, N_COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    lane = tl.program_id(0)
    row, own = scores + lane.to(tl.int64) * N_COLUMNS, tl.load(target + lane)
    share, tiny, nothing = number_like(share, scores), number_like(tiny, scores), number_like(0.0, scores)
    elu_param, bpreg = number_like(elu_param, scores), number_like(bpreg, scores)
    highest, own_s = number_like(float("-inf"), scores), nothing
    for first in range(0, N_COLUMNS, BLOCK):
        m = first + tl.arange(0, BLOCK)
        _, s, is_negative = _activated_scores(row, offset, m, own, elu_param, HAS_ELU, N_COLUMNS)
        counted = tl.where(is_negative, s, tl.where(m == own, 0.0, float("-inf")))
        highest = tl.maximum(highest, tl.max(counted, axis=0))
        own_s += tl.sum(tl.where(m == own, s, 0.0), axis=0)
    exp_sum, beaten, slope, penalty = nothing, nothing, nothing, nothing
    for first in range(0, N_COLUMNS, BLOCK):
        m = first + tl.arange(0, BLOCK)
        _, s, is_negative = _activated_scores(row, offset, m, own, elu_param, HAS_ELU, N_COLUMNS)
        e, q = tl.where(is_negative, tl.exp(s - highest), 0.0), sigmoid(own_s - s)
        exp_sum += tl.sum(e, axis=0)
        beaten += tl.sum(e * q, axis=0)
        slope += tl.sum(e * q * (1 - q), axis=0)
        penalty += tl.sum(e * s * s, axis=0)
    beaten, slope, penalty = beaten / exp_sum, slope / exp_sum, penalty / exp_sum
    strength = 1 / (beaten + tiny)
    for first in range(0, N_COLUMNS, BLOCK):
        m = first + tl.arange(0, BLOCK)
        raw, s, is_negative = _activated_scores(row, offset, m, own, elu_param, HAS_ELU, N_COLUMNS)
        w, q = tl.where(is_negative, tl.exp(s - highest) / exp_sum, 0.0), sigmoid(own_s - s)
        gradient = w * (strength * (beaten - q * q) + bpreg * (s * s + 2 * s - penalty))
        gradient = tl.where(m == own, -strength * slope, gradient)
        if HAS_ELU:
            gradient *= tl.where(raw > 0, 1.0, s + elu_param)
        tl.store(row + m, tl.where(own >= 0, share * gradient, 0.0), mask=m < N_COLUMNS)
    loss = share * (bpreg * penalty - tl.log(beaten + tiny))
    tl.store(losses + lane, tl.where(own >= 0, loss, 0.0))


@triton.jit
def _activated_scores(row, offset, m, own, elu_param, HAS_ELU: tl.constexpr, N_COLUMNS: tl.constexpr):
    inside = m < N_COLUMNS
    move = tl.load(offset + m, mask=inside, other=float("-inf"))
    is_in = move > float("-inf")
    raw = tl.load(row + m, mask=inside, other=0.0) + tl.where(is_in, move, 0.0)
    s = raw
    if HAS_ELU:
        s = tl.where(raw > 0, raw, elu_param * (tl.exp(raw) - 1))
    return raw, s, is_in & (m != own)


@triton.jit
def _update(
    weight, accumulator, velocity, g, at, inside, lr: tl.float64, momentum: tl.float64, eps: tl.float64,
    HAS_VELOCITY: tl.constexpr,
):  # fmt: skip
    a = tl.load(accumulator + at, mask=inside, other=0.0) + g * g
    change = -number_like(lr, weight) * g / tl.sqrt(a + number_like(eps, weight))
    if HAS_VELOCITY:
        change += number_like(momentum, weight) * tl.load(velocity + at, mask=inside, other=0.0)
        tl.store(velocity + at, change, mask=inside)
    tl.store(accumulator + at, a, mask=inside)
    tl.store(weight + at, tl.load(weight + at, mask=inside, other=0.0) + change, mask=inside)


@triton.jit
def update_dense(
    weight, accumulator, velocity, gradient, lr: tl.float64, momentum: tl.float64, eps: tl.float64, share: tl.float64,
    n, HAS_VELOCITY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    g = tl.load(gradient + at, mask=inside, other=0.0) * number_like(share, weight)
    _update(weight, accumulator, velocity, g, at, inside, lr, momentum, eps, HAS_VELOCITY)


@triton.jit
def update_segments(
    table, accumulator, velocity, order, item_idx, count, gradient,
    lr: tl.float64, momentum: tl.float64, eps: tl.float64, share: tl.float64,
    n_gradients, size, HAS_VELOCITY: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    place, d = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    n_rows, first_row = tl.load(count + place), tl.load(order + place)
    if (n_rows > 0) & (first_row < n_gradients):
        inside = d < size
        total = tl.zeros((BLOCK,), table.dtype.element_ty)
        for first in range(0, n_rows, ROWS):
            r = first + tl.arange(0, ROWS)
            row = tl.load(order + place + r, mask=r < n_rows, other=n_gradients)
            place_of_row = row.to(tl.int64)[:, None] * size + d[None, :]
            is_row = (row < n_gradients)[:, None] & inside[None, :]
            total += tl.sum(tl.load(gradient + place_of_row, mask=is_row, other=0.0), axis=0)
        at = tl.load(item_idx + place).to(tl.int64) * size + d
        g = total * number_like(share, table)
        _update(table, accumulator, velocity, g, at, inside, lr, momentum, eps, HAS_VELOCITY)
