"""Make a codec of one partition: prepare, train, quantise, count, and check on real rasters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from geostore.codec import Effort, Progress, Series, quiet
from geostore.collection import Policy
from geostore.fit_trace import FitTrace
from geostore.raster import Bands
from geostore.vae import sizing
from geostore.vae.codec import CHAIN, VaeCodec
from geostore.vae.encoding import Frame, choose_numbers
from geostore.vae.entropy import Table
from geostore.vae.learn_prior import Lesson, learn_prior
from geostore.vae.model import Layout, Mode, Vae
from geostore.vae.quantize import (
    STEPS,
    TRAINED_STEP,
    Tensors,
    pack_decoder,
    pack_encoder,
    unpack_decoder,
    unpack_encoder,
)
from geostore.vae.samples import Samples
from geostore.vae.static import GAIN_LIMIT, LEVEL_LIMIT, Doubles, Units, code_static, mean_image
from geostore.vae.stream import LATENT_LIMIT, Latent, Numbers, pack_chain
from geostore.vae.tables import Tables
from geostore.vae.train import Goal, indices_of, train

_MARGIN = 0.8  # mean error of a raster over its bound: what is left is for rasters of one kind to differ
_CALIBRATED_DATES = 400
_BELOW_A_BOUND = 4.0  # error left to the layer that keeps a bound, over what that layer leaves
_LOOKED_DATES = 12
_LOOKED_CHAINS = 3  # from which a prior is learned
_ROUNDS = 40  # at most, in refining latents
BEND = 20  # 1/1000 of reflectance: below it, errors are even in reflectance, above it, in its logarithm
Domain = Literal["linear", "log"]


def fit_codec(
    series: Series,
    mode: Mode,
    *,
    policy: Policy,
    effort: Effort,
    progress: Progress,
    parent: VaeCodec | None = None,
    plan: sizing.Plan | None = None,
    domain: Domain | None = None,
) -> VaeCodec:
    """Fit one codec.

    Args:
        series: rasters.
        mode: of the network.
        policy: what it is to keep.
        effort: how long.
        progress: called now and then.
        parent: lends its weights where its layout is the same.
        plan: overrules the size chosen.
        domain: "log" works in logarithms of reflectance, in which errors are even in every normalised difference;
            None takes it where only an index has a bound on its mean error.
    """
    progress("prepare", 0.0)
    layout = choose_layout(series, mode, plan or sizing.plan(series, policy))
    samples = prepare(series, mode, policy, domain or choose_domain(series, mode, policy))
    if not layout.channels:
        return assemble(layout, {}, samples, policy)
    goal, seen = goal_of(policy, mode, series.bands), list[tuple[int, dict[str, float]]]()
    with torch.random.fork_rng():
        torch.manual_seed(effort.seed)
        vae = Vae(layout)
        warm = parent is not None and parent.bend == samples.bend and _lend(vae, parent)
        train(vae, samples, goal=goal, effort=effort, progress=progress, warm=warm, watch=lambda *s: seen.append(s))
    progress("quantise", 1.0)
    vae.to("cpu")
    codec = assemble(layout, {**pack_encoder(vae.encoder), **pack_decoder(vae.decoder)}, samples, policy)
    codec = replace(codec, trace=FitTrace.of(seen, goal.targets(indices_of(layout, samples))))
    return with_prior(codec, series, rounds=rounds_for(effort), seed=effort.seed, progress=progress)


def rounds_for(effort: Effort) -> int:
    """How long a fit of that effort has the latents of each raster refined."""
    return min(effort.steps // 60, _ROUNDS)


def choose_layout(series: Series, mode: Mode, plan: sizing.Plan) -> Layout:
    """The grid's shape by `plan`; the flat VAE's is the paper's, with 64 numbers."""
    bands, height, width = series.pixels.shape[1:]
    if mode == "grid":
        return Layout(
            mode=mode,
            bands=bands,
            height=height,
            width=width,
            channels=plan.channels,
            widths=plan.widths,
            encoder=plan.encoder,
        )
    seen = 1 if mode == "flat-single" else bands
    return Layout(
        mode=mode,
        bands=seen,
        height=height,
        width=width,
        channels=64 if seen > 1 else 16,
        widths=(32, 32, 24, 16),
        encoder=(16, 32),
    )


