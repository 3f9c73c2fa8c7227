"""The conformance suite of descriptors: subclass `DescriptorTests`, give it a descriptor, run it with pytest."""

from __future__ import annotations

import numpy as np
import pytest

from geostore.errors import InvalidInput
from geostore.index.descriptors import Descriptor, Floats
from geostore.raster import Bands, Mask, Pixels
from geostore.testing.codecs import reflectance_bands, synthetic_series


class DescriptorTests:
    """What every descriptor must hold to. Set `descriptor`.

    Attributes:
        descriptor: the one under test.
        bands_counts: numbers of bands it takes.
        near: cosine that the same place a date later has at least; other places have less on average.
    """

    descriptor: Descriptor
    bands_counts: tuple[int, ...] = (1, 3, 4, 10)
    near: float = 0.8

    def _raster(self, count: int = 4, seed: int = 0, dtype: str = "uint16") -> tuple[Pixels, Mask, Bands]:
        """One synthetic raster: (pixels, valid, bands)."""
        series = synthetic_series((2, count, 40, 37), seed=seed, dtype=dtype)
        return series.pixels[1], series.valid[1], series.bands

    def test_it_has_a_name_and_a_version(self) -> None:
        """They name the space that its descriptors belong to."""
        assert isinstance(self.descriptor, Descriptor)
        assert self.descriptor.name
        assert self.descriptor.version >= 1

    def test_its_vectors_have_the_width_it_says_and_length_one(self) -> None:
        """For every number of bands; float32, finite, the same on a second call."""
        for count in self.bands_counts:
            pixels, valid, bands = self._raster(count)
            made = self.descriptor.describe(pixels, valid, bands)
            assert made.shape == (self.descriptor.width(bands),)
            assert made.dtype == np.float32
            assert np.isfinite(made).all()
            assert abs(float(np.linalg.norm(made)) - 1) < 1e-4
            assert (made == self.descriptor.describe(pixels, valid, bands)).all()

    def test_masked_pixels_weigh_nothing(self) -> None:
        """Whatever lies under the mask, the vector is the same to the bit."""
        pixels, valid, bands = self._raster()
        other = np.where(valid, pixels, np.random.default_rng(1).integers(0, 9000, pixels.shape).astype(pixels.dtype))
        assert not valid.all()
        made = self.descriptor.describe(pixels, valid, bands)
        assert (made == self.descriptor.describe(other, valid, bands)).all()

    def test_nothing_usable_gives_zeros(self) -> None:
        """A raster under cloud has no descriptor."""
        pixels, valid, bands = self._raster()
        assert not self.descriptor.describe(pixels, np.zeros_like(valid), bands).any()

    def test_stored_dtype_and_scale_do_not_matter(self) -> None:
        """The same reflectance as uint16 and as float32 is the same place."""
        made = [self.descriptor.describe(*self._raster(dtype=dtype)) for dtype in ("uint16", "float32")]
        assert float(made[0] @ made[1]) > 0.99

    def test_its_digest_tells_bands_apart(self) -> None:
        """Other bands make another space; the same bands in another dtype do not."""
        bands = reflectance_bands(4)
        assert self.descriptor.digest(bands) == self.descriptor.digest(reflectance_bands(4, "float32"))
        assert self.descriptor.digest(bands) != self.descriptor.digest(reflectance_bands(5))
        assert self.descriptor.digest(bands) != self.descriptor.digest(bands.select(bands.names[::-1]))

    def test_the_same_place_is_nearer_than_others(self) -> None:
        """Two dates of a place look more alike than it and other places."""
        same: list[float] = []
        other: list[float] = []
        firsts: list[Floats] = []
        for seed in range(6):
            series = synthetic_series((2, 4, 40, 37), seed=seed)
            made = [
                self.descriptor.describe(p, v, series.bands) for p, v in zip(series.pixels, series.valid, strict=True)
            ]
            other += [float(made[1] @ f) for f in firsts]
            firsts.append(made[0])
            same.append(float(made[0] @ made[1]))
        assert np.mean(same) >= np.mean(other)
        assert np.mean(same) >= self.near

    def test_what_does_not_belong_together_is_refused(self) -> None:
        """Pixels, mask and bands of different shape raise InvalidInput."""
        pixels, valid, bands = self._raster()
        with pytest.raises(InvalidInput):
            self.descriptor.describe(pixels[:2], valid, bands)
        with pytest.raises(InvalidInput):
            self.descriptor.describe(pixels, valid[:5], bands)
