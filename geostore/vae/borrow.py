"""Make a codec of one partition from a base: nothing fitted, or the little that pays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from geostore.codec import Effort, Progress, Series, quiet
from geostore.collection import Policy
from geostore.fit_trace import FitTrace
from geostore.vae.adapt import CROP, Lesson, fit_deltas
from geostore.vae.base import Base, Borrowed, Tensors, find
from geostore.vae.codec import VaeCodec
from geostore.vae.device import Device
from geostore.vae.encoding import step_for
from geostore.vae.fit import assemble, choose_domain, prepare, rounds_for
from geostore.vae.quantize import BITS, LOG_STEPS
from geostore.vae.samples import Samples

Delta = Literal["none", "few", "whole"]
DELTA_STEPS = 300  # optimiser steps of a delta
_PASS_PIXELS = 64 * 32 * 32  # of one date of all places that one step sees
_GPU_PASSES = 16  # so many times as much on a GPU, which small steps leave idle
_PROBED = 5  # rasters whose step is looked for before a delta is fitted


def borrow_codec(
    series: Series,
    *,
    policy: Policy,
    effort: Effort,
    progress: Progress = quiet,
    delta: Delta = "none",
    held: Sequence[Base] = (),
) -> VaeCodec | None:
    """A codec on the base that takes the series' bands; None if there is no such base."""
    codecs = borrow_codecs([series], policy=policy, effort=effort, progress=progress, delta=delta, held=held)
    return codecs[0] if codecs else None


def borrow_codecs(
    many: Sequence[Series],
    *,
    policy: Policy,
    effort: Effort,
    progress: Progress = quiet,
    delta: Delta = "none",
    held: Sequence[Base] = (),
) -> list[VaeCodec]:
    """One codec for each series, all of the same bands, their deltas fitted together; empty if no base takes them."""
    found = find(many[0].bands.names, held) if many else None
    if found is None or (policy.domain == "log" and choose_domain(many[0], "grid", policy) == "log"):
        return []  # bases work in reflectance
    base, planes = found
    progress("prepare", 0.0)
    samples = [prepare(series, "grid", policy) for series in many]
    rounds = rounds_for(effort)
    bare = Borrowed(base=base, planes=planes, delta={})
    codecs = [_codec(bare, s, policy, rounds) for s in samples]
    if delta == "none":
        return codecs
    lessons = [lesson_of(codec, s.series, s) for codec, s in zip(codecs, samples, strict=True)]
    deltas: dict[int, Tensors] = {}
    traces: dict[int, FitTrace | None] = {}
    device = Device.named(effort.device)
    for chosen in _passes(lessons, _PASS_PIXELS * (_GPU_PASSES if device.where.type == "cuda" else 1)):
        seen: list[tuple[int, npt.NDArray[np.float64]]] = []
        fitted = fit_deltas(
            codecs[0].layout,
            codecs[0].tensors,
            [lessons[i] for i in chosen],
            whole=delta == "whole",
            steps=min(effort.steps, DELTA_STEPS),
            seed=effort.seed,
            progress=progress,
            watch=lambda *s: seen.append(s),  # noqa: B023 - called before the next pass begins
            device=device,
        )
        deltas |= zip(chosen, fitted, strict=True)
        traces |= {i: _trace(seen, place, samples[i].scale) for place, i in enumerate(chosen)}
    changed = [Borrowed(base=base, planes=planes, delta=d) for d in (deltas[i] for i in range(len(many)))]
    made = [_codec(b, s, policy, rounds) for b, s in zip(changed, samples, strict=True)]
    return [replace(codec, trace=traces[i]) for i, codec in enumerate(made)]


def _trace(seen: Sequence[tuple[int, npt.NDArray[np.float64]]], place: int, scale: float) -> FitTrace | None:
    """The squared error of one place of a pass, on n1."""
    return FitTrace.of([(step, {"mse": float(errors[place]) * scale**2}) for step, errors in seen], {})


def _passes(lessons: Sequence[Lesson], pixels: int) -> Iterator[list[int]]:
    """Which lessons are fitted together: of like size, and so many that a step sees no more than `pixels` of a date."""
    areas = [min(CROP, s.map.shape[1]) * min(CROP, s.map.shape[2]) for s in lessons]
    chosen: list[int] = []
    for i in sorted(range(len(lessons)), key=lambda i: areas[i]):
        if chosen and (len(chosen) + 1) * areas[i] > pixels:
            yield chosen
            chosen = []
        chosen.append(i)
    if chosen:
        yield chosen


def _codec(borrowed: Borrowed, samples: Samples, policy: Policy, rounds: int) -> VaeCodec:
    height, width = samples.series.pixels.shape[2:]
    layout = borrowed.base.narrowed(borrowed.planes, height, width)
    codec = assemble(layout, dict(borrowed.weights), samples, policy, counted=borrowed.prior is None)
    if borrowed.prior is None:
        return replace(codec, borrowed=borrowed, rounds=rounds)
    return replace(codec, borrowed=borrowed, rounds=rounds, tables=None, prior=borrowed.prior)


def lesson_of(codec: VaeCodec, series: Series, samples: Samples | None = None) -> Lesson:
    """What a delta of `codec` is fitted on, at the step that the base needs as it is."""
    samples = samples or prepare(series, "grid", codec.policy)
    rows, columns = codec.layout.padded
    short = ((0, 0), (0, rows - codec.layout.height), (0, columns - codec.layout.width))
    dates = series.usable
    return Lesson(
        residual=np.stack([np.pad(samples.residual(int(t)), short, mode="edge") for t in dates]),
        mask=np.stack([np.pad(series.valid[t][None].astype(np.float32), short) for t in dates]),
        map=(codec.decoder.maps[0] / (1 << BITS)).astype(np.float32),
        log_step=_log_step(codec, series),
    )


def _log_step(codec: VaeCodec, series: Series) -> float:
    dates = series.usable
    probed = dates[np.linspace(0, len(dates) - 1, min(_PROBED, len(dates))).round().astype(int)]
    steps = [LOG_STEPS[step_for(codec, series.pixels[t], series.valid[t])] / (1 << BITS) for t in probed]
    return float(np.mean(steps)) if steps else 0.0
