"""`klt-dct` against the best classical codec at synthetic places that nobody looked at while it was made.

`python -m bench.rate_distortion_fresh --work FOLDER`. The places of `bench.rate_distortion` were on the table as
decisions on the codec were taken; these are drawn by the same generator with other seeds, and nothing may ever be
decided on them. One quality for all dates, unseen dates, as in that bench. Twenty minutes of two cores.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from bench import rd_figures, rd_plan
from bench.harness import Bench, run, workplace
from bench.rate_distortion import distinct
from bench.rd_cells import Cell, Workshop, place_of
from bench.rd_figures import KLT_DCT, MARGINAL, Comparison, Found
from bench.rd_places import FRESH, Place
from bench.rd_plan import VIDEO

_AGAINST = Comparison("", (KLT_DCT,), False, "KLT + AV1 or HEVC, one stream a component; unseen dates")


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--work", type=Path, help="folder of what was measured before; it is not measured again")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes; 0 for this one alone")


def measure(bench: Bench) -> None:
    """Curves of all codecs at each place, then what they take at equal error."""
    places = [p for name in (["synthetic-small"] if bench.quick else FRESH) if (p := place_of(name)) is not None]
    with workplace() as folder:
        work, workers = bench.options.get("work") or folder, 0 if bench.quick else bench.options.get("workers")
        workshop = Workshop(Path(work), workers)
        first = [cell for place in places for cell in _cells(place, bench.seed)]
        points = workshop.run(first[:: len(first) // 4] if bench.quick else first, "first round")
        second = [] if bench.quick else [cell for place in places for cell in rd_plan.promising(place, points)]
        points = distinct([*points, *workshop.run(second, "second round")])
    found = Found(places, points)
    for cell, error in workshop.failed:
        bench.row(place=cell.place, codec=cell.codec, variant=cell.variant, setting=str(cell.setting), failed=error)
    for place in places:
        for codec in dict.fromkeys(p.codec for p in found.of(place)):
            own = found.own(place, codec) if codec == KLT_DCT else found.of(place, codec)
            sizes = {f"MSE {mse:g}": MARGINAL.size(own, mse) for mse in rd_plan.MSE_TARGETS}
            bench.row(place=place.name, codec=codec, **{k: v and round(v.nbytes) for k, v in sizes.items()})
    rd_figures.compared(bench, found, _AGAINST)


def _cells(place: Place, seed: int) -> list[Cell]:
    """klt-dct under bounds on the MSE and at one quality, and the classical codecs that may be the best."""
    ours = rd_plan.ours(place, ["klt-dct"], steps=0, long=0, seed=seed)
    plain = [c for c in ours if set(c.setting) <= {"mse_max", "one_step"}]
    return [*plain, *(c for c in rd_plan.classical(place) if c.codec in VIDEO)]


if __name__ == "__main__":
    run(measure, "rate_distortion_fresh", options=_options)
