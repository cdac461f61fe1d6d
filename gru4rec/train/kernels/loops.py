"""Loops of the compiled kernels, which touch each number once while it is in cache. Shapes as in ``torch_ops``.

Rows are contiguous, so that inner loops use wide registers. In float32 the exponential is a polynomial (1 unit in the
last place); in float64 it is the library's.
"""

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from gru4rec.jit import compiled, scalar_helper


@scalar_helper
def _exp_float32(x):
    """Return exp(x) = 2^n exp(r) with |r| <= ln(2) / 2, by its Taylor series; 0 below -87, at most 2.4e38."""
    lowest = np.float32(-87.0)
    bounded = min(max(x, lowest), np.float32(88.3))
    n = np.floor(bounded * np.float32(1.442695041) + np.float32(0.5))
    r = (bounded - n * np.float32(0.693359375)) + n * np.float32(2.1219444e-4)  # ln(2) in two parts, the first exact
    y = np.float32(1 / 5040)
    y = y * r + np.float32(1 / 720)
    y = y * r + np.float32(1 / 120)
    y = y * r + np.float32(1 / 24)
    y = y * r + np.float32(1 / 6)
    y = y * r + np.float32(1 / 2)
    y = y * r + np.float32(1)
    y = y * r + np.float32(1)
    power_of_two = np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
    result = y * power_of_two if x > lowest else np.float32(0)
    return result if x == x else x


@scalar_helper
def _tanh_float32(x):
    """Return tanh(x); near 0 by its series, as 1 - 2 / (1 + exp(2 x)) would lose digits there."""
    square = x * x
    y = np.float32(62 / 2835)
    y = y * square - np.float32(17 / 315)
    y = y * square + np.float32(2 / 15)
    y = y * square - np.float32(1 / 3)
    near_zero = x + x * square * y
    far = np.float32(1) - np.float32(2) / (np.float32(1) + _exp_float32(x + x))
    return near_zero if square < np.float32(0.04) else far


def _exp(x):
    raise NotImplementedError


def _tanh(x):
    raise NotImplementedError


@overload(_exp)
def _exp_of_type(x):
    return (lambda x: _exp_float32(x)) if x == types.float32 else (lambda x: math.exp(x))


@overload(_tanh)
def _tanh_of_type(x):
    return (lambda x: _tanh_float32(x)) if x == types.float32 else (lambda x: math.tanh(x))


