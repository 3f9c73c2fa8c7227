"""Bits whose probability several models guess together, mixed by weights that learn which of them to believe.

References:
    Mahoney (2005), "Adaptive weighing of context models for lossless data compression": guesses are added in the
    logistic domain, weights follow the error. Deviations: probabilities by counts; everything in whole numbers of
    finer steps, so that what is nearly certain costs next to nothing.
"""

from __future__ import annotations

from functools import lru_cache

import numba
import numpy as np

from geostore.coding.logistic import LEAST, REACH, Ints
from geostore.coding.rangecoder import Bytes, Longs, decode_bit, encode_bit

_FINE = 6  # bits that a model's probability has beyond 16
_FIRST = 7500  # of 65536, a weight before anything is known
_BIAS = 77  # 0.3 in the logistic domain: what the last weight is for
_RATE = 16  # 2^-16 of error times guess: how fast weights learn
_MEMORY = 250  # bits that a model's probability remembers at most


@lru_cache(maxsize=1)
def rates() -> Ints:
    """(_MEMORY + 1,) by how much of the error a probability moves after so many bits, in 1/65536."""
    counts = np.arange(_MEMORY + 1)
    return (10 * 65536 // (10 * counts + 16)).astype(np.int32)


def new_models(inputs: int, contexts: int) -> Ints:
    """(inputs, contexts, 2) probabilities and counts of models that have seen nothing."""
    return np.zeros((inputs, contexts, 2), np.int32)


def new_weights(sets: int, inputs: int) -> Ints:
    """(2, sets, inputs + 1) weights of their guesses, the last one of a constant: two sets are added up."""
    weights = np.zeros((2, sets, inputs + 1), np.int32)
    weights[0] = _FIRST
    return weights


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def guess(models: Ints, weights: Ints, contexts: Longs, chosen: int, beside: int, odds: Ints, back: Ints) -> int:
    """The probability of a 1, in 1/65536, by model `contexts`[i] of every input i, under two sets of weights added."""
    first, second = weights[0, chosen], weights[1, beside]
    total = (np.int64(first[len(contexts)]) + second[len(contexts)]) * _BIAS
    for i in range(len(contexts)):
        if models[i, contexts[i], 1] > 0:
            total += (np.int64(first[i]) + second[i]) * odds[models[i, contexts[i], 0] >> _FINE]
    at = min(max((total >> 16) + REACH, 0), 2 * REACH)
    share: int = back[at]
    return share


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def learn(
    models: Ints, weights: Ints, contexts: Longs, chosen: int, beside: int, odds: Ints, moves: Ints, share: int,
    bit: int,
) -> None:  # fmt: skip
    """Let weights and models follow the bit that `guess` gave the probability `share`."""
    first, second = weights[0, chosen], weights[1, beside]
    aim = 65536 if bit else 0
    error = aim - share
    for i in range(len(contexts)):
        model = models[i, contexts[i]]
        if model[1] > 0:
            move = (error * odds[model[0] >> _FINE] + (1 << (_RATE - 1))) >> _RATE
            first[i] += move
            second[i] += move
        else:
            model[0] = share << _FINE
        step = (((aim << _FINE) - np.int64(model[0])) * moves[model[1]]) >> 16
        model[0] = min(max(model[0] + step, LEAST << _FINE), (65536 - LEAST) << _FINE)
        model[1] = min(model[1] + 1, _MEMORY)
    move = (error * _BIAS + (1 << (_RATE - 1))) >> _RATE
    first[len(contexts)] += move
    second[len(contexts)] += move


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def mixed_bit(
    data: Bytes, state: Longs, models: Ints, weights: Ints, contexts: Longs, chosen: int, beside: int, odds: Ints,
    back: Ints, moves: Ints, bit: int, encode: bool,
) -> int:  # fmt: skip
    """Code one bit by what its models guess, and let them learn from it."""
    share = guess(models, weights, contexts, chosen, beside, odds, back)
    if encode:
        encode_bit(data, state, bit, share)
    else:
        bit = decode_bit(data, state, share)
    learn(models, weights, contexts, chosen, beside, odds, moves, share, bit)
    return bit
