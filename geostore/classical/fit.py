"""Choose how a series is coded: the scale, the groups and the quality that keep the policy in the fewest bytes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from geostore.classical.av1 import CRF_MAX, CRF_MIN
from geostore.classical.bend import Bend
from geostore.classical.body import error_weights
from geostore.classical.codec import KltAv1Codec, runs
from geostore.classical.klt import Klt
from geostore.classical.quality import CRF, at_bound, cost, most_of, share_used
from geostore.classical.scout import dates_for, foresight_part, growth, scouted
from geostore.codec import Effort, Encoded, Progress, Series
from geostore.collection import Policy

_BENDS = (0, 300, 100, 30, 10, 3)  # 1/1000 of reflectance: from even errors of reflectance to even ones of indices
_WEIGHTS = (1, 2, 4, 8, 16)
_EVEN, _BOTH, _INDEX = (0, 1), (100, 1), (10, 4)  # (bend, weight) where the search begins: without a bound on an index,
# with one beside one on the squared error, and with nothing else
_CRF = 45.0
_DATES = 16  # rasters of a group from which one is to be had soon
_ACCESS = 2**24  # samples that are decoded for one raster at most
_SCOUT_SAMPLES, _SCOUT_PRESET = 2**22, 8  # of the part of a series that is coded over and over
_LONE_SAMPLES = 2**18  # the same of a single raster, for which only the scale is sought in it
_PRESETS = ((2**23, 2), (2**28, 4), (2**62, 6))  # preset by samples of the series at most: 2, for archives, is slow
_HASTY = 200  # steps of an Effort below which the scale, the components and the preset are not searched
_PATIENT = 3000  # steps of an Effort from which the next slower preset is taken
_TRIES, _TRIES_BESIDE = 5, 3  # of a crf: where nothing is known, and where it is for the scale next to it
_STRIDES = (4.0, 2.0)  # of crf
_SLOWER = 1.5  # crf by which a slow preset is finer where it keeps a bound that the scout's does
_LAYERED_BENDS, _LAYERED_CRF, _LAYERED_STRIDES, _LAYERED_SAMPLED = (100,), 18.0, (8.0, 4.0, 2.0), 8  # under a bound
_SAMPLED = 6  # rasters coded alone, to guess what all of them would take


@dataclass(frozen=True)
class Scale:
    """One way to weigh errors: `Bend.per_mille`, and the weight of what an index sees."""

    bend: int
    weight: int

    def neighbours(self) -> Iterator[Scale]:
        """The scales next to this one."""
        at, beside = _BENDS.index(self.bend), _WEIGHTS.index(self.weight)
        for bend in _BENDS[max(0, at - 1) : at + 2]:
            yield Scale(bend, self.weight)
        for weight in _WEIGHTS[max(0, beside - 1) : beside + 2]:
            yield Scale(self.bend, weight)


def fit_codec(series: Series, *, policy: Policy, effort: Effort, progress: Progress) -> KltAv1Codec:
    """The codec that keeps `policy` on `series` in the fewest bytes of those tried; some pixel must be valid."""
    progress("prepare", 0.0)
    if policy.bounded:
        return _fit_layered(series, policy, effort, progress)
    scout = part(series)
    if effort.steps < _HASTY:
        scale = _start(series, policy)
        _, crf = _cost(scout, policy, scale, _CRF)
        whole = replace(make_codec(series, policy, scale), crf=crf)
        return replace(whole, dates=min(whole.dates, _most(series)))
    scale, crf = _choose_scale(scout, policy, progress)
    guess = replace(make_codec(scout, policy, scale), crf=crf)
    chosen = _choose_coding(guess, scout, _most(series), progress)
    whole = _first(make_codec(series, policy, scale), chosen.klt.components)
    final = replace(
        whole, crf=chosen.crf, dates=chosen.dates, preset=_preset(series, effort), stretches=chosen.stretches
    )
    if final.dates == 1:
        return replace(final, crf=max(final.crf - _SLOWER, CRF_MIN))  # where tries of each raster begin
    if scout is not series:
        return final
    sizes = {chosen.dates, min(whole.dates, _most(series))}  # a slower preset may like other groups than a fast one
    faster = replace(final, preset=final.preset + 2)
    tried = [_better_crf(replace(faster, dates=dates), series, progress) for dates in sorted(sizes)]
    size, best = min(tried, key=_bytes_of)
    slow = [replace(best, preset=final.preset, crf=crf) for crf in _beside(best.crf)]
    return min([(size, best), *((coded_bytes(c.encode_series(series)), c) for c in slow)], key=_bytes_of)[1]


def foresee(series: Series, policy: Policy) -> float:
    """Bytes of a window of `series` and of the codec where a search begins, guessed from some of its dates."""
    few = foresight_part(series)
    scale = _layered_scales(few, policy)[-1] if policy.bounded else _start(few, policy)
    codec = make_codec(few, policy, scale)
    if policy.bounded:
        return _layered_bytes(replace(codec, crf=_LAYERED_CRF), few) + len(codec.to_bytes())
    size, crf = _cost(few, policy, scale, _CRF)
    planes = codec.planes(few)[few.usable]

    def first(dates: int) -> int:
        return len(codec.code(planes[:dates], crf)[0])

    return growth(series, few, first(len(planes)), first) * size + len(codec.to_bytes())


def _bytes_of(item: tuple[float, KltAv1Codec]) -> float:
    return item[0]


def _beside(crf: float) -> list[float]:
    """A crf, and one step finer and coarser."""
    return [c for c in (crf, crf - _STRIDES[-1], crf + _STRIDES[-1]) if CRF_MIN <= c <= CRF_MAX]


def make_codec(series: Series, policy: Policy, scale: Scale) -> KltAv1Codec:
    """The codec of a scale, at a middling quality."""
    bend = Bend(series.bands, scale.bend)
    seen = series.valid.any(axis=(1, 2))
    weights = error_weights(series.bands, series.indices, scale.weight, log=scale.bend > 0)
    height, width = series.pixels.shape[2:]
    return KltAv1Codec(
        _bands=series.bands,
        policy=policy,
        indices=series.indices,
        height=height,
        width=width,
        klt=Klt.of(bend.forward(series.pixels[seen]), series.valid[seen], bend, weights),
        weight=scale.weight,
        crf=_CRF,
        preset=_SCOUT_PRESET,
        dates=int(seen.sum()),
        layered=policy.bounded,
    )


def part(series: Series) -> Series:
    """The window, and of it the first dates, in which the choice is made: all of a small series."""
    samples = _SCOUT_SAMPLES if len(series) > 1 else _LONE_SAMPLES
    return scouted(series, samples, dates_for(series, samples))


def _most(series: Series) -> int:
    """Rasters of a group at most: one is to be had by decoding so many."""
    samples = len(series.bands) * series.pixels.shape[2] * series.pixels.shape[3]
    return max(_DATES // 2, _ACCESS // int(samples))


def _preset(series: Series, effort: Effort) -> int:
    fast: int = next(preset for samples, preset in _PRESETS if series.pixels.size <= samples)
    return max(0, fast - 2) if effort.steps >= _PATIENT else fast


# --- a bound on every value: what pictures take and what residuals on them take, together


def _fit_layered(series: Series, policy: Policy, effort: Effort, progress: Progress) -> KltAv1Codec:
    """The scale and the quality at which pictures and residuals together take the fewest bytes."""
    scout, most = part(series), _most(series)
    scales = _layered_scales(series, policy)
    found: list[tuple[float, KltAv1Codec]] = []
    for scale in scales if effort.steps >= _HASTY else scales[-1:]:
        codec = make_codec(scout, policy, scale)
        codec = replace(codec, crf=_LAYERED_CRF, dates=min(codec.dates, most))
        if effort.steps >= _HASTY:
            found.append(_better_layered(codec, scout, progress))
        else:
            found.append((0.0, codec))
    _, best = min(found, key=_bytes_of)
    if effort.steps >= _HASTY and best.dates > 1:
        alone = replace(best, dates=1)
        best = min((best, alone), key=lambda c: _layered_bytes(c, scout))
    whole = make_codec(series, policy, Scale(best.klt.bend.per_mille, best.weight))
    return replace(whole, crf=best.crf, dates=best.dates, preset=_preset(series, effort))


def _layered_scales(series: Series, policy: Policy) -> list[Scale]:
    """Reflectance as it is, and its logarithm where an index alone has a bound on its largest error."""
    even, bent = [Scale(0, 1)], [Scale(bend, 1) for bend in _LAYERED_BENDS]
    if not _is_reflectance(series) or policy.domain == "linear":
        return even
    if policy.domain == "log":
        return bent
    return even + bent if policy.max_error is None and policy.index_limit(series.indices) is not None else even


def _better_layered(codec: KltAv1Codec, series: Series, progress: Progress) -> tuple[float, KltAv1Codec]:
    """(bytes, codec) by steps from the codec's crf to better ones."""
    sizes = {codec.crf: _layered_bytes(codec, series)}
    for stride in _LAYERED_STRIDES:
        best = None
        while best != (best := min(sizes, key=lambda c: sizes[c])):
            for crf in (best + stride, best - stride):
                if CRF_MIN <= crf <= CRF_MAX and crf not in sizes:
                    sizes[crf] = _layered_bytes(replace(codec, crf=crf), series)
                    progress("choose a quality", min(0.9, len(sizes) / 30))
    crf = min(sizes, key=lambda c: sizes[c])
    return sizes[crf], replace(codec, crf=crf)


