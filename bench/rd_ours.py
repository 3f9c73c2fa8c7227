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
from geostore.codec import Codec, Effort, Families, RawCodec, Series, decode_many, quiet
from geostore.collection import Policy
from geostore.node.encode import Stored, encode_series
from geostore.raster import Pixels

OWN = ", own network"
UNBOUNDED = Policy(mse_max=None, index_mae_max=None)


def measure(place: Place, codec: str, variant: str, family: str, setting: Mapping[str, Any], effort: Effort) -> Point:
    """Fit `family` to the seen dates under the policy in `setting`; encode and decode every date with it.

    Rasters that the codec cannot keep within the policy are stored lossless, as a node would, and counted. With
    `one_step` in the setting no date is steered to the policy: all are quantised as the codec was trained to.
    """
    begun = time.monotonic()
    asked = {key: value for key, value in setting.items() if key != "one_step"}
    policy = Policy(**{"mse_max": None, "index_mae_max": None, **asked})
    families = Families.installed([family.removesuffix(OWN)])
    fitted = _fit(families, family, part(place.series, ~place.unseen), policy, effort)
    if "one_step" in setting and hasattr(fitted, "policy"):
        policy = UNBOUNDED
        fitted = dataclasses.replace(fitted, policy=policy)  # type: ignore[type-var]
    data = fitted.to_bytes()
    read = fitted if fitted.family == "raw" else families.items[family.removesuffix(OWN)].from_bytes(data)
    kept = encode_series(read, place.series, policy, quiet)
    decoded = _decode(read, kept, place)
    fixed, weights = len(data), weight_bytes(read)
    rasters = _sizes(kept)
    every = np.ones(len(kept), bool)
    bound = (policy.max_error, policy.index_max)
    return Point(
        place=place.name,
        codec=codec,
        variant=variant,
        setting=dict(setting),
        nbytes=fixed + round(rasters.sum()),
        marginal=fixed - weights + round(rasters.sum()),
        unseen_bytes=float((fixed - weights) * place.unseen.mean() + rasters[place.unseen].sum()),
        every=errors(place.series, decoded, every),
        seen=errors(place.series, decoded, ~place.unseen),
        unseen=errors(place.series, decoded, place.unseen),
        violations=violations(place.series, decoded, max_error=bound[0], index_max=bound[1]) if any(bound) else None,
        seconds=round(time.monotonic() - begun, 1),
        facts={**_facts(read, kept, fixed, weights), "lent_bytes": _lent(families, read, data)},
    )


def _fit(families: Families, family: str, series: Series, policy: Policy, effort: Effort) -> Codec:
    """As a node fits it; with OWN, on a network of the place's own even where a shared one would take fewer bytes."""
    if not family.endswith(OWN):
        return families.items[family].fit(series, policy=policy, effort=effort, progress=quiet)
    from geostore.vae.fit import fit_codec
    from geostore.vae.sizing import network_plan

    plan = network_plan(series)
    return fit_codec(series, "grid", policy=policy, effort=effort, progress=quiet, plan=plan)


def _lent(families: Families, codec: Codec, data: bytes) -> int:
    """Bytes of networks that other places use too, and that a store holds once."""
    return 0 if codec.family == "raw" else sum(map(len, families.networks(codec.family, data).values()))


def _sizes(kept: Sequence[Stored]) -> npt.NDArray[np.float64]:
    """(T,) bytes of every raster: payload, mask, and its part of what a group shares."""
    members = Counter(k.shared for k in kept)
    return np.array([len(k.payload) + len(k.valid) + len(k.shared) / members[k.shared] for k in kept])


def weight_bytes(codec: Codec) -> int:
    """Bytes of a fitted codec that are weights of the place's own network; static image, tables and deltas are not."""
    if not hasattr(codec, "tensors") or getattr(codec, "borrowed", None) is not None:
        return 0
    bare: Any = dataclasses.replace(codec, tensors={})  # type: ignore[type-var]
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
