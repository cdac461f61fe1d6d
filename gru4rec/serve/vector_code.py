"""Scores of a block of items for a few sessions, in vector registers: the one loop of a scan that Python cannot say.

Written as LLVM's vectors of ``LANES`` numbers, which every processor's code generator cuts to its own registers. Knows
arrays and their layout, not what is in them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import llvmlite.binding
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

_FEATURES = llvmlite.binding.get_host_cpu_features()
LANES = 64 if _FEATURES.get("avx512f") else 32 if _FEATURES.get("avx2") else 16
"""Items of a block: four vector registers of them."""

_FLOAT, _COUNT, _PLACE = ir.FloatType(), ir.IntType(64), ir.IntType(32)
_FLOATS = ir.VectorType(_FLOAT, LANES)
_STORED = {types.int8: ir.IntType(8), types.uint16: ir.IntType(16), types.float32: _FLOAT}
_MAY_FUSE = ("contract",)


def block_scores_of(n_rows: int) -> Callable[..., Any]:
    """Make the function of compiled loops that scores one block of items for ``n_rows`` sessions.

    Args:
        n_rows: Sessions, those of rows row, row + 1, ... of what belongs to sessions.

    Returns:
        A function of (weights, scale, bias, error, block, n_hidden, hidden_BH, norm_B, gate_B, row, score, above).
        ``weights`` is flat: for every block and hidden unit the numbers of ``LANES`` items, stored as int8, float32 or
        the upper halves of float32 (uint16). ``scale``, ``bias`` and ``error`` have a float32 an item.
        ``score[r * LANES + i]`` becomes the product of session row + r and item i, times the item's scale, plus its
        bias; bit i of ``above[r]`` (int64) tells whether that and norm times error reach the session's gate. Whether
        multiplications and additions are fused depends on the processor.
    """

    @intrinsic
    def block_scores(
        typing: Any, weights: Any, scale: Any, bias: Any, error: Any, block: Any, n_hidden: Any, hidden_BH: Any,
        norm_B: Any, gate_B: Any, row: Any, score: Any, above: Any,
    ) -> Any:  # fmt: skip
        signature = types.void(
            weights, scale, bias, error, block, n_hidden, hidden_BH, norm_B, gate_B, row, score, above
        )

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            def data(place: int) -> Any:
                return context.make_array(signature.args[place])(context, builder, args[place]).data

            def number(place: int) -> Any:
                return context.cast(builder, args[place], signature.args[place], types.int64)

            block, n_hidden, row = number(4), number(5), number(9)
            stored = signature.args[0].dtype
            start = builder.mul(block, _COUNT(LANES))
            rows = [builder.add(row, _COUNT(r)) for r in range(n_rows)]
            weights = builder.gep(data(0), [builder.mul(start, n_hidden)])
            sums = _products(builder, stored, weights, n_hidden, data(6), rows)
            scale, bias, error = (_loaded(builder, data(place), start) for place in (1, 2, 3))
            for r, product in enumerate(sums):
                score = _multiplied_added(builder, product, scale, bias)
                builder.store(score, _vector_at(builder, data(10), _COUNT(r * LANES)), align=4)
                norm, gate = (_spread(builder, builder.load(builder.gep(data(p), [rows[r]]))) for p in (7, 8))
                reaches = builder.fcmp_ordered(">=", _multiplied_added(builder, error, norm, score), gate)
                bits = builder.bitcast(reaches, ir.IntType(LANES))
                bits = bits if LANES == 64 else builder.zext(bits, _COUNT)
                builder.store(bits, builder.gep(data(11), [_COUNT(r)]))
            return context.get_dummy_value()

        return signature, generate

    return cast(Callable[..., Any], block_scores)


def _products(
    builder: ir.IRBuilder, stored: Any, block: Any, n_hidden: Any, hidden: Any, rows: Sequence[Any]
) -> list[Any]:
    """Multiply a block with some sessions: a loop over hidden units, whose sums stay in registers."""
    before = builder.block
    loop, after = builder.append_basic_block("unit"), builder.append_basic_block("done")
    builder.branch(loop)
    builder.position_at_end(loop)
    unit = builder.phi(_COUNT)
    unit.add_incoming(_COUNT(0), before)
    sums = [builder.phi(_FLOATS) for _ in rows]
    weight = _decoded(builder, stored, builder.gep(block, [builder.mul(unit, _COUNT(LANES))]))
    added = []
    for row, so_far in zip(rows, sums, strict=True):
        place = builder.add(builder.mul(row, n_hidden), unit)
        factor = _spread(builder, builder.load(builder.gep(hidden, [place])))
        added.append(_multiplied_added(builder, weight, factor, so_far))
        so_far.add_incoming(ir.Constant(_FLOATS, [0.0] * LANES), before)
        so_far.add_incoming(added[-1], loop)
    following = builder.add(unit, _COUNT(1))
    unit.add_incoming(following, loop)
    builder.cbranch(builder.icmp_signed("<", following, n_hidden), loop, after)
    builder.position_at_end(after)
    return added


def _multiplied_added(builder: ir.IRBuilder, factor: Any, other: Any, summand: Any) -> Any:
    return builder.fadd(builder.fmul(factor, other, flags=_MAY_FUSE), summand, flags=_MAY_FUSE)


def _vector_at(builder: ir.IRBuilder, data: Any, place: Any) -> Any:
    return builder.bitcast(builder.gep(data, [place]), _FLOATS.as_pointer())


def _loaded(builder: ir.IRBuilder, data: Any, place: Any) -> Any:
    return builder.load(_vector_at(builder, data, place), align=4)


def _decoded(builder: ir.IRBuilder, stored: Any, place: Any) -> Any:
    """Load the block's weights of one hidden unit, as float32."""
    vector = ir.VectorType(_STORED[stored], LANES)
    weight = builder.load(builder.bitcast(place, vector.as_pointer()), align=1)
    if stored == types.int8:
        return builder.sitofp(weight, _FLOATS)
    if stored == types.uint16:
        wide = ir.VectorType(_PLACE, LANES)
        return builder.bitcast(builder.shl(builder.zext(weight, wide), ir.Constant(wide, [16] * LANES)), _FLOATS)
    return weight


def _spread(builder: ir.IRBuilder, number: Any) -> Any:
    """Return a vector of one number."""
    nothing = ir.Constant(_FLOATS, ir.Undefined)
    one = builder.insert_element(nothing, number, _PLACE(0))
    return builder.shuffle_vector(one, nothing, ir.Constant(ir.VectorType(_PLACE, LANES), [0] * LANES))
