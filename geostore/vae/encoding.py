"""How rasters become payloads: the coarsest setting, the best latents, the cheapest layers that keep the policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from geostore.certificate import Certificate, measure
from geostore.codec import Encoded, Progress, Series
from geostore.coding import residual
from geostore.coding.rangecoder import OCTAVE, ONE_QUANTUM, PARTS
from geostore.collection import Policy
from geostore.errors import PolicyMissed
from geostore.policy import IndexBounds
from geostore.raster import Mask, Pixels
from geostore.vae.codec import (
    ALONE,
    CHAIN,
    CORRECTED,
    DETAILED,
    FOLLOWED,
    MODEL,
    NEAR,
    ROUNDED,
    STEPPED,
    VaeCodec,
)
from geostore.vae.detail import coarsest
from geostore.vae.losses import Physical, laplace_bits_about
from geostore.vae.model import Decoder
from geostore.vae.prior import Past
from geostore.vae.quantize import BITS, LOG_STEPS, STEPS, TRAINED_STEP, unpack_decoder
from geostore.vae.refine import Rate, Wanted, bounds_of, refine
from geostore.vae.stream import Latent, Numbers, held, join, pack_chain

_SLACK = 1.2  # how far beyond its bounds a raster may begin: refining brings it back
_TRIES = 2  # times a raster is refined, at finer steps, before it is left as the encoder has it
_PIXELS = 1 << 18  # refined together, which bounds the memory


@dataclass(frozen=True)
class Frame:
    """One raster on its way: (B, H, W) stored values and (H, W) validity, for a codec."""

    codec: VaeCodec
    pixels: Pixels
    valid: Mask

    @cached_property
    def latents(self) -> dict[int, Latent]:
        """What the encoder made of it, by step; filled on demand."""
        return {}

    def latent(self, step: int) -> Latent:
        """The encoder's latent to be rounded at a step; only a base's encoder gives one for each."""
        key = step if self.codec.layout.hidden else TRAINED_STEP
        if key not in self.latents:
            self.latents[key] = self.codec.latent(self.pixels, self.valid, key)
        return self.latents[key]

    def errors(self, numbers: Numbers) -> Certificate:
        """The errors of its numbers as they decode."""
        return self.measured(self.codec.synthesise(numbers))

    def measured(self, decoded: Pixels) -> Certificate:
        """The errors of decoded pixels."""
        return measure(self.pixels, decoded, self.valid, self.codec.bands, self.codec.indices)

    def coarsest(self, slack: float = 1.0) -> Numbers:
        """The coarsest step whose rounding keeps the policy, its means relaxed by `slack`; the finest if none does."""
        policy = self.codec.policy
        if not policy.asks:
            return self.latent(TRAINED_STEP).numbers(TRAINED_STEP)
        policy = _relaxed(policy, slack)
        low, high = 0, len(STEPS) - 1
        found = self.latent(0).numbers(0)
        while low <= high:
            middle = (low + high + 1) // 2
            numbers = self.latent(middle).numbers(middle)
            if self.errors(numbers).keeps(policy):
                found, low = numbers, middle + 1
            else:
                high = middle - 1
        return found

    def trained(self) -> Certificate:
        """The errors of the encoder's latents at the step it was trained at."""
        return self.errors(self.latent(TRAINED_STEP).numbers(TRAINED_STEP))

    def keeps(self, numbers: Numbers) -> bool:
        """True if its numbers alone keep the policy."""
        return self.errors(numbers).keeps(self.codec.policy)


def _relaxed(policy: Policy, slack: float) -> Policy:
    def wider(bounds: Policy | IndexBounds, names: Sequence[str]) -> dict[str, float | None]:
        return {n: None if (bound := getattr(bounds, n)) is None else bound * slack for n in names}

    means = wider(policy, ("mse_max", "mae_max", "p99_max", "index_mae_max", "index_p99_max"))
    index = {name: replace(bounds, **wider(bounds, ("mae_max", "p99_max"))) for name, bounds in policy.index.items()}
    return replace(policy, **means, index=index)  # type: ignore[arg-type]


