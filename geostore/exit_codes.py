"""The exit code of every error kind: what a script may do next."""

from __future__ import annotations

from geostore.errors import GeostoreError

OK = 0
INTERNAL = 1
USAGE = 2
CONFLICT = 3
NOT_FOUND = 4
CORRUPT = 5
UNAVAILABLE = 6
FORBIDDEN = 7
STORAGE_FULL = 8
POLICY_MISSED = 9
NOT_SUPPORTED = 10
INTERRUPTED = 130

MEANINGS: dict[int, str] = {
    OK: "done",
    INTERNAL: "a fault of geostore itself; run again with --debug and report it",
    USAGE: "the command, the input or a setting is wrong; correct it",
    CONFLICT: "another process holds what this one wanted to change; wait, or open read-only",
    NOT_FOUND: "the named store, collection, partition, raster or job does not exist",
    CORRUPT: "stored bytes fail their check (also: `verify` found damage); restore or rebuild",
    UNAVAILABLE: "no answer in time, or a limit was reached; the same command may succeed later",
    FORBIDDEN: "the key lacks the role, or the store is open read-only",
    STORAGE_FULL: "the disk is full; make room, nothing acknowledged was lost",
    POLICY_MISSED: "a raster misses its fidelity policy",
    NOT_SUPPORTED: "this installation cannot: a newer format, or a plug-in that is not installed",
    INTERRUPTED: "interrupted or cancelled; what was committed stays, the same command goes on",
}

CODES: dict[str, int] = {
    "internal": INTERNAL,
    "invalid-input": USAGE,
    "bad-scene": USAGE,
    "band-mismatch": USAGE,
    "out-of-range": USAGE,
    "not-comparable": USAGE,
    "bad-request": USAGE,
    "conflict": CONFLICT,
    "store-locked": CONFLICT,
    "fenced": CONFLICT,
    "unknown-outcome": CONFLICT,
    "not-found": NOT_FOUND,
    "corrupt": CORRUPT,
    "unavailable": UNAVAILABLE,
    "deadline-expired": UNAVAILABLE,
    "overloaded": UNAVAILABLE,
    "unreachable": UNAVAILABLE,
    "forbidden": FORBIDDEN,
    "storage-full": STORAGE_FULL,
    "policy-missed": POLICY_MISSED,
    "unsupported-format": NOT_SUPPORTED,
    "not-installed": NOT_SUPPORTED,
    "cancelled": INTERRUPTED,
}


def code_of(error: GeostoreError) -> int:
    """The exit code for `error`; 1 for a kind this version does not know."""
    return CODES.get(error.kind, INTERNAL)
