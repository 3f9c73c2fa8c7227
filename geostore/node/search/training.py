"""A head trained on what a store holds, in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol

import numpy as np
import numpy.typing as npt

from geostore.errors import InvalidInput, Unavailable
from geostore.index.learned import train_head
from geostore.index.segments import Segments
from geostore.index.signatures import BASELINES
from geostore.node.search.labelling import Labelling
from geostore.node.search.models import head_from_bytes
from geostore.query.messages import Progress

ROWS_MAX = 200_000  # a sample of more rows trains no better head
LEARNED, STEPS = "milan", 1500
_POLL_S = 0.5
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def samples(indexes: Sequence[Segments], labelling: Labelling, *, seed: int) -> tuple[Floats, Ints, str]:
    """Descriptors of rows, what each belongs to, and "labels" or "places": its raster's labels, else its cell.

    Labels are taken where two sets of them, or more, have two rows; rows without are then left out.
    """
    vectors, labels, cells = [], [], []
    names: dict[tuple[str, ...], int] = {}
    for index in indexes:
        for part in index.parts:
            segment = part.segment
            rows = np.arange(len(segment)) if part.alive is None else _living(part.alive, len(segment))
            assert segment.descriptors is not None
            assert segment.scales is not None
            vectors.append(segment.descriptors[rows].astype(np.float32) * segment.scales[rows, None])
            cells.append(segment.cells[rows] * 16 + segment.precision)
            labels.append(_labels(segment.keys, segment.owners[rows], labelling.names, names))
    if not vectors:
        raise InvalidInput("nothing is described yet, so no head can be trained; run `geostore index build` first")
    points, by_label, by_place = np.concatenate(vectors), np.concatenate(labels), np.concatenate(cells)
    _, counts = np.unique(by_label[by_label >= 0], return_counts=True)
    by = "labels" if (counts > 1).sum() > 1 else "places"
    groups = by_label if by == "labels" else by_place
    chosen = np.flatnonzero(groups >= 0)
    if len(chosen) > ROWS_MAX:
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, ROWS_MAX, replace=False))
    return points[chosen], groups[chosen].astype(np.int64), by


class Keys(Protocol):
    """Keys by position."""

    def __getitem__(self, at: int) -> bytes:
        """One of them."""
        ...


def _living(alive: npt.NDArray[np.uint64], size: int) -> Ints:
    return np.flatnonzero(np.unpackbits(alive.view(np.uint8), count=size, bitorder="little"))


def _labels(
    keys: Keys, owners: npt.NDArray[np.uint32], labels: Mapping[bytes, tuple[str, ...]],
    names: dict[tuple[str, ...], int],
) -> Ints:  # fmt: skip
    """(N,) number of each row's set of labels; -1 without."""
    out = np.full(len(owners), -1, np.int64)
    if not labels:
        return out
    for owner in np.unique(owners):
        mine = tuple(sorted(labels.get(keys[int(owner)], ())))
        if mine:
            out[owners == owner] = names.setdefault(mine, len(names))
    return out


def train(
    head: str, points: Floats, groups: Ints, bits: int, *, steps: int | None, seed: int, progress: Progress
) -> bytes:
    """The bytes of a head trained on (N, D) descriptors, in a spawned process that ends with `progress` raising.

    Raises:
        InvalidInput: too few groups, or more bits than the method can give. Unavailable: the process was killed.
    """
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_begin)
    future = pool.submit(train_here, head, points, groups, bits, steps, seed)
    done = False
    try:
        while True:
            progress(f"training a {head} head on {len(points)} descriptors", 0.5)
            if wait([future], timeout=_POLL_S).done:
                done = True
                return future.result()
    except BrokenProcessPool as error:
        raise Unavailable("the training ended before its work did (killed, or out of memory); run it again") from error
    finally:
        processes = list((pool._processes or {}).values())  # noqa: SLF001 - no public way to stop work
        pool.shutdown(wait=done, cancel_futures=True)
        for process in () if done else processes:
            process.kill()


def _begin() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"


def train_here(head: str, points: Floats, groups: Ints, bits: int, steps: int | None, seed: int) -> bytes:
    """As `train`, in this process."""
    if head == LEARNED:
        return train_head(points, groups, bits, seed=seed, steps=steps or STEPS).to_bytes()
    made = BASELINES[head](points, bits)
    assert head_from_bytes(made.to_bytes()).bits == bits
    return made.to_bytes()
