"""The fitted VAE codec: encode one raster within its policy, decode it the same everywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from geostore.codec import (
    Coarser,
    Encoded,
    Int8,
    Lend,
    Member,
    Progress,
    Series,
    bands_from_json,
    bands_to_json,
    quiet,
)
from geostore.coding import residual
from geostore.collection import Policy
from geostore.errors import Corrupt, InvalidInput
from geostore.fit_trace import FitTrace
from geostore.raster import Bands, Mask, Pixels
from geostore.vae.base import Borrowed, Frozen
from geostore.vae.detail import add_detail
from geostore.vae.entropy import Ints, Table, pack_symbols, unpack_symbols
from geostore.vae.model import Encoder, Layout
from geostore.vae.prior import Prior, static_features
from geostore.vae.quantize import BITS, LOG_STEPS, STEPS, TRAINED_STEP, IntegerDecoder, Tensors, unpack_encoder
from geostore.vae.samples import STATIC_BITS
from geostore.vae.static import Doubles, Static, Units
from geostore.vae.stream import Latent, Numbers, Shape, pack_chain, split, unpack_chain
from geostore.vae.tables import Tables
from geostore.vae.weights import pack_codec, unpack_codec

# A payload's kind: latents; + detail; + residual; rounded values; in context: residual, values near the base, alone
MODEL, DETAILED, CORRECTED, ROUNDED, FOLLOWED, NEAR, STEPPED = range(7)
ALONE = (ROUNDED, STEPPED)  # kinds without latents
CHAIN = 8  # rasters of a group: each leans on the one before


@dataclass(frozen=True, kw_only=True)
class VaeCodec:
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
        tables: entropy tables, where there is no prior.
        prior: what latents are expected to be, or None.
        rounds: how long the latents of a raster are refined as it is encoded.
        bend: 0, or the bend (1/1000 of reflectance) of the logarithm it works in; see `static.Units`.
        borrowed: the base they come from and what is changed in it; None if the weights are the codec's own.
        trace: the loss terms of its fit; not stored with it.
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
    tables: Tables | None
    prior: Prior | None = None
    rounds: int = 0
    bend: int = 0
    borrowed: Borrowed | None = None
    trace: FitTrace | None = field(default=None, compare=False, repr=False)

    @property
    def bands(self) -> Bands:
        """The bands it was fitted for, in order."""
        return self._bands

    @cached_property
    def units(self) -> Units:
        """How stored values become units."""
        return Units.of(self._bands, self.bend)

    @cached_property
    def decoder(self) -> IntegerDecoder:
        """The network that decodes."""
        maps = self.static.maps(STATIC_BITS, self.layout.padded) if self.layout.mode == "grid" else ()
        return IntegerDecoder(self.layout, self.tensors, maps)

    @cached_property
    def static_features(self) -> Ints:
        """What the prior sees of the mean image."""
        none = np.zeros((0, self._passes, 1), np.int32)
        return static_features(self.decoder.maps) if self.decoder.maps else none

    @cached_property
    def encoder(self) -> Encoder:
        """The network that encodes, float32."""
        return unpack_encoder(self.layout, self.tensors)

    def encode(self, pixels: Pixels, valid: Mask) -> Encoded:
        """Encode (B, H, W) stored values alone, in the fewest bytes found that keep the policy."""
        from geostore.vae.encoding import encode_alone

        return encode_alone(self, pixels, valid)

    def encode_series(self, series: Series, progress: Progress = quiet) -> list[Encoded]:
        """Encode every raster; with a prior, up to CHAIN together, each expected from the one before."""
        from geostore.vae.encoding import encode_series

        return encode_series(self, series, progress)

    def decode(self, payload: bytes, valid: Mask, shared: bytes = b"") -> Pixels:
        """(B, H, W) stored values, bit for bit the same on every machine and at any number of threads."""
        return self.decode_group(shared, [(payload, valid)])[0]

    def decode_group(self, shared: bytes, members: Sequence[Member]) -> list[Pixels]:
        """What `decode` gives for each, the chain in `shared` unpacked once."""
        chain = self._unpacked(shared, members)
        return [self._decode(payload, valid, chain) for payload, valid in members]

    def decode_coarser(self, tier: Coarser, shared: bytes, members: Sequence[Member]) -> list[Pixels | None]:
        """The embedding without what lies on top of it, or the gains and levels alone on the mean image (preview)."""
        chain = self._unpacked(shared, members)
        return [self._coarser(tier, payload, chain) for payload, _ in members]

    def _coarser(self, tier: Coarser, payload: bytes, chain: Sequence[Numbers]) -> Pixels | None:
        kind = payload[0] >> 4 if payload else MODEL
        if not payload or kind in ALONE or (tier == "embedding" and kind == MODEL):
            return None
        if tier == "embedding":
            return self.synthesise(self._read(payload, chain)[0])
        if self.model_layers == ("gain", "grid"):
            head = self._read(payload, chain)[0].head
            return self.units.to_stored(self.predicted(*np.split(head, 2)), self._bands)
        return None

    def _unpacked(self, shared: bytes, members: Sequence[Member]) -> list[Numbers]:
        """The chain in `shared`, as far as any of `members` needs it."""
        last = max((payload[0] & 15 for payload, _ in members if payload and self.prior), default=0)
        return list(islice(self._chain(shared), last)) if last else []

    def _decode(self, payload: bytes, valid: Mask, chain: Sequence[Numbers]) -> Pixels:
        self.check(valid)
        shape = (len(self._bands), *valid.shape)
        if not payload:
            zero = np.zeros(len(self._bands), np.int32)
            return self.units.to_stored(self.static.predict(zero, zero), self._bands)
        kind = payload[0] >> 4
        if kind > STEPPED:
            raise Corrupt(f"payload tag {payload[0]} names no layer of this codec; restore the raster or fit again")
        if kind == ROUNDED:
            return residual.unpack_steps(payload[1:], shape, None, self._bands)
        if kind == STEPPED:
            return residual.unpack_in_context(payload[1:], None, None, valid, self._bands)
        numbers, layer = self._read(payload, chain)
        base = self.synthesise(numbers)
        if kind == DETAILED:
            return add_detail(layer, base, self._bands, self.weights)
        if kind in (FOLLOWED, NEAR):
            near, over = (base, None) if kind == NEAR else (None, base)
            return residual.unpack_in_context(layer, near, over, valid, self._bands)
        return base if kind == MODEL else residual.unpack_steps(layer, shape, base, self._bands)

    def _read(self, payload: bytes, chain: Sequence[Numbers]) -> tuple[Numbers, bytes]:
        """A payload's numbers, and the layer on top of them."""
        kind, place = payload[0] >> 4, payload[0] & 15
        if self.prior is not None and place:
            return chain[place - 1], payload[1:]
        if kind == MODEL:
            stream, layer = payload[1:], b""
        elif self.prior is None:
            size = int.from_bytes(payload[1:5], "little")
            stream, layer = payload[5 : 5 + size], payload[5 + size :]
        else:
            stream, layer = split(payload[1:])
        if self.prior is not None:
            return next(self._chain(stream)), layer
        return self._unpack(stream, place), layer

    def _chain(self, stream: bytes) -> Iterator[Numbers]:
        assert self.prior is not None
        c, h, w = self.layout.latent_shape
        shape = Shape(self.head_size, (c, h if self.layout.mode == "grid" else self._passes, w))
        return unpack_chain(stream, self.prior, self.static_features, shape)

    def to_bytes(self) -> bytes:
        """The codec itself."""
        header = {
            "bands": json.loads(bands_to_json(self._bands)),
            "policy": self.policy.to_fields(),
            "indices": self.indices,
            "layout": asdict(self.layout),
            "scale": self.scale,
            "weights": self.weights.tolist(),
            **({"rounds": self.rounds} if self.rounds else {}),
            **({"static": self.static.coding} if self.static.coding != "wavelet" else {}),
            **({"bend": self.bend} if self.bend else {}),
        }
        static: Tensors = {"static": np.frombuffer(self.static.data, np.uint8)}
        if self.tables is not None:
            static["tables"] = self.tables.to_array()
        lent = self.borrowed is not None and self.prior is self.borrowed.prior
        if self.prior is not None and not lent:
            static |= self.prior.to_tensors()
        newest = self.static.coding == "av1" or self.bend
        version = 3 if newest else 1 if self.prior is None and not self.policy.bounded else 2
        if self.borrowed is None:
            return pack_codec(header, {**self.tensors, **static}, version)
        header["base"] = self.borrowed.header(self.prior)
        return pack_codec(header, self.borrowed.tensors() | static, version)

    @classmethod
    def from_bytes(cls, data: bytes, lend: Lend | None = None) -> VaeCodec:
        """The inverse of `to_bytes`; a base that the package lacks is asked of `lend`.

        Raises:
            Corrupt, UnsupportedFormat: of the bytes. NotFound: nobody has the base.
        """
        header, tensors = unpack_codec(data)
        borrowed = None
        if "base" in header:
            borrowed = Borrowed.read(header["base"], tensors, lend)
            tensors |= borrowed.weights
        try:
            bands = bands_from_json(json.dumps(header["bands"]).encode())
            said: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in header["layout"].items()}
            shape = len(bands), (layout := Layout(**said)).height, layout.width
            return cls(
                _bands=bands,
                policy=Policy.from_fields(header["policy"]),
                indices=tuple(header["indices"]),
                layout=layout,
                static=Static.from_bytes(tensors.pop("static").tobytes(), shape, header.get("static", "wavelet")),
                scale=float(header["scale"]),
                weights=np.array(header["weights"], np.float64),
                tables=Tables.from_array(tensors.pop("tables"), layout.channels) if "tables" in tensors else None,
                prior=borrowed.prior if borrowed and header["base"].get("prior") else Prior.take(tensors),
                rounds=int(header.get("rounds", 0)),
                bend=int(header.get("bend", 0)),
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
    def model_layers(self) -> tuple[str, ...]:
        """The layers that its numbers are."""
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
            gains = levels = np.zeros(0, np.int32)
        if not self.layout.channels:
            return Latent(gains, levels, np.zeros((1, *self.layout.latent_shape), np.float32))
        left = np.where(valid, (units - self.predicted(gains, levels)) / self.scale, 0.0)
        padded = self.padded(left.astype(np.float32))
        x = torch.from_numpy(padded.reshape(self._passes, self.layout.bands, *padded.shape[1:]))
        return Latent(gains, levels, self._means(x, step))

    def predicted(self, gains: Ints, levels: Ints) -> Doubles:
        """(B, H, W) units that a date's gains and levels (B,) predict; the mean image where they are empty."""
        none = np.zeros(len(self._bands), np.int32)
        return self.static.predict(gains, levels) if len(gains) else self.static.predict(none, none)

    def padded(self, planes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(C, H, W) planes on whole latents, the last row and column repeated."""
        rows, columns = (p - s for p, s in zip(self.layout.padded, planes.shape[1:], strict=True))
        return np.pad(planes, ((0, 0), (0, rows), (0, columns)), mode="edge")

    def _means(self, left: torch.Tensor, step: int) -> npt.NDArray[np.float32]:
        log_step = torch.full((1, 1, 1, 1), LOG_STEPS[step] / (1 << BITS))
        with torch.no_grad():
            if not self.layout.hidden:
                means, _ = self.encoder(left)
            else:
                statics = (torch.from_numpy(self.decoder.maps[0].astype(np.float32) / (1 << BITS))[None],)
                means, _ = self.encoder(left, statics, log_step)
        return np.asarray(means.numpy())

    def vector(self, numbers: Numbers) -> Int8:
        """(vector_size,) int8: means and deviations of every latent channel over the grid, then gains and levels."""
        exact = numbers.latents.astype(np.int64) * STEPS[numbers.step]  # in 1/16
        if self.layout.mode != "grid":
            return _held(exact[..., 0].T.reshape(-1))  # (c, N, 1) -> (N * c,)
        bands = len(self._bands)
        date = [numbers.head[:bands].astype(np.float64), numbers.head[bands:] / 4]
        if not self.layout.channels:
            return _held(np.concatenate(date))
        channels = exact.reshape(self.layout.channels, -1)  # (c, h, w) -> (c, P)
        return _held(np.concatenate([channels.mean(axis=1), channels.std(axis=1), *date]))

    @property
    def head_size(self) -> int:
        """Gains and levels of one raster."""
        return 2 * len(self._bands) if self.layout.mode == "grid" else 0

    def _runs(self, step: int) -> list[tuple[tuple[int, ...], Table]]:
        assert self.tables is not None
        bands, tables = len(self._bands), self.tables
        _, rows, columns = self.layout.latent_shape
        head = [((bands,), tables.gains), ((bands,), tables.levels)] if self.layout.mode == "grid" else []
        return [*head, *(((self._passes, rows, columns), table) for table in tables.latents[step])]

    def pack(self, numbers: Numbers) -> bytes:
        """One raster's numbers alone, as a stream; without a prior the payload's tag names the step."""
        if self.prior is not None:
            return pack_chain([numbers], self.prior, self.static_features)
        head = np.split(numbers.head, 2) if self.layout.mode == "grid" else []
        runs = self._runs(numbers.step)
        return pack_symbols([(s, table) for s, (_, table) in zip([*head, *numbers.latents], runs, strict=True)])

    def _unpack(self, stream: bytes, step: int) -> Numbers:
        if step >= len(STEPS):
            raise Corrupt(f"a payload names step {step}, of {len(STEPS)}; restore the raster or fit again")
        runs = unpack_symbols(stream, self._runs(step))
        heads = 2 if self.layout.mode == "grid" else 0
        head = np.concatenate(runs[:heads]) if heads else np.zeros(0, np.int32)
        _, h, w = self.layout.latent_shape
        latents = [run.reshape(-1, w) for run in runs[heads:]]  # (N, h, w) -> (N * h, w)
        return Numbers(step, head, np.stack(latents) if latents else np.zeros((0, h, w), np.int32))

    def synthesise(self, numbers: Numbers) -> Pixels:
        """(B, H, W) stored values of one raster's numbers, by whole-number arithmetic."""
        bands = len(self._bands)
        latents = numbers.latents[None]
        if self.layout.mode != "grid":
            latents = np.moveaxis(numbers.latents, 1, 0)[..., None]  # (c, N, 1) -> (N, c, 1, 1)
        left: Doubles = self.decoder.decode(latents, numbers.step)  # (N, b, H, W)
        left = left.reshape(bands, *left.shape[2:])
        predicted = self.predicted(numbers.head[:bands], numbers.head[bands:])
        return self.units.to_stored(predicted + left * self.scale, self._bands)

    def check(self, valid: Mask, pixels: Pixels | None = None) -> None:
        """Raises InvalidInput where a mask or pixels do not fill the codec's window."""
        want = (self.layout.height, self.layout.width)
        if valid.shape != want or (pixels is not None and pixels.shape != (len(self._bands), *want)):
            seen = valid.shape if pixels is None else pixels.shape
            raise InvalidInput(
                f"a raster of {seen} does not fit this codec of {len(self._bands)} bands on {want[0]} x {want[1]} "
                "pixels; place it in the codec's window first"
            )


def _held(values: npt.NDArray[np.generic]) -> Int8:
    return np.clip(np.rint(values.astype(np.float64)), -127, 127).astype(np.int8)
