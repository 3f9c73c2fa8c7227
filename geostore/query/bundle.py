"""Small messages in one frame, so that what a socket costs is paid once for all of them. No sockets here."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from geostore.errors import BadRequest
from geostore.query.frames import INLINE_BYTES, Buffer

BUNDLE_BYTES_MAX = 262_144  # largest bundle that is made; whoever reads one goes by what the socket lets through
_MARK = 0xC1  # no msgpack value begins with it, so no header does
_SIZES = struct.Struct("<II")  # of a header and its body


def is_bundle(frame: Buffer) -> bool:
    """True if `frame` is no header but a bundle."""
    return len(frame) > 0 and frame[0] == _MARK


class Bundle:
    """Messages gathered for one frame of at most `bytes_max` bytes."""

    __slots__ = ("_bytes_max", "_parts", "count", "nbytes")

    def __init__(self, bytes_max: int = BUNDLE_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._parts: list[Buffer] = [b"%c" % _MARK]
        self.count, self.nbytes = 0, 1

    def add(self, head: bytes, body: list[Buffer], body_bytes: int) -> bool:
        """Append a message, body in pieces; False if there is no room for it."""
        size = _SIZES.size + len(head) + body_bytes
        if self.nbytes + size > self._bytes_max:
            return False
        self._parts += (_SIZES.pack(len(head), body_bytes), head, *body)
        self.count += 1
        self.nbytes += size
        return True

    def frame(self) -> bytes:
        """The frame."""
        return b"".join(self._parts)


def unbundle(frame: memoryview) -> Iterator[tuple[memoryview, memoryview]]:
    """(header, body) of each message in a bundle, as views of it.

    Raises:
        BadRequest: sizes that do not add up, or a body above INLINE_BYTES; what came before is good.
    """
    at, end = 1, len(frame)
    if end == at:
        raise BadRequest("an empty bundle; see docs/PROTOCOL.md")
    while at < end:
        if end - at < _SIZES.size:
            raise BadRequest(f"bundle: {end - at} bytes after the last message; see docs/PROTOCOL.md")
        head_bytes, body_bytes = _SIZES.unpack_from(frame, at)
        at += _SIZES.size
        if body_bytes > INLINE_BYTES or head_bytes + body_bytes > end - at:
            raise BadRequest(f"bundle: a message of {head_bytes} + {body_bytes} bytes, {end - at} are left")
        body = at + head_bytes
        yield frame[at:body], frame[body : body + body_bytes]
        at = body + body_bytes
