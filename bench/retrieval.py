"""Search on labelled scenes: descriptors and heads against random rotation, ITQ, PCA signs and the published recipe.

`python -m bench.retrieval` measures UC Merced where `GEOSTORE_DATA` has it, with its own parts. The verb
`geostore bench retrieval PATH` does the same for a set of yours.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from bench.datasets import DATA
from bench.harness import Bench, run, workplace
from geostore.errors import NotInstalled
from geostore.retrieval import BITS, HEAD_STEPS, METHODS, Retrieval, Score, retrieval

BARS_AT = 128  # bits
BELOW = 0.06  # sign bits so far under the ceiling are held to the bars
UNLABELLED = ("rotation", "pca-sign", "itq")


def measure(bench: Bench) -> None:
    """UC Merced with each descriptor; two generated classes, when quick."""
    with workplace() as folder:
        path = _generated(folder) if bench.quick else DATA / "ucmerced"
        if not path.is_dir():
            raise NotInstalled(f"no scenes in {path}; set GEOSTORE_DATA")
        plain = None
        bits, steps = ((32,), 10) if bench.quick else (tuple(bench.options["bits"]), 10_000)
        for descriptor in ("spectral",) if bench.quick else bench.options["descriptors"]:
            found = retrieval(
                path, descriptor=descriptor, bits=bits, methods=bench.options.get("methods", METHODS),
                steps=min(steps, HEAD_STEPS), published_steps=steps, seed=bench.seed,
            )  # fmt: skip
            _note(bench, descriptor, found, bits)
            plain = _descriptors(bench, descriptor, found, plain)
            bench.write()


def options(parser: argparse.ArgumentParser) -> None:
    """What a part of the bench is asked for by."""
    parser.add_argument("--descriptors", nargs="+", default=["spectral", "simsiam", "efficientnet-lite0"])
    parser.add_argument("--bits", nargs="+", type=int, default=list(BITS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))


def _note(bench: Bench, descriptor: str, found: Retrieval, bits: tuple[int, ...]) -> None:
    for s in found.scores:
        bench.row(
            descriptor=descriptor, method=s.method, bits=s.bits, map=s.map, map_strict=s.map_strict,
            map_lenient=s.map_lenient, **{f"p{d}": v for d, v in s.precision.items()},
            **{f"r{d}": v for d, v in s.recall.items()},
        )  # fmt: skip
    for width in bits:
        _figures(bench, f"{descriptor}.{width}", found, width)


def _descriptors(bench: Bench, name: str, found: Retrieval, plain: Score | None) -> Score | None:
    """The float descriptor against `spectral`, once that was measured: its score, to be handed on."""
    mine = found.score("descriptor")
    if mine is not None and plain is not None:
        _points(bench, f"{name}.over_spectral", mine, plain, None, int(found.facts["queries"]))
    return mine if name == "spectral" else plain


def _figures(bench: Bench, key: str, found: Retrieval, bits: int) -> None:
    """The bars of `learned` at one width; they hold at BARS_AT."""
    learned, ceiling = found.score("learned", bits), found.score("ceiling", bits)
    published, n = found.score("milan-published", bits), int(found.facts["queries"])
    assert learned is not None
    assert ceiling is not None
    held = bits == BARS_AT
    what = "mAP@20 of the head's output before it is made bits"
    value = None if bench.quick else learned.map / ceiling.map
    bench.figure(f"{key}.of_ceiling", value, better="higher", bar=0.98 if held else None, baseline=what, n=n)
    for name in UNLABELLED:
        if (other := found.score(name, bits)) is not None:
            far = ceiling.map - other.map > BELOW
            _points(bench, f"{key}.over_{name}", learned, other, 5.0 if held and far else None, n)
    if published is not None:
        _points(bench, f"{key}.over_milan", learned, published, 2.0 if held else None, n)
    unlabelled, rotation = found.score("learned-unlabelled", bits), found.score("rotation", bits)
    if unlabelled is not None and rotation is not None:
        _points(bench, f"{key}.unlabelled_over_rotation", unlabelled, rotation, None, n)


def _points(bench: Bench, key: str, learned: Score, other: Score, bar: float | None, n: int) -> None:
    value = None if bench.quick else 100 * (learned.map - other.map)
    what = f"tie-aware mAP@20 of {other.method} on the same descriptors, in points"
    bench.figure(key, value, better="higher", bar=bar, baseline=what, n=n)


def _generated(folder: Path) -> Path:
    """Two synthetic classes, for a quick run."""
    for kind in range(2):
        (folder / f"class {kind}").mkdir()
        for number in range(10):
            rng = np.random.default_rng([kind, number])
            pixels = np.clip(80 + 60 * kind + rng.normal(0, 10, (24, 24, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"class {kind}" / f"{kind}_{number}.png")
    return folder


if __name__ == "__main__":
    run(measure, "retrieval", options=options)
