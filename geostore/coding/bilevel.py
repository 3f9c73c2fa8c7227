"""A plane of bits as few bytes: each bit guessed from those before it, by a small network and by what the plane taught.

References:
    ITU-T T.88 (JBIG2): a template of neighbours chooses an adaptive probability. Deviations: two templates at once,
    mixed in the logistic domain (Mahoney 2005); beside them a network that was trained once, in whole numbers, sees the
    59 nearest bits, so that small planes need not learn first; where all 59 are alike, one probability is enough.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from geostore.coding.logistic import LEAST, REACH, Ints, logistic
from geostore.coding.rangecoder import Bytes, Longs, decode_bit, encode_bit, finish, start_decoder, start_encoder
from geostore.compiled import compiled
from geostore.errors import Corrupt
from geostore.raster import Mask

NEAR = (  # (rows up, columns right) of the bits that the network sees, from the lowest bit of their word on
    *((0, -1 - i) for i in range(6)),
    *((1, 6 - i) for i in range(13)),
    *((2, 6 - i) for i in range(13)),
    *((3, 5 - i) for i in range(11)),
    *((4, 4 - i) for i in range(9)),
    *((5, 3 - i) for i in range(7)),
)
ROWS = 6  # rows from the top on that the network tells apart
ALIKE = (1 << len(NEAR)) - 1  # the word of bits that are all 1
TRUST = 60  # bits that a trained probability counts for
PARTS = 1024  # of the network's weights
_KEPT = ALIKE & ~(1 | 1 << 6 | 1 << 19 | 1 << 32 | 1 << 43 | 1 << 52)  # bits that move within their row
_TABLE = Path(__file__).parent / "bilevel.json"
HIDDEN = 8  # of the network's units
_GROUPS = 9
_GROUP = 7  # bits of the word that are looked up together
LEFT, RIGHT, UP = 7, 9, 5  # padding
_FINE = 14  # bits that a probability has beyond 16
_MEMORY, _LONG_MEMORY = 250, 1000  # bits a probability remembers at most, the second where all around is alike
_FIRST = (45_000, 10_000, 10_000)  # of 65536, weights of the network and the two templates
_RATE = 16  # 2^-16 of error times odds: how fast weights learn
_SMALL = 2 * ROWS  # where the models of the template of 12 bits begin
_LARGE = _SMALL + (1 << 12)  # and of the one of 16


class Prior(NamedTuple):
    """What coder and decoder know before the first bit, alike.

    Attributes:
        groups: (9, 128, hidden) sums of first weights for the values of each 7 bits of the word, 1/1024.
        rows: (ROWS, hidden) what is added to them by row.
        second: (hidden,) 1/1024. bias: 1/256 of a factor e.
        alike: (2 * ROWS,) probabilities of a 1 by row, where all bits near are 0, where all are 1, in 2^-30.
        odds, back: of `logistic`.
        moves: (n,) by how much of the error a probability moves after so many bits, in 1/65536.
    """

    groups: Ints
    rows: Ints
    second: Ints
    bias: int
    alike: Longs
    odds: Ints
    back: Ints
    moves: Ints


@lru_cache(maxsize=1)
def prior() -> Prior:
    """The table that comes with the package; `bench.mask_prior` made it."""
    told = json.loads(_TABLE.read_text())
    first = np.array(told["first"], np.int32)
    spare = np.zeros((-len(first) % _GROUP, first.shape[1]), np.int32)
    bits = np.arange(1 << _GROUP)[:, None] >> np.arange(_GROUP) & 1
    groups = bits @ np.concatenate([first, spare]).reshape(-1, _GROUP, first.shape[1])
    counts = np.arange(_LONG_MEMORY + 1)
    moves = (10 * 65536 // (10 * counts + 16)).astype(np.int32)
    rows, second = np.array(told["rows"], np.int32), np.array(told["second"], np.int32)
    alike = np.array(told["alike"], np.int64).ravel()
    return Prior(groups.astype(np.int32), rows, second, int(told["bias"]), alike, *logistic(), moves)


def pack_bilevel(bits: Mask) -> bytes:
    """(height, width) bool, at least one, as bytes."""
    out = np.zeros(64 + 2 * bits.size, np.uint8)  # the least likely bit takes 14
    state = start_encoder()
    _code(out, state, padded(bits), prior(), True)
    return out[1 : 1 + finish(out, state)].tobytes()


def unpack_bilevel(data: bytes, shape: tuple[int, int]) -> Mask:
    """The inverse of `pack_bilevel` for a plane of `shape` (height, width), neither of them 0.

    Raises:
        Corrupt: there are more bytes than a plane of that shape takes. Other damage gives another plane.
    """
    stream = np.frombuffer(data, np.uint8).copy()
    state, plane = start_decoder(stream), padded(np.ones(shape, np.bool_))
    _code(stream, state, plane, prior(), False)
    if state[4] < len(stream):
        raise Corrupt(
            f"a mask of {len(data)} bytes has more than {shape[0]} x {shape[1]} pixels take; run `geostore verify`"
        )
    return plane[UP:, LEFT:-RIGHT].astype(np.bool_)


def padded(bits: Mask) -> Bytes:
    """(height + 5, width + 16) with room for what lies beside and above, which is 1."""
    height, width = bits.shape
    out = np.ones((height + UP, width + LEFT + RIGHT), np.uint8)
    out[UP:, LEFT:-RIGHT] = bits
    return out


@compiled(lean=True)
def first_word(plane: Bytes, y: int) -> int:
    """The bits near the first pixel of row y of the padded plane; left of it is what lies above it."""
    near = 63 if plane[y - 1, LEFT] else 0
    at = 6
    for up in range(1, UP + 1):
        reach = min(6, 8 - up)
        for i in range(2 * reach + 1):
            near |= plane[y - up, LEFT + reach - i] << at
            at += 1
    return near


@compiled(lean=True)
def next_word(near: int, plane: Bytes, y: int, x: int) -> int:
    """The word of the pixel to the right of (y, x): each row's bits move up by one, the lowest comes in."""
    new = plane[y, x] | plane[y - 1, x + 7] << 6 | plane[y - 2, x + 7] << 19
    new |= plane[y - 3, x + 6] << 32 | plane[y - 4, x + 5] << 43 | plane[y - 5, x + 4] << 52
    word: int = (near << 1) & _KEPT | new
    return word


