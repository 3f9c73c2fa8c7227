"""All rows within a few bits of a query, exact, without a look at most of them: multi-index hashing.

A signature is cut into keys of 16 bits. Two signatures that differ in r bits agree within few bits in some key
(pigeonhole): with r = m * a + b over m keys, in one of any b + 1 keys within a, or in one of the others within a - 1.
For each key the rows lie sorted by its value, so rows near a key are read without a search.

What a look-up costs is known before it is made, from the sizes of the buckets; where the scan is cheaper, it is taken.

References:
    Norouzi, Punjani, Fleet 2014, "Fast exact search in Hamming space with multi-index hashing". Ours differs: sorted
    lists in place of hash maps; which keys are searched one bit deeper is chosen for each query by cost; a row found by
    several keys is reported by the first, so that none needs to be remembered.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from geostore.compiled import compiled
from geostore.index.bits import Rows, Words
from geostore.index.blocks import far_at_most
from geostore.index.hamming import Hits, check_radius, ordered, within
from geostore.index.intrinsics import popcount
from geostore.index.selection import Selection, everything

KEY_BITS = 16
DEPTH_MAX = 3  # bits a key may differ by; beyond it the scan always wins
# What the parts of a look-up cost, in rows that a scan passes over in the same time. Measured: bench/similar.
COST_BUCKET = 8
COST_CANDIDATE = 24
COST_CALL = 20_000
_NO_BITMAP = np.zeros(0, np.uint64)
Keys = npt.NDArray[np.uint32]
Masks = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class KeyLists:
    """Rows by the value of each key.

    Attributes:
        starts: (keys, 65537) uint32; rows whose key `t` is v are rows[t, starts[t, v] : starts[t, v + 1]], ascending.
        rows: (keys, N) uint32.
    """

    starts: Keys
    rows: Keys

    @property
    def size_bytes(self) -> int:
        """Bytes of both arrays."""
        return self.starts.nbytes + self.rows.nbytes


def key_lists(words: Words, bits: int) -> KeyLists:
    """Sort the rows of (W, N) signatures of `bits` bits by each of their keys; the last key may be shorter."""
    return KeyLists(*_sorted_by_keys(words, -(-bits // KEY_BITS)))


def near(words: Words, lists: KeyLists, query: Words, radius: int, *, selection: Selection | None = None) -> Hits:
    """All selected rows within `radius` bits of a (W,) query: by key lists, or by a scan where that is cheaper.

    Args:
        words: (W, N) uint64.
        lists: `key_lists` of the same signatures.
        query: (W,) uint64.
        radius: bits at most.
        selection: which rows may be hits; all by default.
    """
    found = looked_up(words, lists, query, radius, selection=selection)
    return within(words, query, radius, selection=selection) if found is None else found


def looked_up(
    words: Words, lists: KeyLists, query: Words, radius: int, *, selection: Selection | None = None
) -> Hits | None:
    """As `near` by key lists; None where a scan is cheaper."""
    radius = min(check_radius(radius), 64 * len(words))
    chosen = everything(words.shape[1]) if selection is None else selection
    depths = np.empty(len(lists.starts), np.int64)
    candidates = -1 if chosen.single else _planned(lists, query, radius, chosen.count, depths)
    if candidates < 0:
        return None
    allowed = _NO_BITMAP if chosen.allowed is None else chosen.allowed
    rows, far = np.empty(candidates, np.int64), np.empty(candidates, np.int16)
    found = _look_up(words, query, radius, lists.starts, lists.rows, depths, *_masks(), chosen.runs, allowed, rows, far)
    order = np.argsort(rows[:found])
    return ordered(rows[:found][order], far[:found][order])


def _planned(lists: KeyLists, query: Words, radius: int, count: int, depths: Rows) -> int:
    """Rows in the buckets of the cheapest look-up, its keys' depths in `depths`; -1 where a scan is cheaper."""
    if count <= COST_CALL or radius >= (DEPTH_MAX + 1) * len(depths):
        return -1
    return int(_plan(lists.starts, query, radius, count, *_masks(), COST_CALL, COST_BUCKET, COST_CANDIDATE, depths))


@cache
def _masks() -> tuple[Masks, Rows]:
    """Every change of a key by up to DEPTH_MAX bits, fewest first, and how many there are up to each number of bits."""
    values = np.arange(1 << KEY_BITS, dtype=np.uint16)
    weights = np.bitwise_count(values)
    kept = values[weights <= DEPTH_MAX]
    masks = kept[np.argsort(np.bitwise_count(kept), kind="stable")]
    return masks, np.cumsum(np.bincount(weights, minlength=KEY_BITS + 1))[: DEPTH_MAX + 1].astype(np.int64)


