"""Bits whose probability several models guess together, mixed by weights that learn which of them to believe.

References:
    Mahoney (2005), "Adaptive weighing of context models for lossless data compression": guesses are added in the
    logistic domain, weights follow the error. Deviations: probabilities by counts; everything in whole numbers of
    finer steps, so that what is nearly certain costs next to nothing.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from geostore.coding.logistic import LEAST, REACH, Ints
from geostore.coding.rangecoder import Bytes, Longs, decode_bit, encode_bit
from geostore.compiled import compiled

_FINE = 6  # bits that a model's probability has beyond 16
_FIRST = 7500  # of 65536, a weight before anything is known
_BIAS = 77  # 0.3 in the logistic domain: what the last weight is for
_RATE = 16  # 2^-16 of error times guess: how fast weights learn
_MEMORY = 250  # bits that a model's probability remembers at most
_COUNT_BITS, _COUNT = 8, 255  # of how many it has seen, below its odds
Shorts = npt.NDArray[np.int16]


@lru_cache(maxsize=1)
def rates() -> Ints:
    """(_MEMORY + 1,) by how much of the error a probability moves after so many bits, in 1/65536."""
    counts = np.arange(_MEMORY + 1)
    return (10 * 65536 // (10 * counts + 16)).astype(np.int32)


def new_models(inputs: int, contexts: int) -> Ints:
    """(inputs, contexts, 2) of models that have seen nothing: probabilities, in 1/2^22; odds, and bits seen below."""
    return np.zeros((inputs, contexts, 2), np.int32)


def new_weights(sets: int, inputs: int) -> Ints:
    """(2, sets, inputs + 1) weights of their guesses, the last one of a constant: two sets are added up."""
    weights = np.zeros((2, sets, inputs + 1), np.int32)
    weights[0] = _FIRST
    return weights


def new_question(inputs: int) -> Ints:
    """(2, inputs) which model of every input is asked, and the odds it gives: room for one bit after the other."""
    return np.zeros((2, inputs), np.int32)


@compiled(lean=True)
def guess(models: Ints, weights: Ints, asked: Ints, chosen: int, beside: int, back: Ints) -> int:
    """The probability of a 1, in 1/65536, by model `asked`[0, i] of every input i, under two sets of weights added.

    `asked`[1] is filled with the odds that each gives, 0 where one has seen nothing.
    """
    inputs = asked.shape[1]
    total = (np.int64(weights[0, chosen, inputs]) + weights[1, beside, inputs]) * _BIAS
    for i in range(inputs):
        said = models[i, np.uint64(asked[0, i]), 1] >> _COUNT_BITS
        asked[1, i] = said
        total += (np.int64(weights[0, chosen, i]) + weights[1, beside, i]) * said
    share: int = back[min(max((total >> 16) + REACH, 0), 2 * REACH)]
    return share


@compiled(lean=True)
def learn(
    models: Ints, weights: Ints, asked: Ints, chosen: int, beside: int, odds: Shorts, moves: Ints, share: int, bit: int
) -> None:  # fmt: skip
    """Let weights and models follow the bit that `guess` gave the probability `share`."""
    inputs = asked.shape[1]
    aim = 65536 if bit else 0
    error = aim - share
    for i in range(inputs):
        at = np.uint64(asked[0, i])  # an index without a sign is not looked at twice
        count = models[i, at, 1] & _COUNT
        move = (error * asked[1, i] + (1 << (_RATE - 1))) >> _RATE
        weights[0, chosen, i] += move
        weights[1, beside, i] += move
        known = np.int64(models[i, at, 0] if count > 0 else share << _FINE)
        step = (((aim << _FINE) - known) * moves[np.uint64(count)]) >> 16
        now = min(max(known + step, LEAST << _FINE), (65536 - LEAST) << _FINE)
        models[i, at, 0] = now
        models[i, at, 1] = (odds[np.uint64(now >> _FINE)] << _COUNT_BITS) + min(count + 1, _MEMORY)
    move = (error * _BIAS + (1 << (_RATE - 1))) >> _RATE
    weights[0, chosen, inputs] += move
    weights[1, beside, inputs] += move


@compiled(lean=True)
def mixed_bit(
    data: Bytes, state: Longs, models: Ints, weights: Ints, asked: Ints, chosen: int, beside: int,
    odds: Shorts, back: Ints, moves: Ints, bit: int, encode: bool,
) -> int:  # fmt: skip
    """Code one bit by what its models guess, and let them learn from it."""
    share = guess(models, weights, asked, chosen, beside, back)
    if encode:
        encode_bit(data, state, bit, share)
    else:
        bit = decode_bit(data, state, share)
    learn(models, weights, asked, chosen, beside, odds, moves, share, bit)
    return bit