@compiled(lean=True)
def _expected(near: int, groups: Ints, rows: Ints, row: int, second: Ints, bias: int, hidden: Ints) -> int:
    """What the network says of a bit to be 1: odds, 1/NAT; (HIDDEN,) `rows` is what it adds in this row."""
    for i in range(HIDDEN):
        hidden[i] = rows[row, i]
    for group in range(_GROUPS):
        value = (near >> (_GROUP * group)) & 127
        for i in range(HIDDEN):
            hidden[i] += groups[group, value, i]
    total = 0
    for i in range(HIDDEN):
        total += max(hidden[i], hidden[i] >> 3) * second[i]
    odds: int = min(max((total >> 12) + bias, -REACH), REACH)
    return odds


@compiled(lean=True)
def _odds(models: Longs, at: int, odds_of: Ints) -> int:
    """What a model guesses, 1/NAT; 0 before it has seen a bit."""
    odds: int = odds_of[models[at, 0] >> _FINE] if models[at, 1] else 0
    return odds


@compiled(lean=True)
def _follow(models: Longs, at: int, bit: int, ones: int, moves: Ints) -> None:
    if models[at, 1] == 0:
        models[at, 0] = ones << _FINE
    _learn(models, at, bit, moves, _MEMORY)


@compiled(lean=True)
def _learn(models: Longs, at: int, bit: int, moves: Ints, memory: int) -> None:
    """Let model `at`, a probability in 2^-30 and how many bits it saw, follow a bit."""
    seen = models[at, 1]
    models[at, 0] += (((bit << (16 + _FINE)) - models[at, 0]) * moves[seen]) >> 16
    models[at, 1] = min(seen + 1, memory)


@compiled
def _code(data: Bytes, state: Longs, plane: Bytes, known: Prior, encode: bool) -> None:
    """All bits of a padded plane, row by row.

    One function and plain numbers: what is handed on to another costs more than the coding does.
    """
    groups, rows, second, bias, begin, odds_of, back, moves = known
    models = np.zeros((_LARGE + (1 << 16), 2), np.int64)
    models[: 2 * ROWS, 0], models[: 2 * ROWS, 1] = begin, TRUST
    hidden, half, end = np.empty(HIDDEN, np.int32), 1 << (_RATE - 1), plane.shape[1] - RIGHT
    by_net, by_small, by_large = _FIRST
    for y in range(UP, plane.shape[0]):
        near, row = first_word(plane, y), min(y - UP, ROWS - 1)
        for x in range(LEFT, end):
            bit = plane[y, x]
            if near == 0 or near == ALIKE:
                at = 2 * row + (near != 0)
                ones = min(max(models[at, 0] >> _FINE, LEAST), 65536 - LEAST)
                if encode:
                    encode_bit(data, state, bit, ones)
                else:
                    bit = decode_bit(data, state, ones)
                _learn(models, at, bit, moves, _LONG_MEMORY)
            else:
                odds = _expected(near, groups, rows, row, second, bias, hidden)
                small = _SMALL + (near & 7 | (near >> 9 & 63) << 3 | (near >> 24 & 7) << 9)
                large = _LARGE + (near & 15 | (near >> 9 & 127) << 4 | (near >> 23 & 31) << 11)
                first = _odds(models, small, odds_of)
                other = _odds(models, large, odds_of)
                total = (by_net * odds + by_small * first + by_large * other) >> 16
                ones = back[min(max(total, -REACH), REACH) + REACH]
                if encode:
                    encode_bit(data, state, bit, ones)
                else:
                    bit = decode_bit(data, state, ones)
                error = (bit << 16) - ones
                by_net += (error * odds + half) >> _RATE
                by_small += (error * first + half) >> _RATE
                by_large += (error * other + half) >> _RATE
                _follow(models, small, bit, ones, moves)
                _follow(models, large, bit, ones, moves)
            plane[y, x] = bit
            near = next_word(near, plane, y, x)
        plane[y, :LEFT], plane[y, end:] = plane[y, LEFT], plane[y, end - 1]