@compiled
def _key(word: int, part: int) -> int:  # pragma: no cover - compiled
    return np.int64((word >> np.uint64(16 * part)) & np.uint64(0xFFFF))  # type: ignore[return-value]


@compiled
def _sorted_by_keys(words: Words, keys: int) -> tuple[Keys, Keys]:  # pragma: no cover - compiled
    count = words.shape[1]
    starts = np.zeros((keys, 65537), np.uint32)
    rows = np.empty((keys, count), np.uint32)
    at = np.empty(65536, np.uint32)
    for t in range(keys):
        word, first = words[t // 4], starts[t]
        shift = np.uint64(16 * (t % 4))
        for i in range(count):
            first[np.int64((word[i] >> shift) & np.uint64(0xFFFF)) + 1] += np.uint32(1)
        for value in range(65536):
            first[value + 1] += first[value]
            at[value] = first[value]
        for i in range(count):
            v = np.int64((word[i] >> shift) & np.uint64(0xFFFF))
            rows[t, at[v]] = np.uint32(i)
            at[v] += np.uint32(1)
    return starts, rows


@compiled
def _plan(
    starts: Keys,
    query: Words,
    radius: int,
    count: int,
    masks: Masks,
    ends: Rows,
    call: int,
    bucket: int,
    candidate: int,
    depths: Rows,
) -> int:  # pragma: no cover - compiled
    """How many candidates there are at the bits each key may differ by, -1 for keys left out; -1 for a scan."""
    keys = starts.shape[0]
    depth, deeper = radius // keys, radius % keys + 1
    fewer = ends[depth - 1] if depth > 0 else 0
    least = call + bucket * (fewer * keys + (ends[depth] - fewer) * deeper)
    if least >= count:
        return -1
    more = np.empty(keys, np.int64)
    candidates = 0
    for t in range(keys):
        candidates += _bucketed(starts, t, query, masks, 0, fewer)
        more[t] = _bucketed(starts, t, query, masks, fewer, ends[depth])
    depths[:] = depth - 1
    for t in np.argsort(more)[:deeper]:
        depths[t] = depth
        candidates += more[t]
    return candidates if least + candidate * candidates < count else -1


@compiled
def _bucketed(
    starts: Keys, t: int, query: Words, masks: Masks, low: int, high: int
) -> int:  # pragma: no cover - compiled
    """Rows in the buckets of key `t` under masks low .. high."""
    key = _key(query[t // 4], t % 4)
    total: Any = 0
    for m in range(low, high):
        v = key ^ np.int64(masks[m])
        total += np.int64(starts[t, v + 1]) - np.int64(starts[t, v])
    return total  # type: ignore[no-any-return]


@compiled
def _look_up(
    words: Words,
    query: Words,
    radius: int,
    starts: Keys,
    lists: Keys,
    depths: Rows,
    masks: Masks,
    ends: Rows,
    runs: Rows,
    allowed: Words,
    rows: Rows,
    far_of: npt.NDArray[np.int16],
) -> int:  # pragma: no cover - compiled
    """Write the selected rows within `radius` to buffers that hold every candidate; how many they are."""
    found = 0
    for t in range(starts.shape[0]):
        if depths[t] < 0:
            continue
        key = _key(query[t // 4], t % 4)
        for m in range(ends[depths[t]]):
            v = key ^ np.int64(masks[m])
            for i in range(starts[t, v], starts[t, v + 1]):
                row: Any = np.int64(lists[t, i])
                far = far_at_most(words, row, query, radius)
                if far <= radius and _is_selected(row, runs, allowed) and _found_first(words, row, query, t, depths):
                    rows[found], far_of[found] = row, far
                    found += 1
    return found


@compiled
def _found_first(words: Words, row: int, query: Words, at: int, depths: Rows) -> bool:  # pragma: no cover - compiled
    """True if no key before `at` finds the row too."""
    for t in range(at):  # noqa: SIM110 - compiled
        if popcount(np.uint64(_key(words[t // 4, row] ^ query[t // 4], t % 4))) <= depths[t]:
            return False
    return True


@compiled
def _is_selected(row: int, runs: Rows, allowed: Words) -> bool:  # pragma: no cover - compiled
    if allowed.size and not (allowed[row >> 6] >> np.uint64(row & 63)) & np.uint64(1):
        return False
    low, high = 0, runs.shape[0]
    while low < high:
        middle = (low + high) // 2
        if runs[middle, 1] <= row:
            low = middle + 1
        else:
            high = middle
    return bool(low < runs.shape[0] and runs[low, 0] <= row)
