"""What a report shows, asked of a store: figures, certificates, and a few rasters with their originals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from geostore.certificate import Certificate, measure
from geostore.client import Client, RasterInfo
from geostore.collection import Collection
from geostore.errors import NotFound
from geostore.keys import PartitionKey, RasterKey
from geostore.raster import Raster

Originals = Callable[[RasterKey], Raster | None]  # the raster as it came, where somebody still has it
CLEAR = 0.8  # share of a partition's best pixel count from which a date counts as clear


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One raster to look at: what decodes, and the original if there is one.

    Attributes:
        info: its facts.
        decoded: what is stored now, decoded.
        original: as it came, on the same grid; None where it is not kept.
        certificate: the stored one where the raster was measured, else measured here.
        why: why this date was chosen.
    """

    info: RasterInfo
    decoded: Raster
    original: Raster | None
    certificate: Certificate
    why: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything on the page.

    Attributes:
        status: the store's account, with a row for each partition.
        collections: by name.
        rasters: facts of every raster, by partition.
        shown: rasters with pixels, by partition, in the order of the page.
    """

    status: dict[str, Any]
    collections: dict[str, Collection]
    rasters: dict[PartitionKey, list[RasterInfo]]
    shown: dict[PartitionKey, list[Shown]]


def gather(
    client: Client,
    *,
    collection: str | None,
    partitions: int,
    dates: int,
    originals: Originals | None,
    progress: Callable[[str, float], None],
) -> Facts:
    """Ask the store; decode `dates` rasters of each of `partitions` partitions.

    Raises:
        NotFound: the store holds no raster.
    """
    status = client.status(collection=collection, partitions=True)
    rasters: dict[PartitionKey, list[RasterInfo]] = defaultdict(list)
    for info in client.rasters(collection=collection):
        rasters[info.key.partition].append(info)
    if not rasters:
        raise NotFound("the store holds no raster to report on; run `geostore ingest` first")
    shown = {}
    chosen = choose_partitions(rasters, partitions)
    for i, partition in enumerate(chosen):
        progress(f"decode {partition}", i / len(chosen))
        picked = choose_dates(rasters[partition], dates)
        shown[partition] = [_show(client, info, why, originals) for info, why in picked]
    return Facts(
        status=status,
        collections={c.name: c for c in client.collections()},
        rasters=dict(rasters),
        shown={partition: rows for partition, rows in shown.items() if rows},
    )


def choose_partitions(rasters: dict[PartitionKey, list[RasterInfo]], count: int) -> list[PartitionKey]:
    """`count` partitions: of each collection in turn the one with most embeddings, then most rasters and pixels."""
    queues: dict[str, list[PartitionKey]] = defaultdict(list)
    for partition in sorted(rasters, key=lambda p: (*_weight(rasters[p]), p)):
        queues[partition.collection].append(partition)
    chosen: list[PartitionKey] = []
    while len(chosen) < count and any(queues.values()):
        for name in sorted(queues):
            if queues[name] and len(chosen) < count:
                chosen.append(queues[name].pop(0))
    return chosen


def _weight(infos: Sequence[RasterInfo]) -> tuple[int, int, int]:
    embedded = sum(i.tier in ("embedding", "residual") for i in infos)
    return -embedded, -len(infos), -max(i.grid.height * i.grid.width for i in infos)


def choose_dates(infos: Sequence[RasterInfo], count: int) -> list[tuple[RasterInfo, str]]:
    """`count` dates, oldest first: clear ones spread over time, and of several always the one decoded worst."""
    usable = [i for i in infos if i.tier != "empty"]
    if not usable:
        return []
    worst = max(usable, key=lambda i: i.certificate.mse)
    best = max(i.certificate.pixels for i in usable)
    clear = [i for i in usable if i.certificate.pixels >= CLEAR * best and i is not worst] or usable
    steps = max(1, count - 1)
    spread = {clear[round(k * (len(clear) - 1) / max(1, steps - 1))].key: "clear" for k in range(steps)}
    picked = {i.key: (i, spread[i.key]) for i in usable if i.key in spread}
    if count > 1 and worst.certificate.mse > 0:
        picked[worst.key] = (worst, "largest MSE of this partition")
    return [picked[key] for key in sorted(picked)][: max(count, 1)]


def _show(client: Client, info: RasterInfo, why: str, originals: Originals | None) -> Shown:
    ((facts, decoded),) = client.decode_rasters([info])
    original = originals(info.key) if originals is not None else None
    if original is None:
        original = _stored_original(client, info)
    original = original and _laid(original, decoded)
    certificate = facts.certificate
    if original is not None and not facts.exact and certificate.pixels == 0:
        names = tuple(certificate.indices)
        certificate = measure(original.pixels, decoded.pixels, decoded.valid, decoded.bands, names)
    return Shown(info=facts, decoded=decoded, original=original, certificate=certificate, why=why)


def _laid(original: Raster, decoded: Raster) -> Raster | None:
    """`original` on the grid of `decoded`, which a fit may have widened; None where it reaches outside."""
    offset = decoded.grid.offset_of(original.grid)
    (height, width), (top, left) = original.grid.shape, offset or (-1, -1)
    if min(top, left) < 0 or top + height > decoded.grid.height or left + width > decoded.grid.width:
        return None
    pixels, valid = np.zeros_like(decoded.pixels), np.zeros_like(decoded.valid)
    at = (slice(top, top + height), slice(left, left + width))
    pixels[(slice(None), *at)], valid[at] = original.pixels, original.valid
    return replace(decoded, pixels=pixels, valid=valid)


def _stored_original(client: Client, info: RasterInfo) -> Raster | None:
    try:
        ((_, raster),) = client.decode_rasters([info], tier="original")
    except NotFound:
        return None
    return raster
