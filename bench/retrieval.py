"""Search on labelled scenes: descriptors and heads against random rotation, ITQ, PCA signs and the published recipe.

`python -m bench.retrieval` measures UC Merced where `GEOSTORE_DATA` has it, with its own parts. The verb
`geostore bench retrieval PATH` does the same for a set of yours.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from bench.datasets import DATA
from bench.harness import Bench, run, workplace
from bench.retrieval_parts import Parts, all_scores
from geostore.errors import NotInstalled
from geostore.index.milan import STEPS
from geostore.retrieval import BITS, HEAD_STEPS, METHODS, UNLABELLED, Score

BARS_AT = 128  # bits
BELOW = 0.06  # sign bits so far under the ceiling are held to the bars
SIGNS = ("rotation", "pca-sign", "itq")
DESCRIPTORS = ("spectral", "simsiam", "efficientnet-lite0")
Scores = dict[tuple[str, int], Score]  # by method and bits


def measure(bench: Bench) -> None:
    """UC Merced with each descriptor; two generated classes, when quick."""
    with workplace() as folder:
        path = _generated(folder) if bench.quick else DATA / "ucmerced"
        if not path.is_dir():
            raise NotInstalled(f"no scenes in {path}; set GEOSTORE_DATA")
        plain = None
        bits, steps = ((32,), (10, 10)) if bench.quick else (tuple(bench.options["bits"]), (HEAD_STEPS, STEPS))
        for name in DESCRIPTORS[:1] if bench.quick else bench.options["descriptors"]:
            parts = Parts(
                path=path, descriptor=name, seed=bench.seed, steps=steps[0], published_steps=steps[1],
                methods=_methods(bench, name), work=bench.options.get("work"),
            )  # fmt: skip
            found, queries = all_scores(parts, _widths(bits, name))
            plain = _note(bench, name, found, queries, plain)
            bench.write()


def options(parser: argparse.ArgumentParser) -> None:
    """What a part of the bench is asked for by."""
    parser.add_argument("--descriptors", nargs="+", default=list(DESCRIPTORS))
    parser.add_argument("--bits", nargs="+", type=int, default=list(BITS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--work", type=Path, help="folder that keeps each part, so that a run goes on where it stopped")


def _methods(bench: Bench, descriptor: str) -> tuple[str, ...]:
    """What is measured of a descriptor: a head without labels of the one that a store starts with alone."""
    asked: Sequence[str] = bench.options.get("methods", METHODS)
    return tuple(m for m in asked if m != UNLABELLED or descriptor == DESCRIPTORS[0])


def _widths(asked: tuple[int, ...], descriptor: str) -> tuple[int, ...]:
    """Every width for the descriptor that a store starts with; for others the one of the bars, where it is asked."""
    return asked if descriptor == DESCRIPTORS[0] or BARS_AT not in asked else (BARS_AT,)


def _note(
    bench: Bench, descriptor: str, found: list[tuple[Score, str]], queries: int, plain: Score | None
) -> Score | None:
    """Rows and figures of one descriptor; the float score of `spectral`, once it was measured, to be handed on."""
    for s, measured_at in found:
        bench.row(
            descriptor=descriptor, method=s.method, bits=s.bits, map=s.map, map_strict=s.map_strict,
            map_lenient=s.map_lenient, **{f"p{d}": v for d, v in s.precision.items()},
            **{f"r{d}": v for d, v in s.recall.items()}, measured_at=measured_at,
        )  # fmt: skip
    scores: Scores = {(s.method, s.bits): s for s, _ in found}
    for width in sorted({bits for _, bits in scores} - {0}):
        _figures(bench, descriptor, scores, width, queries)
    return _descriptors(bench, descriptor, scores.get(("descriptor", 0)), plain, queries)


def _descriptors(bench: Bench, name: str, mine: Score | None, plain: Score | None, queries: int) -> Score | None:
    """The float descriptor against `spectral`."""
    if mine is not None and plain is not None:
        _points(bench, f"{name}.over_spectral", mine, plain, None, queries)
    return mine if name == "spectral" else plain


def _figures(bench: Bench, descriptor: str, scores: Scores, bits: int, queries: int) -> None:
    """The bars of `learned` at one width; they hold at BARS_AT."""
    key, held = f"{descriptor}.{bits}", bits == BARS_AT
    learned, ceiling = scores.get(("learned", bits)), scores.get(("ceiling", bits))
    if learned is not None and ceiling is not None:
        what = "mAP@20 of the head's output before it is made bits"
        value, bar = None if bench.quick else learned.map / ceiling.map, 0.98 if held else None
        bench.figure(f"{key}.of_ceiling", value, better="higher", bar=bar, baseline=what, n=queries)
        for name in SIGNS:
            _signs(bench, f"{key}.{{}}_{name}", learned, ceiling, _widest(scores, name, bits), held, queries)
        if (published := scores.get(("milan-published", bits))) is not None:
            _points(bench, f"{key}.over_milan", learned, published, 2.0 if held else None, queries)
        if (viewed := scores.get(("milan-published-views", bits))) is not None:
            _points(bench, f"{key}.over_milan_with_views", learned, viewed, None, queries)
    unlabelled, rotation = scores.get(("learned-unlabelled", bits)), scores.get(("rotation", bits))
    if unlabelled is not None and rotation is not None:
        _points(bench, f"{key}.unlabelled_over_rotation", unlabelled, rotation, None, queries)


def _signs(bench: Bench, key: str, learned: Score, ceiling: Score, other: Score | None, held: bool, n: int) -> None:
    """A head against sign bits, with its bar where these lie far enough below the ceiling."""
    if other is None:
        return
    below = ceiling.map - other.map
    if held:
        what = "points of tie-aware mAP@20 by which sign bits lie under the ceiling; the bar holds above 6"
        bench.figure(key.format("room_above"), None if bench.quick else 100 * below, better="lower", baseline=what, n=n)
    _points(bench, key.format("over"), learned, other, 5.0 if held and below > BELOW else None, n)


def _widest(scores: Scores, method: str, bits: int) -> Score | None:
    """A method at this width, or at the widest below that the descriptor's components allow."""
    fitting = [s for (name, width), s in scores.items() if name == method and width <= bits]
    return max(fitting, key=lambda s: s.bits, default=None)


def _points(bench: Bench, key: str, learned: Score, other: Score, bar: float | None, n: int) -> None:
    value = None if bench.quick else 100 * (learned.map - other.map)
    width = f" at {other.bits} bits" if other.bits else ""
    what = f"tie-aware mAP@20 of {other.method}{width} on the same descriptors, in points"
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
