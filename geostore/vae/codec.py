"""The fitted VAE codec: encode one raster within its policy, decode it the same everywhere."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from geostore.certificate import Certificate, measure
from geostore.codec import Alone, Encoded, Int8, bands_from_json, bands_to_json
from geostore.collection import Policy
from geostore.errors import Corrupt, InvalidInput, PolicyMissed
from geostore.raster import Bands, Mask, Pixels
from geostore.vae import residual
from geostore.vae.base import Base, Borrowed, Frozen
from geostore.vae.detail import add_detail, coarsest
from geostore.vae.entropy import Ints, Table, pack_symbols, unpack_symbols
from geostore.vae.model import Encoder, Layout
from geostore.vae.quantize import BITS, LOG_STEPS, STEPS, TRAINED_STEP, IntegerDecoder, Tensors, unpack_encoder
from geostore.vae.samples import STATIC_BITS
from geostore.vae.static import GAIN_LIMIT, LEVEL_LIMIT, Doubles, Static, Units
from geostore.vae.weights import pack_codec, unpack_codec

LATENT_LIMIT = 255
_MODEL, _DETAILED, _CORRECTED, _ROUNDED = range(4)  # a payload's kind: latents; + detail; + residual; rounded values


@dataclass(frozen=True)
class Latent:
    """One raster in the codec's own numbers.

    Attributes:
        gains, levels: (B,) int32, the date on the mean image; zeros when flat.
        means: (N, c, h, w) float32 before quantising; N is 1, or the bands when they are coded one by one.
    """

    gains: Ints
    levels: Ints
    means: npt.NDArray[np.float32]

    def at(self, step: int) -> Ints:
        """The quantised latents at STEPS[step]."""
        rounded = np.rint(self.means * (16 / STEPS[step]))
        return np.asarray(np.clip(rounded, -LATENT_LIMIT, LATENT_LIMIT), np.int32)


@dataclass(frozen=True)
class Tables:
    """Entropy tables of a codec.

    Attributes:
        gains, levels: of every band's gain and level.
        latents: for each step, one per latent channel.
    """

    gains: Table
    levels: Table
    latents: tuple[tuple[Table, ...], ...]

    def to_array(self) -> npt.NDArray[np.uint16]:
        """(2 + steps * channels, 2) uint16: zero and ratio of every table."""
        rows = [self.gains, self.levels, *(t for step in self.latents for t in step)]
        return np.array([(t.zero, t.ratio) for t in rows], np.uint16)

    @classmethod
    def from_array(cls, rows: npt.NDArray[np.generic], channels: int) -> Tables:
        """The inverse of `to_array`."""
        pairs = [(int(zero), int(ratio)) for zero, ratio in rows.tolist()]
        latents = [Table(zero, ratio, LATENT_LIMIT) for zero, ratio in pairs[2:]]
        by_step = tuple(tuple(latents[i * channels : (i + 1) * channels]) for i in range(len(STEPS)))
        return cls(Table(*pairs[0], GAIN_LIMIT), Table(*pairs[1], LEVEL_LIMIT), by_step)


@dataclass(frozen=True, kw_only=True)
class VaeCodec(Alone):
    """One partition's fitted codec.

    Attributes:
        policy: the bounds it was fitted for, and keeps by itself: it quantises finer, and adds a residual layer or
            rounds the values instead, until the errors measured on the decoded raster keep them.
        indices: spectral indices measured for that.
        layout: the shape of its networks.
        static: the mean image.
        scale: residuals are divided by it.
        weights: (B,) float64, how much an error of each band matters, beside the least sensitive.
        tensors: encoder and decoder weights as they are used.
        tables: entropy tables.
        borrowed: the base they come from and what is changed in it; None if the weights are the codec's own.
    """

    family: ClassVar[str] = "vae"
    _bands: Bands
    policy: Policy
    indices: tuple[str, ...]
    layout: Layout
    static: Static
    scale: float
    weights: Doubles
    tensors: Frozen
    tables: Tables
    borrowed: Borrowed | None = None

    @property
    def bands(self) -> Bands:
        """The bands it was fitted for, in order."""
        return self._bands

    @cached_property
    def units(self) -> Units:
        """How stored values become units."""
        return Units.of(self._bands)

    @cached_property
    def decoder(self) -> IntegerDecoder:
        """The network that decodes."""
        maps = self.static.maps(STATIC_BITS, self.layout.padded) if self.layout.mode == "grid" else ()
        return IntegerDecoder(self.layout, self.tensors, maps)

    @cached_property
    def encoder(self) -> Encoder:
        """The network that encodes, float32."""
        return unpack_encoder(self.layout, self.tensors)

    def encode(self, pixels: Pixels, valid: Mask) -> Encoded:
        """Encode (B, H, W) stored values at the coarsest setting that keeps the policy."""
        self._check(valid, pixels)
        if not valid.any():
            return Encoded(payload=b"", vector=np.zeros(self.vector_size, np.int8), layers=("empty",))
        latents = self._latents(pixels, valid)
        step, certificate = self._coarsest(latents, pixels, valid)
        latent = latents(step)
        vector = self._vector(latent, step)
        if certificate.keeps(self.policy):
            return Encoded(payload=self._pack(latent, step), vector=vector, layers=self._model_layers)
        payload, layers = self._bounded(latents(TRAINED_STEP), pixels, valid)
        return Encoded(payload=payload, vector=vector, layers=layers)

    def decode(self, payload: bytes, valid: Mask, shared: bytes = b"") -> Pixels:
        """(B, H, W) stored values, bit for bit the same on every machine and at any number of threads."""
        self._check(valid)
        shape = (len(self._bands), *valid.shape)
        if not payload:
            zero = np.zeros(len(self._bands), np.int32)
            return self.units.to_stored(self.static.predict(zero, zero), self._bands)
        kind, step = payload[0] >> 4, payload[0] & 15
        if kind == _ROUNDED:
            return residual.unpack_steps(payload[1:], shape, None, self._bands)
        if kind > _ROUNDED or step >= len(STEPS):
            raise Corrupt(f"payload tag {payload[0]} names no layer of this codec; restore the raster or fit again")
        if kind == _MODEL:
            return self._synthesise(*self._unpack(payload[1:], step), step)
        size = int.from_bytes(payload[1:5], "little")
        base = self._synthesise(*self._unpack(payload[5 : 5 + size], step), step)
        if kind == _DETAILED:
            return add_detail(payload[5 + size :], base, self._bands, self.weights)
        return residual.unpack_steps(payload[5 + size :], shape, base, self._bands)

    def to_bytes(self) -> bytes:
        """The codec itself."""
        header = {
            "bands": json.loads(bands_to_json(self._bands)),
            "policy": asdict(self.policy),
            "indices": self.indices,
            "layout": asdict(self.layout),
            "scale": self.scale,
            "weights": self.weights.tolist(),
        }
        static: Tensors = {"static": np.frombuffer(self.static.data, np.uint8), "tables": self.tables.to_array()}
        if self.borrowed is None:
            return pack_codec(header, {**self.tensors, **static})
        return pack_codec({**header, "base": self.borrowed.header()}, {**self.borrowed.tensors(), **static})

    @classmethod
    def from_bytes(cls, data: bytes, held: Sequence[Base] = ()) -> VaeCodec:
        """The inverse of `to_bytes`; a base it names is looked for in `held`, then in the package.

        Raises:
            Corrupt, UnsupportedFormat: of the bytes. NotFound: the base is in neither.
        """
        header, tensors = unpack_codec(data)
        borrowed = None
        if "base" in header:
            borrowed = Borrowed.read(header["base"], tensors, held)
            tensors |= borrowed.weights
        try:
            bands = bands_from_json(json.dumps(header["bands"]).encode())
            layout = _layout(header["layout"])
            return cls(
                _bands=bands,
                policy=Policy(**header["policy"]),
                indices=tuple(header["indices"]),
                layout=layout,
                static=Static.from_bytes(tensors.pop("static").tobytes(), (len(bands), layout.height, layout.width)),
                scale=float(header["scale"]),
                weights=np.array(header["weights"], np.float64),
                tables=Tables.from_array(tensors.pop("tables"), layout.channels),
                tensors=tensors,
                borrowed=borrowed,
            )
        except (KeyError, TypeError, InvalidInput) as error:
            raise Corrupt(f"a fitted codec lacks or misstates {error}; restore the store or fit again") from error

    @property
    def vector_size(self) -> int:
        """Numbers in the embedding."""
        if self.layout.mode == "grid":
            return 2 * self.layout.channels + 2 * len(self._bands)
        return self.layout.channels * self._passes

    @property
    def _model_layers(self) -> tuple[str, ...]:
        if not self.layout.channels:
            return ("gain",)
        return ("gain", "grid") if self.layout.mode == "grid" else ("vector",)

    @property
    def _passes(self) -> int:
        return len(self._bands) // self.layout.bands

    def latent(self, pixels: Pixels, valid: Mask, step: int = TRAINED_STEP) -> Latent:
        """The date on the mean image, and the encoder's means for what that leaves, to be rounded at STEPS[step].

        Only a base's encoder asks for the step.
        """
        units = self.units.from_stored(pixels)
        if self.layout.mode == "grid":
            gains, levels = self.static.fit_date(units, valid)
        else:
            gains = levels = np.zeros(len(self._bands), np.int32)
        left = np.where(valid, (units - self.static.predict(gains, levels)) / self.scale, 0.0).astype(np.float32)
        rows, columns = (p - s for p, s in zip(self.layout.padded, valid.shape, strict=True))
        left = np.pad(left, ((0, 0), (0, rows), (0, columns)), mode="edge")
        if not self.layout.channels:
            return Latent(gains, levels, np.zeros((1, *self.layout.latent_shape), np.float32))
        x = torch.from_numpy(left.reshape(self._passes, self.layout.bands, *left.shape[1:]))
        return Latent(gains, levels, self._means(x, step))

    def _means(self, left: torch.Tensor, step: int) -> npt.NDArray[np.float32]:
        log_step = torch.full((1, 1, 1, 1), LOG_STEPS[step] / (1 << BITS))
        with torch.no_grad():
            if not self.layout.hidden:
                means, _ = self.encoder(left)
            else:
                statics = (torch.from_numpy(self.decoder.maps[0].astype(np.float32) / (1 << BITS))[None],)
                means, _ = self.encoder(left, statics, log_step)
        return np.asarray(means.numpy())

    def step_for(self, pixels: Pixels, valid: Mask) -> int:
        """Which of STEPS a raster needs to keep the policy; the finest if none is enough."""
        return self._coarsest(self._latents(pixels, valid), pixels, valid)[0]

    def _latents(self, pixels: Pixels, valid: Mask) -> Callable[[int], Latent]:
        """The latent to be rounded at a step; only a base's encoder gives one for each."""

        @cache
        def at(step: int) -> Latent:
            return self.latent(pixels, valid, step)

        return lambda step: at(step if self.layout.hidden else TRAINED_STEP)

    def _coarsest(self, latents: Callable[[int], Latent], pixels: Pixels, valid: Mask) -> tuple[int, Certificate]:
        """The coarsest step whose decoded raster keeps the policy; the finest tried if none does."""
        if not _asks(self.policy):
            return TRAINED_STEP, self._measure(latents(TRAINED_STEP), TRAINED_STEP, pixels, valid)
        low, high = 0, len(STEPS) - 1
        found: tuple[int, Certificate] | None = None
        while low <= high:
            middle = (low + high + 1) // 2
            certificate = self._measure(latents(middle), middle, pixels, valid)
            if certificate.keeps(self.policy):
                found, low = (middle, certificate), middle + 1
            else:
                missed = middle, certificate
                high = middle - 1
        return found or missed

    def _measure(self, latent: Latent, step: int, pixels: Pixels, valid: Mask) -> Certificate:
        decoded = self._synthesise(latent.gains, latent.levels, latent.at(step), step)
        return measure(pixels, decoded, valid, self._bands, self.indices)

    def _bounded(self, latent: Latent, pixels: Pixels, valid: Mask) -> tuple[bytes, tuple[str, ...]]:
        """The smallest of {latents + detail, latents + residual, rounded values}, each as coarse as allowed."""
        base = self._synthesise(latent.gains, latent.levels, latent.at(TRAINED_STEP), TRAINED_STEP)
        model = self._pack(latent, TRAINED_STEP)[1:]
        model = struct.pack("<I", len(model)) + model
        tried: list[tuple[bytes, tuple[str, ...]]] = []
        for kind, name, layer in self._layers(base, pixels, valid):
            before, layers = (b"", (name,)) if kind == _ROUNDED else (model, (*self._model_layers, name))
            tried.append((bytes([kind << 4 | TRAINED_STEP]) + before + layer, layers))
        if not tried:
            raise PolicyMissed(f"no layer of this codec keeps {self.policy}; store the raster with the lossless codec")
        return min(tried, key=lambda item: len(item[0]))

    def _layers(self, base: Pixels, pixels: Pixels, valid: Mask) -> Iterator[tuple[int, str, bytes]]:
        def keeps(decoded: Pixels) -> bool:
            return measure(pixels, decoded, valid, self._bands, self.indices).keeps(self.policy)

        bounded = self.policy.max_error is not None or self.policy.index_max is not None
        if not bounded and (stream := coarsest(pixels, valid, base, self._bands, self.weights, keeps)):
            yield _DETAILED, "detail", stream
        for kind, name, near in ((_CORRECTED, "residual", base), (_ROUNDED, "rounded", None)):
            if stream := residual.tightest(pixels, valid, near, self._bands, self.policy, self.indices):
                yield kind, name, stream

    def _vector(self, latent: Latent, step: int) -> Int8:
        """(vector_size,) int8: means and deviations of every latent channel over the grid, then gains and levels."""
        exact = latent.at(step).astype(np.int64) * STEPS[step]  # in 1/16
        if self.layout.mode != "grid":
            return _held(exact.reshape(-1))
        channels = exact[0].reshape(self.layout.channels, exact.shape[2] * exact.shape[3])  # (c, h, w) -> (c, P)
        if not self.layout.channels:
            return _held(np.concatenate([latent.gains, latent.levels / 4]))
        pooled = [channels.mean(axis=1), channels.std(axis=1), latent.gains, latent.levels / 4]
        return _held(np.concatenate(pooled))

    def _runs(self, step: int) -> list[tuple[tuple[int, ...], Table]]:
        bands, tables = len(self._bands), self.tables
        _, rows, columns = self.layout.latent_shape
        head = [((bands,), tables.gains), ((bands,), tables.levels)] if self.layout.mode == "grid" else []
        return [*head, *(((self._passes, rows, columns), table) for table in tables.latents[step])]

    def _pack(self, latent: Latent, step: int) -> bytes:
        values = latent.at(step)
        head = [latent.gains, latent.levels] if self.layout.mode == "grid" else []
        symbols: Sequence[Ints] = [*head, *values.swapaxes(0, 1)]  # (N, c, h, w) -> c runs of (N, h, w)
        runs = [(s, table) for s, (_, table) in zip(symbols, self._runs(step), strict=True)]
        return bytes([_MODEL << 4 | step]) + pack_symbols(runs)

    def _unpack(self, stream: bytes, step: int) -> tuple[Ints, Ints, Ints]:
        runs = unpack_symbols(stream, self._runs(step))
        zero = np.zeros(len(self._bands), np.int32)
        gains, levels = (runs[0], runs[1]) if self.layout.mode == "grid" else (zero, zero)
        return gains, levels, self._stacked(runs[2 if self.layout.mode == "grid" else 0 :])

    def _stacked(self, channels: Sequence[Ints]) -> Ints:
        if not channels:
            return np.zeros((1, *self.layout.latent_shape), np.int32)
        return np.stack(channels, axis=1)  # c runs of (N, h, w) -> (N, c, h, w)

    def _synthesise(self, gains: Ints, levels: Ints, latents: Ints, step: int) -> Pixels:
        left: Doubles = self.decoder.decode(latents, step)  # (N, b, H, W)
        left = left.reshape(len(self._bands), *left.shape[2:])
        return self.units.to_stored(self.static.predict(gains, levels) + left * self.scale, self._bands)

    def _check(self, valid: Mask, pixels: Pixels | None = None) -> None:
        want = (self.layout.height, self.layout.width)
        if valid.shape != want or (pixels is not None and pixels.shape != (len(self._bands), *want)):
            seen = valid.shape if pixels is None else pixels.shape
            raise InvalidInput(
                f"a raster of {seen} does not fit this codec of {len(self._bands)} bands on {want[0]} x {want[1]} "
                "pixels; place it in the codec's window first"
            )


def _layout(fields: dict[str, Any]) -> Layout:
    plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return Layout(**plain)


def _asks(policy: Policy) -> bool:
    bounds = (policy.mse_max, policy.max_error, policy.index_mae_max, policy.index_p99_max, policy.index_max)
    return any(b is not None for b in bounds)


def _held(values: npt.NDArray[np.generic]) -> Int8:
    return np.clip(np.rint(values.astype(np.float64)), -127, 127).astype(np.int8)