def goal_of(policy: Policy, mode: Mode, bands: Bands | None = None) -> Goal:
    """Mean errors to steer to, below the policy's bounds, which hold for every single raster; bands as `mse_bound`."""
    mse = _MARGIN * sizing.mse_bound(policy, bands) if policy.bounds_values else None
    if mse is None and policy.max_error is not None:
        mse = _BELOW_A_BOUND * sizing.mse_bound(policy, bands)
    return Goal(
        mse=mse,
        index=_below(sizing.index_bound(replace(policy, index={}), "")),
        apart={name: _below(sizing.index_bound(policy, name)) for name in policy.index},
        bits_weight=1.0 if mode == "grid" else 0.01,
    )


def _below(bound: float | None) -> float | None:
    return None if bound is None else _MARGIN * bound


def choose_domain(series: Series, mode: Mode, policy: Policy) -> Domain:
    """The policy's, or logarithms where it bounds the mean error of indices and nothing else; of reflectance."""
    reflectance = series.pixels.dtype.kind != "f" and all(b.kind == "reflectance" for b in series.bands)
    if not reflectance or mode != "grid" or policy.domain == "linear":
        return "linear"
    others = policy.bounds_values or policy.max_error is not None or policy.index_limit(series.indices) is not None
    asked = bool(sizing.index_bounds(policy, series.indices)) and not others
    return "log" if asked or policy.domain == "log" else "linear"


def prepare(series: Series, mode: Mode, policy: Policy, domain: Domain = "linear") -> Samples:
    """Static image, every date's gain and level on it, and the scale of what they leave."""
    units = Units.of(series.bands, BEND if domain == "log" else 0)
    image = mean_image(series.pixels, series.valid, units)
    if mode != "grid":
        image[:] = image.mean(axis=(1, 2))[:, None, None]
    weights = sizing.band_weights(image, units, series, policy)
    static = code_static(image, sizing.static_bounds(weights, policy, series.bands))
    dates, bands = series.pixels.shape[:2]
    gains, levels = np.zeros((dates, bands), np.int32), np.zeros((dates, bands), np.int32)
    if mode == "grid":
        for t in range(dates):
            gains[t], levels[t] = static.fit_date(units.from_stored(series.pixels[t]), series.valid[t])
    samples = Samples(series=series, units=units, static=static, gains=gains, levels=levels, scale=1.0)
    return replace(samples, scale=_rms(samples))


def _rms(samples: Samples) -> float:
    total, count = 0.0, 0
    for t in range(len(samples.series)):
        total += float((samples.residual(t).astype(np.float64) ** 2).sum())
        count += int(samples.series.valid[t].sum()) * len(samples.series.bands)
    return float(np.float32(max((total / max(count, 1)) ** 0.5, 1e-4)))


def _lend(vae: Vae, parent: VaeCodec) -> bool:
    """Copy the parent's weights where the networks match; True if they did."""
    mine, theirs = vae.layout, parent.layout
    if replace(theirs, height=mine.height, width=mine.width) != mine or (mine.mode != "grid" and theirs != mine):
        return False
    vae.encoder.load_state_dict(unpack_encoder(theirs, parent.tensors).state_dict())
    vae.decoder.load_state_dict(unpack_decoder(theirs, parent.tensors).state_dict())
    return True


