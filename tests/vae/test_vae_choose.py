"""What is not worth fitting: a fit that knows what a rival takes gives up where it would have lost, and only there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from geostore.codec import Effort, RawCodec, quiet
from geostore.collection import Policy
from geostore.node.encode import LOSS_TERMS, fit_series, traces_of
from geostore.testing.codecs import synthetic_series
from geostore.vae.choose import choose_codec
from geostore.vae.codec import VaeCodec

POLICY = Policy(mse_max=5e-4, index_mae_max=None)
LONG = Policy(mse_max=1e-4, index_mae_max=None)


def chosen(shape, policy, effort):
    """What the choice gives, and what it said that it does."""
    said = set()
    codec = choose_codec(
        synthetic_series(shape), policy=policy, effort=effort, progress=lambda what, share: said.add(what)
    )
    return codec, said


def test_a_fit_that_gave_up_would_have_lost():
    """Proves that a fit which leaves the learned codec out keeps the smaller one of both families fitted alone."""
    series, effort = synthetic_series((9, 4, 24, 24)), Effort(steps=6)
    both = fit_series("vae", None, series, POLICY, effort, quiet)
    alone = {
        family: fit_series(family, None, series, replace(POLICY, codec=family, rivals=()), effort, quiet)
        for family in ("vae", "klt-av1")
    }
    assert "vae: expected to take more than klt-av1" in str(both.facts["reason"])
    assert alone["vae"].bytes_total > alone["klt-av1"].bytes_total
    assert both.rasters == alone["klt-av1"].rasters


def test_nothing_is_fitted_below_what_a_static_image_takes():
    """Proves that a rival smaller than any static image ends the choice before a raster was encoded or a step taken."""
    codec, said = chosen((6, 4, 24, 24), POLICY, Effort(steps=50, bytes_max=300))
    assert isinstance(codec, RawCodec)
    assert codec.trace is None
    assert "fit" not in said


def test_an_own_network_heavier_than_none_is_not_fitted():
    """Proves that a place that bears a base alone fits no network whose weights outweigh all it takes without one."""
    codec, said = chosen((8, 4, 24, 24), LONG, Effort(steps=50, network_share=1.0))
    assert isinstance(codec, VaeCodec)
    assert codec.layout.channels == 0
    assert "fit" not in said


def test_dates_without_a_pixel_do_not_make_a_series_long():
    """Proves that a network is preferred for dates that can be seen: blank ones beside them change nothing."""
    series = synthetic_series((30, 4, 40, 40))
    few = replace(series, pixels=series.pixels[:20], valid=series.valid[:20], times_us=series.times_us[:20])
    blank = replace(series, valid=series.valid & (np.arange(30) < 20)[:, None, None])
    made = [choose_codec(s, policy=LONG, effort=Effort(steps=2), progress=quiet) for s in (series, few, blank)]
    assert [codec.layout.channels > 0 for codec in made] == [True, False, False]


def test_a_fit_that_was_dropped_is_told_all_the_same():
    """Proves that loss terms of a delta outlive the choice of a codec without it, which a rival's bytes turn to."""
    free, said = chosen((30, 4, 40, 40), LONG, Effort(steps=2))
    assert "fit" in said
    assert free.borrowed.delta
    assert free.trace.kept
    pressed, said = chosen((30, 4, 40, 40), LONG, Effort(steps=2, bytes_max=18_500))
    assert "fit" in said
    assert pressed.layout.channels == 0
    assert not pressed.trace.kept
    assert pressed.trace.terms == free.trace.terms


def test_traces_of_other_families_are_told_apart():
    """Proves that facts tell the codec's own fit first and call those of others by their family, as not kept."""
    text = "steps:1 2;mse:0.1 0.05"
    facts = {f"{LOSS_TERMS}_vae": text, LOSS_TERMS: text, "seed": 0}
    told = list(traces_of("klt-own", facts))
    assert [(family, trace.kept) for family, trace in told] == [("klt-own", True), ("vae", False)]
    assert list(traces_of("raw", {"seed": 0})) == []
