"""The conformance suite of codec families: subclass `CodecTests`, give it a family, run it with pytest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from geostore.certificate import measure
from geostore.codec import (
    COARSER,
    Codec,
    CodecFamily,
    Effort,
    Encoded,
    Layered,
    Series,
    decode_many,
    decode_many_coarser,
    quiet,
)
from geostore.collection import Policy
from geostore.errors import Cancelled, Corrupt, GeostoreError
from geostore.raster import Band, Bands, Mask, Pixels

Shape = tuple[int, int, int, int]
_NAMES = tuple(
    "blue green red nir swir16 swir22 coastal rededge071 rededge075 rededge078 nir08 nir09 cirrus".split()  # noqa: SIM905
)


def reflectance_bands(count: int, dtype: str = "uint16") -> Bands:
    """`count` reflectance bands of `dtype` named as Sentinel-2's; 8 bits span 0..1, 16 bits as its products do."""
    names = _NAMES[:count]
    scale, offset, high = {
        "uint8": (1 / 255, 0.0, 255.0),
        "uint16": (1e-4, -0.1, 65535.0),
        "int16": (1e-4, 0.0, 32767.0),
        "float32": (1.0, 0.0, 10.0),
    }[dtype]
    return Bands(tuple(Band(n, n, 10.0, dtype=dtype, scale=scale, offset=offset, valid_max=high) for n in names))


