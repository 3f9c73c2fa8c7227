"""How much error does sharing one network cost? A base, with and without a delta, against a decoder of the place alone.

`python -m bench.sharing`. The *sharing gap* is the MSE of base + delta over that of the place's own decoder, at equal
bytes of the embeddings, on dates that no fit saw (every fourth), at a place the base never saw.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from bench import rd_places
from bench.base_places import PERU_HELD_OUT, counts, peru_stack
from bench.datasets import DATA
from bench.harness import Bench, run
from bench.sharing_plot import draw
from geostore.certificate import measure
from geostore.codec import Effort, Series
from geostore.collection import Policy
from geostore.vae.base import find
from geostore.vae.borrow import Delta, borrow_codec
from geostore.vae.codec import VaeCodec
from geostore.vae.fit import assemble, prepare, with_prior
from geostore.vae.model import Layout
from geostore.vae.quantize import pack_decoder, pack_encoder
from geostore.vae.shared import CROP, Draw, Training
from geostore.vae.teach import place_of

STATIC_POLICY = Policy(mse_max=3e-4, index_mae_max=None)  # decides how well the static image is kept
OWN_STEPS = (1000, 2000, 4000, 8000, 16000)  # lengths of a training of the own decoder, each from start to end
SYNTHETIC_STEPS = OWN_STEPS[:3]  # of generated dates, which no figure with a bar is of
GAIN, PATIENCE = 0.02, 2  # a length is not doubled after so many that gained less over the best before
SPREAD = (0.6, 1.6)  # steps the own decoder is trained for: it has one rate to serve
TARGETS = (1.3, 0.8)  # of the place's MSE at which curves are taken
QUALIFIES = 1.2  # largest unseen/seen MSE of an own decoder that is a fair reference
LOOKED = 8  # seen dates that curves are taken on
CELLS = 2  # held-out cells of Peru, of 16, that get an own decoder
LEFT = 0.36  # of what gains and levels leave of a place, where no MSE is given: as much as 3e-4 is of romania's
_DELTAS: tuple[Delta, ...] = ("none", "few", "whole")


@dataclass(frozen=True)
class Case:
    """One place to measure at.

    Attributes:
        name, title: as in results.
        series: all dates.
        mse: on n1, in the middle of the curves; None: LEFT of what gains and levels leave on the seen dates.
        real: False for generated dates.
    """

    name: str
    title: str
    series: Series
    mse: float | None
    real: bool

    def part(self, unseen: bool) -> Series:
        """The dates no fit sees, or the others."""
        chosen = np.arange(len(self.series)) % rd_places.HELD_OUT == rd_places.HELD_OUT - 1
        return rd_places.part(self.series, chosen == unseen)


Curve = list[tuple[float, float]]  # (bytes a raster, MSE), coarse to fine


def cases(quick: bool) -> Iterator[Case]:
    """Every place at hand that a base never saw, real ones first."""
    names = ("synthetic-small",) if quick else ("romania", "romania-20m")
    yield from _loaded(names)
    if quick:
        return
    if (DATA / "landsat_peru_timeseries").exists():
        yield from _peru_cells()
    yield from _loaded(("modis", "synthetic-soft"))


def _loaded(names: Sequence[str]) -> Iterator[Case]:
    for name in names:
        place = rd_places.load(name)
        if place is not None:
            yield Case(name, place.title, place.series, 3e-4, not place.synthetic)


def _peru_cells() -> Iterator[Case]:
    stack = peru_stack()
    rows, columns = PERU_HELD_OUT[0]
    for number in range(CELLS):
        top, left = rows.start + 54 * number, columns.start + 54 * ((number * 3 + 1) % 4)
        cell = stack[:, :, top : top + 54, left : left + 54]
        title = "Landsat, Pucallpa, 8-bit: 8 dates, 4 bands, a window of the size of a geohash-5 cell"
        series = rd_places._series(cell, counts(("swir16", "green", "red", "nir")))  # noqa: SLF001 - its sibling
        yield Case(f"peru-cell-{number}", title, series, None, True)


def curve(codec: VaeCodec, series: Series, mse: float | None) -> Curve:
    """Mean bytes of an embedding, shared ones divided, and mean MSE of the series, at each of TARGETS."""
    points, mse = [], LEFT * codec.scale**2 if mse is None else mse
    for factor in TARGETS:
        bound = replace(codec, policy=Policy(mse_max=factor * mse, index_mae_max=None), indices=())
        encoded = bound.encode_series(series)
        size = sum(len(e.payload) for e in encoded) + sum(map(len, {e.shared for e in encoded}))
        frames = zip(encoded, series.pixels, series.valid, strict=True)
        errors = [measure(p, bound.decode(e.payload, v, e.shared), v, series.bands, ()).mse for e, p, v in frames]
        points.append((size / len(encoded), float(np.mean(errors))))
    return points


def middle(points: Curve) -> float:
    """Bytes in the middle of a curve, on a logarithmic scale."""
    return math.sqrt(points[0][0] * points[-1][0])


def mse_at(points: Curve, size: float) -> float:
    """MSE at `size` bytes, on straight lines between logarithms; beyond the curve its last slope goes on."""
    x, y = (np.log(np.array(v)) for v in zip(*points, strict=True))
    order = np.argsort(x)
    x, y, at = x[order], y[order], np.log(size)
    i = int(np.clip(np.searchsorted(x, at) - 1, 0, len(x) - 2))
    return float(np.exp(y[i] + (at - x[i]) * (y[i + 1] - y[i]) / max(x[i + 1] - x[i], 1e-9)))


def own_codec(case: Case, steps: int, seed: int) -> VaeCodec:
    """A decoder that learns this place alone."""
    seen = case.part(False)
    samples = prepare(seen, "grid", STATIC_POLICY)
    height, width = seen.pixels.shape[2:]
    layout = Layout(
        mode="grid",
        bands=len(seen.bands),
        height=height,
        width=width,
        channels=2 * len(seen.bands),
        widths=(32, 32, 16, 16),
        encoder=(24, 32),
        hidden=12,
    )
    training = Training(replace(layout, height=CROP, width=CROP), seed)
    place = place_of("own", samples)
    draw = Draw([place], {"own": 1.0}, np.random.default_rng(seed), steps=SPREAD)
    while training.steps < steps:
        training.step(draw, training.steps / steps)
    vae = training.kept
    codec = assemble(layout, {**pack_encoder(vae.encoder), **pack_decoder(vae.decoder)}, samples, STATIC_POLICY)
    return with_prior(codec, seen, rounds=0, seed=seed)


@dataclass(frozen=True)
class Length:
    """The own decoder after one training: its steps, the bytes of its codec, its curves on unseen and seen dates."""

    steps: int
    codec_bytes: int
    unseen: Curve
    seen: Curve


def own_length(case: Case, steps: int, seed: int, folder: Path | None, unseen: Series, some: Series) -> Length:
    """The own decoder trained for so many steps; its curves are kept in `folder` for other runs."""
    kept = None if folder is None else folder / f"{case.name}-{steps}-{seed}.json"
    if kept is not None and kept.exists():
        size, *curves = json.loads(kept.read_text())
        return Length(steps, size, *([(b, m) for b, m in points] for points in curves))
    codec = own_codec(case, steps, seed)
    found = Length(steps, len(codec.to_bytes()), curve(codec, unseen, case.mse), curve(codec, some, case.mse))
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps([found.codec_bytes, found.unseen, found.seen]))
    return found


def _lengths(
    case: Case, steps: Sequence[int], seed: int, folder: Path | None, unseen: Series, some: Series
) -> Iterator[Length]:
    """Longer and longer trainings, until PATIENCE of them in a row gained less than GAIN at equal bytes."""
    best, size, vain = math.inf, 0.0, 0
    for at in steps:
        found = own_length(case, at, seed, folder, unseen, some)
        yield found
        size = size or middle(found.unseen)
        error = mse_at(found.unseen, size)
        vain, best = (0 if error < (1 - GAIN) * best else vain + 1), min(best, error)
        if vain == PATIENCE:
            return


def measure_case(bench: Bench, case: Case, steps: Sequence[int], own: Path | None) -> dict[str, float]:
    """Rows of one place; its gaps by delta, and what tells whether it qualifies."""
    seen, unseen = case.part(False), case.part(True)
    some = rd_places.part(seen, np.arange(len(seen)) % max(1, len(seen) // LOOKED) == 0)
    shared = [(delta, *_on_base(case, delta, bench.seed, unseen, some)) for delta in _DELTAS]
    trained = list(_lengths(case, steps, bench.seed, own, unseen, some))
    at_first = middle(trained[0].unseen)
    best = min(trained, key=lambda length: mse_at(length.unseen, at_first))
    size, reference = middle(best.unseen), best.unseen
    found = {
        "own_unseen_over_seen": mse_at(reference, size) / mse_at(best.seen, size),
        "own_last_doubling": mse_at(trained[-1].unseen, size) / mse_at(trained[-2].unseen, size),
    }
    for each in trained:
        _row(bench, case, "own decoder", each.steps, None, each.codec_bytes, size, reference, each.unseen, each.seen)
    for delta, seconds, delta_bytes, points, learned in shared:
        found[delta] = mse_at(points, size) / mse_at(reference, size)
        found[f"{delta}_bytes"] = float(delta_bytes)
        found[f"{delta}_unseen_over_seen"] = mse_at(points, size) / mse_at(learned, size)
        _row(bench, case, f"base, delta {delta}", 0, seconds, delta_bytes, size, reference, points, learned)
    bench.write()
    return found


def _on_base(case: Case, delta: Delta, seed: int, unseen: Series, some: Series) -> tuple[float, int, Curve, Curve]:
    """Seconds of the core to make the codec, bytes of its delta, curve on unseen dates, curve on seen ones."""
    begun = time.process_time()
    codec = borrow_codec(case.part(False), policy=STATIC_POLICY, effort=Effort(seed=seed), delta=delta)
    assert codec is not None
    seconds = time.process_time() - begun
    codec = replace(codec, rounds=0)  # nor are the latents of the own decoder refined
    return seconds, _delta_bytes(codec), curve(codec, unseen, case.mse), curve(codec, some, case.mse)


def _delta_bytes(codec: VaeCodec) -> int:
    """What the delta adds to the codec as it is stored."""
    assert codec.borrowed is not None
    bare = replace(codec.borrowed, delta={})
    without = replace(codec, borrowed=bare, prior=bare.prior)
    return len(codec.to_bytes()) - len(without.to_bytes())


def _row(
    bench: Bench,
    case: Case,
    what: str,
    steps: int,
    seconds: float | None,
    codec_bytes: int,
    size: float,
    reference: Curve,
    points: Curve,
    learned: Curve,
) -> None:
    bench.row(
        place=case.name,
        decoder=what,
        steps=steps,
        core_seconds=seconds if seconds is None else round(seconds, 1),
        bytes_codec_or_delta=codec_bytes,
        bytes_a_raster=round(size, 1),
        mse_unseen=mse_at(points, size),
        mse_seen=mse_at(learned, size),
        gap=mse_at(points, size) / mse_at(reference, size),
        bytes_over_own=float(np.exp(np.mean([np.log(p[0] / r[0]) for p, r in zip(points, reference, strict=True)]))),
    )
    print(bench.rows[-1], flush=True)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--places", nargs="*", help="only these")
    parser.add_argument("--own", type=Path, help="folder that keeps the places' own decoders between runs")


def main(bench: Bench) -> None:
    """All places, then the figures."""
    own = bench.options.pop("own", None)  # where it lies is no part of the result
    chosen = bench.options.get("places")
    results = {}
    for case in cases(bench.quick):
        if find(case.series.bands.names) is None:
            bench.row(place=case.name, not_shown=f"no base takes the bands {', '.join(case.series.bands.names)}")
            continue
        if chosen and case.name not in chosen:
            bench.row(place=case.name, not_shown="left out of this run")
            continue
        steps = (20, 40) if bench.quick else OWN_STEPS if case.real else SYNTHETIC_STEPS
        results[case.name] = case, measure_case(bench, case, steps, own)
        case, found = results[case.name]
        if not _fair(case, found):
            why = f"own unseen/seen {found['own_unseen_over_seen']:.2f}" if case.real else "generated dates"
            bench.row(place=case.name, not_among_the_real=why, gap_whole=found["whole"], gap_none=found["none"])
        _figures(bench, results)
        draw(bench.rows, bench.write().with_suffix(".png"))


def _fair(case: Case, found: dict[str, float]) -> bool:
    """True where the own decoder is a reference: real dates, and it does not memorise."""
    return case.real and found["own_unseen_over_seen"] <= QUALIFIES


def _figures(bench: Bench, results: dict[str, tuple[Case, dict[str, float]]]) -> None:
    fair = {n: f for n, (c, f) in results.items() if _fair(c, f)}
    wanted: list[tuple[str, str, float | None]] = [
        ("gap_delta", "whole", 1.15),
        ("gap_few", "few", None),
        ("gap_nothing_fitted", "none", 1.25),
        ("unseen_over_seen", "whole_unseen_over_seen", 1.10),
        ("delta_bytes", "whole_bytes", 1500),
        ("own_unseen_over_seen", "own_unseen_over_seen", QUALIFIES),
        ("own_last_doubling", "own_last_doubling", None),
    ]
    for kind, chosen in (("real", fair), ("synthetic", {n: f for n, (c, f) in results.items() if not c.real})):
        for key, field, bar in wanted:
            values = [f[field] for f in chosen.values()]
            bench.figure(
                f"{kind}.{key}",
                float(np.median(values)) if values else None,
                bar=bar if kind == "real" else None,
                better="lower",
                baseline=f"the place's own decoder, equal bytes, unseen dates; {', '.join(chosen) or 'not shown'}",
                n=max(len(values), 1),
            )


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(main, "sharing", options=_options)
