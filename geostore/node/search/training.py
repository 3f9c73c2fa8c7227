"""Heads and descriptors trained on what a store holds, in a process of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import wait
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any

import numpy as np

from geostore import plugins
from geostore.codec import Series
from geostore.errors import Unavailable
from geostore.index.descriptors import GROUP, Trainable
from geostore.index.kernel import enough, fit_kernel_head
from geostore.index.learned import train_head
from geostore.index.signatures import BASELINES
from geostore.index.views import Views
from geostore.keys import PartitionKey
from geostore.node.decode import read_rows
from geostore.node.search.models import head_from_bytes
from geostore.node.search.sampling import LABELS, Floats, Ints
from geostore.node.workers import Workers
from geostore.query.messages import Progress
from geostore.raster import Bands, stacked
from geostore.storage import RasterRow

if TYPE_CHECKING:
    from geostore.node.node import Node

LEARNED, KERNEL, STEPS = "milan", "kernel", 1500
_POLL_S = 0.5
PLACES_MAX, DATES_MAX, VALUES_MAX = 64, 24, 2**26  # that a descriptor is trained on


def method_for(groups: Ints, by: str) -> str:
    """The head that generalises best: kernel regression from labels, if there are enough, else the trained network."""
    return KERNEL if by == LABELS and enough(groups) else LEARNED


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
    pixels, valid = stacked([raster for _, raster in read_rows(node, rows)], [(r.row, r.col) for r in rows])
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
    head: str,
    points: Floats,
    groups: Ints,
    views: Views,
    bits: int,
    *,
    steps: int | None,
    seed: int,
    progress: Progress,
) -> bytes:
    """The bytes of a head trained on (N, D) descriptors, in a spawned process that ends with `progress` raising.

    Views of the rows are learned from by a kernel head alone.

    Raises:
        InvalidInput: too few groups, or more bits than the method can give. Unavailable: the process was killed.
    """
    what = f"training a {head} head on {len(points)} descriptors"
    return _apart(what, progress, train_here, head, points, groups, views, bits, steps, seed)


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


def train_here(head: str, points: Floats, groups: Ints, views: Views, bits: int, steps: int | None, seed: int) -> bytes:
    """As `train`, in this process."""
    if head == LEARNED:
        return train_head(points, groups, bits, seed=seed, steps=steps or STEPS).to_bytes()
    if head == KERNEL:
        return fit_kernel_head(points, groups, bits, views=views, seed=seed).to_bytes()
    made = BASELINES[head](points, bits)
    assert head_from_bytes(made.to_bytes()).bits == bits
    return made.to_bytes()
