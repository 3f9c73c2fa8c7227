"""Is everything that was acknowledged still there, and right?"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from fault_ledger import Ledger
from fault_scenes import digest

from geostore.certificate import measure
from geostore.errors import GeostoreError
from geostore.keys import RasterKey
from geostore.node import Node
from geostore.node.decode import read_row
from geostore.partition.split import split
from geostore.query import messages
from geostore.raster import Raster
from geostore.scene import open_scene
from geostore.settings import Settings
from geostore.storage import RasterRow

SETTINGS = Settings(threads=1, workers=1)
SLACK = 1e-6  # float32 sums differ in their last digits


@dataclass
class Account:
    """What a check found.

    Attributes:
        acknowledged: rasters the ledger promises.
        lost: one line for each that is missing or differs.
        findings: what `verify` says is wrong.
    """

    acknowledged: int = 0
    lost: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Nothing lost, nothing wrong."""
        return not self.lost and not self.findings


def promised(entries: Iterable[dict[str, Any]]) -> dict[RasterKey, dict[str, Any]]:
    """The highest generation and the pixels' digest acknowledged for each key."""
    found: dict[RasterKey, dict[str, Any]] = {}
    for entry in entries:
        for raster in entry["rasters"]:
            key = RasterKey(*(raster[n] for n in ("collection", "geohash", "group", "time_us", "platform")))
            known = found.setdefault(key, {"generation": 0})
            known["generation"] = max(known["generation"], raster["generation"])
            known.update({"digest": raster["digest"]} if "digest" in raster else {})
    return found


def check(store: Path | str, ledger: Ledger) -> Account:
    """Open the store as the next run would, compare it with the ledger, verify it."""
    account = Account()
    with Node.open(str(store), settings=SETTINGS) as node:
        for key, wanted in promised(ledger.entries()).items():
            account.acknowledged += 1
            try:
                account.lost += [f"{key}: {wrong}" for wrong in _differs(node, key, wanted)]
            except GeostoreError as error:
                account.lost.append(f"{key}: {type(error).__name__}: {error}")
        reply = node.answer(messages.Verify())
        account.findings = [str(f) for f in reply.fields["findings"]]
    return account


def torn_scenes(store: Path | str) -> list[str]:
    """One line for each raster that is missing or differs, of the scenes that the store says are complete."""
    wrong = []
    with Node.open(str(store), settings=SETTINGS, readonly=True) as node:
        for row in node.store.scenes():
            declared = node.store.collection(row.collection)
            with contextlib.closing(open_scene(row.source, declared)) as scene:
                for piece in split(scene, precision=declared.precision) if row.complete else ():
                    key = RasterKey(row.collection, piece.geohash, piece.group, row.time_us, row.platform)
                    wanted = {"generation": 0, "digest": digest(piece.raster.pixels, piece.raster.valid)}
                    try:
                        wrong += [f"{key}: {w}" for w in _differs(node, key, wanted)]
                    except GeostoreError as error:
                        wrong.append(f"{key}: {type(error).__name__}: {error}")
    return wrong


def _differs(node: Node, key: RasterKey, wanted: dict[str, Any]) -> list[str]:
    current = node.store.raster(key)
    if current.generation < wanted["generation"]:
        return [f"generation {current.generation}, acknowledged {wanted['generation']}"]
    first = node.store.raster(key, generation=0)
    _, exact = read_row(node, first)
    wrong = [] if digest(exact.pixels, exact.valid) == wanted.get("digest") else ["lossless pixels differ"]
    return wrong + (_broken(node, first, current, exact) if current.generation else [])


def _broken(node: Node, first: RasterRow, row: RasterRow, exact: Raster) -> list[str]:
    """Why a fitted raster does not keep its promise: policy, mask, and errors no larger than certified."""
    policy = node.store.collection(row.key.collection).policy
    if row.certificate is None or not row.certificate.keeps(policy):
        return [f"certificate {row.certificate} does not keep {policy}"]
    _, decoded = read_row(node, row)
    at = _inside(row, first)
    if not np.array_equal(decoded.valid[at], exact.valid):
        return ["the fitted mask differs from the lossless one"]
    real = measure(exact.pixels, decoded.pixels[(slice(None), *at)], exact.valid, exact.bands)
    if real.mse > row.certificate.mse + SLACK or real.max_error > row.certificate.max_error + SLACK:
        return [f"measured {real}, certified {row.certificate}"]
    return []


def _inside(outer: RasterRow, inner: RasterRow) -> tuple[slice, slice]:
    """Where the lossless window lies in the fitted one."""
    row, col = inner.row - outer.row, inner.col - outer.col
    return slice(row, row + inner.height), slice(col, col + inner.width)


def digests(node: Node) -> dict[str, str]:
    """The digest of every current raster as it decodes now."""
    node.store.refresh() if node.store.readonly else None
    rows = [row for p in node.store.partitions() for row in node.store.rasters(p)]
    found = {}
    for row in rows:
        _, raster = read_row(node, row)
        found[str(row.key)] = digest(raster.pixels, np.asarray(raster.valid))
    return found
