"""Disks for the fault tests, unmounted whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fault_disk import LoopDisk, SmallDisk, require_root


@pytest.fixture
def loop_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], LoopDisk]]:
    """Makes ext4 disks in files; skips where loop mounts are not to be had."""
    require_root("mkfs.ext4", "fsck.ext4", "mount", "umount")
    disks: list[LoopDisk] = []

    def make() -> LoopDisk:
        folder = tmp_path_factory.mktemp("loop")
        try:
            disks.append(LoopDisk(folder))
        except OSError as error:
            pytest.skip(f"no loop-mounted ext4 here: {error}")
        return disks[-1]

    yield make
    for disk in disks:
        disk.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A tmpfs of 24 MB with 20 MB of ballast."""
    require_root("mount", "umount")
    disk = SmallDisk(tmp_path / "small", size_mb=24, ballast_mb=20)
    yield disk
    disk.close()
