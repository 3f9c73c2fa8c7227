"""The `encoder` descriptor: rasters by the image side of an encoder, so that its texts and locations find them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

from geostore import plugins
from geostore.codec import Series
from geostore.errors import Corrupt, InvalidInput, NotComparable
from geostore.index.descriptors import Floats, Progress
from geostore.index.encoders import GROUP, Encoder, ImageEncoder, sides
from geostore.index.encoders.folder import FolderEncoder
from geostore.raster import Bands, Mask, Pixels

_PLUGIN = b"GSENCODER1\0"  # then JSON: name and digest of one that is installed


class Encoded:
    """A descriptor whose weights are an encoder's: a user's bundle, or one that a package brings along.

    Registered without weights: `from_bytes` gives the one that describes.
    """

    name: ClassVar[str] = "encoder"
    version: ClassVar[int] = 1

    def __init__(self, data: bytes = b"") -> None:
        self._data = data

    @cached_property
    def encoder(self) -> Encoder:
        """What describes.

        Raises:
            InvalidInput: there are no weights. NotInstalled: the package that has them is not here. NotComparable: it
                has others than rasters were described with. Corrupt: a bundle that is none.
        """
        if not self._data:
            raise InvalidInput("the encoder descriptor has no weights; run `geostore index upgrade --encoder FOLDER`")
        if not self._data.startswith(_PLUGIN):
            return FolderEncoder(self._data)
        try:
            told = json.loads(self._data[len(_PLUGIN) :])
            name, digest = str(told["name"]), str(told["digest"])
        except (ValueError, KeyError, TypeError) as error:
            raise Corrupt(f"the name of an encoder is damaged ({error}); run `geostore index upgrade` again") from error
        found: Encoder = plugins.find(GROUP, name)
        if found.digest() != digest:
            raise NotComparable(
                f"encoder {name} is installed with digest {found.digest()}, rasters were described with {digest}; "
                "install that version, or run `geostore index upgrade`"
            )
        return found

    def train(
        self, series: Sequence[Series], *, steps: int | None = None, seed: int = 0, device: str = "auto",
        progress: Progress = lambda _, __: None,
    ) -> Encoded:  # fmt: skip
        """Not trained here. Raises InvalidInput."""
        raise InvalidInput("an encoder's weights are brought, not trained here; give `--encoder` a folder or a name")

    def from_bytes(self, data: bytes) -> Encoded:
        """One with these weights. Raises as `encoder` does, and NotComparable without an image side."""
        made = type(self)(data)
        if "image" not in sides(made.encoder):
            raise NotComparable(f"encoder {made.encoder.name} has no image side, so it cannot describe rasters")
        return made

    def to_bytes(self) -> bytes:
        """The bundle, or the name of what is installed."""
        return self._data

    def width(self, bands: Bands) -> int:
        """Components. Raises NotComparable for bands that lack one of the encoder's."""
        self._image.preprocessing.check(bands)
        return self._image.width

    def digest(self, bands: Bands) -> str:
        """Over the encoder's digest, names and kinds of bands."""
        facts = json.dumps([self.encoder.digest(), [(b.name, b.kind) for b in bands]])
        return hashlib.sha256(facts.encode()).hexdigest()[:32]

    def describe(self, pixels: Pixels, valid: Mask, bands: Bands) -> Floats:
        """(B, H, W) stored values -> (width,) of length 1; zeros where too few pixels may be used."""
        return self._image.image(pixels, valid, bands)

    @property
    def _image(self) -> ImageEncoder:
        assert isinstance(self.encoder, ImageEncoder)
        return self.encoder


def named(name: str) -> bytes:
    """What stands for an installed encoder. Raises NotInstalled, and NotComparable where it has no image side."""
    found: Encoder = plugins.find(GROUP, name)
    data = _PLUGIN + json.dumps({"name": name, "digest": found.digest()}, sort_keys=True).encode()
    return Encoded().from_bytes(data).to_bytes()
