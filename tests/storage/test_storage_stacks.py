"""HDF5 stacks hold what was written, or nothing."""

from __future__ import annotations

import resource

import h5py
import numpy as np
import pytest
from storage_rows import partition

from geostore.errors import InvalidInput, StorageFull
from geostore.storage.stacks import Stack, read_stack, stack_path, write_stack


def _stack(start: int, count: int) -> Stack:
    rng = np.random.default_rng(start)
    pixels = rng.integers(0, 10_000, (count, 3, 21, 17)).astype(np.uint16)
    times = np.arange(start, start + count, dtype=np.int64)
    return Stack(pixels=pixels, valid=rng.random((count, 21, 17)) > 0.2, time_us=times)


def _equal(a: Stack, b: Stack) -> bool:
    return all(np.array_equal(getattr(a, n), getattr(b, n)) for n in ("pixels", "valid", "time_us"))


def test_a_stack_comes_back_whole_and_by_band(tmp_path):
    """Write, read: (time, band, y, x) equal to the arrays that went in."""
    path, stack = stack_path(tmp_path, partition()), _stack(0, 5)
    write_stack(path, stack, state="a")
    assert _equal(read_stack(path, state="a"), stack)
    assert np.array_equal(read_stack(path, state="a", bands=[0, 2]).pixels, stack.pixels[:, [0, 2]])
    with h5py.File(path) as file:
        assert file["pixels"].shape == (5, 3, 21, 17)


def test_a_stack_of_another_state_or_damaged_is_no_stack(tmp_path):
    """Nothing is read from a stack that was made from other rows, is missing, or was changed on disk."""
    path = stack_path(tmp_path, partition())
    assert read_stack(path, state="a") is None
    write_stack(path, _stack(0, 5), state="a")
    assert read_stack(path, state="b") is None
    with h5py.File(path) as file:
        at = file["pixels"].id.get_chunk_info(0).byte_offset + 100
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)
    assert read_stack(path, state="a") is None


def test_a_stack_of_unequal_lengths_is_refused():
    """Shapes are checked where the stack is made."""
    good = _stack(0, 2)
    with pytest.raises(InvalidInput, match="do not belong together"):
        Stack(pixels=good.pixels, valid=good.valid[:1], time_us=good.time_us)


def test_a_full_disk_is_an_error_and_leaves_the_older_stack(tmp_path):
    """With no room for the file, StorageFull names the way out, and what lay there before is still read."""
    path, older = stack_path(tmp_path, partition()), _stack(0, 5)
    write_stack(path, older, state="a")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(StorageFull, match="TMPDIR"):
            write_stack(path, _stack(1, 6), state="b")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert _equal(read_stack(path, state="a"), older)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
