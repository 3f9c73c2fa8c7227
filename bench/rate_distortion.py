"""Bytes of whole series against error: geostore's codecs, the paper's flat VAE, and every classical codec at hand."""

from __future__ import annotations

import argparse
import csv
import os
from collections import Counter
from pathlib import Path

from bench import loss_terms, rd_figures, rd_plan, rd_plot
from bench.harness import Bench, run, workplace
from bench.loss_terms import Term
from bench.rd_cells import NEEDS, Cell, Workshop, missing, place_of
from bench.rd_curves import Point
from bench.rd_masks import mask_sizes, mask_sizes_before
from bench.rd_ours import OWN_STEPS
from bench.rd_places import Place, names
from geostore.plugins import names as installed

FAMILIES = ("vae", "klt-dct", "klt-av1")
STEPS = 600  # of a fit that trains a network of its own
_QUICK_STEPS, _QUICK_CELLS = 2, 2


def options(parser: argparse.ArgumentParser) -> None:
    """What this bench takes beside the common options."""
    parser.add_argument("--work", type=Path, help="folder of what was measured before; it is not measured again")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes; 0 for this one alone")
    parser.add_argument("--kept", action="store_true", help="measure nothing: a result from what --work holds so far")
    parser.add_argument("--place", action="append", help="only this place; may be given again")


def measure(bench: Bench) -> None:
    """Every place through every codec; then tables, figures and curves."""
    with workplace() as folder:
        work = bench.options.get("work") or folder
        workers = 0 if bench.quick else bench.options.get("workers") or 0
        archive = bench.folder / "rate_distortion_cells.json.xz"
        workshop = Workshop(Path(work), None if bench.options.get("kept") else workers, archive)
        places = _places(bench)
        try:
            points = _points(bench, workshop, places)
            terms = _terms(bench, workshop, places)
        finally:
            workshop.pack()
    found = rd_figures.Found(places, points)
    _tell(bench, workshop, places)
    _cells_of(bench, points)
    rd_figures.tabulate(bench, found)
    rd_figures.ratios(bench, found)
    rd_figures.bounded(bench, found)
    rd_figures.one_step(bench, found)
    rd_figures.as_stored(bench, found)
    rd_figures.index_in_logarithms(bench, found)
    rd_figures.figures(bench, found)
    loss_terms.figures(bench, terms, "index_term.")
    _write_points(bench.folder / "rate_distortion_points.csv", points)
    rd_plot.draw(found, bench.folder)


def _terms(bench: Bench, workshop: Workshop, places: list[Place]) -> list[Term]:
    """What the index term changes on Romania: the comparison of `bench.loss_terms`, kept as cells are."""
    place = next((p for p in places if p.name == "romania"), None)
    if place is None:
        return []
    found = []
    for seed in range(bench.seed, bench.seed + loss_terms.SEEDS):
        goal = {"mse": loss_terms.MSE, "index": loss_terms.NDVI}
        cell = Cell(place.name, "loss terms", "", goal, family="vae", effort=(loss_terms.STEPS_FITTED, seed))
        kept = workshop.folder / place.name / f"{cell.fingerprint}.terms"
        if workshop.workers is None and not kept.exists():
            workshop.left.append(cell)
        else:
            found.append(Term.measured(place, steps=loss_terms.STEPS_FITTED, seed=seed, kept=kept))
    return found


def _places(bench: Bench) -> list[Place]:
    wanted = bench.options.get("place") or names(quick=bench.quick)
    return [place for name in wanted if (place := place_of(name)) is not None]


def _points(bench: Bench, workshop: Workshop, places: list[Place]) -> list[Point]:
    """Classical codecs in two rounds, geostore's beside the first."""
    steps, long = (_QUICK_STEPS,) * 2 if bench.quick else (STEPS, OWN_STEPS)
    families = [f for f in FAMILIES if f in installed("geostore.codecs")]
    first: list[Cell] = []
    for place in places:
        first += rd_plan.ours(place, families, steps=steps, long=long, seed=bench.seed)
        first += rd_plan.classical(place)
    points = workshop.run(_few(first) if bench.quick else first, "first round")
    second = [] if bench.quick else [c for place in places for c in rd_plan.promising(place, points)]
    return distinct([*points, *workshop.run(second, "second round")])


def _few(cells: list[Cell]) -> list[Cell]:
    """Some cells of every codec."""
    kept: dict[str, list[Cell]] = {}
    for cell in cells:
        kept.setdefault(cell.codec, []).append(cell)
    return [c for some in kept.values() for c in some[:: max(1, len(some) // _QUICK_CELLS)]]


def distinct(points: list[Point]) -> list[Point]:
    """A probe of the first round is met again on its curve."""
    return list({(p.place, p.codec, p.variant, str(sorted(p.setting.items()))): p for p in points}.values())


def _tell(bench: Bench, workshop: Workshop, places: list[Place]) -> None:
    """What the places are, and what did not run."""
    for place in places:
        dates, bands, height, width = place.series.pixels.shape
        shape = f"{dates} x {bands} x {height} x {width}"
        told = {"usable": float(place.series.valid.mean()), "mask_bytes": int(mask_sizes(place).sum())}
        bench.row(place=place.name, what=place.title, shape=shape, **told, zstd=int(mask_sizes_before(place).sum()))
    for codec in NEEDS:
        if package := missing(codec):
            bench.row(codec=codec, not_run=f"the package {package} is not installed; `make bench` installs it")
    for (name, codec), count in Counter((c.place, c.codec) for c in workshop.left).items():
        bench.row(place=name, codec=codec, settings_left_out=count)
    for cell, error in workshop.failed:
        bench.row(place=cell.place, codec=cell.codec, variant=cell.variant, setting=str(cell.setting), failed=error)


def _cells_of(bench: Bench, points: list[Point]) -> None:
    """Which commits measured what: cells are kept for as long as nothing they depend on changes."""
    for (codec, commit), count in sorted(Counter((p.codec, p.commit) for p in points).items()):
        bench.row(codec=codec, cells=count, measured_at=commit or "before cells told it")


def _write_points(path: Path, points: list[Point]) -> None:
    """Every point as a line of a CSV file: what the curves are drawn from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            "place codec variant setting bytes bytes_without_weights mse ndvi_mae max_error seconds commit".split()  # noqa: SIM905
        )
        for p in points:
            setting = " ".join(f"{k}={v:.6g}" if isinstance(v, float) else f"{k}={v}" for k, v in p.setting.items())
            numbers = (p.every.mse, p.every.ndvi_mae, p.every.max_error)
            told = ["" if n is None else f"{n:.5g}" for n in numbers]
            writer.writerow([p.place, p.codec, p.variant, setting, p.nbytes, p.marginal, *told, p.seconds, p.commit])


if __name__ == "__main__":
    run(measure, "rate_distortion", options=options)
