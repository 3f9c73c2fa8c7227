"""Choose a codec's size from the complexity of the data at the error asked for, before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from geostore.certificate import measure
from geostore.codec import RawCodec, Series
from geostore.collection import Policy
from geostore.raster import Bands, Pixels
from geostore.spectral import spectral_index
from geostore.vae.complexity import Foreseen, foresee
from geostore.vae.detail import coarsest
from geostore.vae.static import Doubles, Units, code_static, mean_image

_SAMPLE_DATES = 8  # rasters looked at
SIZES = (  # of networks: decoder channels at 1/8, 1/4, 1/2 and full resolution, and encoder channels
    ((2, 2, 2, 2), (2, 4)),
    ((4, 4, 4, 4), (4, 6)),
    ((8, 8, 6, 4), (4, 8)),
    ((16, 16, 12, 8), (8, 12)),
    ((24, 20, 16, 10), (12, 20)),
    ((40, 32, 24, 16), (12, 20)),
)
_WIDENED = 6000  # bytes of weights at which embeddings take what is foreseen
_FALLS = 0.05  # and with weights to the power of minus this; see bench.sizing_networks
_PARAMETER_BYTES = 0.93  # int8 weights after zstd
_LAYER_BYTES = 700  # names, scales and biases of a network's layers
_CHANNELS_MAX = 16
_HEADER_BYTES = 1100
_STATIC_SHARE = 0.2  # of the squared error asked for, left to the static image
_LOOK = 128  # pixels a side of the static image that an estimate codes
_STEP_SECONDS = 0.035  # one optimiser step on one core at 4 crops of 64 px
_PREFERENCE = 0.4  # in a long series, going without a network must take less than this share of its bytes
_LONG = 24  # dates with a pixel from which a series is long: its embedding has something to learn
_RMS = 1.35  # of errors between Gaussian and Laplace ones, over their mean absolute
_DATE_BYTES = 3.0  # gain and level of one band


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The size chosen for one partition's grid codec.

    Attributes:
        channels: latent channels; 0 where no network pays: static image, gain and level, and detail do.
        widths: decoder channels at 1/8, 1/4, 1/2 and full resolution.
        encoder: encoder channels at 1/2 and 1/4 resolution.
    """

    channels: int
    widths: tuple[int, int, int, int]
    encoder: tuple[int, int]


NO_NETWORK = Plan(channels=0, widths=(0, 0, 0, 0), encoder=(0, 0))


