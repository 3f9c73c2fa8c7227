"""One date's coefficients, expected from its references and coded: the loop that encoder and decoder share."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from geostore.coding.rangecoder import Bytes
from geostore.compiled import compiled
from geostore.dct.blocks import CLASSES
from geostore.dct.coefficients import BIT_WORTH, Asked, Tables, choose, code_class, new_asked, read_as
from geostore.dct.contexts import Ahead, Hints, Spot, flag_contexts, look_ahead
from geostore.dct.learnt import Learnt, remember
from geostore.dct.mixing import guess, mixed_bit
from geostore.dct.predict import Sums, expect, fade, lead, taught, teach

Longs = npt.NDArray[np.int64]
Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
_LARGEST = 1 << 21  # of a coefficient
_PULL, _PULL_BLOCK = 4, 102  # 1/1024, of weights towards the usual ones, and of a block's towards those of the date


class Room(NamedTuple):
    """Arrays that are filled anew for every class of a block.

    Attributes:
        ahead: what is known of its values.
        asked: models of its bits.
        missed: (N,) what it lacks, for the encoder.
        near: (R, N) what references have of it.
        sums: for the weights of references.
    """

    ahead: Ahead
    asked: Asked
    missed: Longs
    near: Floats
    sums: Sums

    @classmethod
    def of(cls, count: int, length: int) -> Room:
        """For so many references, and blocks of so many values."""
        near, sums = np.empty((count, length), np.float32), Sums.of(count, length)
        return cls(Ahead.of(length), new_asked(), np.zeros(length, np.int64), near, sums)


@compiled
def code_date(
    data: Bytes, state: Longs, wanted: Floats, seen: Floats, apart: Ints, start: Longs, scan: Longs, ends: Longs,
    level: int, step: int, beside: bool, learnt: Learnt, t: Tables, room: Room, out: Longs, encode: bool,
) -> None:  # fmt: skip
    """Code one date; coefficients are in the order of `scan`, as is what there is of them in `seen`.

    Args:
        data: the stream.
        state: of its range coder.
        wanted: (K, rows * columns, h * w) coefficients to be told, whole numbers; nothing when decoding.
        seen: (R, K, rows * columns, h * w) the same of its references.
        apart: (K, rows * columns, h * w) how far these lie apart, see `spreads`.
        start: (R,) weights before anything is known.
        scan: (h * w, 3) the order of frequencies.
        ends: (CLASSES + 1,) where each class begins in it.
        level: of the date's place in the order.
        step: of its quantiser.
        beside: see `Blocks.beside`.
        learnt: what models know.
        t: tables.
        room: for what is looked up on the way.
        out: (K, rows * columns, h * w), filled with what decodes.
        encode: whether to write or to read.
    """
    parts, rows, columns = learnt.active.shape[:3]
    whole, sums = np.zeros(learnt.active.shape, np.int32), np.zeros((parts, rows, columns, CLASSES), np.int64)
    square, cross = np.zeros((len(start), len(start)), np.int64), np.zeros(len(start), np.int64)
    squares, crosses = (
        np.zeros((rows * columns, *square.shape), np.int64),
        np.zeros((rows * columns, *cross.shape), np.int64),
    )
    weights, local = start.copy(), start.copy()
    missed = np.zeros((rows, columns), np.int64)  # by what references said of blocks' means
    for k in range(parts):
        square[:], cross[:], squares[:], crosses[:] = 0, 0, 0, 0
        dense = np.array([80, 80], np.int64)  # what there was of this component, and what there mostly is
        for c in range(CLASSES):
            some, order = slice(ends[c], ends[c + 1]), scan[ends[c] : ends[c + 1]]
            if len(order) == 0:
                continue
            if len(start):
                taught(square, cross, start, step, _PULL, room.sums, weights)
                fade(square, cross)
            for y in range(rows):
                for x in range(columns):
                    b = y * columns + x
                    found, near = out[k, b, some], room.near
                    found[:] = 0
                    if len(start):
                        _gather(seen, k, b, ends[c], near, len(order))
                        taught(squares[b], crosses[b], weights, step, _PULL_BLOCK, room.sums, local)
                        expect(near, local, room.sums, found)
                    said = found[0]
                    if beside:
                        lead(found, missed, order, y, x)
                    spot = Spot(k, y, x, c, level, 16 * dense[0] // dense[1])
                    hints, told = Hints(near, found, apart[k, b, some], step), wanted[k : k + 1, b, some]
                    _block(data, state, told, whole, sums, order, spot, dense, hints, learnt, t, room, encode)
                    if sums[k, y, x, c]:
                        _add(whole[k, y, x], order, step, found)
                    for n in range(len(order)):
                        found[n] = min(max(found[n], -_LARGEST), _LARGEST)
                    if c == 0:
                        missed[y, x] = found[0] - said
                    if len(start):
                        fade(squares[b], crosses[b])
                        teach(near, found, room.sums, square, cross, squares[b], crosses[b])
    remember(whole, sums, learnt)


@compiled(lean=True)
def _gather(seen: Floats, k: int, b: int, first: int, near: Floats, length: int) -> None:
    """So many values of (R, K, blocks, h * w) references, from `first` on, into (R, ...): one line after the other."""
    for r in range(len(seen)):
        line, to = seen[r, k, b], near[r]
        for n in range(length):
            to[n] = line[first + n]


@compiled(lean=True)
def _add(whole: Ints, order: Longs, step: int, found: Longs) -> None:
    """Add to (N,) values what the class's magnitudes in (h, w) stand for."""
    for n in range(len(order)):
        value = whole[order[n, 0], order[n, 1]]
        size = read_as(abs(value), step)
        found[n] += size if value > 0 else -size


