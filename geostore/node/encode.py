"""encode: one partition's rasters through a codec, each with the certificate of what really decodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from geostore.certificate import Certificate, measure
from geostore.codec import (
    COARSER,
    Codec,
    Effort,
    Encoded,
    Families,
    Foreseeing,
    Layered,
    RawCodec,
    Series,
    Traced,
    decode_many,
    decode_many_coarser,
)
from geostore.collection import Policy
from geostore.errors import InvalidInput, NotFound
from geostore.fit_trace import FitTrace
from geostore.lossless import SMALL
from geostore.raster import Bands, Grid, Mask, Pixels, Raster
from geostore.storage import pack_mask

EMPTY = "empty"
LOSS_TERMS = "loss_terms"  # of a codec's facts: how its fit went, as `FitTrace.to_text` says it
_CLEAR = 1.25  # times what another is foreseen to take: a family that is foreseen to take so much is not fitted
_OTHERS = f"{LOSS_TERMS}_"  # and before a family: how a fit of that family went which led to nothing that was kept


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One raster as a fit decided to keep it.

    Attributes:
        valid: its packed mask.
        payload: bytes for its row; empty if nothing in it may be used.
        shared: bytes it shares with other rasters, see `geostore.codec.Encoded`.
        vector: int8 embedding bytes.
        layers: what the payload holds, joined by "+".
        lossless: True if the payload is the lossless codec's.
        certificate: measured by decoding the payload.
        bytes_lzw: the raster as LZW GeoTIFF, see `geostore.scene.writer.lzw_size`.
        bytes_lossless: the same raster through the lossless codec, masked pixels zero.
        coarser: measured the same way, by the tiers of `geostore.codec.COARSER` that its payload has.
    """

    valid: bytes
    payload: bytes
    vector: bytes
    layers: str
    lossless: bool
    certificate: Certificate
    bytes_lzw: int
    bytes_lossless: int
    shared: bytes = b""
    coarser: Mapping[str, Certificate] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What a fit of one partition found; `family` is "raw" where the lossless codec was smaller.

    Attributes:
        family, codec: the codec, and who can read it.
        rasters: in the series' order.
        facts: what was compared, for the store's tables.
        lent: bytes of networks that other partitions use too, as far as they count against this one.
    """

    family: str
    codec: bytes
    rasters: tuple[Stored, ...]
    facts: dict[str, str | float | int]
    lent: int = 0

    @property
    def bytes_total(self) -> int:
        """Codec, its part of networks it borrows, payloads, what rasters share, and masks."""
        masks = sum(len(s.valid) for s in self.rasters)
        return len(self.codec) + self.lent + payload_bytes(self.rasters) + masks


def encode_series(codec: Codec, series: Series, policy: Policy, progress: Callable[..., None]) -> list[Stored]:
    """Encode `series`, decode it again, measure; what misses the policy or takes more bytes is kept lossless."""
    return _with_coarser(codec, series, _encoded(codec, series, policy, progress, lossless_series(series, progress)))


def _encoded(
    codec: Codec, series: Series, policy: Policy, progress: Callable[..., None], exact: Sequence[Stored]
) -> list[Stored]:
    """The same without coarser tiers, which nothing is chosen by; `exact` is what `lossless_series` gives."""
    if codec.family == "raw":
        return list(exact)
    encoded = codec.encode_series(series, progress)
    decoded = decode_many(codec, [(e.shared, (e.payload, v)) for e, v in zip(encoded, series.valid, strict=True)])
    kept = list(exact)
    for i, (coded, pixels) in enumerate(zip(encoded, decoded, strict=True)):
        certificate = measure(series.pixels[i], pixels, series.valid[i], codec.bands, series.indices)
        if exact[i].payload and len(coded.payload) < len(exact[i].payload) and certificate.keeps(policy):
            kept[i] = _stored(coded, exact[i], certificate)
    return _worth_sharing(kept, exact)


def _with_coarser(codec: Codec, series: Series, kept: list[Stored]) -> list[Stored]:
    """The same, with what decodes at coarser tiers measured."""
    if not isinstance(codec, Layered):
        return kept
    at = [i for i, stored in enumerate(kept) if not stored.lossless]
    items = [(kept[i].shared, (kept[i].payload, series.valid[i])) for i in at]
    for tier in COARSER:
        for i, pixels in zip(at, decode_many_coarser(codec, tier, items), strict=True):
            if pixels is not None:
                seen = measure(series.pixels[i], pixels, series.valid[i], codec.bands, series.indices)
                kept[i] = replace(kept[i], coarser={**kept[i].coarser, tier: seen})
    return kept


def _tiers_measured(fitted: Fitted, series: Series, networks: Mapping[str, bytes]) -> Fitted:
    """The same, with what its rasters decode to at coarser tiers measured."""
    if fitted.family == "raw":
        return fitted
    codec = families_lent(fitted.family, networks).items[fitted.family].from_bytes(fitted.codec)
    return replace(fitted, rasters=tuple(_with_coarser(codec, series, list(fitted.rasters))))


def lossless_series(series: Series, progress: Callable[..., None]) -> list[Stored]:
    """Every raster through the lossless codec."""
    exact = []
    for i, (pixels, valid) in enumerate(zip(series.pixels, series.valid, strict=True)):
        exact.append(encode_lossless(series.bands, pixels, valid, series.indices))
        progress("encode", (i + 1) / len(series))
    return exact


def _stored(encoded: Encoded, exact: Stored, certificate: Certificate) -> Stored:
    return replace(
        exact,
        payload=encoded.payload,
        shared=encoded.shared,
        vector=b"" if encoded.vector is None else encoded.vector.tobytes(),
        layers="+".join(encoded.layers),
        lossless=False,
        certificate=certificate,
    )


def _worth_sharing(kept: list[Stored], exact: Sequence[Stored]) -> list[Stored]:
    """The same, but a group that takes more bytes than its rasters would lossless goes."""
    groups: dict[bytes, list[int]] = {}
    for i, stored in enumerate(kept):
        groups.setdefault(stored.shared, []).append(i)
    dear = {
        i
        for shared, places in groups.items()
        if shared and len(shared) + sum(len(kept[i].payload) - len(exact[i].payload) for i in places) >= 0
        for i in places
    }
    return [exact[i] if i in dear else stored for i, stored in enumerate(kept)]


def payload_bytes(rasters: Sequence[Stored]) -> int:
    """Bytes of all payloads, what rasters share counted once."""
    return sum(len(s.payload) for s in rasters) + sum(map(len, {s.shared for s in rasters}))


def encode_lossless(bands: Bands, pixels: Pixels, valid: Mask, indices: tuple[str, ...]) -> Stored:
    """One raster through the lossless codec, masked pixels set to 0; no bytes if nothing may be used."""
    clean = np.where(valid, pixels, np.zeros((), pixels.dtype))
    payload = RawCodec(bands, effort=SMALL).encode(clean, valid).payload
    return Stored(
        valid=pack_mask(valid),
        payload=payload if valid.any() else b"",
        vector=b"",
        layers="lossless" if valid.any() else EMPTY,
        lossless=True,
        certificate=measure(clean, clean, valid, bands, indices),
        bytes_lzw=_lzw_size(bands, clean, valid),
        bytes_lossless=len(payload) if valid.any() else 0,
    )


def _lzw_size(bands: Bands, pixels: Pixels, valid: Mask) -> int:
    from geostore.scene.writer import lzw_size

    height, width = valid.shape
    anywhere = Grid("EPSG:3857", 0.0, 0.0, 10.0, 10.0, height, width)  # where it lies changes no byte count
    return lzw_size(Raster(pixels=pixels, valid=valid, bands=bands, grid=anywhere))


def families_lent(family: str, networks: Mapping[str, bytes]) -> Families:
    """The family by name, lent shared networks by digest: a worker has no store to ask."""

    def lend(digest: str) -> bytes:
        if digest not in networks:
            raise NotFound(f"network {digest} was not handed to the worker; run `geostore verify`")
        return networks[digest]

    return Families.installed([family]).lent(lend)


def fit_series(
    family: str,
    parent: bytes | None,
    series: Series,
    policy: Policy,
    effort: Effort,
    progress: Callable[..., None],
    networks: Mapping[str, bytes] = MappingProxyType({}),
) -> Fitted:
    """Fit `family` and its rivals by `policy` to `series`, encode it with each, and keep what takes the fewest bytes.

    The lossless codec is always among them, and rivals come first, so that `family` may give up early: of those that
    can foresee what they take only the ones that may win. `parent` is a codec of `family` to start from.
    """
    exact = lossless_series(series, progress)
    raw = RawCodec(series.bands, effort=SMALL).to_bytes()
    tried = {"raw": Fitted(family="raw", codec=raw, rasters=tuple(exact), facts={})}
    rivals, left = _promising([n for n in replace(policy, codec=family).codecs if n != family], series, policy)
    traces: dict[str, FitTrace | None] = {}
    for name in (*rivals, family):
        best = min(tried.values(), key=lambda f: f.bytes_total)
        known = replace(effort, bytes_max=best.bytes_total)
        try:
            found, traces[name] = _fit_family(
                name, parent if name == family else None, series, policy, known, progress, networks, exact
            )
        except InvalidInput as error:  # of a rival that is not for such a series
            if name == family:
                raise
            left[name] = str(error).split(":")[0]
            continue
        if found is None:
            left[name] = f"expected to take more than {_called(best.family)}"
        else:
            tried[name] = found
    best = _tiers_measured(min(tried.values(), key=lambda f: f.bytes_total), series, networks)
    return replace(best, facts=_traced(traces, best.family) | _facts(tried, left, effort, best))


def _promising(rivals: Sequence[str], series: Series, policy: Policy) -> tuple[list[str], dict[str, str]]:
    """Those of `rivals` to fit, first the one foreseen to take the fewest bytes; and of others why they are left."""
    families = Families.installed(rivals).items
    able = [f for n in rivals if isinstance(f := families[n], Foreseeing)]
    if len(able) < 2 or not policy.asks or not series.valid.any():
        return list(rivals), {}
    foreseen = {f.name: f.foresee(series, policy) for f in able}
    sizes = {n: size for n, size in foreseen.items() if size is not None}
    best = min(sizes, key=lambda n: sizes[n], default="")
    left = {n: "fits no codec to such values under such a policy" for n, size in foreseen.items() if size is None}
    clear = {n: size / sizes[best] for n, size in sizes.items() if size > _CLEAR * sizes[best]}
    left |= {n: f"foreseen to take {times:.2f} times {best}" for n, times in clear.items()}
    return sorted((n for n in rivals if n not in left), key=lambda n: sizes.get(n, math.inf)), left


def _fit_family(
    name: str,
    parent: bytes | None,
    series: Series,
    policy: Policy,
    effort: Effort,
    progress: Callable[..., None],
    networks: Mapping[str, bytes],
    exact: Sequence[Stored],
) -> tuple[Fitted | None, FitTrace | None]:
    """One family fitted and its codec's rasters measured, None if it gave up; and how its fit went."""
    families = families_lent(name, networks)
    family = families.items[name]
    origin = None if parent is None else family.from_bytes(parent)
    codec = family.fit(series, policy=policy, effort=effort, progress=progress, parent=origin)
    trace = codec.trace if isinstance(codec, Traced) else None
    if codec.family == "raw":
        return None, trace
    stored = codec.to_bytes()
    read = family.from_bytes(stored)  # what is measured is what will be read
    rasters = _encoded(read, series, policy, progress, exact)
    lent = round(effort.network_share * sum(map(len, families.networks(name, stored).values())))
    return Fitted(family=name, codec=stored, rasters=tuple(rasters), facts={}, lent=lent), trace


