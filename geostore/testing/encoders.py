"""The conformance suite of encoders: subclass `EncoderTests`, give it an encoder, run it with pytest."""

from __future__ import annotations

import numpy as np
import pytest

from geostore.errors import InvalidInput, NotComparable
from geostore.index.encoders import Encoder, ImageEncoder, LocationEncoder, TextEncoder, sides
from geostore.raster import Band, Bands, Mask, Pixels


class EncoderTests:
    """What every encoder must hold to, on each side it has. Set `encoder`.

    Attributes:
        encoder: the one under test.
        alike, unlike: a text that means what `text` means, and one that does not.
    """

    encoder: Encoder
    text: str = "lake"
    alike: str = "lakes"
    unlike: str = "motorway"

    def _image(self) -> ImageEncoder:
        if "image" not in sides(self.encoder):
            pytest.skip("it has no image side")
        assert isinstance(self.encoder, ImageEncoder)
        return self.encoder

    def _texts(self) -> TextEncoder:
        if "text" not in sides(self.encoder):
            pytest.skip("it has no text side")
        assert isinstance(self.encoder, TextEncoder)
        return self.encoder

    def _places(self) -> LocationEncoder:
        if "location" not in sides(self.encoder):
            pytest.skip("it has no location side")
        assert isinstance(self.encoder, LocationEncoder)
        return self.encoder

    def _raster(self, names: tuple[str, ...], seed: int = 0) -> tuple[Pixels, Mask, Bands]:
        """One synthetic raster: (pixels, valid, bands)."""
        rng = np.random.default_rng(seed)
        bands = Bands(tuple(Band(n, n, 10.0, scale=1e-4) for n in names))
        return rng.integers(300, 3000, (len(names), 40, 37)).astype(np.uint16), rng.random((40, 37)) < 0.8, bands

    def _check(self, vectors: object, count: int) -> None:
        found = np.asarray(vectors)
        assert found.shape == (count, self.encoder.width)
        assert found.dtype == np.float32
        assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-4

    def test_it_says_what_it_is(self) -> None:
        """A name, a width, a digest of 32 hexadecimal digits that stays, a side or more."""
        assert isinstance(self.encoder, Encoder)
        assert self.encoder.name
        assert self.encoder.width >= 8
        digest = self.encoder.digest()
        assert (len(digest), int(digest, 16) >= 0, self.encoder.digest()) == (32, True, digest)
        assert sides(self.encoder)

    def test_texts_become_vectors_of_length_one(self) -> None:
        """A row a text, the same whatever is asked beside it; like words lie nearer than others."""
        found = self._texts().text([self.text, self.alike, self.unlike])
        self._check(found, 3)
        assert (found[:1] == self._texts().text([self.text])).all()
        assert found[0] @ found[1] > found[0] @ found[2]

    def test_no_text_is_refused(self) -> None:
        """Nothing, spaces, and more than 512 characters raise InvalidInput."""
        for text in ("", "  ", "x" * 513):
            with pytest.raises(InvalidInput):
                self._texts().text([text])

    def test_places_become_vectors_of_length_one(self) -> None:
        """Poles and antimeridian too; no place on the Earth raises InvalidInput."""
        encoder = self._places()
        lon, lat = np.array([0.0, 180.0, -180.0, 12.5]), np.array([90.0, -90.0, 0.0, 41.9])
        found = encoder.location(lon, lat)
        self._check(found, 4)
        assert (found[3:] == encoder.location(lon[3:], lat[3:])).all()
        for strange in (181.0, np.nan):
            with pytest.raises(InvalidInput):
                encoder.location(np.array([strange]), np.array([0.0]))

    def test_images_become_vectors_of_length_one(self) -> None:
        """The same on a second call; zeros under cloud; in whatever order the bands lie, and with more of them."""
        encoder = self._image()
        names = encoder.preprocessing.bands
        pixels, valid, bands = self._raster(names)
        made = encoder.image(pixels, valid, bands)
        self._check(made[None], 1)
        assert (made == encoder.image(pixels, valid, bands)).all()
        assert not encoder.image(pixels, np.zeros_like(valid), bands).any()
        turned = Bands((*bands.items[::-1], Band("other", "other", 10.0)))
        other = np.concatenate([pixels[::-1], pixels[:1]])
        np.testing.assert_allclose(encoder.image(other, valid, turned), made, atol=1e-5)

    def test_masked_pixels_weigh_nothing(self) -> None:
        """Whatever lies under the mask, the vector is the same to the bit."""
        encoder = self._image()
        pixels, valid, bands = self._raster(encoder.preprocessing.bands)
        other = np.where(valid, pixels, np.random.default_rng(1).integers(0, 9000, pixels.shape).astype(pixels.dtype))
        assert (encoder.image(pixels, valid, bands) == encoder.image(other, valid, bands)).all()

    def test_bands_it_wants_must_be_there(self) -> None:
        """A band that is missing raises NotComparable; shapes that do not fit raise InvalidInput."""
        encoder = self._image()
        pixels, valid, bands = self._raster(encoder.preprocessing.bands)
        with pytest.raises(NotComparable):
            encoder.image(*self._raster(("strange",)))
        with pytest.raises(InvalidInput):
            encoder.image(pixels, valid[:5], bands)
