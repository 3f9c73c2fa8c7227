"""Which of a raster's tiers is decoded: the one that was named, or the coarsest within a reader's error budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from geostore.certificate import Certificate
from geostore.codec import COARSER
from geostore.errors import NotFound
from geostore.keys import RasterKey
from geostore.query.budget import ORIGINAL, Within, as_original, beyond
from geostore.query.facts import RasterInfo
from geostore.query.messages import Tier

ADDED = ("detail", "residual")  # layers that keep a bound, on top of those before them
_WITHOUT = ("lossless", "rounded")  # layers in place of an embedding
Coarser = Mapping[str, Certificate]


def tier_within(certificate: Certificate | None, coarser: Coarser, within: Within) -> Tier:
    """The coarsest tier whose errors lie within; "best" is all that is kept, whose certificate is None where exact."""
    if certificate is None:
        return "best"
    near = [tier for tier in COARSER if tier in coarser and not beyond(coarser[tier], within)]
    return near[0] if near else ORIGINAL if beyond(certificate, within) else "best"


def tier_named(key: RasterKey, layers: str, coarser: Coarser, tier: Tier) -> Tier:
    """The tier at which a raster of these `layers` is decoded where `tier` is asked for.

    Raises:
        NotFound: it has no such tier.
    """
    if tier not in COARSER or tier in coarser or layers == "empty":
        return tier if tier in coarser or tier not in COARSER else "best"
    held = layers.split("+")
    if tier == "embedding" and not {*held} & {*ADDED, *_WITHOUT}:
        return "best"
    raise NotFound(f"{key} has no {tier}: it is kept as {' + '.join(held)}; {_next_step(held)}")


def _next_step(held: Sequence[str]) -> str:
    if held == ["lossless"]:
        return "decode it at tier best, or run `geostore fit`"
    if held[-1] in ADDED:
        return "it was stored before tiers were measured: decode it at tier best, or run `geostore fit --refit`"
    return "decode it at tier best"


def first_layers(layers: str, tier: str) -> str:
    """Those of `layers` that a coarser tier is decoded from."""
    held = layers.split("+")
    return "+".join(held[:1] if tier == "preview" else [name for name in held if name not in ADDED])


def is_measured(info: RasterInfo) -> bool:
    """True if a fit measured the raster; of one that waits, whose every error is 0, no pixels are told."""
    return bool(info.certificate.pixels or info.certificate.indices)


def provenance(infos: Sequence[RasterInfo], within: Within | None, tier: Tier) -> list[RasterInfo]:
    """What a decode of `infos` at a tier, or within a budget, gives.

    Raises:
        NotFound: a raster has no such tier. InvalidInput: the budget names what is not measured.
    """
    return [_given(info, within, tier) for info in infos]


def _given(info: RasterInfo, within: Within | None, tier: Tier) -> RasterInfo:
    if within is not None:
        found = tier_within(info.certificate if is_measured(info) else None, info.coarser, within)
    else:
        found = tier_named(info.key, info.layers, info.coarser, tier)
    if found == ORIGINAL:
        return as_original(info)
    if found not in info.coarser:
        return info
    return replace(info, tier=found, layers=first_layers(info.layers, found), certificate=info.coarser[found])
