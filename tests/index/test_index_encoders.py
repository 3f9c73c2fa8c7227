"""Encoders pass the suite we ask of others; brought folders are read as declared, and damage is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from geostore import plugins
from geostore.errors import Corrupt, InvalidInput, NotComparable, NotFound, UnsupportedFormat
from geostore.index.encoders import GROUP, Preprocessing, sides
from geostore.index.encoders.described import Encoded, named
from geostore.index.encoders.folder import FolderEncoder, bundle
from geostore.index.encoders.lexical import Lexical
from geostore.index.encoders.prepared import prepared, resized
from geostore.index.encoders.static import Static, installed
from geostore.raster import Band, Bands
from geostore.testing.encoders import EncoderTests

tokenizers = pytest.importorskip("tokenizers", reason="the extra `text` is not installed")


class TestLexical(EncoderTests):
    """Pieces of words."""

    encoder = Lexical()


@pytest.mark.skipif(not installed(), reason="the extra `text` is not installed")
class TestStatic(EncoderTests):
    """Meaning, from the weights in a package."""

    encoder = Static()
    alike = "water bodies"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_encoder import write_encoder

    return write_encoder(tmp_path_factory.mktemp("tiny"))


class TestFolder(EncoderTests):
    """All three sides, brought by a user."""

    @pytest.fixture(autouse=True)
    def _read(self, folder: Path) -> None:
        self.encoder = FolderEncoder(bundle(folder))


def test_they_are_found_by_name() -> None:
    """Entry points name the text encoders, and the descriptor that an encoder becomes."""
    assert plugins.names(GROUP) == ["lexical", "wordllama"]
    assert isinstance(plugins.find(GROUP, "lexical"), Lexical)
    assert isinstance(plugins.find("geostore.descriptors", "encoder"), Encoded)


def test_a_bundle_is_the_files_and_its_digest_is_theirs(folder: Path, tmp_path: Path) -> None:
    """Equal files, equal bytes; another seed is another encoder, so its space is another."""
    from tiny_encoder import write_encoder

    assert bundle(folder) == bundle(folder)
    other = FolderEncoder(bundle(write_encoder(tmp_path / "other", ("image",), seed=1)))
    mine = FolderEncoder(bundle(folder))
    assert (mine.sides, other.sides) == (("image", "text", "location"), ("image",))
    assert mine.digest() != other.digest()
    bands = Bands(tuple(Band(n, n, 10.0) for n in ("red", "green", "blue")))
    digests = {
        Encoded(bundle(f)).digest(b) for f in (folder, tmp_path / "other") for b in (bands, bands.select(["red"]))
    }
    assert len(digests) == 4
    with pytest.raises(NotComparable, match="no text side"):
        other.text(["lake"])
    with pytest.raises(NotComparable, match="no image side"):
        Encoded().from_bytes(bundle(write_encoder(tmp_path / "words", ("text",))))


def test_what_is_declared_wrongly_is_refused(folder: Path, tmp_path: Path) -> None:
    """No declaration, a missing file, a path, a newer format, no side, garbage: each by its kind, with what to do."""
    good = json.loads((folder / "encoder.json").read_text())
    with pytest.raises(NotFound, match="declares an encoder"):
        bundle(tmp_path)
    for change, kind, match in (
        ({"text": {**good["text"], "tokens": "gone.json"}}, NotFound, "gone.json"),
        ({"image": {**good["image"], "file": "../image.pt2"}}, InvalidInput, "without slashes"),
        ({"format": 2}, UnsupportedFormat, "format 2"),
        ({"image": None, "text": None, "location": None}, InvalidInput, "a side or more"),
        ({"width": "x"}, InvalidInput, "lacks a field"),
    ):
        found = {name: value for name, value in {**good, **change}.items() if value is not None}
        (tmp_path / "encoder.json").write_text(json.dumps(found))
        with pytest.raises(kind, match=match):
            bundle(tmp_path)
    shutil.copytree(folder, tmp_path / "torn")
    (tmp_path / "torn" / "image.pt2").write_bytes(b"torn" * 100)
    torn = FolderEncoder(bundle(tmp_path / "torn"))
    bands = Bands(tuple(Band(name, name, 10.0) for name in good["image"]["bands"]))
    with pytest.raises(Corrupt, match=r"image.pt2 of .* 400 bytes, is no archive of torch.export"):
        torn.image(np.ones((len(bands), 32, 32), np.uint16), np.ones((32, 32), bool), bands)
    with pytest.raises(Corrupt, match="no bundle"):
        FolderEncoder(b"no archive")
    with pytest.raises(Corrupt, match="no bundle"):
        FolderEncoder(bundle(folder)[:-200])
    with pytest.raises(InvalidInput, match="no weights"):
        Encoded().width(Bands((Band("red", "red", 10.0),)))
    with pytest.raises(InvalidInput, match="brought, not trained"):
        Encoded().train([])
    with pytest.raises(NotComparable, match="no image side"):
        named("lexical")


def test_an_installed_encoder_is_kept_by_name_and_digest(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """A package's encoder describes rasters while its digest is that they were described with; else not-comparable."""
    brought = FolderEncoder(bundle(folder))
    monkeypatch.setattr(plugins, "find", lambda group, name: brought)
    data = named("brought")
    assert len(data) < 200
    bands = Bands(tuple(Band(n, n, 10.0) for n in ("red", "green", "blue")))
    assert Encoded(data).digest(bands) == Encoded(brought.to_bytes()).digest(bands)
    monkeypatch.setattr(FolderEncoder, "digest", lambda self: "0" * 32)
    with pytest.raises(NotComparable, match="described with"):
        Encoded(data).width(bands)
    with pytest.raises(Corrupt, match="name of an encoder is damaged"):
        Encoded(data[:20]).width(bands)