@dataclass(frozen=True)
class Embeddings:
    """Bytes of all embeddings of a series, and the interval that is meant to hold nine partitions of ten."""

    expected: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a fit would cost and give, from a look at a few rasters.

    Attributes:
        rasters: rasters with valid pixels.
        bytes_codec: the codec itself.
        bytes_per_raster: one embedding.
        bytes_per_raster_interval: meant to hold nine partitions of ten; a point where bytes were counted, not foreseen.
        bytes_lossless: the same rasters in the lossless codec.
        seconds: one core, all steps.
        break_even: dates from which codec and embeddings are smaller than the lossless rasters; None if never.
        bits_per_value: foreseen at the error asked for; see `geostore.vae.complexity`.
    """

    rasters: int
    bytes_codec: int
    bytes_per_raster: float
    bytes_per_raster_interval: tuple[float, float]
    bytes_lossless: int
    seconds: float
    break_even: int | None
    bits_per_value: float

    @property
    def worthwhile(self) -> bool:
        """True if codec and embeddings are expected to be smaller than the lossless rasters."""
        return self.bytes_codec + self.rasters * self.bytes_per_raster < self.bytes_lossless


def plan(series: Series, policy: Policy) -> Plan:
    """The size that is expected to take the fewest bytes over the series: some network, or none."""
    bands, embeddings = len(series.bands), foreseen_embeddings(series, policy).expected
    network = network_plan(bands, embeddings)
    without = len(series.usable) * still_bytes(series, policy)
    with_network = weights_bytes(bands, network) + embeddings
    return network if preference(series) * with_network < without else NO_NETWORK


def preference(series: Series) -> float:
    """Of the bytes of a codec with a network, the share that one without must take less than."""
    return _PREFERENCE if len(series.usable) >= _LONG else 1.0


def network_plan(bands: int, embeddings: float) -> Plan:
    """The network that is expected to take the fewest bytes where all embeddings take about so many.

    Its weights are stored once, so what they may cost follows from what they save on every date: from the place's
    complexity at the error asked for, its pixels and its dates.
    """

    def total(plan: Plan) -> float:
        weights = weights_bytes(bands, plan)
        return weights + embeddings * math.pow(weights / _WIDENED, -_FALLS)

    return min((sized(bands, size) for size in range(len(SIZES))), key=total)


def sized(bands: int, size: int) -> Plan:
    """One of SIZES, with a latent channel a band."""
    widths, encoder = SIZES[size]
    return Plan(channels=min(bands, _CHANNELS_MAX), widths=widths, encoder=encoder)


def weights_bytes(bands: int, plan: Plan) -> float:
    """What the weights of a network take as stored, its prior left out."""
    (w0, w1, w2, w3), (e0, e1), c = plan.widths, plan.encoder, plan.channels
    ups = w0 * w1 + (w1 + bands) * w2 + (w2 + bands) * w3
    decoder = 9 * (c + bands) * w0 + 16 * ups + 9 * (w3 + bands) * bands
    encoder = 16 * (bands * e0 + e0 * e1 + e1 * c) + 2 * bands * c
    return (decoder + encoder) * _PARAMETER_BYTES + _LAYER_BYTES


def worthwhile(series: Series, policy: Policy, *, steps: int = 1500) -> Estimate:
    """What fitting `series` within `policy` is expected to cost, without fitting anything."""
    dates, count = sampled(series), len(series.usable)
    raw = RawCodec(series.bands)
    lossless = [len(raw.encode(series.pixels[t], series.valid[t]).payload) for t in dates]
    per_lossless = float(np.mean(lossless)) if lossless else 0.0
    codec = int(_HEADER_BYTES + static_bytes(series, policy))
    bits = foreseen_bits(series, policy)
    chosen = plan(series, policy)
    if chosen.channels:
        per_raster, seconds = network_bytes(series, policy), steps * _STEP_SECONDS
        low, high = (per_raster * factor / max(bits.bits, 1e-9) for factor in (bits.low, bits.high))
        codec += int(weights_bytes(len(series.bands), chosen))
    else:
        per_raster, seconds = still_bytes(series, policy), 0.0
        low = high = per_raster
    saved = per_lossless - per_raster
    return Estimate(
        rasters=count,
        bytes_codec=codec,
        bytes_per_raster=per_raster,
        bytes_per_raster_interval=(low, high),
        bytes_lossless=int(per_lossless * count),
        seconds=seconds,
        break_even=int(codec / saved) + 1 if saved > 0 else None,
        bits_per_value=bits.bits,
    )


def foreseen_embeddings(series: Series, policy: Policy) -> Embeddings:
    """What all embeddings of a network are expected to take."""
    bits, expected = foreseen_bits(series, policy), len(series.usable) * network_bytes(series, policy)
    low, high = (expected * bound / max(bits.bits, 1e-9) for bound in (bits.low, bits.high))
    return Embeddings(expected, low, high)


def network_bytes(series: Series, policy: Policy) -> float:
    """Expected bytes of one embedding of a network."""
    bands = series.pixels.shape[1]
    usable = float(series.valid.sum()) / max(len(series.usable), 1)
    expected = foreseen_bits(series, policy).bits * bands * usable / 8 + bands * _DATE_BYTES
    if policy.bounded:
        expected = max(expected, 0.6 * rounded_bytes(series, policy))
    return float(expected)


def foreseen_bits(series: Series, policy: Policy) -> Foreseen:
    """Bits a usable value at the errors that the policy allows, from a few rasters."""
    dates = sampled(series)
    few = replace(series, pixels=series.pixels[dates], valid=series.valid[dates], times_us=series.times_us[dates])
    return foresee(few, mse=mse_bound(policy, series.bands), indices=index_bounds(policy, series.indices))


def still_bytes(series: Series, policy: Policy) -> float:
    """Bytes of one raster as gain, level and detail on the static image, from coding the middle of a few."""
    if policy.bounded:
        return rounded_bytes(series, policy)
    units, (height, width) = Units.of(series.bands), series.pixels.shape[2:]
    rows, columns = (slice((n - min(n, _LOOK)) // 2, (n + min(n, _LOOK)) // 2) for n in (height, width))
    pixels, valid = series.pixels[..., rows, columns], series.valid[:, rows, columns]
    image = mean_image(pixels, valid, units)
    weights = band_weights(image, units, series, policy)
    static = code_static(image, static_bounds(weights, policy, series.bands))
    sizes = []
    for t in sampled(series)[::2]:
        base = units.to_stored(static.predict(*static.fit_date(units.from_stored(pixels[t]), valid[t])), series.bands)

        def keeps(decoded: Pixels, t: int = int(t)) -> bool:
            return measure(pixels[t], decoded, valid[t], series.bands, series.indices).keeps(policy)

        stream = b"" if keeps(base) else coarsest(pixels[t], valid[t], base, series.bands, weights, keeps)
        sizes.append(len(stream) if stream is not None else rounded_bytes(series, policy))
    area = height * width / (image.shape[1] * image.shape[2])
    return float(np.mean(sizes) * area + len(series.bands) * _DATE_BYTES) if sizes else 0.0


def static_bytes(series: Series, policy: Policy) -> float:
    """Bytes of the static image, from coding its middle."""
    units = Units.of(series.bands)
    height, width = series.pixels.shape[2:]
    rows, columns = (slice((n - min(n, _LOOK)) // 2, (n + min(n, _LOOK)) // 2) for n in (height, width))
    image = mean_image(series.pixels[..., rows, columns], series.valid[:, rows, columns], units)
    weights = band_weights(image, units, series, policy)
    size = len(code_static(image, static_bounds(weights, policy, series.bands)).data)
    return float(size * height * width / (image.shape[1] * image.shape[2]))


def rounded_bytes(series: Series, policy: Policy) -> float:
    """Mean bytes of a raster whose values are rounded as coarsely as the bounds allow; 0 where none can be."""
    from geostore.coding.residual import tightest

    sizes = []
    for t in sampled(series)[:3]:
        found = tightest(series.pixels[t], series.valid[t], None, series.bands, policy, series.indices)
        sizes.append(len(found.as_planes(None, series.valid[t], series.bands) or b"") if found else 0)
    return float(np.mean(sizes)) if sizes else 0.0


def mse_bound(policy: Policy, bands: Bands | None = None) -> float:
    """The squared error on n1 a raster may have: the policy's, or what its bounds on errors of values imply, or 5e-4.

    These are in physical units of `bands`; of reflectance if None.
    """
    width, mean = _width(bands), value_bound(policy)
    found = [policy.mse_max] if policy.mse_max is not None else []
    found += [(_RMS * mean / width) ** 2] if mean is not None else []
    if found:
        return min(found)
    return (policy.max_error / width) ** 2 / 3 if policy.max_error is not None else 5e-4


def _width(bands: Bands | None) -> float:
    """Physical units that n1 is of, in the widest band: 1 of reflectance."""
    kinds = [b for b in bands or () if b.kind != "reflectance"]
    return max(((b.valid_max - b.valid_min) * b.scale for b in kinds), default=1.0)


def value_bound(policy: Policy) -> float | None:
    """The mean absolute error of values a raster may have, physical units; None if neither mean nor p99 is bounded."""
    return _mean_bound(policy.mae_max, policy.p99_max)


def index_bound(policy: Policy, name: str) -> float | None:
    """The mean error of one index a raster may have; None if neither mean nor 99th percentile is bounded."""
    bounds = policy.index_bounds(name)
    return _mean_bound(bounds.mae_max, bounds.p99_max)


def index_bounds(policy: Policy, names: Sequence[str]) -> dict[str, float]:
    """`index_bound` of those of the indices that have one."""
    return {name: bound for name in names if (bound := index_bound(policy, name)) is not None}


def _mean_bound(mean: float | None, p99: float | None) -> float | None:
    """The tighter; of Laplace-like errors the mean is about 1/3.5 of the 99th percentile."""
    return min((b for b in (mean, None if p99 is None else p99 / 3.5) if b is not None), default=None)


def static_bounds(weights: Doubles, policy: Policy, bands: Bands) -> Doubles:
    """(B,) squared error each band of the static image may have: a share of the raster's."""
    return np.asarray(np.maximum(_STATIC_SHARE * mse_bound(policy, bands) / weights**2, 1e-6))


