"""Heads and descriptors trained on what a store holds, in a process of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import wait
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from geostore import plugins
from geostore.codec import Series
from geostore.errors import InvalidInput, Unavailable
from geostore.index.descriptors import GROUP, Trainable
from geostore.index.kernel import enough, fit_kernel_head
from geostore.index.learned import train_head
from geostore.index.segments import Segments
from geostore.index.signatures import BASELINES
from geostore.keys import PartitionKey
from geostore.node.decode import read_rows
from geostore.node.search.labelling import Labelling
from geostore.node.search.models import head_from_bytes
from geostore.node.workers import Workers
from geostore.query.messages import Progress
from geostore.raster import Bands
from geostore.storage import RasterRow

if TYPE_CHECKING:
    from geostore.node.node import Node

ROWS_MAX = 200_000  # a sample of more rows trains no better head
LEARNED, KERNEL, STEPS = "milan", "kernel", 1500
_POLL_S = 0.5
PLACES_MAX, DATES_MAX, VALUES_MAX = 64, 24, 2**26  # that a descriptor is trained on
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def samples(indexes: Sequence[Segments], labelling: Labelling, *, seed: int) -> tuple[Floats, Ints, str]:
    """Descriptors of rows, what each belongs to, and by which of four rules; the first that two groups keep counts.

    "labels": the labels of the raster, where two rasters or more have just these, other rows are left out; "places":
    the cell, seen at several dates; "neighbours": the cell one level up, whose chips lie side by side, for a store with
    one date a place; "rows": nothing belongs together, so that every row comes twice, and training tells it from others
    by two noisy views of it.
    """
    vectors, labels, cells = [], [], []
    named: dict[tuple[str, ...], set[bytes]] = {}
    for index in indexes:
        for part in index.parts:
            segment = part.segment
            rows = np.arange(len(segment)) if part.alive is None else _living(part.alive, len(segment))
            assert segment.descriptors is not None
            assert segment.scales is not None
            vectors.append(segment.descriptors[rows].astype(np.float32) * segment.scales[rows, None])
            cells.append(np.stack([segment.cells[rows], np.full(len(rows), segment.precision)], axis=1))
            labels.append(_labels(segment.keys, segment.owners[rows], labelling.names, named))
    if not vectors:
        raise InvalidInput("nothing is described yet, so no head can be trained; run `geostore index build` first")
    points = np.concatenate(vectors)
    groups, by = _grouped(_shared(np.concatenate(labels), named), np.concatenate(cells))
    chosen = np.flatnonzero(groups >= 0)
    if len(chosen) > ROWS_MAX:
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, ROWS_MAX, replace=False))
    chosen = np.tile(chosen, 2) if by == "rows" else chosen
    return points[chosen], groups[chosen], by


def _grouped(labels: Ints, cells: Ints) -> tuple[Ints, str]:
    """(N,) group of each row, -1 for none, and by what: of (N,) labels, -1 for none, and (N, 2) cells, precisions.

    A raster's row belongs with its chips: its cell is theirs one level up.
    """
    code, precision = cells[:, 0], cells[:, 1]
    coarsest = precision == precision.min()
    above = np.where(coarsest, code, code >> 5) * 16 + np.where(coarsest, precision, precision - 1)
    ways = {"labels": labels, "places": code * 16 + precision, "neighbours": above}
    for by, groups in ways.items():
        _, counts = np.unique(groups[groups >= 0], return_counts=True)
        if (counts > 1).sum() > 1:
            return groups, by
    return np.arange(len(labels), dtype=np.int64), "rows"


def method_for(groups: Ints, by: str) -> str:
    """The head that generalises best: kernel regression from labels, if there are enough, else the trained network."""
    return KERNEL if by == "labels" and enough(groups) else LEARNED


class Keys(Protocol):
    """Keys by position."""

    def __getitem__(self, at: int) -> bytes:
        """One of them."""
        ...


def _living(alive: npt.NDArray[np.uint64], size: int) -> Ints:
    return np.flatnonzero(np.unpackbits(alive.view(np.uint8), count=size, bitorder="little"))


def _labels(
    keys: Keys, owners: npt.NDArray[np.uint32], labels: Mapping[bytes, tuple[str, ...]],
    named: dict[tuple[str, ...], set[bytes]],
) -> Ints:  # fmt: skip
    """(N,) number of each row's set of labels, in the order of `named`, which gets the rasters of each; -1 without."""
    if not labels:
        return np.full(len(owners), -1, np.int64)
    found, which = np.unique(owners, return_inverse=True)
    numbers = {names: number for number, names in enumerate(named)}
    sets = np.full(len(found), -1, np.int64)
    for at, owner in enumerate(found.tolist()):
        key = keys[owner]
        mine = tuple(sorted(labels.get(key, ())))
        if mine:
            sets[at] = numbers.setdefault(mine, len(numbers))
            named.setdefault(mine, set()).add(key)
    return sets[which]


