"""Choose how a series is coded: the scale and the quantiser's step that keep the policy in the fewest bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from geostore.classical.bend import Bend
from geostore.classical.body import error_weights
from geostore.classical.fit import coded_bytes, takes_bend
from geostore.classical.klt import Klt
from geostore.classical.quality import at_bound, cost, most_of, share_used
from geostore.classical.scout import foresight_part, growth, scouted
from geostore.codec import Effort, Progress, Series
from geostore.collection import Policy
from geostore.dct.blocks import Blocks
from geostore.dct.codec import KltDctCodec
from geostore.dct.components import FRACTION
from geostore.dct.shift import shifts
from geostore.dct.steps import STEP_MAX, STEPS
from geostore.dct.stream import Doubles, Longs

_START = 56  # number of the step from which the search begins
_TRIES = 4  # of steps, to find the one at which the middle raster uses up its bound,
_FORESIGHT_TRIES = 2
_AGAIN = 2  # and where it is known for blocks of another size
_NEAR = 3  # steps beside that one which the series is coded at, every raster within the policy
_EVEN = ((0, 1),)  # (bend, weight of what an index sees) tried without a bound on an index,
_BOTH = ((100, 1), (0, 1), (100, 2))  # with one beside a bound on the squared error,
_INDEX = ((10, 2), (10, 4), (10, 8), (10, 16))  # and with nothing else
_LINEAR, _LOG = ((0, 1), (0, 4)), ((100, 1), (10, 1))  # where the policy's domain leaves none of these
_SMALLER = (16, 8)  # pixels of a block's side, tried for what is not smooth,
_WORTH = 0.95  # and taken for so much of the bytes: they are decoded more slowly
_SCOUT_SAMPLES, _SCOUT_DATES = 2**19, 24  # of the part in which scales are compared,
_PART_SAMPLES = 2**21  # and of that in which blocks and steps are
_ACCESS = 2**22  # samples that are decoded for one raster at most
_DATES = 8  # of a group, even so
_HASTY = 200  # steps of an Effort below which only one step is tried


@dataclass(frozen=True)
class Trial:
    """A series coded at one step, whatever the policy.

    Attributes:
        step: its number. size: bytes.
        used, most: the share of its bound that the middle raster uses up, and that most rasters stay below.
        mse: the squared error of the middle one, on n1.
    """

    step: int
    size: int
    used: float = 1.0
    most: float = 1.0
    mse: float = 0.0


@dataclass(frozen=True)
class Prepared:
    """A series as a codec sees it, so that it is coded at several steps without doing the rest again.

    Attributes:
        codec: at some step. series: what it codes.
        dates: (N,) those with anything usable. planes, at, begin: see `KltDctCodec.encode_planes`.
    """

    codec: KltDctCodec
    series: Series
    dates: Longs
    planes: Doubles
    at: Longs
    begin: Longs

    @classmethod
    def of(cls, codec: KltDctCodec, series: Series, at: Longs | None = None) -> Prepared:
        """With shifts `at` where they are known."""
        dates = series.usable
        planes = codec.planes(series, dates)
        at = shifts(planes / FRACTION) if at is None else at
        return cls(codec, series, dates, planes, at, np.full(len(dates), STEP_MAX))

    def first(self, dates: int) -> Prepared:
        """The first so many dates of it."""
        planes, at, begin = self.planes[:dates], self.at[:dates], self.begin[:dates]
        return replace(self, dates=self.dates[:dates], planes=planes, at=at, begin=begin)

    def size(self, step: int) -> int:
        """Bytes of the series at a step, every raster within the policy."""
        codec = replace(self.codec, step=step)
        return coded_bytes(codec.encode_planes(self.series, self.dates, self.planes, self.at, self.begin))

    def trial(self, step: int) -> Trial:
        """All rasters coded at one step."""
        codec, dates = replace(self.codec, step=step), self.dates.tolist()
        size, decoded = codec.coded_alike(self.planes, self.series.valid[self.dates], self.at)
        seen = [codec.errors(self.series, d, c) for d, c in zip(dates, decoded, strict=True)]
        used = [share_used(errors, codec.policy) for errors in seen]
        return Trial(step, size, float(np.median(used)), most_of(used), float(np.median([e.mse for e in seen])))


def fit_codec(series: Series, *, policy: Policy, effort: Effort, progress: Progress) -> KltDctCodec:
    """The codec that keeps `policy` on `series` in the fewest bytes of those tried; some pixel must be valid."""
    progress("prepare", 0.0)
    unit, hasty = Blocks(*series.valid.shape[1:]).side, effort.steps < _HASTY
    scout = scouted(series, _SCOUT_SAMPLES, _SCOUT_DATES, unit)
    best = _best_scale(scout, policy, progress, hasty=hasty)
    codec = replace(make_codec(series, policy, best.klt.bend.per_mille, best.weight), step=best.step)
    if hasty or not policy.asks:
        return codec
    few = scouted(series, _PART_SAMPLES, max(_SCOUT_DATES, _PART_SAMPLES // int(series.pixels[0].size)), unit)
    height, width = few.valid.shape[1:]
    part = Prepared.of(replace(codec, height=height, width=width), few)
    better, size = _better_blocks(part)
    part, step, sizes = replace(part, codec=better), better.step, {better.step: size}
    if len(part.dates) == 1:  # a raster alone is told at the step it needs, if that is finer
        return replace(codec, side=better.side, step=min(step + _NEAR, STEP_MAX))
    for stride in (_NEAR, -_NEAR):
        while 0 <= step + stride <= STEP_MAX and step + stride not in sizes:
            sizes[step + stride] = part.size(step + stride)
            progress("choose a step", min(0.9, 0.6 + len(sizes) / 20))
            if sizes[step + stride] >= sizes[step]:
                break
            step, stride = step + stride, 2 * stride
    return replace(codec, side=better.side, step=min(sizes, key=lambda s: sizes[s]))


def foresee(series: Series, policy: Policy) -> float:
    """Bytes of a window of `series` and of the codec at the first scale, guessed from some of its dates."""
    few = foresight_part(series)
    ready = Prepared.of(make_codec(few, policy, *_scales(few, policy)[0]), few)
    _, trial = _step_for(ready, _FORESIGHT_TRIES)
    times = growth(series, few, trial.size, lambda dates: ready.first(dates).trial(trial.step).size)
    return times * cost(at_bound(trial.size, trial.most), trial.mse, policy) + len(ready.codec.to_bytes())


def make_codec(series: Series, policy: Policy, per_mille: int, weight: int = 1) -> KltDctCodec:
    """The codec of a scale, at a middling step."""
    bend, seen = Bend(series.bands, per_mille), series.valid.any(axis=(1, 2))
    weights = error_weights(series.bands, series.indices, weight, log=per_mille > 0)
    height, width = series.pixels.shape[2:]
    samples = len(series.bands) * int(height) * int(width)
    return KltDctCodec(
        _bands=series.bands,
        policy=policy,
        indices=series.indices,
        height=height,
        width=width,
        klt=Klt.of(bend.forward(series.pixels[seen]), series.valid[seen], bend, weights),
        weight=weight,
        step=_START,
        dates=max(_DATES, _ACCESS // samples),
    )


def _best_scale(series: Series, policy: Policy, progress: Progress, *, hasty: bool) -> KltDctCodec:
    """The scale and step at which `series` takes the fewest bytes, most of it within the policy: as a codec."""
    scales, at = _scales(series, policy), None
    if not series.valid.any():
        return make_codec(series, policy, *scales[0])
    found: list[tuple[float, Prepared]] = []  # cost first
    for number, scale in enumerate(scales[:1] if hasty else scales):
        ready = Prepared.of(make_codec(series, policy, *scale), series, at)
        (step, near), at = _step_for(ready, 2 if hasty else _TRIES), ready.at
        ready = replace(ready, codec=replace(ready.codec, step=step))
        found.append((cost(ready.size(step), near.mse, policy) if len(scales) > 1 and not hasty else 0, ready))
        progress("choose a scale", 0.1 + number / 10)
    return min(found, key=lambda item: item[0])[1].codec


def _better_blocks(ready: Prepared) -> tuple[KltDctCodec, int]:
    """(codec, bytes), with smaller blocks while these take clearly fewer, each at the step that keeps the policy."""
    best, size = ready.codec, ready.size(ready.codec.step)
    for side in _SMALLER:
        other = replace(ready, codec=replace(best, side=side))
        step, _ = _step_for(other, _AGAIN, best.step)
        now = other.size(step)
        if now >= _WORTH * size:
            break
        best, size = replace(other.codec, step=step), now
    return best, size


def _scales(series: Series, policy: Policy) -> tuple[tuple[int, int], ...]:
    asks = policy.bounds_indices(series.indices) and all(b.kind == "reflectance" for b in series.bands)
    scales = _EVEN if not asks else _BOTH if policy.bounds_values else _INDEX
    allowed = tuple(scale for scale in scales if takes_bend(series, policy, scale[0]))
    return allowed or (_LINEAR if policy.domain == "linear" else _LOG)


def _step_for(ready: Prepared, tries: int, start: int = _START) -> tuple[int, Trial]:
    """The step at which the middle raster uses up its bound, by the secant rule on log(share); the last one tried."""
    step, seen, trial = start, dict[float, float](), Trial(start, 0)
    for _ in range(tries if ready.codec.policy.asks else 0):
        trial = ready.trial(step)
        seen[step] = math.log(max(trial.used, 1e-9))
        step = round(STEPS.at_bound(seen))
        if step in seen:
            break
    return step, trial
