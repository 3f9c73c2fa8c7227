"""What codecs say of themselves: the same again, in few bytes, beside a dictionary that never changes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgpack
import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from geostore.codec import Series
from geostore.coding.bodies import dictionary, longer, shorter
from geostore.collection import Policy
from geostore.dct.codec import KltDctCodec
from geostore.dct.fit import make_codec
from geostore.errors import Corrupt
from geostore.scene.presets import load_collection

FORMAT = Path(__file__).parents[2] / "docs" / "FORMAT.md"
words = st.one_of(st.none(), st.integers(-(2**40), 2**40), st.floats(allow_nan=False), st.text(), st.binary())


def frame(plain: bytes) -> bytes:
    """As a codec's body is written."""
    return zstandard.ZstdCompressor(level=19, write_checksum=True).compress(plain)


@given(st.dictionaries(st.text(), st.one_of(words, st.lists(words))))
def test_any_body_comes_back(body: dict[str, object]) -> None:
    """Proves the round trip of bodies whose names the dictionary does not hold."""
    plain = msgpack.packb(body)
    assert zstandard.ZstdDecompressor().decompress(longer(shorter(frame(plain)))) == plain


def test_the_dictionary_is_that_of_the_format() -> None:
    """Proves that stored codecs stay readable: the dictionary has the digest that docs/FORMAT.md names."""
    assert hashlib.sha256(dictionary().as_bytes()).hexdigest() in FORMAT.read_text()


@pytest.mark.parametrize("preset", ["sentinel-2-l2a", "landsat-c2-l2", "modis-09"])
def test_a_codec_of_a_preset_takes_half(preset: str) -> None:
    """Proves that what a codec of a preset's bands says of itself takes less than 0.55 of what it took."""
    rng, (bands, *_) = np.random.default_rng(3), load_collection(preset).groups.values()
    pixels = bands.to_stored(rng.uniform(0.02, 0.4, (3, len(bands), 16, 16)))
    series = Series(pixels=pixels, valid=np.ones((3, 16, 16), bool), times_us=np.arange(3), bands=bands)
    codec = make_codec(series, Policy(), 0)
    data = codec.to_bytes()
    body = msgpack.unpackb(zstandard.ZstdDecompressor(dict_data=dictionary()).decompress(data[6:]))
    assert len(data) < 0.55 * (6 + len(frame(msgpack.packb(body))))
    assert KltDctCodec.from_bytes(data).bands == bands


@pytest.mark.parametrize("data", [b"", b"none", frame(bytes(2**21)), shorter(frame(b"body" * 30))[:-3]])
def test_damage_is_an_error(data: bytes) -> None:
    """Proves that what is no such frame, is cut, or says it holds more than any body, is Corrupt."""
    with pytest.raises(Corrupt, match="restore"):
        longer(data)


def test_every_flipped_bit_is_noticed() -> None:
    """Proves that no flipped bit of a frame gives another body: it is an error."""
    plain = msgpack.packb({"bands": [{"name": "red", "source": "B04"}], "shape": (96, 96)})
    good = shorter(frame(plain))
    for at in range(8 * len(good)):
        bad = bytearray(good)
        bad[at // 8] ^= 1 << at % 8
        try:
            found = zstandard.ZstdDecompressor().decompress(longer(bytes(bad)))
        except Corrupt:
            continue
        assert found == plain, at
