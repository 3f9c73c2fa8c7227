"""Sums of products of 16-bit numbers, two at a time: what processors since 2000 have an instruction for.

Written as the compiler is to see it, since loops over 16-bit numbers become products of 32 bits one by one, several
times as slow. Whatever the processor, the sums are the same: whole numbers modulo 2^32.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

Words = npt.NDArray[np.int32]
Halves = npt.NDArray[np.int16]
Longs = npt.NDArray[np.int64]
OUTPUTS = 4  # worked out side by side,
_LANES, _VECTORS = 8, 3  # at so many places
PLACES = _LANES * _VECTORS
_HALF, _WORD, _LONG = ir.IntType(16), ir.IntType(32), ir.IntType(64)
_LANE, _PAIR = ir.VectorType(_WORD, _LANES), ir.VectorType(_HALF, 2 * _LANES)
_WIDE = ir.VectorType(_WORD, 2 * _LANES)
_EVEN, _ODD = (ir.Constant(_LANE, list(range(first, 2 * _LANES, 2))) for first in (0, 1))


def _dots(_: Any, pairs: Any, __: Any, taps: Any, weights: Any, out: Any, ___: Any, ____: Any) -> Any:
    return types.void(pairs, types.intp, taps, weights, out, types.intp, types.intp), _generate


def _generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    arrays = {i: context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 2, 3, 4)}
    pairs, taps, weights, out = (array.data for array in arrays.values())
    start, count = builder.block, builder.extract_value(arrays[2].shape, 0)
    weights = builder.bitcast(weights, _WORD.as_pointer())  # a pair is one number of 32 bits until it is laid out
    loop, done = builder.append_basic_block("loop"), builder.append_basic_block("done")
    builder.branch(loop)
    builder.position_at_end(loop)
    k = builder.phi(_LONG)
    sums = [[builder.phi(_LANE) for _ in range(_VECTORS)] for _ in range(OUTPUTS)]
    place = builder.add(arguments[1], builder.load(builder.gep(taps, [k])))
    seen = builder.gep(pairs, [builder.shl(place, _LONG(1))])
    values = [_loaded(builder, builder.gep(seen, [_LONG(2 * _LANES * v)]), _PAIR) for v in range(_VECTORS)]
    first = builder.gep(weights, [builder.mul(k, _LONG(OUTPUTS))])
    following = []
    for o in range(OUTPUTS):
        weight = _everywhere(builder, _loaded(builder, builder.gep(first, [_LONG(o)]), _WORD))
        following.append([builder.add(s, _dot(builder, v, weight)) for s, v in zip(sums[o], values, strict=True)])
    after = builder.add(k, _LONG(1))
    k.add_incoming(_LONG(0), start)
    k.add_incoming(after, loop)
    for o, v in product(range(OUTPUTS), range(_VECTORS)):
        sums[o][v].add_incoming(ir.Constant(_LANE, None), start)
        sums[o][v].add_incoming(following[o][v], loop)
    builder.cbranch(builder.icmp_signed("<", after, count), loop, done)
    builder.position_at_end(done)
    length = builder.extract_value(arrays[4].shape, 1)
    for o, found in enumerate(following):
        line = builder.add(builder.mul(builder.add(arguments[5], _LONG(o)), length), arguments[6])
        for v, values_found in enumerate(found):
            to = builder.gep(out, [builder.add(line, _LONG(_LANES * v))])
            builder.store(values_found, builder.bitcast(to, _LANE.as_pointer()), align=4)
    return context.get_dummy_value()


def _loaded(builder: Any, address: Any, kind: Any) -> Any:
    return builder.load(builder.bitcast(address, kind.as_pointer()), align=2)


def _everywhere(builder: Any, pair: Any) -> Any:
    """A pair, as one number, in every lane."""
    one = builder.insert_element(ir.Constant(_LANE, ir.Undefined), pair, _WORD(0))
    lanes = builder.shuffle_vector(one, ir.Constant(_LANE, ir.Undefined), ir.Constant(_LANE, [0] * _LANES))
    return builder.bitcast(lanes, _PAIR)


def _dot(builder: Any, values: Any, weights: Any) -> Any:
    """Sums of the two products of each lane."""
    products = builder.mul(builder.sext(values, _WIDE), builder.sext(weights, _WIDE))
    return builder.add(*(builder.shuffle_vector(products, products, half) for half in (_EVEN, _ODD)))


# dots(pairs, at, taps, weights, out, row, column), for compiled code only: out[row + o, column + j], for all OUTPUTS o
# and PLACES j, becomes the sum over k of weights[k, o] * pairs[at + taps[k] + j], each a pair: (N, 2) int16 pairs,
# (K,) int64 taps, (K, OUTPUTS, 2) int16 weights, (rows, columns) int32 out, all C-contiguous, and K is not 0.
dots = cast(Callable[[Halves, int, Longs, Halves, Words, int, int], None], intrinsic(_dots))
