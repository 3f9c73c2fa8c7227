"""Small answers of reads, kept until what was read may have changed. No sockets here."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from geostore.query.frames import INLINE_BYTES, Buffer, Content
from geostore.query.spool import Source

KEPT_VERBS = frozenset({"collections", "scenes", "cells", "rasters", "decode"})  # they depend on the store alone
_OVERHEAD_BYTES = 512  # of one kept answer


class Still:
    """Bytes that are sent as often as wanted."""

    __slots__ = ("_data", "nbytes")

    def __init__(self, data: bytes) -> None:
        self._data, self.nbytes = data, len(data)

    def frames(self, start: int, stop: int) -> list[Buffer]:
        """Bytes start to stop in one piece; none if there are none."""
        if not self.nbytes:
            return []
        return [self._data if start == 0 and stop >= self.nbytes else self._data[start:stop]]

    def close(self) -> None:
        """Nothing: others send them too."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer as it is sent, and the state of the store it holds for."""

    state: int
    content: Content
    body: Still

    @property
    def nbytes(self) -> int:
        """Memory it takes, about."""
        return _OVERHEAD_BYTES + len(self.content.fields) + len(self.content.arrays) + self.body.nbytes


class Answers:
    """The answers last given to small reads.

    Args:
        state: a number that is another one whenever the store may have changed; None while it is being changed.
        bytes_max: of all answers together; the one that was not asked for the longest goes first.
    """

    def __init__(self, state: Callable[[], int | None], *, bytes_max: int) -> None:
        self.state, self._bytes_max = state, bytes_max
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()
        self._nbytes = 0

    def name(self, verb: str, said: Content) -> bytes:
        """What the answer to a request is kept under; b"" if it is not to be kept."""
        return verb.encode() + said.fields if verb in KEPT_VERBS and not said.nbytes else b""

    def recall(self, name: bytes, state: int | None) -> Kept | None:
        """The answer under `name`, if it holds in `state`."""
        with self._lock:
            kept = self._kept.get(name)
            if kept is None or kept.state != state:
                return None
            self._kept.move_to_end(name)
            return kept

    def keep(self, name: bytes, state: int | None, content: Content, source: Source) -> None:
        """Keep what was answered to a request that came in `state`, if it is small and the state still the same."""
        if not name or state is None or state != self.state() or source.nbytes > INLINE_BYTES:
            return
        kept = Kept(state, content, Still(b"".join(source.frames(0, source.nbytes))))
        with self._lock:
            self._forget(name)
            self._kept[name] = kept
            self._nbytes += kept.nbytes
            while self._nbytes > self._bytes_max:
                self._forget(next(iter(self._kept)))

    def _forget(self, name: bytes) -> None:
        old = self._kept.pop(name, None)
        if old is not None:
            self._nbytes -= old.nbytes
