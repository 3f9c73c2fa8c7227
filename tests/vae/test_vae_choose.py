"""What is not worth fitting: a fit that knows what a rival takes gives up where it would have lost, and only there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from geostore.codec import COARSER, Effort, Families, RawCodec, quiet
from geostore.collection import Policy
from geostore.node import encode
from geostore.node.encode import LOSS_TERMS, fit_series, traces_of
from geostore.testing.codecs import synthetic_series
from geostore.vae import choose, sizing
from geostore.vae.choose import choose_codec
from geostore.vae.codec import VaeCodec
from geostore.vae.fit import fit_codec

POLICY = Policy(mse_max=5e-4, index_mae_max=None)
EASY = Policy(mse_max=5e-3, index_mae_max=None)
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
        for family in ("vae", both.family)
    }
    assert both.family in POLICY.rivals
    assert f"vae: expected to take more than {both.family}" in str(both.facts["reason"])
    assert alone["vae"].bytes_total > alone[both.family].bytes_total
    assert both.rasters == alone[both.family].rasters


def test_nothing_is_fitted_below_what_a_static_image_takes():
    """Proves that a rival smaller than any static image ends the choice before a raster was encoded or a step taken."""
    codec, said = chosen((6, 4, 24, 24), POLICY, Effort(steps=50, bytes_max=300))
    assert isinstance(codec, RawCodec)
    assert codec.trace is None
    assert "fit" not in said


def test_an_own_network_heavier_than_none_is_not_fitted():
    """Proves that a place that bears a base alone fits no network whose weights outweigh all it takes without one."""
    codec, said = chosen((8, 4, 24, 24), EASY, Effort(steps=50, network_share=1.0))
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


def bases_hidden(monkeypatch):
    """As for bands that no base takes."""
    monkeypatch.setattr(choose, "borrow_codec", lambda *args, **kwargs: None)


def widths_tried(monkeypatch, foreseen):
    """Decoder widths of the networks that are fitted where `foreseen` bytes of embeddings are, and of the one kept."""
    bases_hidden(monkeypatch)
    monkeypatch.setattr(sizing, "foreseen_embeddings", lambda *args: foreseen)
    monkeypatch.setattr(sizing, "plan", lambda *args: sizing.sized(4, 0))
    monkeypatch.setattr(sizing, "preference", lambda *args: 0.01)  # a network, whatever is without one
    tried = []

    def fit(*args, plan, **kwargs):
        tried.append(plan.widths)
        return fit_codec(*args, plan=plan, **kwargs)

    monkeypatch.setattr(choose, "fit_codec", fit)
    codec, _ = chosen((6, 4, 24, 24), POLICY, Effort(steps=2))
    return tried[1:], codec.layout.widths


def test_a_size_that_proves_wrong_is_corrected(monkeypatch):
    """Proves that bytes foreseen far too high fit a wide network, true ones a narrow one then; the smaller stays."""
    widest, least = sizing.SIZES[-1][0], sizing.SIZES[0][0]
    tried, kept = widths_tried(monkeypatch, sizing.Embeddings(3e6, 2e6, 4e6))
    assert tried == [widest, least]
    assert kept == least


def test_a_size_within_its_interval_is_fitted_once(monkeypatch):
    """Proves that embeddings within the interval foreseen leave the first network as it is."""
    tried, kept = widths_tried(monkeypatch, sizing.Embeddings(3e6, 0.0, 4e6))
    assert tried == [kept] == [sizing.SIZES[-1][0]]


def test_a_network_that_encoding_does_not_bear_out_is_not_kept(monkeypatch):
    """Proves that without a base, too, both are encoded: what was foreseen does not keep a network that takes more."""
    bases_hidden(monkeypatch)
    monkeypatch.setattr(sizing, "plan", lambda *args: sizing.sized(4, 0))
    codec, said = chosen((4, 4, 24, 24), EASY, Effort(steps=20))
    assert "fit" in said
    assert codec.layout.channels == 0
    assert not codec.trace.kept


def test_a_fit_that_was_dropped_is_told_all_the_same():
    """Proves that loss terms of a fit outlive the choice of a codec without a network, which a rival's bytes ask."""
    free, said = chosen((30, 4, 40, 40), LONG, Effort(steps=20))
    assert "fit" in said
    assert free.layout.channels
    assert free.trace.kept
    pressed, said = chosen((30, 4, 40, 40), LONG, Effort(steps=20, bytes_max=18_500))
    assert "fit" in said
    assert pressed.layout.channels == 0
    assert not pressed.trace.kept
    assert pressed.trace.terms == free.trace.terms


def test_coarser_tiers_are_measured_of_what_is_kept(monkeypatch):
    """Proves that a family that loses decodes no coarser tier, and that the one that is kept has all its tiers."""
    measured, decode = [], encode.decode_many_coarser

    def noted(codec, tier, items):
        measured.append((codec.family, tier))
        return decode(codec, tier, items)

    monkeypatch.setattr(encode, "decode_many_coarser", noted)
    series, effort = synthetic_series((9, 4, 24, 24)), Effort(steps=6)
    for rivals, tiers in ((("klt-av1",), False), ((), True)):
        policy = replace(POLICY, codec="vae", rivals=rivals)
        measured.clear()
        fitted = fit_series("vae", None, series, policy, effort, quiet)
        assert measured == [(fitted.family, tier) for tier in COARSER]
        read = Families.installed([fitted.family]).items[fitted.family].from_bytes(fitted.codec)
        assert fitted.rasters == tuple(encode.encode_series(read, series, policy, quiet))
        assert any(stored.coarser for stored in fitted.rasters) == tiers


def test_traces_of_other_families_are_told_apart():
    """Proves that facts tell the codec's own fit first and call those of others by their family, as not kept."""
    text = "steps:1 2;mse:0.1 0.05"
    facts = {f"{LOSS_TERMS}_vae": text, LOSS_TERMS: text, "seed": 0}
    told = list(traces_of("klt-own", facts))
    assert [(family, trace.kept) for family, trace in told] == [("klt-own", True), ("vae", False)]
    assert list(traces_of("raw", {"seed": 0})) == []