def _traced(traces: Mapping[str, FitTrace | None], best: str) -> dict[str, str | float | int]:
    """Facts on how fits went, that of the codec which is kept and those of others."""
    found = {name: trace for name, trace in traces.items() if trace is not None}
    return {LOSS_TERMS if t.kept and name == best else _OTHERS + name: t.to_text() for name, t in found.items()}


def traces_of(family: str, facts: Mapping[str, str | float | int]) -> Iterator[tuple[str, FitTrace]]:
    """(family, trace) of each fit that the facts of a codec of `family` tell of, that of the codec itself first.

    Raises:
        Corrupt: loss terms do not read.
    """
    if LOSS_TERMS in facts:
        yield family, FitTrace.from_text(str(facts[LOSS_TERMS]))
    for key in sorted(k for k in facts if k.startswith(_OTHERS)):
        yield key.removeprefix(_OTHERS), replace(FitTrace.from_text(str(facts[key])), kept=False)


def _facts(
    tried: Mapping[str, Fitted], left: Mapping[str, str], effort: Effort, best: Fitted
) -> dict[str, str | float | int]:
    """The bytes of each family, everything counted, and in words why this one was kept."""
    sizes = {name: fitted.bytes_total for name, fitted in tried.items()}
    words = [f"{_called(name)} {size:,} B" for name, size in sorted(sizes.items(), key=lambda item: item[1])]
    words += [f"{name}: {why}" for name, why in left.items()]
    found: dict[str, str | float | int] = {"seed": effort.seed, "steps": effort.steps}
    found |= {f"bytes_{_called(name)}": size for name, size in sizes.items()}
    return {**found, "bytes_total": best.bytes_total, "reason": ", ".join(words)}


def _called(name: str) -> str:
    return "lossless" if name == "raw" else name
