"""Parts of the retrieval bench: a described set, or one method at one width, kept on disk as soon as it is done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import geostore
from bench.harness import commit
from geostore.index.views import Views
from geostore.retrieval import UNLABELLED, VIEWED, Described, Score, evaluate, read_described

_CODE = ("retrieval.py", "scene/labelled.py", "index/descriptors", "index/evaluation.py", "index/kernel.py",
         "index/learned.py", "index/milan.py", "index/signatures.py", "index/views.py")  # fmt: skip
_ARRAYS = ("descriptors", "quarters", "labels", "train", "test")


@dataclass(frozen=True, kw_only=True)
class Parts:
    """One labelled set through one descriptor, measured method by method.

    Attributes:
        path: of the set.
        descriptor: its name.
        seed: parts of the set and trainings follow from it.
        steps, published_steps: of the learned head's training, and of the published recipe's.
        methods: what is measured.
        work: results already there are read, not measured again, unless the code has changed; None keeps nothing.
    """

    path: Path
    descriptor: str
    seed: int
    steps: int
    published_steps: int
    methods: tuple[str, ...]
    work: Path | None

    def described(self) -> Described:
        """Every scene, described."""
        used = {"quartered": UNLABELLED in self.methods, "viewed": bool({*VIEWED} & {*self.methods})}
        kept = self._kept("-".join(["described", *(name for name, wanted in used.items() if wanted)]) + ".npz")
        if kept is not None and kept.exists():
            with np.load(kept) as data:
                arrays = {name: data[name] for name in _ARRAYS}
                views = Views(data["views"], data["viewed"])
                return Described(**arrays, views=views, facts=json.loads(str(data["facts"])))
        made = read_described(self.path, descriptor=self.descriptor, methods=self.methods, seed=self.seed)
        if kept is not None:
            fresh = kept.with_name("fresh.npz")
            arrays = {name: getattr(made, name) for name in _ARRAYS}
            np.savez(
                fresh, facts=json.dumps(made.facts), views=made.views.vectors, viewed=made.views.of, **arrays
            )  # fmt: skip
            fresh.replace(kept)
        return made

    def scores(self, described: Described, method: str, bits: int) -> tuple[list[Score], str]:
        """Scores of one method at one width (none where it cannot be run), and the commit that measured them."""
        kept = self._kept(f"{method}-{bits}.json")
        if kept is not None and kept.exists():
            said = json.loads(kept.read_text())
            return [_score(s) for s in said["scores"]], said["commit"]
        found = evaluate(
            described, bits=(bits,), methods=(method,), steps=self.steps, published_steps=self.published_steps,
            seed=self.seed,
        )  # fmt: skip
        said = {"scores": found.to_dict()["scores"], "commit": commit()}
        if kept is not None:
            fresh = kept.with_suffix(".new")
            fresh.write_text(json.dumps(said))
            fresh.replace(kept)
        return list(found.scores), said["commit"]

    def _kept(self, name: str) -> Path | None:
        if self.work is None:
            return None
        asked = [str(self.path), self.seed, self.steps, self.published_steps, _code_digest()]
        digest = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]
        folder = self.work / f"{self.descriptor}-{digest}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name


def all_scores(parts: Parts, widths: Sequence[int]) -> tuple[list[tuple[Score, str]], int]:
    """(score, commit) of the float descriptor and of every method at every width; and the number of queries."""
    described = parts.described()
    found: dict[tuple[str, int], tuple[Score, str]] = {}
    for bits in widths:
        for method in parts.methods:
            scores, measured_at = parts.scores(described, method, bits)
            found |= {(s.method, s.bits): (s, measured_at) for s in scores}
    return list(found.values()), int(described.facts["queries"])


def _score(said: dict[str, Any]) -> Score:
    """From JSON, whose names are strings."""
    depths = {name: {int(k): v for k, v in said[name].items()} for name in ("precision", "recall")}
    return Score(**{**said, **depths})


@lru_cache
def _code_digest() -> str:
    """Changes with the code that descriptors, heads and scores come from."""
    package = Path(geostore.__file__).parent
    files = [f for name in _CODE for f in (sorted((package / name).rglob("*.py")) or [package / name])]
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()
