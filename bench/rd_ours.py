"""geostore's codecs over a whole series: fitted on the dates they may see, all dates encoded as a node encodes them."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.rd_curves import Point, errors, violations
from bench.rd_places import Place, part
from geostore.classical.codec import KltAv1Codec
from geostore.codec import Codec, Effort, Families, RawCodec, Series, decode_many, quiet
from geostore.collection import Policy
from geostore.node.encode import Stored, encode_series, fit_series
from geostore.raster import Pixels
from geostore.vae.sizing import Plan

OWN = ", own network"
FLAGS = ("one_step", "as_stored")  # in a setting, beside the policy's bounds
OWN_STEPS = 4000  # of a fit with OWN: two minutes of a core at 96 px
OWN_PLAN = Plan(channels=8, widths=(24, 20, 16, 10), encoder=(12, 20))  # of its network
OWN_NARROW = Plan(channels=8, widths=(8, 8, 6, 4), encoder=(8, 12))  # where there is less to learn from
_NARROW_BELOW = 1e6  # values that may be seen
_HASTY = 100  # steps up to which a fit is only a trial of the bench
UNBOUNDED = Policy(mse_max=None, index_mae_max=None)


def measure(place: Place, codec: str, variant: str, family: str, setting: Mapping[str, Any], effort: Effort) -> Point:
    """Fit `family` to the seen dates under the policy in `setting`; encode and decode every date with it.

    Rasters that the codec cannot keep within the policy are stored lossless, as a node would, and counted. With
    `one_step` in the setting no date is steered to the policy: all are coded at the quality the codec was made for, as
    classical codecs are run; a codec that would code each by itself, at a quality of its own, codes them together.
    With `as_stored` the fit sees all dates, and what a node would keep is kept.
    """
    begun = time.monotonic()
    told: Mapping[str, Any] = {}
    policy = Policy(**{"mse_max": None, "index_mae_max": None, **{k: setting[k] for k in setting if k not in FLAGS}})
    families = Families.installed([family.removesuffix(OWN)])
    if "as_stored" in setting:
        fitted = fit_series(family, None, place.series, policy, effort, quiet)
        families = Families.installed([fitted.family])
        data, kept, told = fitted.codec, fitted.rasters, fitted.facts
        read = families.items[fitted.family].from_bytes(data)
    else:
        made = _fit(families, family, part(place.series, ~place.unseen), policy, effort)
        if "one_step" in setting and hasattr(made, "policy"):
            policy = UNBOUNDED
            together = {"dates": len(place.series)} if isinstance(made, KltAv1Codec) and made.dates == 1 else {}
            made = dataclasses.replace(made, policy=policy, **together)  # type: ignore[type-var]
        data = made.to_bytes()
        read = made if made.family == "raw" else families.items[family.removesuffix(OWN)].from_bytes(data)
        kept = tuple(encode_series(read, place.series, policy, quiet))
    point = _point(place, codec, variant, setting, policy, read, kept)
    lent = 0 if read.family == "raw" else sum(map(len, families.networks(read.family, data).values()))
    facts = {**told, **(point.facts or {}), "lent_bytes": lent}
    return dataclasses.replace(point, seconds=round(time.monotonic() - begun, 1), facts=facts)


def _point(
    place: Place,
    codec: str,
    variant: str,
    setting: Mapping[str, Any],
    policy: Policy,
    read: Codec,
    kept: Sequence[Stored],
) -> Point:
    """What the series takes as `kept`, and what a reader gets."""
    decoded = _decode(read, kept, place)
    fixed, weights = len(read.to_bytes()), weight_bytes(read)
    rasters = _sizes(kept)
    bound = (policy.max_error, policy.index_max)
    return Point(
        place=place.name,
        codec=codec,
        variant=variant,
        setting=dict(setting),
        nbytes=fixed + round(rasters.sum()),
        marginal=fixed - weights + round(rasters.sum()),
        unseen_bytes=float((fixed - weights) * place.unseen.mean() + rasters[place.unseen].sum()),
        every=errors(place.series, decoded, np.ones(len(kept), bool)),
        seen=errors(place.series, decoded, ~place.unseen),
        unseen=errors(place.series, decoded, place.unseen),
        violations=violations(place.series, decoded, max_error=bound[0], index_max=bound[1]) if any(bound) else None,
        facts=_facts(read, kept, fixed, weights),
    )


def _fit(families: Families, family: str, series: Series, policy: Policy, effort: Effort) -> Codec:
    """As a node fits it; with OWN, on a network of the place's own, fitted long, whether it pays or not."""
    if not family.endswith(OWN):
        return families.items[family].fit(series, policy=policy, effort=effort, progress=quiet)
    from geostore.vae.fit import fit_codec

    long = dataclasses.replace(effort, steps=OWN_STEPS if effort.steps > _HASTY else effort.steps)
    plan = OWN_PLAN if series.valid.sum() * len(series.bands) >= _NARROW_BELOW else OWN_NARROW
    return fit_codec(series, "grid", policy=policy, effort=long, progress=quiet, plan=plan)


def _sizes(kept: Sequence[Stored]) -> npt.NDArray[np.float64]:
    """(T,) bytes of every raster: payload, mask, and its part of what a group shares."""
    members = Counter(k.shared for k in kept)
    return np.array([len(k.payload) + len(k.valid) + len(k.shared) / members[k.shared] for k in kept])


def weight_bytes(codec: Codec) -> int:
    """Bytes of a fitted codec that are weights of the place's own networks: what decodes, and the prior of latents.

    Static image, tables and deltas are none.
    """
    if not hasattr(codec, "tensors") or getattr(codec, "borrowed", None) is not None:
        return 0
    bare: Any = dataclasses.replace(codec, tensors={}, prior=None)  # type: ignore[type-var]
    return len(codec.to_bytes()) - len(bare.to_bytes())


def _decode(codec: Codec, kept: Sequence[Stored], place: Place) -> Pixels:
    """(T, B, H, W) as a reader gets it; dates of which nothing is usable as they came."""
    raw, out, valid = RawCodec(codec.bands), place.series.pixels.copy(), place.series.valid
    for reader, lossless in ((codec, False), (raw, True)):
        dates = [t for t, k in enumerate(kept) if k.payload and k.lossless is lossless]
        decoded = decode_many(reader, [(kept[t].shared, (kept[t].payload, valid[t])) for t in dates])
        for t, pixels in zip(dates, decoded, strict=True):
            out[t] = pixels
    return out


def _facts(codec: Codec, kept: Sequence[Stored], fixed: int, weights: int) -> dict[str, Any]:
    layers: dict[str, int] = {}
    for stored in kept:
        layers[stored.layers] = layers.get(stored.layers, 0) + 1
    return {
        "family": codec.family,
        "codec_bytes": fixed,
        "weight_bytes": weights,
        "mask_bytes": sum(len(k.valid) for k in kept),
        "layers": layers,
    }
