"""Rasters of a chain as one stream of bytes: each one's step, gains, levels and latents, given those before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geostore.coding.rangecoder import (
    LARGEST_SCALE,
    Bytes,
    Longs,
    decode_one,
    encode_one,
    finish,
    start_decoder,
    start_encoder,
    tables,
)
from geostore.compiled import compiled
from geostore.errors import Corrupt
from geostore.vae.entropy import Ints
from geostore.vae.prior import WEIGHT_BITS, Past, Prior, before, context, respond, step_octaves
from geostore.vae.quantize import STEPS, TRAINED_STEP

_STEP_SCALE = 36  # index of the scale of a step's index about the one before: 0.7
_BYTES_PER_NUMBER = 10  # what the longest code of one number takes
LATENT_LIMIT = 255
HEAD_WEIGHTS = 4


@dataclass(frozen=True)
class Numbers:
    """One raster as numbers.

    Attributes:
        step: index of the latents' quantiser step.
        head: (2 * B,) int32, gains then levels; (0,) when flat.
        latents: (C, h, w) int32, quantised.
    """

    step: int
    head: Ints
    latents: Ints

    def after(self, past: Past | None) -> Past:
        """What the next raster of the chain may lean on."""
        return Past.after(self.latents * np.int32(STEPS[self.step]), self.head, past)


@dataclass(frozen=True)
class Latent:
    """One raster in the codec's own numbers.

    Attributes:
        gains, levels: (B,) int32, the date on the mean image; empty when flat.
        means: (N, c, h, w) float32 before quantising; N is 1, or the bands when they are coded one by one.
    """

    gains: Ints
    levels: Ints
    means: npt.NDArray[np.float32]

    def at(self, step: int) -> Ints:
        """The quantised latents at STEPS[step]."""
        return held(np.rint(self.means * (16 / STEPS[step])))

    def numbers(self, step: int) -> Numbers:
        """Everything quantised, the latents of N passes one below the other."""
        return self.quantised(self.at(step), step)

    def quantised(self, latents: Ints, step: int) -> Numbers:
        """The same with other latents (N, c, h, w)."""
        n, c, h, w = latents.shape
        return Numbers(step, np.concatenate([self.gains, self.levels]), latents.swapaxes(0, 1).reshape(c, n * h, w))


def held(values: npt.NDArray[np.generic]) -> Ints:
    """Whole numbers within the limit of a latent, int32."""
    return np.asarray(np.clip(values, -LATENT_LIMIT, LATENT_LIMIT), np.int32)


@dataclass(frozen=True)
class Shape:
    """What a stream does not say: numbers of the head, and (C, h, w) of the latents."""

    head: int
    latents: tuple[int, int, int]


def pack_chain(rasters: Sequence[Numbers], prior: Prior, static: Ints) -> bytes:
    """The rasters, in the order of the chain, as bytes."""
    out = np.zeros(64 + _BYTES_PER_NUMBER * sum(1 + r.head.size + r.latents.size for r in rasters), np.uint8)
    state, rows, past, step = start_encoder(), tables(), None, TRAINED_STEP
    for raster in rasters:
        encode_one(out, state, rows, raster.step, 16 * step, _STEP_SCALE)
        step = raster.step
        known = _known(past, raster.head.size)
        _code_head(out, state, rows, raster.head, known, prior.head[0 if past is None else 1].astype(np.int64), True)
        z = np.ascontiguousarray(raster.latents * np.int32(STEPS[step]), np.int32)
        quanta = np.ascontiguousarray(raster.latents, np.int32)
        seen = before(past, z.shape)
        _code(out, state, rows, quanta, z, *seen, static, STEPS[step], step_octaves(STEPS[step]), *prior.network, True)
        past = raster.after(past)
    size = finish(out, state)
    return out[1 : 1 + size].tobytes()


def unpack_chain(stream: bytes, prior: Prior, static: Ints, shape: Shape) -> Iterator[Numbers]:
    """The rasters of a stream, one by one; it does not say how many there are.

    Raises:
        Corrupt: the stream holds something else, where that can be noticed.
    """
    data = np.frombuffer(stream, np.uint8).copy()
    state, rows, past, step = start_decoder(data), tables(), None, TRAINED_STEP
    while True:
        if state[4] > len(data) + 64:
            raise Corrupt(f"latents of {len(stream)} bytes end before the raster asked for; restore or fit again")
        step = decode_one(data, state, rows, 16 * step, _STEP_SCALE)
        if not 0 <= step < len(STEPS):
            raise Corrupt(f"latents of {len(stream)} bytes name step {step}, of {len(STEPS)}; restore or fit again")
        head, quanta = np.zeros(shape.head, np.int32), np.zeros(shape.latents, np.int32)
        table = prior.head[0 if past is None else 1].astype(np.int64)
        _code_head(data, state, rows, head, _known(past, shape.head), table, False)
        z, seen = np.zeros(shape.latents, np.int32), before(past, shape.latents)
        octaves = step_octaves(STEPS[step])
        _code(data, state, rows, quanta, z, *seen, static, STEPS[step], octaves, *prior.network, False)
        raster = Numbers(step, head, quanta)
        past = raster.after(past)
        yield raster


def join(stream: bytes, layer: bytes) -> bytes:
    """A stream and what lies on top of it as one: the stream's size, 7 bits a byte, comes first."""
    size, head = len(stream), bytearray()
    while size >= 0x80:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*head, size]) + stream + layer