def encode_alone(codec: VaeCodec, pixels: Pixels, valid: Mask) -> Encoded:
    """One raster that leans on none."""
    frame = Frame(codec, pixels, valid)
    codec.check(valid, pixels)
    if not valid.any():
        return _empty(codec)
    return _finished(frame, choose_numbers([frame])[0])


def encode_series(codec: VaeCodec, series: Series, progress: Progress) -> list[Encoded]:
    """Every raster; with a prior, chains of rasters that follow one another."""
    found: dict[int, Encoded] = {}
    dates = series.usable
    for at in range(0, len(dates), CHAIN):
        chain = [int(t) for t in dates[at : at + CHAIN]]
        frames = [Frame(codec, series.pixels[t], series.valid[t]) for t in chain]
        for frame in frames:
            codec.check(frame.valid, frame.pixels)
        found |= zip(chain, _encode_chain(frames), strict=True)
        progress("encode", len(found) / len(dates))
    return [found.get(t) or _empty(codec) for t in range(len(series))]


def _encode_chain(frames: Sequence[Frame]) -> list[Encoded]:
    chosen = choose_numbers(frames)
    codec = frames[0].codec
    alone = [_finished(frame, numbers) for frame, numbers in zip(frames, chosen, strict=True)]
    chained = [i for i, e in enumerate(alone) if e.payload[0] >> 4 not in ALONE]
    if codec.prior is None or len(chained) < 2:
        return alone
    shared = pack_chain([chosen[i] for i in chained], codec.prior, codec.static_features)
    for place, i in enumerate(chained, start=1):
        alone[i] = _placed(frames[i], chosen[i], alone[i], place, shared)
    return alone


def _placed(frame: Frame, numbers: Numbers, alone: Encoded, place: int, shared: bytes) -> Encoded:
    """A raster coded alone, as the `place`-th of a chain."""
    kind, layer = alone.payload[0] >> 4, b""
    if kind != MODEL:
        layer = alone.payload[1 + len(join(frame.codec.pack(numbers), b"")) :]
    return replace(alone, payload=bytes([kind << 4 | place]) + layer, shared=shared)


def _empty(codec: VaeCodec) -> Encoded:
    return Encoded(payload=b"", vector=np.zeros(codec.vector_size, np.int8), layers=("empty",))


def _finished(frame: Frame, numbers: Numbers) -> Encoded:
    """A raster's numbers, and the layer on top of them where the policy needs one."""
    codec, model = frame.codec, frame.codec.model_layers
    vector, place = codec.vector(numbers), 0 if codec.prior else numbers.step
    if not codec.policy.asks or frame.keeps(numbers):
        return Encoded(payload=bytes([MODEL << 4 | place]) + codec.pack(numbers), vector=vector, layers=model)
    stream, best = codec.pack(numbers), Encoded(payload=b"")
    for kind, name, layer in _layers(frame, codec.synthesise(numbers)):
        tag = bytes([kind << 4 | place])
        if kind in ALONE:
            tried = Encoded(payload=tag + layer, vector=vector, layers=(name,))
        elif codec.prior:
            tried = Encoded(payload=tag + join(stream, layer), vector=vector, layers=(*model, name))
        else:
            payload = tag + len(stream).to_bytes(4, "little") + stream + layer
            tried = Encoded(payload=payload, vector=vector, layers=(*model, name))
        best = min((e for e in (best, tried) if e.payload), key=lambda e: len(e.payload))
    if not best.payload:
        raise PolicyMissed(f"no layer of this codec keeps {codec.policy}; store the raster with the lossless codec")
    return best


def _layers(frame: Frame, base: Pixels) -> Iterator[tuple[int, str, bytes]]:
    """What may lie on top of `base`, or in its place: each as coarse as the policy allows."""
    codec, policy = frame.codec, frame.codec.policy

    def keeps(decoded: Pixels) -> bool:
        return frame.measured(decoded).keeps(policy)

    if not policy.bounded and (stream := coarsest(frame.pixels, frame.valid, base, codec.bands, codec.weights, keeps)):
        yield DETAILED, "detail", stream
    for over in (base, None):
        found = residual.tightest(frame.pixels, frame.valid, over, codec.bands, policy, codec.indices)
        if found is not None:
            yield from _bounded(found, base, frame)


