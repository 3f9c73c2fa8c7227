"""Deltas of many small places in one pass against one after the other: `python -m bench.fit_many`.

Synthetic places, so that any machine can run it. Both ways take the same steps on the same places; the error each
place is left with stands beside the time. What that would be worth in `geostore fit` is measured in `bench.fit_store`.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch

from bench import fit_store, rd_places
from bench.harness import Bench, run, workplace
from geostore.codec import Effort, Series, quiet
from geostore.collection import Policy
from geostore.raster import Grid
from geostore.scene.synthetic import GRID, Synthetic
from geostore.vae.adapt import Lesson, fit_deltas
from geostore.vae.base import Frozen, Tensors, changed, find
from geostore.vae.borrow import borrow_codec, lesson_of
from geostore.vae.model import Layout
from geostore.vae.quantize import unpack_decoder, unpack_encoder
from geostore.vae.shared import pyramid

PLACES, STEPS = 64, 20
SIDES = (32,)  # pixels


def place(seed: int, side: int, dates: int, step_days: float) -> Series:
    """A synthetic place without clouds."""
    grid = Grid(GRID.crs, GRID.left, GRID.top, GRID.xres, GRID.yres, side, side)
    made = list(Synthetic(seed=seed, grid=grid, dates=dates, step_days=step_days, cloud_share=0.0).series())
    return rd_places._series(np.stack([d.raster.pixels for d in made]), made[0].raster.bands)  # noqa: SLF001


def lessons(side: int, count: int) -> list[Lesson]:
    """Synthetic places of 8 dates, as a fit of deltas sees them."""
    found = []
    for seed in range(count):
        series = place(seed, side, 8, 40)
        codec = borrow_codec(series, policy=Policy(), effort=Effort())
        assert codec is not None
        found.append(replace(lesson_of(codec, series), log_step=0.0))
    return found


def shared(side: int) -> tuple[Layout, Tensors]:
    """The network that places of `side` pixels share, and its weights."""
    found = find(("blue", "green", "red", "nir"))
    assert found is not None
    base, planes = found
    return base.narrowed(planes, side, side), base.taken(planes)


def left_over(layout: Layout, tensors: Frozen, places: list[Lesson], deltas: list[dict[str, np.ndarray]]) -> float:
    """Mean squared error over all places, in units of each one's scale."""
    errors = []
    log_step = torch.zeros(1, 1, 1, 1)
    encoder = unpack_encoder(layout, tensors)
    for place, delta in zip(places, deltas, strict=True):
        decoder = unpack_decoder(layout, changed(dict(tensors), delta))
        statics, truth = pyramid(torch.from_numpy(place.map[None])), torch.from_numpy(place.residual)
        with torch.no_grad():
            z = torch.round(encoder(truth, statics, log_step)[0])
            errors.append(float(((decoder(z, decoder.look(statics), log_step) - truth) ** 2).mean()))
    return float(np.mean(errors))


def main(bench: Bench) -> None:
    """Each size in turn, then a store."""
    _deltas(bench)
    bench.write()
    long = place(bench.seed, SIDES[0], *((3, 40) if bench.quick else (48, 10)))
    fit_store.delta_share(bench, long, Policy(mse_max=1e-4, rivals=()))
    with workplace() as folder:
        fit_store.measure(bench, folder)


def _deltas(bench: Bench) -> None:
    count, steps = (3, 2) if bench.quick else (PLACES, STEPS)
    for side in SIDES[:1] if bench.quick else SIDES:
        few = count if side <= 32 else count // 4
        places = lessons(side, few)
        layout, tensors = shared(side)

        def fit(chosen: list[Lesson], seed: int = bench.seed) -> list[dict[str, np.ndarray]]:
            return fit_deltas(layout, tensors, chosen, whole=True, steps=steps, seed=seed, progress=quiet)  # noqa: B023

        fit(places[:2])  # warm
        begun, wall = time.process_time(), time.perf_counter()
        together = fit(places)
        middle, wall_middle = time.process_time(), time.perf_counter()
        alone = [fit([place])[0] for place in places]
        end, wall_end = time.process_time(), time.perf_counter()
        errors = [left_over(layout, tensors, places, deltas) for deltas in (together, alone)]
        bench.row(
            side_px=side,
            places=few,
            steps=steps,
            core_s_together=middle - begun,
            core_s_alone=end - middle,
            wall_s_together=wall_middle - wall,
            wall_s_alone=wall_end - wall_middle,
            error_together=errors[0],
            error_alone=errors[1],
        )
        bench.figure(
            f"together_over_alone.{side}px",
            (middle - begun) / max(end - middle, 1e-9),
            bar=0.6 if side == 32 else None,
            better="lower",
            baseline=f"core seconds of the same steps on {few} places one after the other",
        )
        bench.figure(
            f"error_together_over_alone.{side}px",
            errors[0] / errors[1],
            bar=1.02 if side == 32 else None,
            better="lower",
            baseline="mean squared error left by the deltas fitted one after the other",
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(main, "fit_many")
