"""The fitted codec: a KLT over bands, then the rasters of a group as coefficients expected from one another."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from geostore.certificate import Certificate, measure
from geostore.classical.body import Body, unpack
from geostore.classical.codec import runs
from geostore.classical.fill import fill
from geostore.classical.payload import DIGEST, Part
from geostore.classical.quality import share_used
from geostore.codec import Encoded, Member, Progress, Series, quiet
from geostore.coding.bodies import longer, shorter
from geostore.dct.blocks import SIDE, Blocks, Shorts
from geostore.dct.components import FRACTION, components_of, stored_of
from geostore.dct.shift import shifts
from geostore.dct.steps import STEP_MAX
from geostore.dct.stream import Doubles, Longs, decode_group, encode_group
from geostore.errors import Corrupt
from geostore.raster import Mask, Pixels

# 1: blocks of SIDE; 2: of any; 3: expected from those beside them too; 4: the codec itself as `coding.bodies` packs it
MAGIC, VERSION = b"GSDCT", 4
_LAYERS = ("klt", "dct")
_EMPTY = Encoded(payload=b"", layers=("empty",))


@dataclass(frozen=True, kw_only=True)
class KltDctCodec(Body):
    """One partition's fitted codec.

    A group is one stream, which its rasters share; each one's payload is a check of what it decodes to and its place.
    A raster alone keeps its stream in its payload.

    Attributes:
        policy: rasters that would miss it are quantised finer.
        step: number of the quantiser's step, see `steps.step_of`.
        dates: rasters of a group at most.
        side: of a block, see `Blocks.least`.
        version: of its format, at most VERSION; below that for what an older geostore fitted.
    """

    family: ClassVar[str] = "klt-dct"
    step: int
    dates: int
    side: int = SIDE
    version: int = VERSION

    @cached_property
    def blocks(self) -> Blocks:
        """How components are cut."""
        return Blocks(self.height, self.width, self.side, beside=self.version > 2)

    # --- encode

    def encode(self, pixels: Pixels, valid: Mask) -> Encoded:
        """Encode one raster alone, as fine as the policy asks."""
        self.check(valid, pixels)
        times = np.zeros(1, np.int64)
        alone = Series(pixels=pixels[None], valid=valid[None], times_us=times, bands=self._bands, indices=self.indices)
        return self.encode_series(alone)[0]

    def encode_series(self, series: Series, progress: Progress = quiet) -> list[Encoded]:
        """Encode all rasters in groups, each raster as fine as the policy asks."""
        self.check(series.valid[0], series.pixels[0])
        dates = series.usable
        if not len(dates):
            return [_EMPTY] * len(series)
        planes = self.planes(series, dates)
        begin = np.full(len(dates), STEP_MAX)
        return self.encode_planes(series, dates, planes, shifts(planes / FRACTION), begin, progress)

    def encode_planes(
        self, series: Series, dates: Longs, planes: Doubles, at: Longs, begin: Longs, progress: Progress = quiet
    ) -> list[Encoded]:
        """The same for (N, K, H, W) planes of the usable (N,) `dates` of a series, which lie off by (N, 2) `at`.

        (N,) `begin` are numbers of the steps that tries of each date begin at, STEP_MAX where not known; they are set
        to what it was.
        """
        coded: dict[int, Encoded] = {}
        for places in runs(np.arange(len(dates)), self.dates):
            run = slice(places[0], places[-1] + 1)  # a view: `begin` is set
            coded |= self._group(series, dates[run].tolist(), planes[run], at[run], begin[run])
            progress("encode", len(coded) / len(series))
        return [coded.get(i, _EMPTY) for i in range(len(series))]

    def coded_alike(self, planes: Doubles, known: Mask, at: Longs) -> tuple[int, list[Shorts]]:
        """Bytes of planes, and what they decode to, when all are coded at the codec's step, whatever the policy."""
        cut = runs(np.arange(len(planes)), self.dates)
        groups = [encode_group(planes[run], self.blocks, at[run], self.step, known=known[run]) for run in cut]
        return sum(len(stream) for stream, _ in groups), [c for _, decoded in groups for c in decoded]

    def planes(self, series: Series, dates: Longs) -> Doubles:
        """(N, K, H, W) components of some dates in 1/16 of a level, masked pixels filled."""
        values = fill(self.klt.bend.forward(series.pixels[dates]), series.valid[dates])
        return components_of(self.klt, values)

    def _group(self, series: Series, dates: list[int], planes: Doubles, at: Longs, begin: Longs) -> dict[int, Encoded]:
        def keep(place: int, components: Shorts) -> float:
            return self.share_used(series, dates[place], components)

        asked = keep if self.policy.asks else None
        stream, decoded = encode_group(planes, self.blocks, at, self.step, asked, series.valid[dates], begin)
        alone, found = len(dates) == 1, {}
        for place, (date, components) in enumerate(zip(dates, decoded, strict=True)):
            check = _digest(components)
            part = Part(check=check, stream=stream) if alone else Part(check=check, place=place)
            shared = b"" if alone else stream
            found[date] = Encoded(payload=part.to_bytes(layered=False), shared=shared, layers=_LAYERS)
        return found

    def share_used(self, series: Series, date: int, components: Shorts) -> float:
        """The largest share of a bound of the policy that the decoded raster uses up; above 1 it misses it."""
        seen = self.errors(series, date, components)
        used = share_used(seen, self.policy)
        return min(used, 1.0) if seen.keeps(self.policy) else max(used, 1.01)

    def errors(self, series: Series, date: int, components: Shorts) -> Certificate:
        """Those of a decoded raster."""
        return measure(series.pixels[date], self._values(components), series.valid[date], self._bands, self.indices)

    # --- decode

    def decode(self, payload: bytes, valid: Mask, shared: bytes = b"") -> Pixels:
        """(B, H, W) stored values, bit for bit the same on every machine."""
        return self.decode_group(shared, [(payload, valid)])[0]

    def decode_group(self, shared: bytes, members: Sequence[Member]) -> list[Pixels]:
        """What `decode` gives for each, the stream decoded once, no further than the last raster asked for."""
        for _, valid in members:
            self.check(valid)
        parts = [Part.read(p, layered=False, grouped=bool(shared)) if p else None for p, _ in members]
        places = {p.place for p in parts if p is not None and p.place is not None}
        together = dict(decode_group(shared, self.blocks, self.klt.components, sorted(places))) if places else {}
        return [self._pixels(part, together) for part in parts]

    def _pixels(self, part: Part | None, together: Mapping[int, Shorts]) -> Pixels:
        if part is None:
            return np.zeros((len(self._bands), self.height, self.width), self._bands.dtype)
        if part.place is None:
            ((_, components),) = decode_group(part.stream, self.blocks, self.klt.components, [0])
        else:
            components = together[part.place]
        if _digest(components) != part.check:
            raise Corrupt(
                f"a raster decodes to other components than were stored (check {_digest(components).hex()}, wanted "
                f"{part.check.hex()}): its bytes are damaged; restore the raster"
            )
        return self._values(components)

    def _values(self, components: Shorts) -> Pixels:
        return stored_of(self.klt, components)

    # --- as bytes

    def to_bytes(self) -> bytes:
        """The codec itself: bands, policy, scale and transform."""
        start = MAGIC + bytes([self.version])
        told = (self.step, self.dates, self.side)[: _told(self.version)]
        return start + shorter(self.pack(b"", told)) if self.version > 3 else self.pack(start, told)

    @classmethod
    def from_bytes(cls, data: bytes) -> KltDctCodec:
        """The inverse of `to_bytes`. Raises Corrupt or UnsupportedFormat."""
        at = len(MAGIC) + 1
        version = int.from_bytes(data[at - 1 : at], "little")
        if version == VERSION:
            data = data[:at] + longer(data[at:])
        known = unpack(data, cls.family, MAGIC, VERSION, ("step", "dates", "side")[: _told(version)])
        return cls(**known, version=version)


def _told(version: int) -> int:
    """How many of step, dates and side a codec of that version tells."""
    return 2 if version == 1 else 3


def _digest(components: Shorts) -> bytes:
    return hashlib.sha256(components.astype("<i2", copy=False).tobytes()).digest()[:DIGEST]
