"""Labels of rows by a legend with a hierarchy: one bit a label, conditions Some, Exactly, AtLeast."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from geostore.compiled import compiled
from geostore.errors import InvalidInput
from geostore.index.bits import Words, bitmap, bitmap_size


@dataclass(frozen=True)
class Legend:
    """The labels there are, and the groups they form.

    Attributes:
        name: with its version, "corine-2018".
        labels: the finest labels; a row's bit i % 64 of word i // 64 is label i.
        groups: name of a coarser class -> its finest labels.
        codes: label or group -> the code that it may be called by as well, such as "311".
    """

    name: str
    labels: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]]
    codes: Mapping[str, str]

    @property
    def words(self) -> int:
        """64-bit words a row needs."""
        return -(-len(self.labels) // 64)

    def positions(self, name: str) -> tuple[int, ...]:
        """Positions of the finest labels that `name` stands for: a label, a group, or the code of one.

        Case does not count; where no name is equal, neither do hyphens, spaces, dots and plurals, if one is meant.

        Raises:
            InvalidInput: the legend has none of that name; the message gives some that are close.
        """
        wanted = {code: full for full, code in self.codes.items()}.get(name.replace(".", ""), name)
        lower = {n.lower(): n for n in (*self.labels, *self.groups)}
        alike = [] if wanted.lower() in lower else [n for n in lower.values() if _plain(n) == _plain(wanted)]
        full = alike[0] if len(alike) == 1 else lower.get(wanted.lower())
        if full is None:
            raise InvalidInput(f"no label {name!r} in legend {self.name}; {_closest(name, lower.values())}")
        return tuple(self.labels.index(n) for n in self.groups.get(full, (full,)))

    def pack(self, rows: Sequence[Iterable[str]]) -> Words:
        """(words, N) uint64 of each row's labels; a group sets all of its labels.

        Raises:
            InvalidInput: the legend has no such label.
        """
        out = np.zeros((self.words, len(rows)), np.uint64)
        for i, names in enumerate(rows):
            for position in {p for n in names for p in self.positions(n)}:
                out[position // 64, i] |= np.uint64(1 << (position % 64))
        return out

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        groups = {n: list(g) for n, g in self.groups.items()}
        return {"name": self.name, "labels": list(self.labels), "groups": groups, "codes": dict(self.codes)}


def legend_from_dict(found: Mapping[str, Any]) -> Legend:
    """The inverse of `Legend.to_dict`."""
    groups = {n: tuple(g) for n, g in found["groups"].items()}
    return Legend(found["name"], tuple(found["labels"]), groups, dict(found["codes"]))


@cache
def corine() -> Legend:
    """CORINE Land Cover: 44 classes of level 3, with levels 2 and 1 as groups; classes by name or code."""
    found = json.loads(files("geostore.index").joinpath("corine.json").read_text("utf-8"))
    codes: dict[str, str] = {name: code for code, name in found["classes"].items()}
    finest = {code: name for code, name in found["classes"].items() if len(code) == 3}
    groups = {
        name: tuple(n for c, n in finest.items() if c.startswith(code))
        for code, name in found["classes"].items()
        if len(code) < 3
    }
    return Legend(found["name"], tuple(finest.values()), groups, codes)


@cache
def everyday() -> Mapping[str, tuple[str, ...]]:
    """What people call CORINE's classes and their groups, by the name in lower case; a class means its groups' too."""
    found = json.loads(files("geostore.index").joinpath("corine_words.json").read_text("utf-8"))
    names = {code: name for name, code in corine().codes.items()}
    return {names[code].lower(): tuple(words) for code, words in found.items()}


@cache
def called_as(name: str) -> tuple[str, ...]:
    """What people call the class of CORINE of that name, or the classes that they call so; () if there is none."""
    own, word = everyday().get(name.lower(), ()), name.lower()
    others = [other for words in everyday().values() if word in words for other in words if other != word]
    return tuple(dict.fromkeys([*own, *others]))


def _plain(name: str) -> str:
    """A name without what spellings differ in."""
    return "".join(word.removesuffix("s") for word in re.findall(r"\w+", name.lower()))


def _closest(name: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    names = list(known)
    meant = [n for n in names if name.lower() in everyday().get(n.lower(), ())]
    near = list(dict.fromkeys([*meant, *get_close_matches(name, names, 3, 0.4)]))[:3]
    return f"did you mean {', '.join(map(repr, near))}?" if near else "it lists them as `labels` and `groups`"


class _Condition:
    """Labels by name."""

    def __init__(self, *names: str) -> None:
        if not names or not all(isinstance(n, str) and n for n in names):
            raise InvalidInput(f"labels {names!r}; name at least one")
        self.names = names

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.names))})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.names == other.names

    def __hash__(self) -> int:
        return hash((type(self), self.names))


class Some(_Condition):
    """Rows with at least one of the labels; of a group: any label in it."""


class AtLeast(_Condition):
    """Rows with every one of the labels, whatever else they have; of a group: any label in it."""


class Exactly(_Condition):
    """Rows with every one of the labels and none besides; of a group: any labels in it."""


@dataclass(frozen=True)
class Labels:
    """The labels of all rows.

    Attributes:
        legend: what the bits mean.
        words: (legend.words, N) uint64.
        bitmaps: (labels, words) uint64, one bitmap over rows a label.
    """

    legend: Legend
    words: Words
    bitmaps: Words

    def meeting(self, condition: Some | AtLeast | Exactly) -> Words:
        """The bitmap of rows that meet the condition.

        Raises:
            InvalidInput: the legend has no such label.
        """
        wanted = [self.legend.positions(n) for n in condition.names]
        if isinstance(condition, Some):
            return self._any({p for found in wanted for p in found})
        first, *others = [self._any(p) for p in wanted]
        for other in others:
            first &= other
        if isinstance(condition, Exactly):
            _clear_others(first, self.words, self._mask({p for found in wanted for p in found}))
        return first

    def _any(self, positions: Collection[int]) -> Words:
        """A new bitmap of the rows with any of these labels."""
        first, *others = positions
        out: Words = self.bitmaps[first].copy()
        for other in others:
            out |= self.bitmaps[other]
        return out

    def _mask(self, positions: Iterable[int]) -> Words:
        mask = np.zeros(self.legend.words, np.uint64)
        for p in positions:
            mask[p // 64] |= np.uint64(1 << (p % 64))
        return mask


def labelled(legend: Legend, words: Words) -> Labels:
    """Labels of (legend.words, N) uint64 rows."""
    if words.ndim != 2 or len(words) != legend.words:
        raise InvalidInput(f"labels of shape {words.shape}; legend {legend.name} needs {legend.words} words a row")
    maps = [bitmap((words[i // 64] >> np.uint64(i % 64)) & np.uint64(1) != 0) for i in range(len(legend.labels))]
    return Labels(legend, words, np.array(maps, np.uint64).reshape(len(legend.labels), bitmap_size(words.shape[1])))


@compiled
def _clear_others(chosen: Words, words: Words, mask: Words) -> None:  # pragma: no cover - compiled
    """Clear the bits of chosen rows that have labels outside the mask, in place."""
    for at in range(chosen.size):
        left = chosen[at]
        if left == 0:
            continue
        last = min(64, words.shape[1] - 64 * at)
        for bit in range(last):
            others = np.uint64(0)
            for w in range(words.shape[0]):
                others |= words[w, 64 * at + bit] & ~mask[w]
            if others != 0:
                left &= ~(np.uint64(1) << np.uint64(bit))
        chosen[at] = left