@compiled(lean=True)
def _block(
    data: Bytes, state: Longs, wanted: Floats, whole: Ints, sums: Longs, order: Longs, spot: Spot, dense: Longs,
    hints: Hints, learnt: Learnt, t: Tables, room: Room, encode: bool,
) -> None:  # fmt: skip
    """A class of one block: whether there is anything in it, and if so its values; `wanted` is (1, N), or (0, N)."""
    k, y, x, kind, _, _ = spot
    asked, own, amount, bit = room.asked, whole[k, y, x], 0, 1
    flagged, chosen = kind > 0, min(k, 3) * CLASSES + kind
    if flagged:
        flag_contexts(asked.flag, sums, spot, hints, learnt, t.buckets)
    if encode:
        look_ahead(room.ahead, whole, spot, hints, order, learnt, t.buckets)
        for n in range(len(order)):
            room.missed[n] = np.int64(wanted[0, n]) - hints.expected[n]
        cost, none, amount = choose(room.missed, own, order, spot, hints.step, room.ahead, learnt, t, asked)
        if flagged:
            some = guess(learnt.flags, learnt.flag_weights, asked.flag, chosen, 0, t.back)
            if amount == 0 or none + BIT_WORTH * t.bits[65536 - some] <= cost + BIT_WORTH * t.bits[some]:
                amount = 0
                for n in range(len(order)):
                    own[order[n, 0], order[n, 1]] = 0
    if flagged:
        bit = mixed_bit(
            data, state, learnt.flags, learnt.flag_weights, asked.flag, chosen, 0, t.odds, t.back, t.moves,
            1 if amount > 0 else 0, encode,
        )  # fmt: skip
    total = 0
    if bit:
        if not encode:
            look_ahead(room.ahead, whole, spot, hints, order, learnt, t.buckets)
        total = code_class(data, state, whole, order, spot, hints, room.ahead, learnt, t, asked, encode)
    sums[k, y, x, kind] = total
    dense[0] = dense[0] - (dense[0] >> 5) + 16 * min(total, 64)
    dense[1] = dense[1] - (dense[1] >> 5) + (learnt.busy[k, y, x, kind] >> 4) + 1
