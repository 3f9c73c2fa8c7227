"""Odds and probabilities as tables of whole numbers, alike on every machine."""

from __future__ import annotations

from decimal import Context, Decimal
from functools import lru_cache

import numpy as np
import numpy.typing as npt

NAT = 256  # steps of the logistic domain for a factor e
REACH = 11 * NAT  # of it, to either side
LEAST = 4  # of 65536, what a bit's probability is at least
Ints = npt.NDArray[np.int32]


@lru_cache(maxsize=1)
def logistic() -> tuple[Ints, Ints]:
    """(65536,) logarithm of the odds of a probability in 1/65536, in 1/NAT; and (2 * REACH + 1,) the inverse."""
    context = Context(prec=30)
    back = np.empty(2 * REACH + 1, np.int32)
    ratio, power = context.exp(context.divide(Decimal(-1), Decimal(NAT))), Decimal(1)
    for i in range(REACH + 1):  # 1 / (1 + exp(-i / NAT))
        share = int(context.divide(Decimal(65536), context.add(Decimal(1), power)))
        back[REACH + i], back[REACH - i] = share, 65536 - share
        power = context.multiply(power, ratio)
    odds = np.searchsorted(back, np.arange(65536), side="right").astype(np.int32) - 1 - REACH
    return np.clip(odds, -REACH, REACH), np.clip(back, LEAST, 65536 - LEAST)