def _bounded(found: residual.Bounded, base: Pixels, frame: Frame) -> Iterator[tuple[int, str, bytes]]:
    """Steps as an image and in context, over a base or without one."""
    in_context: tuple[tuple[int, Pixels | None], ...]
    image, in_context = (ROUNDED, ((STEPPED, None), (NEAR, base)))
    name = "rounded"
    if found.base is not None:
        image, in_context, name = CORRECTED, ((FOLLOWED, None),), "residual"
    if stream := found.as_image():
        yield image, name, stream
    for kind, near in in_context:
        if stream := found.as_planes(near, frame.valid, frame.codec.bands):
            yield kind, name, stream


def choose_numbers(frames: Sequence[Frame]) -> list[Numbers]:
    """The numbers of each raster of a chain: refined where the codec asks for it, the policy kept.

    Where the policy has no bound on a mean error, bits are traded for it as rounding at the trained step trades them.
    """
    codec = frames[0].codec
    if not codec.rounds or not codec.layout.channels or codec.layout.mode != "grid":
        return [_plain(frame) for frame in frames]
    bounds = bounds_of(codec.policy, codec.indices)
    if not bounds:
        return _refined(frames, [TRAINED_STEP] * len(frames), _as_trained(frames), steered=False)
    chosen: dict[int, Numbers] = {}
    start = [frame.coarsest(_SLACK).step for frame in frames]
    for attempt in range(_TRIES):
        waiting = [i for i in range(len(frames)) if i not in chosen]
        steps = [max(0, start[i] - attempt) for i in waiting]
        found = _refined([frames[i] for i in waiting], steps, bounds, steered=True)
        chosen |= {i: n for i, n in zip(waiting, found, strict=True) if frames[i].keeps(n)}
    return [_smaller(frame, chosen.get(i)) for i, frame in enumerate(frames)]


def _as_trained(frames: Sequence[Frame]) -> dict[str, float]:
    """Mean errors at the trained step, by name: of indices for a codec in logarithms, else the MSE."""
    codec, seen = frames[0].codec, [frame.trained() for frame in frames]
    if not codec.bend:
        return {"mse": max(sum(c.mse for c in seen) / len(seen), 1e-9)}
    return {f"index_{name}": max(sum(c.indices[name].mae for c in seen) / len(seen), 1e-6) for name in codec.indices}


def _smaller(frame: Frame, refined: Numbers | None) -> Numbers:
    """Refined numbers, unless there are none or plain ones that keep the policy take fewer bytes."""
    plain = _plain(frame)
    if refined is None or (frame.keeps(plain) and len(frame.codec.pack(plain)) < len(frame.codec.pack(refined))):
        return plain
    return refined


def _plain(frame: Frame) -> Numbers:
    """What the encoder says, rounded as coarsely as the policy allows; as trained where it cannot be kept so."""
    numbers = frame.coarsest()
    if not frame.codec.policy.asks or frame.keeps(numbers):
        return numbers
    return frame.latent(TRAINED_STEP).numbers(TRAINED_STEP)


