"""Rasters a second that each codec decodes, against lossy JPEG XL at an equal error; one thread each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import imagecodecs
import numpy as np
import torch

from bench.baselines import JXL_EFFORT, restored, stretched
from bench.harness import ROUNDS, Bench, interleaved, median, ratio, run
from bench.rd_places import Place, load
from bench.seams import MODES, MSE
from geostore.codec import Codec, Effort, Encoded, decode_many
from geostore.raster import Pixels

BAR = 0.5
STEPS = 60  # of a network: how well it is trained changes little of how long it decodes
PLACES = ("romania", "romania-20m")
TIMED = ("klt-av1", "klt-dct", "vae, own network", "vae, base", "vae, no network", "vae-flat")
QUICK = ("klt-av1", "vae, no network")
JPEGXL = "JPEG XL"
_DISTANCES = (16.0, 12.0, 8.0, 6.0, 4.0, 3.0, 2.0, 1.0, 0.5)
Frames = list[list[tuple[bytes, int, int]]]  # of each date, each band: JPEG XL, and how it is stretched


def measure(bench: Bench) -> None:
    """Every codec on every place: a whole series in one call."""
    torch.set_num_threads(1)
    for name in ("synthetic-small",) if bench.quick else PLACES:
        place = load(name)
        if place is not None:
            _place(bench, place)
            bench.write()


def _place(bench: Bench, place: Place) -> None:
    series, effort = place.series, Effort(steps=2 if bench.quick else STEPS, seed=bench.seed, device="cpu")
    frames = _jpegxl(place)
    tasks: dict[str, Callable[[], object]] = {JPEGXL: partial(_read, frames, series.pixels.dtype)}
    for mode in QUICK if bench.quick else TIMED:
        codec = MODES[mode](series, effort)
        if codec is not None:
            tasks[mode] = partial(_decode, codec, codec.encode_series(series), place)
    seconds = interleaved(tasks, rounds=0 if bench.quick else ROUNDS)
    shape = "{} x {} x {} x {}".format(*series.pixels.shape)
    for name, taken in seconds.items():
        rate = None if bench.quick else len(series) / median(taken)
        bench.row(place=place.name, shape=shape, codec=name, per_second=rate, mse=_mse(place, tasks[name]()))
    for name in [n for n in tasks if n != JPEGXL]:
        value = None if bench.quick else ratio(seconds[JPEGXL], seconds[name])
        what = f"rasters/s of JPEG XL, effort {JXL_EFFORT}, at an MSE of at most 5e-4; ours in whole numbers throughout"
        bench.figure(f"{place.name}.{name}", value, bar=BAR, better="higher", baseline=what, n=ROUNDS)


def _decode(codec: Codec, encoded: list[Encoded], place: Place) -> list[Pixels]:
    frames = zip(encoded, place.series.valid, strict=True)
    return decode_many(codec, [(e.shared, (e.payload, valid)) for e, valid in frames])


def _jpegxl(place: Place) -> Frames:
    """Every plane at the coarsest distance of some at which all planes together keep the bound."""
    frames: Frames = []
    for distance in _DISTANCES:
        frames = [[_encoded(plane, distance) for plane in date] for date in place.series.pixels]
        if _mse(place, _read(frames, place.series.pixels.dtype)) <= (MSE.mse_max or 0.0):
            break
    return frames


def _encoded(plane: Pixels, distance: float) -> tuple[bytes, int, int]:
    wide, low, step = stretched(plane)
    return bytes(imagecodecs.jpegxl_encode(wide, distance=distance, effort=JXL_EFFORT, numthreads=1)), low, step


def _read(frames: Frames, dtype: np.dtype[np.generic]) -> list[Pixels]:
    def plane(data: bytes, low: int, step: int) -> Pixels:
        return restored(imagecodecs.jpegxl_decode(data, numthreads=1), low, step, dtype)

    return [np.stack([plane(*one) for one in date]) for date in frames]


def _mse(place: Place, decoded: object) -> float:
    """On n1, over usable pixels."""
    seen = np.stack(decoded)  # type: ignore[call-overload]
    valid = np.broadcast_to(place.series.valid[:, None], seen.shape)
    away = (seen.astype(np.float64) - place.series.pixels) / place.n1_span
    return float(np.mean(away[valid] ** 2))


if __name__ == "__main__":
    run(measure, "decode_codecs")
