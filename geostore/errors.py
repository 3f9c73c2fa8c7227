"""Every failure a caller may expect, in one tree.

GeostoreError
├── InvalidInput (ValueError)      the caller changes the input        invalid-input
│   ├── BadScene                   a file that cannot be taken in      bad-scene
│   ├── BandMismatch               wrong, missing or swapped bands     band-mismatch
│   ├── OutOfRange                 values outside what was declared    out-of-range
│   ├── NotComparable              from another space of search        not-comparable
│   └── BadRequest                 a malformed message                 bad-request
├── NotFound (KeyError)            the caller asks for another thing   not-found
├── Conflict                       the caller reopens or waits
│   ├── StoreLocked                another writer holds the store      store-locked
│   ├── Fenced                     another owner sealed the slot       fenced
│   └── UnknownOutcome             neither failed nor done; read again unknown-outcome
├── Corrupt                        the operator restores or rebuilds   corrupt
├── UnsupportedFormat              the operator upgrades               unsupported-format
├── StorageFull                    the operator makes room             storage-full
├── PolicyMissed                   no tier kept the fidelity policy    policy-missed
├── NotInstalled (ImportError)     the operator installs a plug-in     not-installed
├── Unavailable                    the caller retries
│   ├── DeadlineExpired            no answer in time                   deadline-expired
│   ├── Overloaded                 a limit was reached                 overloaded
│   └── Unreachable                no daemon at the address            unreachable
├── Cancelled                      the caller asked for it             cancelled
└── Forbidden                      the key lacks the role              forbidden

`kind` is stable and the same string on the wire; kinds are only ever added.
"""

from __future__ import annotations

from typing import ClassVar


class GeostoreError(Exception):
    """The root of the tree; raised itself only for an `internal` fault relayed from a daemon."""

    kind: ClassVar[str] = "internal"

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else self.kind


class InvalidInput(GeostoreError, ValueError):
    """A value is wrong; the message gives it, what was wanted and the next step."""

    kind = "invalid-input"


class BadScene(InvalidInput):
    """A scene cannot be taken in: unreadable, truncated, no CRS, rotated, no time, all nodata."""

    kind = "bad-scene"


class BandMismatch(InvalidInput):
    """Bands are missing, unknown, doubled or in another order than declared."""

    kind = "band-mismatch"


class OutOfRange(InvalidInput):
    """Pixel values (or NaN) lie outside the range the collection declares."""

    kind = "out-of-range"


class NotComparable(InvalidInput):
    """Descriptors or signatures come from different networks, heads, bands or legends, so distances mean nothing."""

    kind = "not-comparable"


class BadRequest(InvalidInput):
    """A message is malformed, oversized, or names an unknown verb or field type."""

    kind = "bad-request"


class NotFound(GeostoreError, KeyError):
    """The named store, collection, partition, raster, generation or job does not exist."""

    kind = "not-found"


class Conflict(GeostoreError):
    """Another party holds what this one wanted to change."""

    kind = "conflict"


class StoreLocked(Conflict):
    """A second writer was refused; readers may go on."""

    kind = "store-locked"


class Fenced(Conflict):
    """A higher epoch sealed the slot: this owner must not write to it any more."""

    kind = "fenced"


class UnknownOutcome(Conflict):
    """A commit may or may not have happened; read before trying again."""

    kind = "unknown-outcome"


class Corrupt(GeostoreError):
    """Stored bytes do not match their digest or checksum; they are never decoded as truth."""

    kind = "corrupt"


class UnsupportedFormat(GeostoreError):
    """The store or stream was written in a format this version does not read."""

    kind = "unsupported-format"


class StorageFull(GeostoreError):
    """The disk is full; nothing acknowledged was lost."""

    kind = "storage-full"


class PolicyMissed(GeostoreError):
    """No allowed tier keeps the fidelity policy for a raster."""

    kind = "policy-missed"


class NotInstalled(GeostoreError, ImportError):
    """A plug-in or optional package is not installed; the message names it."""

    kind = "not-installed"


class Unavailable(GeostoreError):
    """The request was not carried out, and may be tried again."""

    kind = "unavailable"


class DeadlineExpired(Unavailable):
    """The deadline passed before the answer was ready."""

    kind = "deadline-expired"


class Overloaded(Unavailable):
    """A queue, quota or size limit was reached; the message names the limit."""

    kind = "overloaded"


class Unreachable(Unavailable):
    """No daemon answers at the address."""

    kind = "unreachable"


class Cancelled(GeostoreError):
    """The work was cancelled on request; what was committed before stays."""

    kind = "cancelled"


class Forbidden(GeostoreError):
    """The key is unknown or its role does not allow the verb."""

    kind = "forbidden"


def _tree(root: type[GeostoreError]) -> dict[str, type[GeostoreError]]:
    found = {root.kind: root}
    for child in root.__subclasses__():
        found.update(_tree(child))
    return found


KINDS: dict[str, type[GeostoreError]] = _tree(GeostoreError)


def from_kind(kind: str, message: str) -> GeostoreError:
    """The error a wire reply stands for; an unknown kind becomes the root with the kind in its text."""
    cls = KINDS.get(kind)
    return cls(message) if cls is not None else GeostoreError(f"{kind}: {message}")
