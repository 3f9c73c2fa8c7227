"""Disks that lose power or fill up: loop-mounted ext4 and small tmpfs. Needs root."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2  # EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH
IMAGE_BYTES = 192 * 2**20


def require_root(*tools: str) -> None:
    """Skip, saying why, where mounting is not possible."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount")
    missing = [t for t in tools if shutil.which(t) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")


def run(*command: str) -> None:
    """A tool that must succeed; its words in the error if it does not."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: exit {done.returncode}: {done.stdout}{done.stderr}")


class LoopDisk:
    """An ext4 file system in a file, whose power can be cut: only what was flushed is there afterwards."""

    def __init__(self, folder: Path) -> None:
        self.image = folder / "disk.img"
        self.root = folder / "disk"
        self.root.mkdir()
        with self.image.open("wb") as stream:
            stream.truncate(IMAGE_BYTES)
        run("mkfs.ext4", "-q", "-F", str(self.image))
        self._mount()

    def _mount(self) -> None:
        # commit=300: the kernel flushes nothing by itself while a test runs
        run("mount", "-o", "loop,noatime,commit=300", str(self.image), str(self.root))

    def settle(self) -> None:
        """Bring all there is to the disk."""
        run("sync", "-f", str(self.root))

    def cut_power(self) -> None:
        """From now on nothing reaches the disk, the journal included; what runs on it gets I/O errors."""
        handle = os.open(self.root, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(handle)

    def start_again(self) -> None:
        """Mount (the journal is replayed), check the file system, mount."""
        run("umount", str(self.root))
        self._mount()
        run("umount", str(self.root))
        run("fsck.ext4", "-f", "-n", str(self.image))
        self._mount()

    def close(self) -> None:
        """Unmount, lazily if something still holds it."""
        if self.root.is_mount() and subprocess.run(["umount", str(self.root)], capture_output=True).returncode:
            run("umount", "-l", str(self.root))


class SmallDisk:
    """A tmpfs of a few megabytes, with a ballast file that can be thrown out."""

    def __init__(self, root: Path, *, size_mb: int, ballast_mb: int) -> None:
        self.root = root
        root.mkdir()
        run("mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", str(root))
        self._ballast = root / "ballast"
        self._ballast.write_bytes(bytes(ballast_mb * 2**20))

    def make_room(self) -> None:
        """Throw out the ballast."""
        self._ballast.unlink()

    def close(self) -> None:
        """Unmount, lazily if something still holds it."""
        if self.root.is_mount() and subprocess.run(["umount", str(self.root)], capture_output=True).returncode:
            run("umount", "-l", str(self.root))
