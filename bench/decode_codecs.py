"""Rasters a second that each codec decodes, against lossy JPEG XL at an equal error; one thread each.

Codecs that keep a bound are held against JPEG XL at that bound, others against JPEG XL at their own error.
"""

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
PLACES = ("romania", "romania-20m", "naip", "peru-a")
TIMED = ("klt-av1", "klt-dct", "vae, own network", "vae, base", "vae, no network", "vae-flat")
QUICK = ("klt-av1", "vae, no network")
JPEGXL = "JPEG XL"
BOUND = MSE.mse_max or 0.0
_DISTANCES = 0.25, 25.0  # that JPEG XL takes
_NEAR = 0.02  # of an error, by which JPEG XL's may be below it
_TRIES = 12
Frames = list[list[tuple[bytes, int, int]]]  # of each date, each band: JPEG XL, and how it is stretched


def measure(bench: Bench) -> None:
    """Every codec on every place: a whole series in one call."""
    torch.set_num_threads(1)
    found: dict[str, list[float]] = {}
    for name in ("synthetic-small",) if bench.quick else PLACES:
        place = load(name)
        if place is not None:
            for mode, value in _place(bench, place).items():
                found.setdefault(mode, []).append(value)
            bench.write()
    for mode, values in found.items():
        value = None if bench.quick else median(values)
        what = "rasters/s of JPEG XL, as above; median over places"
        bench.figure(f"median.{mode}", value, bar=BAR, better="higher", baseline=what, n=len(values))


def _place(bench: Bench, place: Place) -> dict[str, float]:
    """Each codec's rasters a second over those of JPEG XL."""
    series, effort = place.series, Effort(steps=2 if bench.quick else STEPS, seed=bench.seed, device="cpu")
    tasks: dict[str, Callable[[], object]] = {JPEGXL: partial(_read, _jpegxl(place, BOUND), series.pixels.dtype)}
    against: dict[str, str] = {}
    for mode in QUICK if bench.quick else TIMED:
        codec = MODES[mode](series, effort)
        if codec is None:
            continue
        tasks[mode], against[mode] = partial(_decode, codec, codec.encode_series(series), place), JPEGXL
        error = _mse(place, tasks[mode]())
        if error > BOUND:  # a mode without bounds
            against[mode] = f"{JPEGXL}, as {mode}"
            tasks[against[mode]] = partial(_read, _jpegxl(place, error), series.pixels.dtype)
    seconds = interleaved(tasks, rounds=0 if bench.quick else ROUNDS)
    shape = "{} x {} x {} x {}".format(*series.pixels.shape)
    for name, taken in seconds.items():
        rate = None if bench.quick else len(series) / median(taken)
        bench.row(place=place.name, shape=shape, codec=name, per_second=rate, mse=_mse(place, tasks[name]()))
    found = {mode: ratio(seconds[beside], seconds[mode]) for mode, beside in against.items()}
    for mode, value in found.items():
        what = (
            f"rasters/s of JPEG XL, effort {JXL_EFFORT}, at the codec's MSE or 5e-4, whichever is larger, or as near "
            "below as it goes; ours in whole numbers throughout"
        )
        shown = None if bench.quick else value
        bench.figure(f"{place.name}.{mode}", shown, bar=BAR, better="higher", baseline=what, n=ROUNDS)
    return found


def _decode(codec: Codec, encoded: list[Encoded], place: Place) -> list[Pixels]:
    frames = zip(encoded, place.series.valid, strict=True)
    return decode_many(codec, [(e.shared, (e.payload, valid)) for e, valid in frames])


def _jpegxl(place: Place, mse: float) -> Frames:
    """Every plane at one distance, at which all planes together err by `mse`, or less by a share of _NEAR at most.

    Where even the largest distance errs less, at that.
    """
    low, high = _DISTANCES
    frames, best = _at(place, high), _at(place, low)
    if _error(place, frames) <= mse:
        return frames
    for _ in range(_TRIES):
        middle = (low * high) ** 0.5
        frames = _at(place, middle)
        error = _error(place, frames)
        if error > mse:
            high = middle
            continue
        low, best = middle, frames
        if error >= (1 - _NEAR) * mse:
            break
    return best


def _at(place: Place, distance: float) -> Frames:
    return [[_encoded(plane, distance) for plane in date] for date in place.series.pixels]


def _error(place: Place, frames: Frames) -> float:
    return _mse(place, _read(frames, place.series.pixels.dtype))


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
