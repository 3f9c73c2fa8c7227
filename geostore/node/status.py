"""status: rasters, partitions, bytes by tier, both ratios, and the errors that were measured."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from geostore.certificate import Certificate
from geostore.collection import Policy
from geostore.keys import PartitionKey
from geostore.node.encode import traces_of
from geostore.node.facts import tier
from geostore.partition import geohash
from geostore.query import messages
from geostore.query.messages import Array, Progress, Reply
from geostore.storage import CodecRow, RasterRow

if TYPE_CHECKING:
    from geostore.node.node import Node


@dataclass
class Tally:
    """Sums over rasters: bytes by what they are for, tiers, and errors weighed by usable pixels."""

    rasters: set[tuple[object, ...]] = field(default_factory=set)
    pieces: int = 0
    bytes: Counter[str] = field(default_factory=Counter)
    tiers: Counter[str] = field(default_factory=Counter)
    within_policy: int = 0
    missed: int = 0
    pixels: int = 0
    squared: float = 0.0
    max_error: float = 0.0
    values: Counter[str] = field(default_factory=Counter)  # rasters whose `mae` and `p99` are known, pixels, sums
    weights: Counter[str] = field(default_factory=Counter)
    mae: Counter[str] = field(default_factory=Counter)  # sums of mean absolute error times pixels
    p99: dict[str, list[float]] = field(default_factory=dict)
    worst: dict[str, float] = field(default_factory=dict)

    def add(self, row: RasterRow, policy: Policy) -> None:
        """Count one current raster."""
        self.rasters.add((row.key.collection, row.key.geohash, row.key.time_us, row.key.platform))
        self.pieces += 1
        where = tier(row)
        self.tiers[where] += 1
        self.bytes["source_lzw"] += row.bytes_lzw
        self.bytes["source_jxl"] += row.bytes_jxl
        self.bytes["masks"] += len(row.valid)
        self.bytes["lossless" if row.lossless else "embeddings"] += row.payload_bytes
        if row.generation == 0:
            return
        if row.certificate is None or row.certificate.keeps(policy):
            self.within_policy += 1
        else:
            self.missed += 1
        if row.certificate is not None:
            self._measure(row.certificate)

    def join(self, other: Tally) -> None:
        """Count the rasters of another tally too."""
        self.rasters |= other.rasters
        for name in ("pieces", "within_policy", "missed", "pixels", "squared"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("bytes", "tiers", "values", "weights", "mae"):
            getattr(self, name).update(getattr(other, name))
        self.max_error = max(self.max_error, other.max_error)
        for name, found in other.p99.items():
            self.p99.setdefault(name, []).extend(found)
            self.worst[name] = max(self.worst.get(name, 0.0), other.worst[name])

    def _measure(self, c: Certificate) -> None:
        self.pixels += c.pixels
        self.squared += c.mse * c.pixels
        self.max_error = max(self.max_error, c.max_error)
        if c.mae is not None and c.p99 is not None:
            found: dict[str, Any] = {"rasters": 1, "pixels": c.pixels, "absolute": c.mae * c.pixels, "p99": c.p99}
            self.values.update(found)
        for name, error in c.indices.items():
            self.weights[name] += c.pixels
            self.mae[name] += error.mae * c.pixels  # type: ignore[assignment]
            self.p99.setdefault(name, []).append(error.p99)
            self.worst[name] = max(self.worst.get(name, 0.0), error.max)

    def quality(self) -> dict[str, Any]:
        """Errors over all usable pixels; `p99_mean` is the mean over rasters of each one's own 99th percentile.

        `mae` and `p99_mean` of values are over the rasters that were measured so, None if none was. A percentile of all
        pixels together does not follow from certificates.
        """
        mse = self.squared / self.pixels if self.pixels else 0.0
        overall = Certificate(self.pixels, mse, self.max_error)
        return {
            "pixels": self.pixels,
            "mse_n1": mse,
            "psnr_db": overall.psnr_db if mse else None,
            "max_error": self.max_error,
            "mae": self.values["absolute"] / self.values["pixels"] if self.values["pixels"] else None,
            "p99_mean": self.values["p99"] / self.values["rasters"] if self.values["rasters"] else None,
            "within_policy": self.within_policy,
            "missed": self.missed,
            "indices": {
                name: {
                    "mae": self.mae[name] / max(self.weights[name], 1),
                    "p99_mean": sum(self.p99[name]) / len(self.p99[name]),
                    "max": self.worst[name],
                }
                for name in self.weights
            },
        }


def status(node: Node, request: messages.Status, arrays: tuple[Array, ...], progress: Progress) -> Reply:
    """The whole account: bytes by tier, ratios side by side, errors over all usable pixels."""
    if request.collection is not None:
        node.store.collection(request.collection)
    partitions = node.store.partitions(request.collection)
    total, fields = Tally(), []
    codec_bytes, shared = 0, set[str]()
    policies = {c.name: c.policy for c in node.store.collections()}
    for partition in partitions:
        policy = policies[partition.collection]
        part, codecs = _tally(node, partition, policy), node.store.generations(partition, data=False)
        total.join(part)
        codec_bytes += sum(c.data_bytes for c in codecs)
        shared |= {d for c in codecs for d in str(c.facts.get("networks", "")).split(",") if d}
        if request.partitions:
            fields.append(_partition_fields(partition, part, codecs))
    bases = sum(len(node.store.blob("models", digest)) for digest in shared)
    account = _account(node, total, codec_bytes, bases)
    scenes = [s for s in node.store.scenes(request.collection) if s.op == "put"]
    reply = {
        "store": node.store.id,
        "slots": node.store.slots,
        "rasters": len(total.rasters),
        "pieces": total.pieces,
        "partitions": len(partitions),
        "scenes": len(scenes),
        "tiers": dict(total.tiers),
        "quality": total.quality(),
        **account,
    }
    reply["bytes"]["index"] = node.following.size()
    return Reply({**reply, "per_partition": fields} if request.partitions else reply)


def _tally(node: Node, partition: PartitionKey, policy: Policy) -> Tally:
    part, shared = Tally(), dict[str, int]()  # what several rasters need, counted once
    for row in node.store.rasters(partition, payload=False):
        part.add(row, policy)
        if row.unread is not None:
            shared[row.unread.group] = row.unread.shared
    part.bytes["embeddings"] += sum(shared.values())
    return part


def _account(node: Node, total: Tally, codec_bytes: int, bases: int) -> dict[str, Any]:
    """Bytes by tier and the ratios against LZW: payloads alone, with codecs and masks, and everything durable.

    `durable` is the whole store whatever is asked for. A ratio is None while there is nothing to divide by.
    """
    durable, superseded = node.store.bytes_counted()
    whole = sum(durable.values())
    lzw, payloads = total.bytes["source_lzw"], total.bytes["embeddings"] + total.bytes["lossless"]
    stored = payloads + total.bytes["masks"] + codec_bytes + bases
    sizes = {**total.bytes, "codecs": codec_bytes, "bases": bases, "stored": stored}
    sizes |= {**{f"durable_{k}": v for k, v in durable.items()}, "durable": whole, "superseded": superseded}
    fitted = payloads > 0 and total.tiers["waiting"] == 0
    return {
        "bytes": sizes,
        "ratio_embeddings": lzw / payloads if fitted else None,
        "ratio_stored": lzw / stored if fitted else None,
        "ratio_durable": lzw / whole if lzw and whole else None,
        "ratio_jxl_durable": total.bytes["source_jxl"] / whole if whole and lzw else None,
    }


def _partition_fields(partition: PartitionKey, part: Tally, codecs: list[CodecRow]) -> dict[str, Any]:
    newest = codecs[-1]
    quality = part.quality()
    ndvi = quality["indices"].get("NDVI", {})
    return {
        "collection": partition.collection,
        "geohash": partition.geohash,
        "group": partition.group,
        "bounds": list(geohash.bounds(partition.geohash)),
        "rasters": part.pieces,
        "generation": newest.generation,
        "family": newest.family,
        "reason": str(newest.facts.get("reason", "")),
        "fits": [fields for codec in codecs for fields in _fits(codec)],
        "bytes_codec": sum(c.data_bytes for c in codecs if c.generation > 0),
        **{f"bytes_{k}": part.bytes[k] for k in ("embeddings", "lossless", "masks")},
        "bytes_lzw": part.bytes["source_lzw"],
        "bytes_jxl": part.bytes["source_jxl"],
        "tiers": dict(part.tiers),
        **{k: quality[k] for k in ("mse_n1", "psnr_db", "max_error", "mae", "p99_mean")},
        **{k: quality[k] for k in ("within_policy", "missed")},
        "ndvi_mae": ndvi.get("mae"),
        "ndvi_p99_mean": ndvi.get("p99_mean"),
        "ndvi_max": ndvi.get("max"),
    }


def _fits(codec: CodecRow) -> list[dict[str, Any]]:
    """How each fit of one generation went: loss terms over its steps, what they were steered to, if it was kept."""
    return [
        {
            "generation": codec.generation,
            "family": family,
            "kept": trace.kept,
            "steps": list(trace.steps),
            "terms": {name: list(values) for name, values in trace.terms.items()},
            "targets": dict(trace.targets),
        }
        for family, trace in traces_of(codec.family, codec.facts)
    ]
