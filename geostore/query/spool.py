"""Large replies that wait for their readers: in memory up to a limit, beyond it in a temporary file."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from typing import Protocol

from geostore.errors import Overloaded
from geostore.query.bodies import Body
from geostore.query.frames import INLINE_BYTES, Buffer

_WRITE_BYTES = 1_048_576


class Source(Protocol):
    """Bytes to be sent, wherever they lie."""

    nbytes: int

    def frames(self, start: int, stop: int) -> list[Buffer]:
        """Buffers that hold bytes start to stop."""
        ...

    def close(self) -> None:
        """Let go of them."""
        ...


class Spool:
    """Keeps replies until they are read. Small bodies pass through uncounted.

    Args:
        memory_bytes_max: bodies held in memory together; further ones go to temporary files, which cost no memory.
        disk_bytes_max: bodies held in files together; a further one is refused.
    """

    def __init__(self, *, memory_bytes_max: int, disk_bytes_max: int) -> None:
        self._memory_bytes_max = memory_bytes_max
        self._disk_bytes_max = disk_bytes_max
        self._lock = threading.Lock()
        self.memory_bytes = 0
        self.disk_bytes = 0

    def keep(self, body: Body) -> Source:
        """`body`, or a file with the same bytes.

        Raises:
            Overloaded: neither memory nor disk has room; the message names the limits.
        """
        size = body.nbytes
        if size <= INLINE_BYTES:
            return body
        with self._lock:
            in_memory = self.memory_bytes + size <= self._memory_bytes_max
            if not in_memory and self.disk_bytes + size > self._disk_bytes_max:
                raise Overloaded(
                    f"{self.disk_bytes} bytes of replies wait for their readers, and this one has {size}; at most "
                    f"{self._disk_bytes_max} (spool_bytes_max): ask for less, or later"
                )
            self._count(size, in_memory=in_memory)
        if in_memory:
            return _Kept(body, lambda: self._release(size, in_memory=True))
        try:
            return _Spooled(body, lambda: self._release(size, in_memory=False))
        except OSError as error:
            self._release(size, in_memory=False)
            raise Overloaded(f"no room for a reply of {size} bytes in {tempfile.gettempdir()}: {error}") from error

    def _count(self, size: int, *, in_memory: bool) -> None:
        if in_memory:
            self.memory_bytes += size
        else:
            self.disk_bytes += size

    def _release(self, size: int, *, in_memory: bool) -> None:
        with self._lock:
            self._count(-size, in_memory=in_memory)


class _Kept:
    """A body in memory whose bytes are counted."""

    def __init__(self, body: Body, release: Callable[[], None]) -> None:
        self._body, self._release = body, release
        self.nbytes = body.nbytes

    def frames(self, start: int, stop: int) -> list[Buffer]:
        return self._body.frames(start, stop)

    def close(self) -> None:
        self._body.close()
        self._release()
        self._release = _nothing


class _Spooled:
    """A body in an unlinked temporary file, read chunk by chunk."""

    def __init__(self, body: Body, release: Callable[[], None]) -> None:
        self.nbytes = body.nbytes
        self._file = tempfile.TemporaryFile(prefix="geostore-reply-", buffering=0)  # noqa: SIM115
        self._release = release
        try:
            for start in range(0, body.nbytes, _WRITE_BYTES):
                for frame in body.frames(start, start + _WRITE_BYTES):
                    _write_all(self._file.fileno(), frame)
        except OSError:
            self._file.close()
            raise

    def frames(self, start: int, stop: int) -> list[Buffer]:
        return [os.pread(self._file.fileno(), min(stop, self.nbytes) - start, start)]

    def close(self) -> None:
        self._file.close()
        self._release()
        self._release = _nothing


def _write_all(descriptor: int, data: Buffer) -> None:
    view = memoryview(data)
    while len(view):
        view = view[os.write(descriptor, view) :]


def _nothing() -> None:
    pass
