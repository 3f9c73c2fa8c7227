"""A guaranteed bound: what a prediction misses (or the data itself) in steps, coded without further loss."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from geostore.certificate import measure
from geostore.coding.planes import pack_planes, unpack_planes
from geostore.coding.sparse import pack_sparse, unpack_sparse
from geostore.collection import Policy
from geostore.errors import Corrupt
from geostore.raster import Bands, Mask, Pixels
from geostore.spectral import FLOOR, evaluate_index, spectral_index

_COARSEST = 0.1  # where the search begins without a bound on the largest error, physical units
_RUNGS = 40
_HEAD = struct.Struct("<dI")
_SHORT = struct.Struct("<HI")  # of integer dtypes: a step is at most 65535
_STEP = struct.Struct("<H")
_STEPS_MAX = 1 << 18  # a value in context
Longs = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rounding:
    """How coarsely values may be kept.

    Attributes:
        step: distance between kept values, stored units: an odd whole number for integer dtypes, so that no value
            is off by more than (step - 1) / 2; for float32 no value is off by more than step / 2.
        relative: 0, or the share (in 1/65536) of a reflectance that a step may grow to, so that its logarithm, and
            with it every normalised difference, keeps a bound.
    """

    step: float
    relative: int = 0

    @classmethod
    def within(cls, error: float, bands: Bands) -> Rounding:
        """The coarsest rounding that keeps every value within `error`, physical units."""
        scale = max(b.scale for b in bands)
        if bands.dtype.kind == "f":
            return cls(2 * error / scale * (1 - 2**-10))
        return cls(float(min(2 * int(Fraction(error) / Fraction(scale) * (1 + Fraction(1, 10**9))) + 1, 65535)))

    def finer(self, bands: Bands) -> Rounding:
        """The next finer one; of a step of 1 there is none finer for integers."""
        if bands.dtype.kind == "f":
            return Rounding(self.step * 0.7)
        return Rounding(float(max(1, 2 * int(self.step * 0.7 / 2) + 1 if self.step > 3 else 1)))


@dataclass(frozen=True)
class Bounded:
    """A raster in steps that keep a bound.

    Attributes:
        steps: (B, H, W) whole numbers: of what a base misses, or of the values alone.
        rounding: what a step is.
        base: (B, H, W) stored values that are corrected, or None.
    """

    steps: Longs
    rounding: Rounding
    base: Pixels | None

    def as_image(self) -> bytes | None:
        """The steps as one lossless image; None beyond 16 bits."""
        return _pack_planes(self.steps, _HEAD.pack(self.rounding.step, self.rounding.relative))

    def as_planes(self, near: Pixels | None, valid: Mask, bands: Bands) -> bytes | None:
        """The steps in context, where valid, expected at those of `near` (stored values) if given; None if too many."""
        expected = np.zeros_like(self.steps) if near is None else _sixteenths(near, self.rounding, bands)
        if max(int(np.abs(self.steps).max()), int(np.abs(expected).max()) >> 4) > _STEPS_MAX:
            return None
        return _head(self.rounding, bands) + pack_planes(self.steps, expected, valid)

    def as_sparse(self, valid: Mask) -> bytes:
        """The steps, where valid, of which most should be 0, of a whole-number dtype over a base."""
        assert self.base is not None, "without a base few steps are 0"
        return _STEP.pack(int(self.rounding.step)) + pack_sparse(self.steps, valid)


def tightest(
    pixels: Pixels, valid: Mask, base: Pixels | None, bands: Bands, policy: Policy, indices: tuple[str, ...]
) -> Bounded | None:
    """The coarsest steps whose decoded raster keeps `policy`, as measured; None if none does.

    Where only an index has a bound, the base stays as it is at pixels whose indices it keeps.

    Args:
        pixels: (B, H, W) stored values.
        valid: (H, W); masked pixels are coded as whatever is cheapest.
        base: (B, H, W) stored values that are corrected, or None to round values alone.
        bands: what the planes are.
        policy: the bounds.
        indices: spectral indices measured.
    """
    if base is not None and policy.index_limit(indices) is not None:
        spared = _spared(pixels, base, bands, policy, indices)
        found = _coarsest(pixels, valid, base, bands, policy, indices, spared)
        if found is not None:
            return found
    return _coarsest(pixels, valid, base, bands, policy, indices, None)


def _spared(pixels: Pixels, base: Pixels, bands: Bands, policy: Policy, indices: tuple[str, ...]) -> Mask:
    """(B, H, W) True where `base` may stay: no index that needs the band errs too much there, nor does the value."""
    truth, seen = bands.to_physical(pixels), bands.to_physical(base)
    limit = np.inf if policy.max_error is None else policy.max_error
    spared = np.abs(truth.astype(np.float64) - seen) <= limit
    for name in indices:
        most = policy.index_bounds(name).max_error
        error = np.abs(evaluate_index(name, truth, bands.names) - evaluate_index(name, seen, bands.names))
        for band in spectral_index(name).bands:
            spared[bands.index(band)] &= error <= (np.inf if most is None else most)
    return np.asarray(spared)


def _coarsest(
    pixels: Pixels,
    valid: Mask,
    base: Pixels | None,
    bands: Bands,
    policy: Policy,
    indices: tuple[str, ...],
    spared: Mask | None,
) -> Bounded | None:
    """What `tightest` gives with no step but 0 where `spared`."""
    for rounding in _ladder(base, bands, policy, policy.index_limit(indices)):
        steps = _quantise(pixels, valid, base, bands, rounding)
        if spared is not None:
            steps[spared] = 0
        decoded = _restore(steps, base, bands, rounding)
        if measure(pixels, decoded, valid, bands, indices).keeps(policy):
            return Bounded(steps, rounding, base)
    return None


def unpack_in_context(data: bytes, near: Pixels | None, base: Pixels | None, valid: Mask, bands: Bands) -> Pixels:
    """The (B, H, W) stored values of `Bounded.as_planes` over the same `near` and `base`.

    Raises:
        Corrupt: the bytes are not such a layer.
    """
    kind = _HEAD if bands.dtype.kind == "f" else _SHORT
    if len(data) < kind.size:
        raise Corrupt(f"a bounded layer of {len(data)} bytes is too short; restore the raster")
    rounding = Rounding(*kind.unpack_from(data))
    if not 0 < rounding.step < float("inf"):
        raise Corrupt(f"a bounded layer states a step of {rounding.step}; restore the raster")
    expected = np.zeros((len(bands), *valid.shape), np.int64)
    expected = expected if near is None else _sixteenths(near, rounding, bands)
    return _restore(unpack_planes(data[kind.size :], expected, valid), base, bands, rounding)


def unpack_sparse_steps(data: bytes, base: Pixels, valid: Mask, bands: Bands) -> Pixels:
    """The (B, H, W) stored values of `Bounded.as_sparse` over the same `base`.

    Raises:
        Corrupt: the bytes are not such a layer.
    """
    step = int.from_bytes(data[: _STEP.size], "little")
    if len(data) < _STEP.size or not step:
        raise Corrupt(f"a sparse layer of {len(data)} bytes states no step; restore the raster")
    return _restore(unpack_sparse(data[_STEP.size :], len(bands), valid), base, bands, Rounding(float(step)))


def _head(rounding: Rounding, bands: Bands) -> bytes:
    if bands.dtype.kind == "f":
        return _HEAD.pack(rounding.step, rounding.relative)
    return _SHORT.pack(int(rounding.step), rounding.relative)


def _sixteenths(near: Pixels, rounding: Rounding, bands: Bands) -> Longs:
    """Where stored values lie among the steps, in 1/16, by arithmetic that is the same everywhere."""
    if not rounding.relative:
        return np.floor(near.astype(np.float64) * 16 / rounding.step).astype(np.int64)
    out = np.empty(near.shape, np.int64)
    for i, edges in enumerate(_edges(rounding, bands)):
        values = near[i].astype(np.int64)
        cell = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
        width = edges[cell + 1] - edges[cell]
        out[i] = 16 * cell + (values - edges[cell]) * 16 // width - 8 * (width > 1)
    return out


def unpack_steps(data: bytes, shape: tuple[int, int, int], base: Pixels | None, bands: Bands) -> Pixels:
    """The (B, H, W) stored values of `Bounded.as_image` over the same `base`.

    Raises:
        Corrupt: the bytes are not such a layer.
    """
    if len(data) < _HEAD.size:
        raise Corrupt(f"a residual layer of {len(data)} bytes is too short; restore the raster")
    step, relative = _HEAD.unpack_from(data)
    if not 0 < step < float("inf"):
        raise Corrupt(f"a residual layer states a step of {step}; restore the raster")
    return _restore(_unpack_planes(data[_HEAD.size :], shape), base, bands, Rounding(step, relative))


def _ladder(base: Pixels | None, bands: Bands, policy: Policy, of_index: float | None) -> Iterator[Rounding]:
    """Roundings to try, coarse to fine; `of_index` is the tightest bound on the largest error of an index."""
    whole = bands.dtype.kind != "f"
    first = Rounding.within(policy.max_error if policy.max_error is not None else _COARSEST, bands)
    if of_index is not None and base is None and whole:
        for share in (1.0, 0.8, 0.6, 0.4):
            yield Rounding(min(first.step, 65535.0), max(1, int(2 * of_index * share * 65536)))
    yield first
    if whole and first.step > 1:
        yield Rounding(first.step - 2)  # float32 arithmetic may put a bound that is met exactly just beyond itself
    step = first
    for _ in range(_RUNGS):
        step = step.finer(bands)
        yield step
        if whole and step.step <= 1:
            return


def _quantise(pixels: Pixels, valid: Mask, base: Pixels | None, bands: Bands, rounding: Rounding) -> Longs:
    if rounding.relative:
        cells = np.empty(pixels.shape, np.int64)
        for i, edges in enumerate(_edges(rounding, bands)):
            cells[i] = np.searchsorted(edges, pixels[i].astype(np.int64), side="right") - 1
        return _fill(cells, valid)
    near = np.zeros(pixels.shape) if base is None else base.astype(np.float64)
    steps = np.rint((pixels.astype(np.float64) - near) / rounding.step).astype(np.int64)
    if base is None:
        return _fill(steps, valid)
    steps[:, ~valid] = 0
    return steps


def _restore(steps: Longs, base: Pixels | None, bands: Bands, rounding: Rounding) -> Pixels:
    if rounding.relative:
        return _unpack_relative(steps, rounding, bands)
    near = np.zeros(steps.shape) if base is None else base.astype(np.float64)
    low = np.array([b.valid_min for b in bands])[:, None, None]
    high = np.array([b.valid_max for b in bands])[:, None, None]
    return np.clip(near + steps * rounding.step, low, high).astype(bands.dtype)


def _unpack_relative(cells: Longs, rounding: Rounding, bands: Bands) -> Pixels:
    out = np.empty(cells.shape, bands.dtype)
    for i, edges in enumerate(_edges(rounding, bands)):
        middle = (edges[:-1] + edges[1:] - 1) // 2
        out[i] = middle[np.clip(cells[i], 0, len(middle) - 1)].astype(bands.dtype)
    return out


def _edges(rounding: Rounding, bands: Bands) -> list[Longs]:
    """First value of every cell, and one past the last, per band; whole-number arithmetic, so the same everywhere."""
    return [
        _band_edges(
            int(rounding.step), rounding.relative, int(b.valid_min), int(b.valid_max), round(b.offset / b.scale),
            max(1, round(FLOOR / b.scale)),
        )
        for b in bands
    ]  # fmt: skip


@lru_cache(maxsize=64)
def _band_edges(step: int, relative: int, low: int, high: int, shift: int, floor: int) -> Longs:
    at, edges = low, []
    while at <= high:
        edges.append(at)
        at += min(step, 1 + (max(at + shift, floor) * relative >> 16))
    return np.array([*edges, high + 1], np.int64)


def _fill(values: Longs, valid: Mask) -> Longs:
    """Masked pixels take the last valid value of their row (else of the row above), which codes for almost nothing."""
    if valid.all() or not valid.any():
        return values if valid.any() else np.zeros_like(values)
    flat = np.where(valid.reshape(-1), np.arange(valid.size), -1)
    last = np.maximum.accumulate(flat)
    last[last < 0] = int(np.argmax(valid.reshape(-1)))
    return np.asarray(values.reshape(len(values), -1)[:, last].reshape(values.shape))


def _pack_planes(steps: Longs, head: bytes) -> bytes | None:
    """(B, H, W) whole numbers as one tall JPEG XL lossless image, its lowest value first; None beyond 16 bits."""
    import imagecodecs

    low, high = int(steps.min()), int(steps.max())
    if high - low > 65535:
        return None
    dtype = np.uint8 if high - low <= 255 else np.uint16
    tall = (steps - low).reshape(-1, steps.shape[2]).astype(dtype)
    stream = imagecodecs.jpegxl_encode(tall, lossless=True, effort=7, numthreads=1)
    return head + struct.pack("<q", low) + bytes(stream)


def _unpack_planes(data: bytes, shape: tuple[int, int, int]) -> Longs:
    import imagecodecs

    try:
        (low,) = struct.unpack_from("<q", data)
        tall = imagecodecs.jpegxl_decode(data[8:], numthreads=1)
        return np.asarray(tall.astype(np.int64).reshape(shape) + low)
    except (RuntimeError, struct.error, ValueError) as error:  # JPEG XL's own errors are RuntimeErrors
        raise Corrupt(f"a residual layer of {len(data)} bytes does not decode: {error}; restore the raster") from error
