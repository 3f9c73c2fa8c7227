"""Turn integers into bytes and back with integer frequency tables, the same on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from geostore.errors import Corrupt

Ints = npt.NDArray[np.int32]
_ONE = 1 << 16  # probabilities in tables are multiples of 1 / 65536
_TOTAL = 1 << 22  # frequencies of one table add up to about this


@dataclass(frozen=True)
class Table:
    """A distribution over -limit..limit: a zero bin, then geometric tails; two 16-bit numbers name it.

    Attributes:
        zero: probability of 0, in 1/65536.
        ratio: frequency of |k|+1 over that of |k| for |k| >= 1, in 1/65536.
        limit: largest magnitude it codes; larger values must be held back by the caller.
    """

    zero: int
    ratio: int
    limit: int

    @classmethod
    def of(cls, values: Ints, limit: int) -> Table:
        """The table that fits `values` (any shape) best, smoothed by half a count."""
        magnitude = np.abs(values.reshape(-1).astype(np.int64))
        others = magnitude[magnitude > 0]
        zero = (len(magnitude) - len(others) + 0.5) / (len(magnitude) + 1)
        mean = (float(others.sum()) + 1.5) / (len(others) + 1)  # of |k| >= 1; at least 1
        ratio = max(0.0, 1 - 1 / max(mean, 1.0))
        return cls(_fraction(zero), _fraction(ratio), limit)

    def bits(self, values: Ints) -> float:
        """Ideal code length of `values`, bits."""
        return float(self.costs()[values.reshape(-1) + self.limit].sum())

    def costs(self) -> npt.NDArray[np.float64]:
        """(2 * limit + 1,) bits of each value."""
        frequencies = _frequencies(self.zero, self.ratio, self.limit)
        return np.asarray(-np.log2(frequencies / frequencies.sum()))


def _fraction(share: float) -> int:
    return int(np.clip(round(share * _ONE), 16, _ONE - 16))


def _frequencies(zero: int, ratio: int, limit: int) -> npt.NDArray[np.int64]:
    """(2 * limit + 1,) counts, by integer arithmetic alone; none is 0."""
    tail = (_TOTAL >> 1) * (_ONE - zero) >> 16  # mass of one side
    now = tail * (_ONE - ratio) >> 16
    side = []
    for _ in range(limit):
        side.append(max(now, 1))
        now = now * ratio >> 16
    middle = max(_TOTAL * zero >> 16, 1)
    return np.array([*side[::-1], middle, *side], np.int64)


@lru_cache(maxsize=4096)
def _model(table: Table) -> Any:
    import constriction

    frequencies = _frequencies(table.zero, table.ratio, table.limit).astype(np.float64)
    return constriction.stream.model.Categorical(frequencies / frequencies.sum(), perfect=False)


def pack_symbols(runs: Sequence[tuple[Ints, Table]]) -> bytes:
    """Range-code every run (any shape, C order) with its table, one stream for all."""
    import constriction

    encoder = constriction.stream.queue.RangeEncoder()
    for values, table in runs:
        encoder.encode((values.reshape(-1) + table.limit).astype(np.int32), _model(table))
    stream: bytes = encoder.get_compressed().astype(">u4").tobytes()
    return stream.rstrip(b"\0")


def unpack_symbols(stream: bytes, runs: Sequence[tuple[tuple[int, ...], Table]]) -> list[Ints]:
    """The inverse: arrays of the given shapes.

    Raises:
        Corrupt: the stream holds something else, where that can be noticed.
    """
    import constriction

    words = np.frombuffer(stream + bytes(-len(stream) % 4), ">u4").astype(np.uint32)
    decoder = constriction.stream.queue.RangeDecoder(words)
    out = []
    try:
        for shape, table in runs:
            count = int(np.prod(shape))
            symbols = decoder.decode(_model(table), count)
            out.append(np.asarray(symbols, np.int32).reshape(shape) - np.int32(table.limit))
    except (AssertionError, ValueError) as error:
        raise Corrupt(f"an embedding of {len(stream)} bytes does not decode: {error}; restore or fit again") from error
    return out