def split(data: bytes) -> tuple[bytes, bytes]:
    """The inverse of `join`. Raises Corrupt."""
    size = shift = 0
    for at, byte in enumerate(data[:5], start=1):
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80 and at + size <= len(data):
            return data[at : at + size], data[at + size :]
    raise Corrupt(f"a payload of {len(data) + 1} bytes does not hold the stream it says; restore the raster")


def head_inputs(head: Ints, known: Ints, slot: int) -> tuple[int, int, int, int]:
    """What gain or level `slot` is expected from: the band before, its gain, and both of the raster before."""
    return _head_inputs(head.astype(np.int64), known.astype(np.int64), slot)


def _known(past: Past | None, count: int) -> Longs:
    return np.zeros(count, np.int64) if past is None else past.head.astype(np.int64)


@compiled(lean=True)
def _head_inputs(head: Longs, known: Longs, slot: int) -> tuple[int, int, int, int]:
    bands = len(head) // 2
    first = slot % bands == 0
    near = 0 if first else head[slot - 1]
    gain = head[slot - bands] if slot >= bands else 0
    return near, gain, known[slot], 0 if first else known[slot - 1]


@compiled
def _code_head(
    data: Bytes, state: Longs, rows: npt.NDArray[np.int32], head: Ints, known: Longs, table: Longs, encode: bool
) -> None:
    """Gains and levels, expected by four weights and a constant each."""
    seen = np.zeros(len(head), np.int64)
    for slot in range(len(head)):
        near, gain, same, beside = _head_inputs(seen, known, slot)
        row = table[slot]
        total = row[0] * near + row[1] * gain + row[2] * same + row[3] * beside
        expected = (total * 16 >> WEIGHT_BITS) + row[4]
        scale = min(max(row[5], 0), LARGEST_SCALE)
        if encode:
            encode_one(data, state, rows, head[slot], expected, scale)
        else:
            head[slot] = min(max(decode_one(data, state, rows, expected, scale), -4096), 4096)
        seen[slot] = head[slot]


@compiled
def _code(
    data: Bytes, state: Longs, rows: npt.NDArray[np.int32], quanta: Ints, z: Ints, past: Ints, sizes: Ints,
    spread: Ints, known: int, static: Ints, step: int, octaves: int,
    first: Longs, shift: Longs, second: Longs, bias: Longs, encode: bool,
) -> None:  # fmt: skip
    """Latents in their order; `z` is `quanta` * step, filled as it is decoded."""
    sums = np.zeros(z.shape[1:], np.int32)
    f = np.zeros(first.shape[1], np.int64)
    for c in range(z.shape[0]):
        for y in range(z.shape[1]):
            for x in range(z.shape[2]):
                if first.shape[0]:
                    context(f, z, sums, past, sizes, spread, known, static, step, c, y, x)
                expected, scale = respond(f, step, octaves, c, first, shift, second, bias)
                if encode:
                    encode_one(data, state, rows, quanta[c, y, x], expected, scale)
                else:
                    value = decode_one(data, state, rows, expected, scale)
                    quanta[c, y, x] = min(max(value, -LATENT_LIMIT), LATENT_LIMIT)
                    z[c, y, x] = quanta[c, y, x] * step
        sums += np.abs(z[c])
