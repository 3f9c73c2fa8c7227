"""The `lexical` encoder: texts by the pieces of their words; it needs no weights, and knows spelling, not meaning."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import xxhash

from geostore.index.encoders import Floats, check_texts, unit

_PIECES = (3, 4)  # letters
_WORD = re.compile(r"[^\W_]+")


class Lexical:
    """Counts of three and four letters in a row, hashed into 1,024 numbers; words count as wholes too."""

    name: ClassVar[str] = "lexical"
    width: ClassVar[int] = 1024
    least: ClassVar[float] = 0.35  # cosine from which two words are held to be forms of one

    def digest(self) -> str:
        """Of the method: there are no weights."""
        return xxhash.xxh3_128_hexdigest(f"{self.name} 1 {self.width} {_PIECES}".encode())

    def text(self, texts: Sequence[str]) -> Floats:
        """(N, width), a row a text."""
        out = np.zeros((len(texts), self.width), np.float32)
        for row, text in zip(out, check_texts(texts), strict=True):
            for piece in _pieces(text.casefold()):
                row[xxhash.xxh3_64_intdigest(piece.encode()) % self.width] += 1
        return unit(out)


def _pieces(text: str) -> list[str]:
    found = []
    for word in _WORD.findall(text) or [text]:
        edged = f"<{word}>"
        found += [edged, *(edged[i : i + n] for n in _PIECES for i in range(len(edged) - n + 1))]
    return found