def _shared(labels: Ints, named: Mapping[tuple[str, ...], set[bytes]]) -> Ints:
    """(N,) numbers of sets of labels, -1 where a single raster has them: its chips tell the place, not the labels."""
    kept = np.array([number if len(keys) > 1 else -1 for number, keys in enumerate(named.values())] + [-1], np.int64)
    return kept[labels]


def series_of(node: Node, partitions: Sequence[PartitionKey], bands: Bands, *, seed: int) -> list[Series]:
    """Decoded rasters of a sample of places, with a sample of their dates, VALUES_MAX values in all at most."""
    rng, room, found = np.random.default_rng(seed), VALUES_MAX, list[Series]()
    for at in rng.permutation(len(partitions))[:PLACES_MAX]:
        rows = node.store.rasters(partitions[at])
        chosen = [rows[i] for i in np.sort(rng.permutation(len(rows))[:DATES_MAX])]
        if not chosen:
            continue
        made = _series(node, chosen, bands)
        room -= made.pixels.size
        if room < 0 and found:
            break
        found.append(made)
    return found


def _series(node: Node, rows: Sequence[RasterRow], bands: Bands) -> Series:
    """What rows of one partition decode to, on the box of them all."""
    top, left = min(r.row for r in rows), min(r.col for r in rows)
    shape = max(r.row + r.height for r in rows) - top, max(r.col + r.width for r in rows) - left
    pixels, valid = np.zeros((len(rows), len(bands), *shape), bands.dtype), np.zeros((len(rows), *shape), np.bool_)
    for i, (row, (_, raster)) in enumerate(zip(rows, read_rows(node, rows), strict=True)):
        at = np.s_[row.row - top : row.row - top + row.height, row.col - left : row.col - left + row.width]
        pixels[(i, slice(None), *at)], valid[(i, *at)] = raster.pixels, raster.valid
    return Series(pixels=pixels, valid=valid, times_us=np.array([r.key.time_us for r in rows], np.int64), bands=bands)


def train_descriptor(name: str, series: Sequence[Series], *, steps: int | None, seed: int, progress: Progress) -> bytes:
    """The weights of the descriptor `name`, trained on these places in a spawned process.

    Raises:
        InvalidInput: nothing usable to learn from. Unavailable: the process was killed.
    """
    rasters = sum(len(s) for s in series)
    return _apart(f"training {name} on {rasters} rasters", progress, describer_here, name, list(series), steps, seed)


def describer_here(name: str, series: Sequence[Series], steps: int | None, seed: int) -> bytes:
    """As `train_descriptor`, in this process."""
    found: Trainable = plugins.find(GROUP, name)
    made = found.train(series, seed=seed) if steps is None else found.train(series, steps=steps, seed=seed)
    return made.to_bytes()


def train(
    head: str, points: Floats, groups: Ints, bits: int, *, steps: int | None, seed: int, progress: Progress
) -> bytes:
    """The bytes of a head trained on (N, D) descriptors, in a spawned process that ends with `progress` raising.

    Raises:
        InvalidInput: too few groups, or more bits than the method can give. Unavailable: the process was killed.
    """
    what = f"training a {head} head on {len(points)} descriptors"
    return _apart(what, progress, train_here, head, points, groups, bits, steps, seed)


def _apart(what: str, progress: Progress, work: Callable[..., bytes], *arguments: Any) -> bytes:
    """What `work` gives in a process of its own, which is killed where `progress` raises."""
    pool = Workers(1)
    future = pool.submit(work, *arguments)
    done = False
    try:
        while not done:
            progress(what, 0.5)
            done = bool(wait([future], timeout=_POLL_S).done)
        return future.result()
    except BrokenProcessPool as error:
        raise Unavailable("the training ended before its work did (killed, or out of memory); run it again") from error
    finally:
        pool.end(now=not done)


def train_here(head: str, points: Floats, groups: Ints, bits: int, steps: int | None, seed: int) -> bytes:
    """As `train`, in this process."""
    if head == LEARNED:
        return train_head(points, groups, bits, seed=seed, steps=steps or STEPS).to_bytes()
    if head == KERNEL:
        return fit_kernel_head(points, groups, bits, seed=seed).to_bytes()
    made = BASELINES[head](points, bits)
    assert head_from_bytes(made.to_bytes()).bits == bits
    return made.to_bytes()