def assemble(layout: Layout, tensors: Tensors, samples: Samples, policy: Policy, *, counted: bool = True) -> VaeCodec:
    """The codec as it will be stored: weights in integers, entropy tables counted on what they encode.

    Latents' tables are left as they begin unless they are to be `counted`.
    """
    start = Table(zero=32768, ratio=32768, limit=LATENT_LIMIT)
    tables = Tables(
        Table.of(samples.gains, GAIN_LIMIT),
        Table.of(samples.levels, LEVEL_LIMIT),
        ((start,) * layout.channels,) * len(STEPS),
    )
    codec = VaeCodec(
        _bands=samples.series.bands,
        policy=policy,
        indices=samples.series.indices,
        layout=layout,
        static=samples.static,
        scale=samples.scale,
        weights=_detail_weights(samples, policy),
        bend=samples.bend,
        tensors=tensors,
        tables=tables,
    )
    if not layout.channels or not counted:
        return codec
    return replace(codec, tables=replace(tables, latents=count_tables(codec, samples)))


def _detail_weights(samples: Samples, policy: Policy) -> Doubles:
    """(B,) how much an error of each band matters on n1, in which detail is coded."""
    bands = samples.series.bands
    plain = Units.of(bands)
    physical = samples.units.to_physical(samples.static.image)
    image = (physical - plain.shift[:, None, None]) / plain.scale[:, None, None]
    return sizing.band_weights(image, plain, samples.series, policy)


def with_prior(codec: VaeCodec, series: Series, *, rounds: int, seed: int, progress: Progress = quiet) -> VaeCodec:
    """The codec with a prior learned from some chains of its series, where that saves more than it takes.

    Args:
        codec: with tables.
        series: what it was fitted to.
        rounds: how long latents are to be refined as rasters are encoded.
        seed: everything random follows from it.
        progress: called chain by chain.
    """
    dates = [int(t) for t in series.usable]
    chains = [dates[at : at + CHAIN] for at in range(0, len(dates), CHAIN)]
    looked = chains[:: max(1, -(-len(chains) // _LOOKED_CHAINS))]
    if not codec.layout.channels or not dates:
        return codec
    best = codec
    for refined in sorted({0, rounds}):
        teacher = replace(best, rounds=refined)
        found: list[list[Numbers]] = []
        for chain in looked:
            progress("prior", len(found) / len(looked))
            found.append(choose_numbers([Frame(teacher, series.pixels[t], series.valid[t]) for t in chain]))
        prior = learn_prior([Lesson(found, codec.static_features)], codec.layout.channels, seed=seed)
        learned = replace(codec, tables=None, prior=prior)
        if prior.size_bytes + _saved(learned, codec, found) * len(dates) / sum(map(len, looked)) >= 0:
            return replace(codec, rounds=rounds)
        best = learned
    return replace(best, rounds=rounds)


def _saved(learned: VaeCodec, codec: VaeCodec, chains: Sequence[Sequence[Numbers]]) -> float:
    """Bytes of the chains with a prior, less those with tables."""
    assert learned.prior is not None
    chained = sum(len(pack_chain(chain, learned.prior, learned.static_features)) for chain in chains)
    return chained - sum(len(codec.pack(numbers)) for chain in chains for numbers in chain)


def count_tables(codec: VaeCodec, samples: Samples) -> tuple[tuple[Table, ...], ...]:
    """For every step and channel, the table of the latents of the fitted dates."""
    dates = _dates(samples)
    if codec.layout.hidden:  # a base's encoder runs once for every step: a look at some dates must do
        dates = dates[:: max(1, len(dates) // _LOOKED_DATES)]
    latents = [_latent(codec, samples, int(t), TRAINED_STEP) for t in dates]
    out: list[tuple[Table, ...]] = []
    for step in range(len(STEPS)):
        if codec.layout.hidden:
            latents = [_latent(codec, samples, int(t), step) for t in dates]
        quantised = np.concatenate([latent.at(step) for latent in latents])  # (dates * N, c, h, w)
        out.append(tuple(Table.of(quantised[:, c], LATENT_LIMIT) for c in range(codec.layout.channels)))
    return tuple(out)


def _dates(samples: Samples) -> npt.NDArray[np.int64]:
    dates = samples.series.usable
    return np.asarray(dates[:: max(1, len(dates) // _CALIBRATED_DATES)])


def _latent(codec: VaeCodec, samples: Samples, date: int, step: int) -> Latent:
    return codec.latent(samples.series.pixels[date], samples.series.valid[date], step)