def test_pixels_are_prepared_as_declared() -> None:
    """Bands in the declared order, physical values to 0..1, held at its ends, normalised; masked ones are the mean."""
    wanted = Preprocessing(("nir", "red"), (2, 2), (0.0, 0.1), (0.5, 0.3), (0.5, 0.0), (0.5, 2.0))
    bands = Bands((Band("red", "red", 10.0, scale=1e-3), Band("nir", "nir", 10.0, scale=1e-3)))
    pixels = np.array([[[100, 200], [300, 900]], [[250, 500], [0, 600]]], np.uint16)
    valid = np.ones((2, 2), bool)
    made = prepared(pixels, valid, bands, wanted)
    np.testing.assert_allclose(made[0], [[0, 1], [-1, 1]], atol=1e-6)
    np.testing.assert_allclose(made[1], np.array([[0, 0.5], [1, 1]]) / 2, atol=1e-6)
    valid[1, 1] = False
    np.testing.assert_allclose(prepared(pixels, valid, bands, wanted)[0, 1, 1], (0.5 - 0.5) / 0.5, atol=1e-6)
    assert sides(Lexical()) == ("text",)
    for broken in ({"size": (0, 2)}, {"std": (0.0, 1.0)}, {"high": (0.0, 1.0)}, {"mean": (0.0,)}):
        with pytest.raises(InvalidInput, match="give each band"):
            Preprocessing(**{**vars(wanted), **broken})


@pytest.mark.parametrize(("size", "wanted"), [((7, 5), (14, 15)), ((64, 48), (16, 24)), ((9, 9), (9, 9))])
def test_resizing_is_that_of_an_image_library(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    """As Pillow's bilinear filter, which averages when it makes smaller; a flat image stays flat."""
    from PIL import Image

    image = np.random.default_rng(0).random((1, *size)).astype(np.float32)
    theirs = np.asarray(Image.fromarray(image[0]).resize(wanted[::-1], Image.Resampling.BILINEAR))
    np.testing.assert_allclose(resized(image, wanted)[0], theirs, atol=1e-5)
    np.testing.assert_allclose(resized(np.full_like(image, 0.3), wanted), 0.3, atol=1e-6)
