"""HDF5 stacks: the pixels of one partition over time, a training cache that may be deleted at any moment."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from geostore.durable import is_full
from geostore.errors import InvalidInput, StorageFull
from geostore.keys import PartitionKey
from geostore.raster import Mask, Pixels

STACK_FORMAT = 1
_CHUNK_BYTES = 2**20
_DATASETS = ("pixels", "valid", "time_us")


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The rasters of one partition on one window, oldest first.

    Attributes:
        pixels: (time, band, y, x) stored dtype.
        valid: (time, y, x) bool, True where the pixel may be used.
        time_us: (time,) int64, UTC microseconds.
    """

    pixels: Pixels
    valid: Mask
    time_us: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        t, _, h, w = self.pixels.shape
        if self.valid.shape != (t, h, w) or self.time_us.shape != (t,):
            raise InvalidInput(
                f"stack pixels {self.pixels.shape}, valid {self.valid.shape} and times {self.time_us.shape} do not "
                f"belong together; wanted (T, B, H, W), (T, H, W) and (T,)"
            )


def stack_path(folder: Path, partition: PartitionKey) -> Path:
    """Where the stack of a partition lies in the cache `folder`."""
    return folder / partition.collection / partition.geohash / f"{partition.group}.h5"


def write_stack(path: Path, stack: Stack, *, state: str) -> None:
    """Replace the stack at `path`; `state` names what it was made from (a digest of its rows), see `read_stack`.

    It is made in memory first: HDF5 takes the process down with it where a disk is full.

    Raises:
        StorageFull: the disk of `path` is full; an older stack is untouched.
    """
    packed = _pack(stack, state)
    temporary = path.with_suffix(f".tmp-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(packed)
        temporary.replace(path)
    except OSError as error:
        if is_full(error):
            raise StorageFull(
                f"no room left while writing a stack of {len(packed):,} bytes to {path}; make room there, or set "
                "TMPDIR to a folder on a larger disk, and run it again"
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _pack(stack: Stack, state: str) -> memoryview:
    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        for name in _DATASETS:
            data = getattr(stack, name)
            rows = max(1, _CHUNK_BYTES // max(1, data[:1].nbytes))
            chunks = (min(rows, max(1, len(data))), *data.shape[1:])
            file.create_dataset(name, data=data, chunks=chunks, compression="lzf", fletcher32=True)
        file.attrs.update(format=STACK_FORMAT, state=state)
    return out.getbuffer()


def read_stack(path: Path, *, state: str, bands: Sequence[int] | None = None) -> Stack | None:
    """The stack at `path`, or None if there is none of that `state` or it is damaged: make it again.

    Args:
        path: see `stack_path`.
        state: what it must have been made from.
        bands: positions of the bands to read, ascending; None for all.
    """
    with contextlib.suppress(OSError, KeyError), h5py.File(path, "r") as file:
        if file.attrs.get("format") != STACK_FORMAT or file.attrs.get("state") != state:
            return None
        pixels = file["pixels"][:] if bands is None else file["pixels"][:, list(bands)]
        return Stack(pixels=pixels, valid=file["valid"][:].astype(bool), time_us=file["time_us"][:])
    return None
