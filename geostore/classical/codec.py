"""The fitted classical codec: a KLT over bands, and AV1 over the rasters of a group."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from geostore.certificate import Certificate, measure
from geostore.classical.av1 import CRF_MIN, Planes, decode_frames, encode_frames
from geostore.classical.bend import Longs
from geostore.classical.body import Body, unpack
from geostore.classical.fill import fill
from geostore.classical.mosaic import Mosaic
from geostore.classical.payload import DIGEST, Part
from geostore.classical.quality import CRF, share_used
from geostore.classical.stretch import MOST, ONE, needed, stretched, unstretched
from geostore.codec import Coarser, Encoded, Member, Progress, Series, quiet
from geostore.coding.residual import tightest, unpack_sparse_steps
from geostore.errors import Corrupt
from geostore.raster import Mask, Pixels

MAGIC, VERSION = b"GSKLT", 3  # 1: pictures alone; 2: residuals on them; 3: stretched pictures
TIER = 6.0  # crf by which rasters that missed the policy are coded finer, together, once more
_ROUNDS, _SETTLED = 6, 2  # tries at stretches, and of them those in which they may also shrink
_LAYERS, _RESIDUAL = ("klt", "av1"), ("klt", "av1", "residual")
_EMPTY = Encoded(payload=b"", layers=("empty",))


@dataclass(frozen=True, kw_only=True)
class Take:
    """One try at a group.

    Attributes:
        stream: all its pictures.
        first: the first of them, (H, W), as it decodes.
        stretches: (N,) in 16ths.
        seen: components that each raster decodes to.
        used: (N,) shares of their bounds that they use up.
    """

    stream: bytes
    first: Planes
    stretches: Longs
    seen: list[Planes]
    used: npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class KltAv1Codec(Body):
    """One partition's fitted codec.

    A group is one AV1 stream, a picture a raster, the first a key picture; its rasters share it, and each one's
    payload is a check of what it decodes to, its place and its stretch. A raster alone keeps its stream in its payload.
    Under a
    bound on every value a raster's payload also holds what its picture misses, in steps that keep the bound.

    Attributes:
        policy: rasters that miss it are coded finer.
        crf: AV1's constant quality.
        preset: of the encoder.
        dates: rasters of a group at most.
        layered: payloads may hold residuals; of a policy with a bound on every value.
        stretches: pictures of a group may be stretched, see `geostore.classical.stretch`.
    """

    family: ClassVar[str] = "klt-av1"
    crf: float
    preset: int
    dates: int
    layered: bool = False
    stretches: bool = False

    @cached_property
    def mosaic(self) -> Mosaic:
        """Where the components lie in a picture."""
        return Mosaic(self.klt.components, self.height, self.width)

    # --- encode

    def encode(self, pixels: Pixels, valid: Mask) -> Encoded:
        """Encode one raster alone: at the coarsest quality that keeps the policy, else at the finest; or corrected."""
        self.check(valid, pixels)
        series = Series(
            pixels=pixels[None],
            valid=valid[None],
            times_us=np.zeros(1, np.int64),
            bands=self._bands,
            indices=self.indices,
        )
        return self._single(series, 0, self.planes(series)) if valid.any() else _EMPTY

    def encode_series(self, series: Series, progress: Progress = quiet) -> list[Encoded]:
        """Encode all rasters in groups; those that miss the policy are taken out and coded finer, group by group.

        With residuals none has to leave its group, with stretched pictures few.
        """
        self.check(series.valid[0], series.pixels[0])
        planes = self.planes(series)
        coded: dict[int, Encoded] = {}
        todo, crf = series.usable, self.crf
        while len(todo) > 1 and self.dates > 1 and crf > CRF_MIN:
            for run in runs(todo, self.dates):
                coded |= self._group(series, planes, run, crf)
                progress("encode", len(coded) / len(series))
            todo, crf = np.array([i for i in todo if i not in coded], np.int64), max(crf - TIER, CRF_MIN)
        for i in todo.tolist():
            coded[i] = self._single(series, i, planes)
            progress("encode", len(coded) / len(series))
        return [coded.get(i, _EMPTY) for i in range(len(series))]

    def planes(self, series: Series) -> Planes:
        """(T, H, W) pictures of a series, masked pixels filled; of wholly masked rasters, whatever."""
        dates = series.usable
        out = np.zeros((len(series), *self.mosaic.shape), np.uint16)
        if not len(dates):
            return out
        values = fill(self.klt.bend.forward(series.pixels[dates]), series.valid[dates])
        for date, raster in zip(dates, values, strict=True):
            out[date] = self.mosaic.join(self.klt.forward(raster))
        return out

    def _group(self, series: Series, planes: Planes, run: list[int], crf: float) -> dict[int, Encoded]:
        """The rasters of `run` that keep the policy, in one stream: of them alone, or each stretched as it needs."""
        members, take = list(run), self._take(series, planes, run, crf)
        while not self.layered and (take.used > 1).any():
            if self.stretches:
                members, take = self._evened(series, planes, members, crf, take)
                kept = [(i, place) for place, i in enumerate(members) if take.used[place] <= 1]
                return self._members(series, take, kept)
            members = [i for i, share in zip(members, take.used, strict=True) if share <= 1]
            if not members:
                return {}
            take = self._take(series, planes, members, crf)
        return self._members(series, take, [(i, place) for place, i in enumerate(members)])

    def _evened(
        self, series: Series, planes: Planes, members: list[int], crf: float, take: Take
    ) -> tuple[list[int], Take]:
        """Those of `members` that no stretch is too much for, in one stream, most of them within the policy.

        At first all come nearer to their bounds, from either side, then only what misses them.
        """
        for number in range(_ROUNDS):
            missed = take.used > 1
            if not missed.any():
                break
            wanted = needed(take.stretches, take.used)
            wanted = wanted if number < _SETTLED else np.where(missed, wanted, take.stretches)
            near = wanted <= MOST
            if not near.any():
                break
            members = [i for i, is_near in zip(members, near, strict=True) if is_near]
            take = self._take(series, planes, members, crf, take.first, wanted[near])
        return members, take

    def _take(
        self,
        series: Series,
        planes: Planes,
        members: list[int],
        crf: float,
        first: Planes | None = None,
        stretches: Longs | None = None,
    ) -> Take:
        """A stream of pictures, stretched from `first` if told how far, and what it decodes to."""
        pictures = planes[members]
        if first is None or stretches is None:
            stretches = np.full(len(members), ONE)
        else:
            stretches[0] = ONE
            pictures = stretched(pictures, first, stretches)
        stream = encode_frames(pictures, crf=crf, preset=self.preset)
        decoded = list(decode_frames(stream, len(members), self.mosaic.shape))
        back = [unstretched(p, decoded[0], int(s)) for p, s in zip(decoded, stretches, strict=True)]
        seen = [self.mosaic.split(p) for p in back]
        used = [self.share_used(series, i, components) for i, components in zip(members, seen, strict=True)]
        return Take(stream=stream, first=decoded[0], stretches=stretches, seen=seen, used=np.array(used))

    def _members(self, series: Series, take: Take, kept: Sequence[tuple[int, int]]) -> dict[int, Encoded]:
        """Some rasters, (date, place), of a stream; one that is alone in it keeps it to itself."""
        alone, found = len(take.seen) == 1, {}
        for date, place in kept:
            components, stretch = take.seen[place], int(take.stretches[place])
            layer, check = self.layer(series, date, components), _digest(components)
            where = Part(check=check, stream=take.stream) if alone else Part(check=check, place=place, stretch=stretch)
            found[date] = Encoded(
                payload=replace(where, layer=layer).to_bytes(layered=self.layered),
                shared=b"" if alone else take.stream,
                layers=_RESIDUAL if layer else _LAYERS,
            )
        return found

    def layer(self, series: Series, date: int, components: Planes) -> bytes:
        """The residual that the raster needs over its picture; empty where it needs none, or none would do."""
        if not self.layered or self.share_used(series, date, components) <= 1:
            return b""
        pixels, valid, base = series.pixels[date], series.valid[date], self.klt.inverse(components)
        found = tightest(pixels, valid, base, self._bands, self.policy, self.indices)
        return b"" if found is None else found.as_sparse(valid)

    def _single(self, series: Series, date: int, planes: Planes) -> Encoded:
        """One raster alone, as coarse as the policy allows."""
        if self.layered:
            return self._group(series, planes, [date], self.crf)[date]
        tried: dict[float, Take] = {}

        def used(crf: float) -> float:
            tried[crf] = self._take(series, planes, [date], crf)
            return float(tried[crf].used[0])

        found = CRF.coarsest(used, self.crf)
        if found is None and CRF_MIN not in tried:
            used(CRF_MIN)
        return self._members(series, tried[CRF_MIN if found is None else found], [(date, 0)])[date]

    def code(self, planes: Planes, crf: float) -> tuple[bytes, list[Planes]]:
        """The stream of (T, H, W) pictures, and the components each of them decodes to."""
        stream = encode_frames(planes, crf=crf, preset=self.preset)
        return stream, [self.mosaic.split(p) for p in decode_frames(stream, len(planes), self.mosaic.shape)]

    def share_used(self, series: Series, date: int, components: Planes) -> float:
        """The largest share of a bound of the policy that the decoded raster uses up; above 1 it misses it."""
        seen = self.errors(series, date, components)
        return min(share_used(seen, self.policy), 1.0) if seen.keeps(self.policy) else share_used(seen, self.policy)

    def errors(self, series: Series, date: int, components: Planes) -> Certificate:
        """Those of a decoded raster, without a residual."""
        decoded = self.klt.inverse(components)
        return measure(series.pixels[date], decoded, series.valid[date], self._bands, self.indices)

    # --- decode

    def decode(self, payload: bytes, valid: Mask, shared: bytes = b"") -> Pixels:
        """(B, H, W) stored values, bit for bit the same on every machine and by any AV1 decoder."""
        return self.decode_group(shared, [(payload, valid)])[0]

    def decode_group(self, shared: bytes, members: Sequence[Member]) -> list[Pixels]:
        """What `decode` gives for each, the stream decoded once, up to the last picture asked for."""
        for _, valid in members:
            self.check(valid)
        return self._decode([self._part(payload, shared) for payload, _ in members], shared, [v for _, v in members])

    def decode_coarser(self, tier: Coarser, shared: bytes, members: Sequence[Member]) -> list[Pixels | None]:
        """The pictures alone of rasters that hold a residual too ("embedding"); there is no preview."""
        parts = {i: self._part(payload, shared) for i, (payload, _) in enumerate(members)}
        bare = {i: replace(part, layer=b"") for i, part in parts.items() if part and part.layer and tier == "embedding"}
        found = dict(zip(bare, self._decode(list(bare.values()), shared, [members[i][1] for i in bare]), strict=True))
        return [found.get(i) for i in range(len(members))]

    def _decode(self, parts: Sequence[Part | None], shared: bytes, valid: Sequence[Mask]) -> list[Pixels]:
        pictures = self._pictures(shared, {p.place: p.stretch for p in parts if p is not None and p.place is not None})
        return [self._pixels(part, mask, pictures) for part, mask in zip(parts, valid, strict=True)]

    def _part(self, payload: bytes, shared: bytes) -> Part | None:
        return Part.read(payload, layered=self.layered, grouped=bool(shared)) if payload else None

    def _pictures(self, stream: bytes, stretches: Mapping[int, int]) -> dict[int, Planes]:
        """Components at places of a group's stream with a stretch each, decoded up to the last of them."""
        found: dict[int, Planes] = {}
        first: Planes | None = None
        frames = decode_frames(stream, max(stretches) + 1, self.mosaic.shape) if stretches else ()
        for place, picture in enumerate(frames):
            first = picture if first is None else first
            if place in stretches:
                found[place] = self.mosaic.split(unstretched(picture, first, stretches[place]))
        return found

    def _pixels(self, part: Part | None, valid: Mask, pictures: Mapping[int, Planes]) -> Pixels:
        if part is None:
            return np.zeros((len(self._bands), self.height, self.width), self._bands.dtype)
        if part.place is None:
            (picture,) = decode_frames(part.stream, 1, self.mosaic.shape)
            components = self.mosaic.split(picture)
        else:
            components = pictures[part.place]
        if _digest(components) != part.check:
            raise Corrupt(
                f"an AV1 picture decodes to other components than were stored (check {_digest(components).hex()}, "
                f"wanted {part.check.hex()}): restore the raster, or decode with the dav1d of PyAV"
            )
        base = self.klt.inverse(components)
        return unpack_sparse_steps(part.layer, base, valid, self._bands) if part.layer else base

    # --- as bytes

    def to_bytes(self) -> bytes:
        """The codec itself: bands, policy, scale and transform."""
        version = 2 if self.layered else 3 if self.stretches else 1
        return self.pack(MAGIC + bytes([version]), (self.crf, self.preset, self.dates))

    @classmethod
    def from_bytes(cls, data: bytes) -> KltAv1Codec:
        """The inverse of `to_bytes`. Raises Corrupt or UnsupportedFormat."""
        found = unpack(data, cls.family, MAGIC, VERSION, ("crf", "preset", "dates"))
        return cls(**found, layered=data[len(MAGIC)] == 2, stretches=data[len(MAGIC)] == 3)


def runs(dates: npt.NDArray[np.int64], most: int) -> Iterator[list[int]]:
    """`dates` in runs of nearly equal length, at most `most`."""
    for run in np.array_split(dates, -(-len(dates) // most)):
        yield run.tolist()


def _digest(components: Planes) -> bytes:
    return hashlib.sha256(components.astype("<u2").tobytes()).digest()[:DIGEST]
