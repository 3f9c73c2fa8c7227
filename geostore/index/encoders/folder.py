"""Encoders that users bring: a folder with a declared `encoder.json`, and a program with weights for each side.

    encoder.json     name, width, and for each side its file and what it is given
    image.pt2        (1, bands, height, width) float32 -> (1, width)
    text.pt2         (1, length) int64 tokens -> (1, width), with tokenizer.json
    location.pt2     (1, 2) float32 longitude and latitude, degrees -> (1, width)

The programs are archives of `torch.export`, so no code of a model has to be there, and any model can be one. torch is
imported only when a side is used. A program runs: load only what you trust.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from geostore.errors import Corrupt, InvalidInput, NotComparable, NotFound, NotInstalled, UnsupportedFormat
from geostore.index.descriptors import PIXELS_MIN, check_pixels
from geostore.index.encoders import Doubles, Floats, Preprocessing, Side, check_places, check_texts, unit
from geostore.index.encoders.prepared import prepared
from geostore.raster import Bands, Mask, Pixels

DECLARED = "encoder.json"
FORMAT = 1
BYTES_MAX = 2**31 - 1
_SIDES: tuple[Side, ...] = ("image", "text", "location")


def bundle(folder: Path) -> bytes:
    """The files that the folder's `encoder.json` names, in one archive; equal files give equal bytes.

    Raises:
        NotFound: no `encoder.json`, or a file that it names. InvalidInput: more than 2 GiB.
    """
    declared = folder / DECLARED
    if not declared.is_file():
        raise NotFound(f"no {DECLARED} in {folder}; it declares an encoder's sides, see docs/guides/encoders.md")
    names = [DECLARED, *_files(_parsed(declared.read_bytes()))]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise NotFound(f"{folder} lacks {missing}, which its {DECLARED} names")
    if sum((folder / name).stat().st_size for name in names) > BYTES_MAX:
        raise InvalidInput(f"{folder} holds more than {BYTES_MAX} bytes; use weights of half precision, or fewer")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), (folder / name).read_bytes())
    return out.getvalue()


class FolderEncoder:
    """The encoder in a bundle; sides it lacks raise NotComparable.

    Raises:
        Corrupt: no bundle, or cut short. InvalidInput: the declaration is none. UnsupportedFormat: a newer one.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        try:
            self._archive = zipfile.ZipFile(io.BytesIO(data))
            self._declared = _parsed(self._archive.read(DECLARED))
            missing = set(_files(self._declared)) - set(self._archive.namelist())
        except (zipfile.BadZipFile, KeyError) as error:
            raise Corrupt(f"no bundle of an encoder ({error}); put it into the store again") from error
        if missing:
            raise Corrupt(f"the bundle lacks {sorted(missing)}; put it into the store again")
        self._programs: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """As declared."""
        return str(self._declared["name"])

    @property
    def width(self) -> int:
        """As declared."""
        return int(self._declared["width"])

    @property
    def sides(self) -> tuple[Side, ...]:
        """Those that are declared."""
        return tuple(side for side in _SIDES if side in self._declared)

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """As declared. Raises NotComparable without a side of images."""
        found = self._side("image")
        try:
            parts = {name: tuple(found[name]) for name in ("bands", "size", "low", "high", "mean", "std")}
        except (KeyError, TypeError) as error:
            raise InvalidInput(f"the image side of {self.name} lacks {error}; see docs/guides/encoders.md") from error
        return Preprocessing(**parts)

    def digest(self) -> str:
        """Over all files."""
        return hashlib.sha256(self._data).hexdigest()[:32]

    def to_bytes(self) -> bytes:
        """The bundle."""
        return self._data

    def image(self, pixels: Pixels, valid: Mask, bands: Bands) -> Floats:
        """(B, H, W) stored values -> (width,) of length 1; zeros where fewer than PIXELS_MIN may be used."""
        check_pixels(pixels, valid, bands)
        wanted = self.preprocessing
        wanted.check(bands)
        if int(valid.sum()) < PIXELS_MIN:
            return np.zeros(self.width, np.float32)
        return self._run("image", prepared(pixels, valid, bands, wanted)[None])

    def text(self, texts: Sequence[str]) -> Floats:
        """(N, width), a row a text."""
        kept = check_texts(texts)
        found = self._side("text")
        length, pad = int(found["length"]), int(found.get("pad", 0))
        rows = [self._tokens.encode(text.lower() if found.get("lower") else text).ids[:length] for text in kept]
        padded = [np.array([[*ids, *[pad] * (length - len(ids))]], np.int64) for ids in rows]
        return np.array([self._run("text", ids) for ids in padded], np.float32).reshape(-1, self.width)

    def location(self, lon: Doubles, lat: Doubles) -> Floats:
        """(N,) degrees -> (N, width)."""
        lon, lat = np.asarray(lon, np.float64), np.asarray(lat, np.float64)
        check_places(lon, lat)
        places = np.stack([lon, lat], axis=1).astype(np.float32)
        return np.array([self._run("location", place[None]) for place in places]).reshape(-1, self.width)

    def _side(self, side: Side) -> Mapping[str, Any]:
        if side not in self._declared:
            raise NotComparable(f"encoder {self.name} has no {side} side, only {', '.join(self.sides)}")
        found: Mapping[str, Any] = self._declared[side]
        return found

    @cached_property
    def _tokens(self) -> Any:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise NotInstalled("texts need the package tokenizers: pip install 'geostore[text]'") from error
        return Tokenizer.from_str(self._archive.read(self._side("text")["tokens"]).decode())

    def _run(self, side: Side, given: Any) -> Floats:
        """What a side's program makes of one input, of length 1."""
        import torch

        with torch.inference_mode():
            answer = self._program(side)(torch.from_numpy(np.ascontiguousarray(given)))
        made: Floats = np.asarray(answer.numpy(), np.float32)
        if made.shape != (1, self.width) or not np.isfinite(made).all():
            raise InvalidInput(f"the {side} side of {self.name} gives {made.shape}, wanted (1, {self.width}), finite")
        vector: Floats = unit(made)[0]
        return vector

    def _program(self, side: Side) -> Any:
        if side not in self._programs:
            import torch

            file = self._side(side)["file"]
            data = self._archive.read(file)
            if not zipfile.is_zipfile(io.BytesIO(data)):  # torch would log a traceback
                raise Corrupt(
                    f"{file} of {self.name}, {len(data)} bytes, is no archive of torch.export; export it again"
                )
            try:
                self._programs[side] = torch.export.load(io.BytesIO(data)).module()
            except (RuntimeError, ValueError, KeyError, OSError) as error:
                raise Corrupt(
                    f"the {side} side of {self.name} is no archive of torch.export ({error}); export it again"
                ) from error
        return self._programs[side]


def _parsed(raw: bytes) -> dict[str, Any]:
    """A declaration that says what is needed."""
    try:
        found = dict(json.loads(raw))
        version, name, width = found.get("format", FORMAT), str(found["name"]), int(found["width"])
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(
            f"{DECLARED} does not read, or lacks a field ({error}); see docs/guides/encoders.md"
        ) from error
    if version != FORMAT:
        raise UnsupportedFormat(f"{DECLARED} has format {version}; this geostore reads {FORMAT}")
    if not name or not 8 <= width <= 8192 or not any(side in found for side in _SIDES):
        raise InvalidInput(f"{DECLARED}: name {name!r}, width {width}; give a name, 8 to 8192, and a side or more")
    return found


def _files(declared: Mapping[str, Any]) -> list[str]:
    """Names of the files that a declaration needs; each lies beside it."""
    found = []
    for side in _SIDES:
        if side in declared:
            found += [declared[side].get(key) for key in ("file", *(["tokens"] if side == "text" else []))]
    for name in found:
        if not isinstance(name, str) or Path(name).name != name:
            raise InvalidInput(f"{DECLARED} names a file {name!r}; files lie beside it, under a name without slashes")
    return found