def _refined(
    frames: Sequence[Frame], steps: Sequence[int], bounds: Mapping[str, float], *, steered: bool
) -> list[Numbers]:
    """The frames' latents refined, some at a time; each leans on the one before."""
    at_once = max(1, _PIXELS // frames[0].valid.size) if frames else 1
    done: list[Numbers] = []
    for at in range(0, len(frames), at_once):
        part = slice(at, at + at_once)
        done += _Refining(frames[part], steps[part], done).run(bounds, steered=steered)
    return done


class _Refining:
    """Rasters of one chain that are refined together."""

    def __init__(self, frames: Sequence[Frame], steps: Sequence[int], done: Sequence[Numbers]) -> None:
        self.frames, self.steps, self.codec = frames, steps, frames[0].codec
        self.latents = [frame.latent(step) for frame, step in zip(frames, steps, strict=True)]
        self.past: Past | None = None
        for numbers in done:
            self.past = numbers.after(self.past)
        self.step = torch.tensor([STEPS[s] / 16 for s in steps])[:, None, None, None]
        self.log_step = torch.tensor([LOG_STEPS[s] / (1 << BITS) for s in steps])[:, None, None, None]
        self.decoder = float_decoder(self.codec)
        with torch.no_grad():
            maps = tuple(torch.from_numpy((m[None] / (1 << BITS)).astype(np.float32)) for m in self.codec.decoder.maps)
            self.seen = self.decoder.look(maps)

    def run(self, bounds: Mapping[str, float], *, steered: bool) -> list[Numbers]:
        """Refine them."""
        start = torch.from_numpy(np.concatenate([latent.means for latent in self.latents])) / self.step
        rounds = self.codec.rounds
        indices = tuple(name for name in self.codec.indices if f"index_{name}" in bounds)
        wanted = replace(self.wanted(indices), values="mae" in bounds)
        quanta = refine(start, wanted, self.decode, self.look, bounds, rounds=rounds, steered=steered)
        return self.numbers(quanta)

    def numbers(self, quanta: Tensor) -> list[Numbers]:
        """Whole quanta (N, C, h, w) with each raster's gains and levels."""
        whole = held(quanta.numpy())
        parts = zip(self.latents, whole, self.steps, strict=True)
        return [latent.quantised(values[None], step) for latent, values, step in parts]

    def decode(self, quanta: Tensor) -> Tensor:
        """Residuals in float, on the codec's window."""
        found: Tensor = self.decoder(quanta * self.step, self.seen, self.log_step)
        return found[..., : self.codec.layout.height, : self.codec.layout.width]

    def look(self, quanta: Tensor) -> Rate:
        """What the prior (or the table of each channel) says of these quanta."""
        if self.codec.prior is None:
            return self._by_table()
        expected, scales, past = [], [], self.past
        for numbers in self.numbers(quanta):
            step = STEPS[numbers.step]
            near, scale = self.codec.prior.expect(numbers.latents, step, past, self.codec.static_features)
            expected.append(near)
            scales.append(scale)
            past = numbers.after(past)
        centre = torch.from_numpy(np.stack(expected)).float() / PARTS
        octaves = (torch.from_numpy(np.stack(scales)).float() - ONE_QUANTUM) / OCTAVE
        return lambda z: laplace_bits_about(z, centre, octaves, torch.ones(())).sum(dim=(1, 2, 3))

    def _by_table(self) -> Rate:
        assert self.codec.tables is not None
        tables = self.codec.tables.latents
        costs = torch.from_numpy(np.stack([[t.costs() for t in tables[s]] for s in self.steps])).float()  # (N, C, S)
        limit = costs.shape[2] // 2

        def rate(z: Tensor) -> Tensor:
            low = torch.floor(z.detach()).clamp(-limit, limit - 1)
            at = (low + limit).long().flatten(2)  # (N, C, h, w) -> (N, C, P)
            share = (z - low).flatten(2)
            bits = (1 - share) * costs.gather(2, at) + share * costs.gather(2, at + 1)
            return bits.sum(dim=(1, 2))

        return rate

    def wanted(self, indices: tuple[str, ...]) -> Wanted:
        """What they should decode to; `indices` are looked at."""
        units, codec = self.codec.units, self.codec
        base = np.stack([codec.predicted(x.gains, x.levels) for x in self.latents])
        seen = np.stack([units.from_stored(frame.pixels) for frame in self.frames])
        mask = np.stack([frame.valid[None] for frame in self.frames])
        residuals = np.where(mask, (seen - base) / codec.scale, 0.0)
        return Wanted(
            residual=torch.from_numpy(residuals.astype(np.float32)),
            mask=torch.from_numpy(mask.astype(np.float32)),
            base=torch.from_numpy(base.astype(np.float32)),
            scale=codec.scale,
            physical=Physical.of(units),
            bands=codec.bands.names,
            indices=indices,
        )


def float_decoder(codec: VaeCodec) -> Decoder:
    """The float twin of a codec's decoder, its weights as stored."""
    return unpack_decoder(codec.layout, codec.tensors).requires_grad_(False)


def step_for(codec: VaeCodec, pixels: Pixels, valid: Mask) -> int:
    """Which of STEPS a raster needs to keep the policy; the finest if none is enough."""
    return Frame(codec, pixels, valid).coarsest().step