def band_weights(image: Doubles, units: Units, series: Series, policy: Policy) -> Doubles:
    """(B,) how much an error of each band matters: 1, more where an index that has a bound is steeper in it.

    A root mean squared error of sqrt(mse_max) / weight in a band moves each index by about half its bound.
    """
    out = np.ones(len(series.bands))
    error = mse_bound(policy, series.bands) ** 0.5
    for name, bound in index_bounds(policy, series.indices).items():
        index = spectral_index(name)
        planes = [series.bands.index(b) for b in index.bands]
        here = units.to_physical(image)
        for b in planes:
            moved = units.to_physical(image + 0.005 * (np.arange(len(image)) == b)[:, None, None])
            there, before = (index.evaluate(*(v[p] for p in planes)) for v in (moved, here))
            slope = float(np.median(np.abs(there - before))) / 0.005
            out[b] = max(out[b], min(slope * error / (0.4 * bound), 16.0))
    return np.rint(out * 16) / 16


def sampled(series: Series) -> npt.NDArray[np.int64]:
    """Positions of the few dates that are looked at, of those with a pixel."""
    dates = series.usable
    if len(dates) <= _SAMPLE_DATES:
        return np.asarray(dates)
    return np.asarray(dates[np.linspace(0, len(dates) - 1, _SAMPLE_DATES).round().astype(int)])