def synthetic_series(shape: Shape, *, seed: int = 0, dtype: str = "uint16", indices: tuple[str, ...] = ()) -> Series:
    """A synthetic place of (T, B, H, W): fixed texture, seasons, clouds that are masked, one saturated corner."""
    rng = np.random.default_rng(seed)
    t, b, h, w = shape
    bands = reflectance_bands(b, dtype)
    texture = _smooth(rng.normal(size=(b, h, w)))
    season = np.sin(np.arange(t) / 3.0)[:, None, None, None] * _smooth(rng.normal(size=(1, b, h, w)))
    level = np.linspace(0.05, 0.3, b)[None, :, None, None]
    physical = level * (1 + 0.3 * texture[None] + 0.2 * season) + rng.normal(0, 0.004, shape)
    valid = np.ones((t, h, w), bool)
    for date in range(1, t, 3):
        row, column = int(rng.integers(h)), int(rng.integers(w))
        physical[date, :, row : row + h // 2, column : column + w // 2] = 0.9
        valid[date, row : row + h // 2, column : column + w // 2] = False
    physical[0, :, :2, :2] = 6.0  # saturated, and not masked
    pixels = bands.to_stored(physical)
    times = np.arange(t, dtype=np.int64) * 86_400_000_000 * 5
    return Series(pixels=pixels, valid=valid, times_us=times, bands=bands, indices=indices)


def _smooth(noise: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    for axis in (-1, -2):
        for _ in range(3):
            noise = (np.roll(noise, 1, axis) + noise + np.roll(noise, -1, axis)) / 3
    return np.asarray(noise / max(float(noise.std()), 1e-6))


class CodecTests:
    """What every codec family must hold to. Set `family`, and `effort` to something that takes seconds.

    Attributes:
        family: an instance of the family under test.
        effort: how hard the suite fits.
        shape: (T, B, H, W) of the synthetic series; not a multiple of 8 on purpose.
        policy: bounds that `encode` should keep wherever the family can.
        dtypes: stored dtypes the family takes.
    """

    family: CodecFamily
    effort: Effort = Effort(steps=4)
    shape: Shape = (6, 4, 30, 21)
    policy: Policy = Policy(mse_max=2e-3, index_mae_max=None)
    dtypes: tuple[str, ...] = ("uint8", "uint16", "int16", "float32")

    @property
    def series(self) -> Series:
        """The series the suite fits."""
        return _fitted(type(self))[0]

    @property
    def codec(self) -> Codec:
        """A codec fitted to it, once for all tests of the class."""
        return _fitted(type(self))[1]

    @property
    def stored(self) -> list[tuple[Encoded, Pixels]]:
        """Every raster of the series as encoded with the others, and as decoded again."""
        return _coded(type(self))

    def fit(self, series: Series) -> Codec:
        """A codec of another series."""
        return self.family.fit(series, policy=self.policy, effort=self.effort, progress=quiet)

    def test_decodes_its_shape_and_dtype(self) -> None:
        """Proves that a decoded raster has the shape and dtype of what came in, band for band."""
        for date, (_, decoded) in enumerate(self.stored):
            assert decoded.shape == self.series.pixels[date].shape
            assert decoded.dtype == self.series.bands.dtype
        assert self.codec.bands == self.series.bands

    def test_encoded_keeps_the_policy(self) -> None:
        """Proves, by decoding and measuring each raster, that what was encoded keeps the bounds asked for."""
        for date, (_, decoded) in enumerate(self.stored):
            seen = measure(
                self.series.pixels[date], decoded, self.series.valid[date], self.series.bands, self.series.indices
            )
            assert seen.keeps(self.policy), (date, seen)

    def test_round_trips_through_bytes(self) -> None:
        """Proves that a codec read back from its bytes decodes the same payload to the same pixels, bit for bit."""
        again = self.family.from_bytes(self.codec.to_bytes())
        assert again.bands == self.codec.bands
        assert again.to_bytes() == self.codec.to_bytes()
        for date, (encoded, decoded) in enumerate(self.stored):
            np.testing.assert_array_equal(decode(again, encoded, self.series.valid[date]), decoded)

    def test_encodes_after_reading_back(self) -> None:
        """Proves that a codec read back from its bytes can encode further rasters, which the first one decodes."""
        again = self.family.from_bytes(self.codec.to_bytes())
        pixels, valid = self.series.pixels[1], self.series.valid[1]
        decoded = decode(self.codec, again.encode(pixels, valid), valid)
        assert measure(pixels, decoded, valid, self.series.bands, self.series.indices).keeps(self.policy)

    def test_decodes_the_same_twice(self) -> None:
        """Proves that decoding leaves no state behind: the same payload gives the same pixels, in any order."""
        for date, (encoded, decoded) in reversed(list(enumerate(self.stored))):
            np.testing.assert_array_equal(decode(self.codec, encoded, self.series.valid[date]), decoded)

    def test_decodes_groups_as_it_decodes_each(self) -> None:
        """Proves that rasters encoded together decode alone, and all at once in any order, to the same pixels."""
        order = np.random.default_rng(3).permutation(len(self.stored)).tolist()
        rasters = [(self.stored[i][0].shared, (self.stored[i][0].payload, self.series.valid[i])) for i in order]
        for i, together in zip(order, decode_many(self.codec, rasters), strict=True):
            np.testing.assert_array_equal(together, self.stored[i][1])

    def test_decodes_first_layers_alone(self) -> None:
        """Proves that coarser tiers, where a family has them, decode alone as together, to rasters of the same kind."""
        if not isinstance(self.codec, Layered):
            return
        rasters = [(e.shared, (e.payload, v)) for (e, _), v in zip(self.stored, self.series.valid, strict=True)]
        for tier in COARSER:
            for i, coarser in enumerate(decode_many_coarser(self.codec, tier, rasters)):
                (alone,) = self.codec.decode_coarser(tier, rasters[i][0], [rasters[i][1]])
                assert (alone is None) == (coarser is None)
                if coarser is None or alone is None:
                    continue
                np.testing.assert_array_equal(alone, coarser)
                whole = self.stored[i][1]
                assert (coarser.shape, coarser.dtype) == (whole.shape, whole.dtype)

    def test_encodes_a_raster_alone(self) -> None:
        """Proves that a raster that comes after the fit encodes by itself and keeps the policy."""
        encoded, decoded = code(self.codec, self.series, 0)
        assert encoded.layers
        seen = measure(self.series.pixels[0], decoded, self.series.valid[0], self.series.bands, self.series.indices)
        assert seen.keeps(self.policy), seen

    def test_takes_every_dtype(self) -> None:
        """Proves that every stored dtype the family takes goes through fit, encode and decode."""
        for dtype in self.dtypes:
            series = synthetic_series((3, 2, 16, 16), dtype=dtype)
            decoded = code(self.fit(series), series, 0)[1]
            assert decoded.dtype == np.dtype(dtype)

    @pytest.mark.parametrize("shape", [(1, 4, 5, 30), (2, 1, 1, 1), (3, 2, 8, 8), (1, 6, 3, 70)])
    def test_takes_small_cells(self, shape: Shape) -> None:
        """Proves that slivers, single pixels and single dates go through fit, encode and decode."""
        series = synthetic_series(shape)
        decoded = code(self.fit(series), series, 0)[1]
        assert measure(series.pixels[0], decoded, series.valid[0], series.bands).keeps(self.policy)

    def test_takes_a_raster_without_valid_pixels(self) -> None:
        """Proves that a wholly masked raster, and a series of only such, encode and decode without failing."""
        nothing: Mask = np.zeros_like(self.series.valid)
        encoded = self.codec.encode(self.series.pixels[0], nothing[0])
        assert decode(self.codec, encoded, nothing[0]).shape == self.series.pixels[0].shape
        blind = Series(pixels=self.series.pixels, valid=nothing, times_us=self.series.times_us, bands=self.series.bands)
        codec = self.fit(blind)
        for encoded in (codec.encode(blind.pixels[0], nothing[0]), codec.encode_series(blind)[0]):
            assert decode(codec, encoded, nothing[0]).shape == blind.pixels[0].shape

    def test_embedding_is_small_integers(self) -> None:
        """Proves that an embedding, where the family has one, is (D,) int8 of one length for every raster."""
        vectors = [encoded.vector for encoded, _ in self.stored]
        assert all(v is None for v in vectors) or all(v is not None and v.dtype == np.int8 for v in vectors)
        assert len({v.shape for v in vectors if v is not None}) <= 1

    def test_says_what_a_payload_holds(self) -> None:
        """Proves that every encoded raster names its layers."""
        assert all(encoded.layers for encoded, _ in self.stored)

    def test_refuses_damaged_codecs(self) -> None:
        """Proves that bytes that are no codec, or half of one, raise Corrupt and nothing else."""
        data = self.codec.to_bytes()
        for damaged in (b"", b"nothing of the kind", data[: len(data) // 2]):
            with pytest.raises(Corrupt):
                self.family.from_bytes(damaged)

    def test_damaged_payloads_never_crash(self) -> None:
        """Proves, by flipping and cutting bytes, that damage gives a geostore error or a raster, shared or not."""
        rng = np.random.default_rng(7)
        encoded, decoded = self.stored[0]
        for whole in filter(None, (encoded.payload, encoded.shared)):
            for _ in range(20):
                damaged = bytearray(whole)
                damaged[int(rng.integers(len(damaged)))] ^= 1 << int(rng.integers(8))
                cut = bytes(damaged[: int(rng.integers(1, len(damaged) + 1))])
                own = whole is encoded.payload
                broken = replace(encoded, payload=cut) if own else replace(encoded, shared=cut)
                try:
                    assert decode(self.codec, broken, self.series.valid[0]).shape == decoded.shape
                except GeostoreError:
                    continue

    def test_can_be_cancelled(self) -> None:
        """Proves that Cancelled raised by `progress` leaves `fit`, where the family reports progress at all."""
        seen: list[str] = []

        def stop(what: str, share: float) -> None:
            seen.append(f"{what} {share}")
            raise Cancelled("stop")

        try:
            self.family.fit(self.series, policy=self.policy, effort=self.effort, progress=stop)
        except Cancelled:
            assert seen
        else:
            assert not seen

    def test_is_seeded(self) -> None:
        """Proves that two fits of one seed give the same codec, byte for byte."""
        again = self.fit(self.series)
        assert again.to_bytes() == self.codec.to_bytes()


def code(codec: Codec, series: Series, date: int) -> tuple[Encoded, Pixels]:
    """One raster encoded, and decoded again."""
    encoded = codec.encode(series.pixels[date], series.valid[date])
    return encoded, decode(codec, encoded, series.valid[date])


def decode(codec: Codec, encoded: Encoded, valid: Mask) -> Pixels:
    """One encoded raster, decoded by itself."""
    return codec.decode(encoded.payload, valid, encoded.shared)


def _fitted(suite: type[CodecTests]) -> tuple[Series, Codec]:
    if suite not in _FITTED:
        series = synthetic_series(suite.shape, indices=("NDVI",))
        _FITTED[suite] = series, suite().fit(series)
    return _FITTED[suite]


def _coded(suite: type[CodecTests]) -> list[tuple[Encoded, Pixels]]:
    series, codec = _fitted(suite)
    if suite not in _CODED:
        encoded = codec.encode_series(series)
        _CODED[suite] = [(e, decode(codec, e, valid)) for e, valid in zip(encoded, series.valid, strict=True)]
    return _CODED[suite]


_FITTED: dict[type[CodecTests], tuple[Series, Codec]] = {}  # pytest makes a new instance for each test
_CODED: dict[type[CodecTests], list[tuple[Encoded, Pixels]]] = {}