@intrinsic
def _prefetch(typing_context, array, place):
    """Ask for the cache line of the flat array's ``place``, to be written soon."""

    def generate(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        byte_pointer, int32 = ir.IntType(8).as_pointer(), ir.IntType(32)
        line = builder.bitcast(builder.gep(data, [arguments[1]]), byte_pointer)
        function_type = ir.FunctionType(ir.VoidType(), [byte_pointer, int32, int32, int32])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte_pointer], function_type)
        builder.call(function, [line, int32(1), int32(3), int32(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


_WIDTH = 64
_ROWS_AHEAD = 2
"""Rows of an item matrix are asked for so many rows before their turn; they lie anywhere in memory."""


@compiled
def reset_after_forward(gates_x, gates_h, bias_x, bias_h, hidden, out):
    n_lanes, n_hidden = hidden.shape
    one = hidden.dtype.type(1)
    for b in range(n_lanes):  # several short loops: one long one has too many arrays for wide registers
        gx, gh = gates_x[b], gates_h[b]
        for j in range(3 * n_hidden):
            gh[j] += bias_h[j]
        for j in range(3 * n_hidden):
            gx[j] += bias_x[j]
        for j in range(2 * n_hidden):
            gx[j] = one / (one + _exp(-(gx[j] + gh[j])))
        reset, update, candidate = gx[:n_hidden], gx[n_hidden : 2 * n_hidden], gx[2 * n_hidden :]
        recurrent, h, o = gh[2 * n_hidden :], hidden[b], out[b]
        for j in range(n_hidden):
            candidate[j] = _tanh(candidate[j] + reset[j] * recurrent[j])
        for j in range(n_hidden):
            o[j] = (one - update[j]) * candidate[j] + update[j] * h[j]


@compiled
def reset_after_backward(d_out, hidden, gates_x, gates_h, d_bias_x, d_bias_h):
    n_lanes, n_hidden = hidden.shape
    one = hidden.dtype.type(1)
    for b in range(n_lanes):
        gx, gh, h, d = gates_x[b], gates_h[b], hidden[b], d_out[b]
        reset, update, candidate = gx[:n_hidden], gx[n_hidden : 2 * n_hidden], gx[2 * n_hidden :]
        recurrent, d_update = gh[2 * n_hidden :], gh[n_hidden : 2 * n_hidden]
        for j in range(n_hidden):
            d_update[j] = d[j] * (h[j] - candidate[j]) * update[j] * (one - update[j])
        for j in range(n_hidden):
            candidate[j] = d[j] * (one - update[j]) * (one - candidate[j] * candidate[j])
        for j in range(n_hidden):
            gh[j] = candidate[j] * recurrent[j] * reset[j] * (one - reset[j])
        for j in range(n_hidden):
            recurrent[j] = candidate[j] * reset[j]
        for j in range(2 * n_hidden):
            gx[j] = gh[j]
        for j in range(3 * n_hidden):
            d_bias_x[j] += gx[j]
        for j in range(3 * n_hidden):
            d_bias_h[j] += gh[j]


@compiled
def reset_before_gates(gates_x, gates_h, bias, hidden, reset_hidden):
    n_lanes, n_hidden = hidden.shape
    one = hidden.dtype.type(1)
    for b in range(n_lanes):
        gx, gh, h, rh = gates_x[b], gates_h[b], hidden[b], reset_hidden[b]
        for j in range(n_hidden):
            gx[j] += bias[j]
        for j in range(2 * n_hidden):
            gx[n_hidden + j] = one / (one + _exp(-(gx[n_hidden + j] + bias[n_hidden + j] + gh[j])))
        for j in range(n_hidden):
            rh[j] = gx[n_hidden + j] * h[j]


@compiled
def reset_before_output(gates_x, candidate_h, hidden, out):
    n_lanes, n_hidden = hidden.shape
    one = hidden.dtype.type(1)
    for b in range(n_lanes):
        gx, ch, h, o = gates_x[b], candidate_h[b], hidden[b], out[b]
        for j in range(n_hidden):
            candidate = _tanh(gx[j] + ch[j])
            gx[j] = candidate
            update = gx[2 * n_hidden + j]
            o[j] = (one - update) * h[j] + update * candidate


@compiled
def reset_before_output_backward(d_out, hidden, gates_x, d_candidate):
    n_lanes, n_hidden = hidden.shape
    one = hidden.dtype.type(1)
    for b in range(n_lanes):
        gx, h, d, dc = gates_x[b], hidden[b], d_out[b], d_candidate[b]
        for j in range(n_hidden):
            candidate, update = gx[j], gx[2 * n_hidden + j]
            d_before_tanh = d[j] * update * (one - candidate * candidate)
            dc[j] = d_before_tanh
            gx[j] = d_before_tanh
            gx[2 * n_hidden + j] = d[j] * (candidate - h[j]) * update * (one - update)


@compiled
def reset_before_gates_backward(d_reset_hidden, hidden, gates_x, gates_h, d_bias):
    n_lanes, n_hidden = hidden.shape
    one = hidden.dtype.type(1)
    for b in range(n_lanes):
        gx, gh, h, d = gates_x[b], gates_h[b], hidden[b], d_reset_hidden[b]
        for j in range(n_hidden):
            reset = gx[n_hidden + j]
            d_reset = d[j] * h[j] * reset * (one - reset)
            gx[n_hidden + j] = d_reset
            gh[j] = d_reset
            gh[n_hidden + j] = gx[2 * n_hidden + j]
        for j in range(3 * n_hidden):
            d_bias[j] += gx[j]


@compiled
def apply_dropout(values, uniform, probability, factor):
    for b in range(len(values)):
        v, u = values[b], uniform[b]
        for j in range(len(v)):
            kept = u.dtype.type(u[j] >= probability)
            u[j] = kept
            v[j] *= kept * factor


@compiled
def scale_kept(values, kept, factor):
    for b in range(len(values)):
        v, k = values[b], kept[b]
        for j in range(len(v)):
            v[j] *= k[j] * factor


@compiled
def gather(table, item_idx, out):
    n_rows, size = out.shape
    per_line = 64 // table.itemsize
    for r in range(n_rows):
        if r + _ROWS_AHEAD < n_rows:
            start = item_idx[r + _ROWS_AHEAD] * size
            for d in range(start, start + size, per_line):
                _prefetch(table, d)
        row, copy = table[item_idx[r]], out[r]
        for d in range(size):
            copy[d] = row[d]


@compiled
def column_offset(bias, item_idx, correction, scale, out):
    for m in range(len(item_idx)):
        out[m] = bias[item_idx[m], 0] - scale * correction[item_idx[m]]


@compiled
def _highest(row, best):
    """Return a row's maximum, -inf if it is empty; NaN does not count. ``best`` holds ``_WIDTH`` maxima."""
    n_wide = len(row) - len(row) % _WIDTH
    highest = row.dtype.type(-np.inf)
    best[:] = highest
    for m in range(0, n_wide, _WIDTH):
        for j in range(_WIDTH):
            best[j] = row[m + j] if row[m + j] > best[j] else best[j]
    for j in range(_WIDTH):
        highest = max(highest, best[j])
    for m in range(n_wide, len(row)):
        highest = max(highest, row[m])
    return highest


@compiled
def cross_entropy(scores, offset, target, d_offset, share, tiny):
    n_lanes, n_columns = scores.shape
    best = np.empty(_WIDTH, scores.dtype)
    nothing = scores.dtype.type(0)
    total = nothing
    d_offset[:] = nothing
    for b in range(n_lanes):
        row = scores[b]
        for m in range(n_columns):
            row[m] += offset[m]
        highest = _highest(row, best)
        exp_sum = nothing
        for m in range(n_columns):
            e = _exp(row[m] - highest)
            row[m] = e
            exp_sum += e
        p_target = row[target[b]] / exp_sum
        total -= math.log(p_target + tiny)
        slope = share * p_target / (p_target + tiny)
        factor = slope / exp_sum
        for m in range(n_columns):
            gradient = row[m] * factor
            row[m] = gradient
            d_offset[m] += gradient
        row[target[b]] -= slope
        d_offset[target[b]] -= slope
    return total * share


@compiled
def bpr_max(scores, offset, target, d_offset, share, tiny, elu_param, bpreg):
    n_lanes, n_columns = scores.shape
    best = np.empty(_WIDTH, scores.dtype)
    nothing, one, two = scores.dtype.type(0), scores.dtype.type(1), scores.dtype.type(2)
    exp_row, beaten_row = np.empty(n_columns, scores.dtype), np.empty(n_columns, scores.dtype)
    total = nothing
    d_offset[:] = nothing
    for b in range(n_lanes):
        row, own = scores[b], target[b]
        _activate_row(row, offset, elu_param)
        own_score = row[own]
        row[own] = nothing
        highest = _highest(row, best)
        # sigmoid(own - s) = 1 / (1 + exp(s - highest) exp(highest - own)); the second factor is kept finite
        own_factor = _exp(min(highest - own_score, scores.dtype.type(80)))
        for m in range(n_columns):
            exp_row[m] = _exp(row[m] - highest)
        exp_row[own] = nothing  # before it is summed: taking it out again would leave nothing of small negatives
        exp_sum, beaten, penalty, slope = nothing, nothing, nothing, nothing
        for m in range(n_columns):
            e, s = exp_row[m], row[m]
            exp_sum += e
            q = one / (one + e * own_factor)
            beaten_row[m] = q
            beaten += e * q
            slope += e * q * (one - q)
            penalty += e * s * s
        per_sum = one / exp_sum
        beaten, penalty, slope = beaten * per_sum, penalty * per_sum, slope * per_sum
        total += bpreg * penalty - math.log(beaten + tiny) + nothing * own_score  # an infinite score is no loss
        strength = one / (beaten + tiny)
        for m in range(n_columns):
            s, q = row[m], beaten_row[m]
            gradient = strength * (beaten - q * q) + bpreg * (s * s + two * s - penalty)
            gradient *= exp_row[m] * per_sum * share
            if elu_param > 0:
                gradient *= one if s > 0 else s + elu_param
            row[m] = gradient
            d_offset[m] += gradient
        own_gradient = -strength * slope * share
        if elu_param > 0 and not own_score > 0:
            own_gradient *= own_score + elu_param
        row[own] = own_gradient
        d_offset[own] += own_gradient
    return total * share


@compiled
def activate(scores, offset, elu_param):
    for b in range(len(scores)):
        _activate_row(scores[b], offset, elu_param)


@compiled
def _activate_row(row, offset, elu_param):
    one = row.dtype.type(1)
    if elu_param > 0:
        for m in range(len(row)):
            x = row[m] + offset[m]
            row[m] = x if x > 0 else elu_param * (_exp(x) - one)
    else:
        for m in range(len(row)):
            row[m] += offset[m]


@compiled
def softmax_sums(scores, highest, sums):
    n_lanes, n_columns = scores.shape
    best = np.empty(_WIDTH, scores.dtype)
    for b in range(n_lanes):
        row = scores[b]
        before = highest[b]
        top = max(before, _highest(row, best))
        highest[b] = top
        total = sums[0, b] * _exp(before - top)
        for m in range(n_columns):
            total += _exp(row[m] - top)
        sums[0, b] = total


@compiled
def softmax_gradient(scores, target, highest, sums, slope, d_offset):
    n_lanes, n_columns = scores.shape
    d_offset[:] = scores.dtype.type(0)
    for b in range(n_lanes):
        row, own, top, factor = scores[b], target[b], highest[b], slope[b] / sums[0, b]
        for m in range(n_columns):
            gradient = _exp(row[m] - top) * factor
            row[m] = gradient
            d_offset[m] += gradient
        if 0 <= own < n_columns:
            row[own] -= slope[b]
            d_offset[own] -= slope[b]


@compiled
def bpr_sums(scores, target, own, highest, sums):
    n_lanes, n_columns = scores.shape
    best = np.empty(_WIDTH, scores.dtype)
    for b in range(n_lanes):
        row, column, before = scores[b], target[b], highest[b]
        is_here = 0 <= column < n_columns
        left = row[:column] if is_here else row
        right = row[column + 1 :] if is_here else row[:0]
        top = max(before, max(_highest(left, best), _highest(right, best)))
        highest[b] = top
        factor, own_factor = _exp(before - top), _exp(min(top - own[b], scores.dtype.type(80)))
        from_left, from_right = _bpr_sums_of(left, top, own_factor), _bpr_sums_of(right, top, own_factor)
        for n in range(4):
            sums[n, b] = sums[n, b] * factor + from_left[n] + from_right[n]


@compiled
def _bpr_sums_of(row, top, own_factor):
    one = row.dtype.type(1)
    exp_sum = beaten = slope = penalty = row.dtype.type(0)
    for m in range(len(row)):
        s = row[m]
        e = _exp(s - top)
        q = one / (one + e * own_factor)
        exp_sum += e
        beaten += e * q
        slope += e * q * (one - q)
        penalty += e * s * s
    return exp_sum, beaten, slope, penalty


@compiled
def bpr_gradient(scores, target, own, highest, sums, d_offset, share, tiny, elu_param, bpreg):
    n_lanes, n_columns = scores.shape
    one, two, largest = scores.dtype.type(1), scores.dtype.type(2), scores.dtype.type(80)
    d_offset[:] = scores.dtype.type(0)
    for b in range(n_lanes):
        row, column, top = scores[b], target[b], highest[b]
        per_sum = one / sums[0, b]
        beaten, slope, penalty = sums[1, b] * per_sum, sums[2, b] * per_sum, sums[3, b] * per_sum
        strength, own_factor = one / (beaten + tiny), _exp(min(top - own[b], largest))
        for m in range(n_columns):
            s = row[m]
            e = _exp(s - top)
            q = one / (one + e * own_factor)
            gradient = strength * (beaten - q * q) + bpreg * (s * s + two * s - penalty)
            gradient *= e * per_sum * share
            if elu_param > 0:
                gradient *= one if s > 0 else s + elu_param
            row[m] = gradient
        if 0 <= column < n_columns:
            gradient = -strength * slope * share
            row[column] = gradient if elu_param == 0 or own[b] > 0 else gradient * (own[b] + elu_param)
        for m in range(n_columns):
            d_offset[m] += row[m]


@compiled
def update_rows(table, accumulator, velocity, item_idx, gradient, first, lr, momentum, eps, share):
    n_rows, size = gradient.shape
    per_line = 64 // table.itemsize
    for r in range(n_rows):
        place = first[item_idx[r]]
        if place == 0:
            first[item_idx[r]] = r + 1
        else:
            summed, row = gradient[place - 1], gradient[r]
            for d in range(size):
                summed[d] += row[d]
    for r in range(n_rows):
        if r + _ROWS_AHEAD < n_rows:
            start = item_idx[r + _ROWS_AHEAD] * size
            for d in range(start, start + size, per_line):
                _prefetch(table, d)
                _prefetch(accumulator, d)
                _prefetch(velocity, d)
        item = item_idx[r]
        if first[item] == r + 1:
            first[item] = 0
            update(table[item], accumulator[item], velocity[item], gradient[r], lr, momentum, eps, share)


@compiled
def update_numbers(table, accumulator, velocity, item_idx, gradient, first, lr, momentum, eps, share):
    """Do the same for a table of one number a row, as the biases are."""
    for r in range(len(item_idx)):
        place = first[item_idx[r]]
        if place == 0:
            first[item_idx[r]] = r + 1
        else:
            gradient[place - 1] += gradient[r]
    for r in range(len(item_idx)):
        item = item_idx[r]
        if first[item] == r + 1:
            first[item] = 0
            g = gradient[r] * share
            a = accumulator[item] + g * g
            accumulator[item] = a
            change = -g * lr / np.sqrt(a + eps)
            if momentum > 0:
                change += momentum * velocity[item]
                velocity[item] = change
            table[item] += change


@compiled
def update(weight, accumulator, velocity, gradient, lr, momentum, eps, share):
    if momentum > 0:
        for d in range(len(weight)):
            g = gradient[d] * share
            a = accumulator[d] + g * g
            accumulator[d] = a
            v = momentum * velocity[d] - g * lr / np.sqrt(a + eps)
            velocity[d] = v
            weight[d] += v
    else:
        for d in range(len(weight)):
            g = gradient[d] * share
            a = accumulator[d] + g * g
            accumulator[d] = a
            weight[d] -= g * lr / np.sqrt(a + eps)