def _layered_bytes(codec: KltAv1Codec, series: Series) -> float:
    """Bytes of all pictures, and of all residuals as guessed from some of them."""
    dates = series.usable
    planes, some = codec.planes(series), set(dates[:: max(1, len(dates) // _LAYERED_SAMPLED)].tolist())
    pictures, layers = 0, []
    for run in runs(dates, codec.dates):
        stream, decoded = codec.code(planes[run], codec.crf)
        pictures += len(stream)
        layers += [len(codec.layer(series, t, parts)) for t, parts in zip(run, decoded, strict=True) if t in some]
    return pictures + float(np.mean(layers)) * len(dates)


# --- the scale


def _choose_scale(series: Series, policy: Policy, progress: Progress) -> tuple[Scale, float]:
    """The scale on which `series` takes the fewest bytes, by walking to better neighbours, and its crf."""
    indices = policy.bounds_indices(series.indices)
    here = _start(series, policy)
    tried = {here: _cost(series, policy, here, _CRF)}
    while True:
        for near in here.neighbours():
            if near not in tried and takes_bend(series, policy, near.bend) and (indices or near.weight == 1):
                tried[near] = _cost(series, policy, near, tried[here][1], _TRIES_BESIDE)
                progress("choose a scale", min(0.5, len(tried) / 20))
        best = min(tried, key=lambda s: tried[s][0])
        if best == here:
            return here, tried[here][1]
        here = best


def _start(series: Series, policy: Policy) -> Scale:
    bend, weight = _EVEN
    if policy.bounds_indices(series.indices) and _is_reflectance(series):
        bend, weight = _BOTH if policy.bounds_values else _INDEX
    if takes_bend(series, policy, bend):
        return Scale(bend, weight)
    return Scale(0, 1) if bend else Scale(_BOTH[0], 1)


def takes_bend(series: Series, policy: Policy, bend: int) -> bool:
    """True if the policy's domain allows a bend of `Bend.per_mille`; what is no reflectance has none."""
    return policy.takes("log" if bend else "linear") if _is_reflectance(series) else not bend


def _is_reflectance(series: Series) -> bool:
    return all(b.kind == "reflectance" for b in series.bands)


def _cost(series: Series, policy: Policy, scale: Scale, crf: float, tries: int = _TRIES) -> tuple[float, float]:
    """(bytes, crf) at which most rasters keep `policy`, by the secant rule on log(error over bound) against crf."""
    codec = make_codec(series, policy, scale)
    dates = series.usable
    planes = codec.planes(series)[dates]
    seen: dict[float, float] = {}
    sizes: dict[float, float] = {}
    for _ in range(tries):
        stream, decoded = codec.code(planes, crf)
        errors = [codec.errors(series, t, parts) for t, parts in zip(dates.tolist(), decoded, strict=True)]
        used = most_of([share_used(e, policy) for e in errors])
        seen[crf] = math.log(max(used, 1e-9))
        sizes[crf] = cost(len(stream), float(np.median([e.mse for e in errors])), policy)
        crf = float(round(CRF.at_bound(seen)))
        if crf in seen:
            break
    nearest = min(seen, key=lambda c: abs(seen[c]))
    return at_bound(sizes[nearest], math.exp(seen[nearest])), nearest


# --- groups and quality


def _choose_coding(codec: KltAv1Codec, series: Series, most: int, progress: Progress) -> KltAv1Codec:
    """The rasters of a group and the quality that take the fewest bytes, all of them within the policy."""
    count = codec.dates
    if count == 1:
        return codec
    size, best = _better_crf(replace(codec, dates=min(count, most)), series, progress)
    if codec.policy.bounds_indices(series.indices):  # their errors differ more from date to date than squared ones
        stretched = replace(best, stretches=True)
        if (now := coded_bytes(stretched.encode_series(series))) < size:
            size, best = _better_crf(stretched, series, progress, now)
    if best.dates > 2 * _DATES and (short := coded_bytes(replace(best, dates=_DATES).encode_series(series))) < size:
        size, best = short, replace(best, dates=_DATES)
    if _alone_bytes(best, series) < size:
        return replace(best, dates=1)
    return _fewer_components(best, series, size, progress)


def _fewer_components(codec: KltAv1Codec, series: Series, size: int, progress: Progress) -> KltAv1Codec:
    """The codec without its last components as long as that takes fewer bytes, its own included."""
    total = size + len(codec.to_bytes())
    while codec.klt.components > 1:
        fewer = _first(codec, codec.klt.components * 3 // 4)
        now = coded_bytes(fewer.encode_series(series)) + len(fewer.to_bytes())
        progress("choose components", 0.9)
        if now >= total:
            break
        codec, total = fewer, now
    return codec


def _first(codec: KltAv1Codec, components: int) -> KltAv1Codec:
    return replace(codec, klt=codec.klt.first(components))


def _better_crf(
    codec: KltAv1Codec, series: Series, progress: Progress, known: int | None = None
) -> tuple[int, KltAv1Codec]:
    """(bytes, codec) by steps from the codec's crf, at which it takes `known` bytes, to better ones.

    A coarser one leaves more to be coded again.
    """
    best, sizes = codec.crf, {codec.crf: coded_bytes(codec.encode_series(series)) if known is None else known}
    for stride in _STRIDES:
        moved = True
        while moved:
            for crf in (best + stride, best - stride):
                if CRF_MIN <= crf <= CRF_MAX and crf not in sizes:
                    sizes[crf] = coded_bytes(replace(codec, crf=crf).encode_series(series))
                    progress("choose a quality", min(0.9, 0.5 + len(sizes) / 40))
            nearer = min(sizes, key=lambda c: sizes[c])
            moved, best = nearer != best, nearer
    return sizes[best], replace(codec, crf=best)


def _alone_bytes(codec: KltAv1Codec, series: Series) -> float:
    """What all rasters would take coded one by one, guessed from some of them."""
    dates = series.usable
    some = dates[:: max(1, len(dates) // _SAMPLED)]
    sizes = [len(codec.encode(series.pixels[t], series.valid[t]).payload) for t in some]
    return sum(sizes) / len(some) * len(dates)


def coded_bytes(encoded: list[Encoded]) -> int:
    """Bytes of a series as encoded, what rasters share counted once."""
    return sum(len(e.payload) for e in encoded) + sum(map(len, {e.shared for e in encoded}))
