"""The rate-distortion bench's own arithmetic: bytes at an error, pooled errors, bounds, coders, cells that are kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench import loss_terms, rd_plan, rd_tables
from bench.classical_baselines import CODERS, Levels, Rotation, filled
from bench.harness import RESULTS
from bench.rd_cells import Cell, Workshop
from bench.rd_curves import Errors, Point, Size, bytes_at, errors, front, violations
from bench.rd_figures import EVERYTHING, UNSEEN, Found, without_masks
from bench.rd_masks import recounted
from bench.rd_places import Place, part
from bench.rd_plan import VIDEO
from geostore.certificate import measure
from geostore.storage import pack_mask, pack_rows
from geostore.testing.codecs import synthetic_series

SERIES = synthetic_series((5, 4, 24, 32), indices=("NDVI",))
PLACE = Place("here", "synthetic, small", SERIES, "reflectance", synthetic=True)


def point(codec: str, nbytes: float, mse: float, *, variant: str = "", unseen: float | None = None) -> Point:
    seen = Errors(mse, 0.1, mse**0.5, 0.5)
    other = seen if unseen is None else replace(seen, mse=unseen)
    sizes = {"nbytes": int(nbytes), "marginal": int(nbytes), "unseen_bytes": nbytes / 4}
    return Point(
        place="here", codec=codec, variant=variant, setting={"q": nbytes}, every=seen, seen=seen, unseen=other, **sizes
    )


def test_bytes_at_an_error_follow_the_power_law_between_points() -> None:
    """On bytes = 10 / error every interpolated value lies on the law, at a point it is the point's."""
    pairs = [(10 / e, e) for e in (1e-2, 1e-3, 1e-4)]
    for error in (5e-3, 1e-3, 2.5e-4):
        size = bytes_at(pairs, error)
        assert size is not None
        assert size.nbytes == pytest.approx(10 / error)
        assert not size.at_most


def test_bytes_beyond_a_curve_are_not_invented() -> None:
    """Coarser than the coarsest point says "at most", finer than the finest says nothing."""
    pairs = [(100.0, 1e-3), (1000.0, 1e-4)]
    assert bytes_at(pairs, 1e-2) == Size(100.0, at_most=True)
    assert bytes_at(pairs, 9e-5) is None
    assert bytes_at([], 1.0) is None


def test_only_points_that_better_all_smaller_ones_count() -> None:
    """A larger and worse point moves no curve; a lossless one is reached without a logarithm of zero."""
    assert front([(300, 2e-3), (100, 1e-3), (200, 1.5e-3), (400, 1e-4)]) == [(100, 1e-3), (400, 1e-4)]
    assert bytes_at([(100.0, 1e-3), (900.0, 0.0)], 1e-6) == Size(900.0)


def test_errors_pool_over_dates_as_certificates_say() -> None:
    """One date's pooled errors are its certificate's; of several, the mean weighted by usable pixels."""
    rng = np.random.default_rng(0)
    decoded = np.clip(SERIES.pixels + rng.normal(0, 50, SERIES.pixels.shape), 0, 65535).astype(np.uint16)
    certificates = [
        measure(p, d, v, SERIES.bands, SERIES.indices)
        for p, d, v in zip(SERIES.pixels, decoded, SERIES.valid, strict=True)
    ]
    one = errors(SERIES, decoded, np.arange(5) == 1)
    assert one.mse == pytest.approx(certificates[1].mse)
    assert one.max_error == pytest.approx(certificates[1].max_error)
    assert one.ndvi_mae == pytest.approx(certificates[1].indices["NDVI"].mae)
    every = errors(SERIES, decoded, np.ones(5, bool))
    weights = [c.pixels for c in certificates]
    assert every.mse == pytest.approx(np.average([c.mse for c in certificates], weights=weights))
    assert every.ndvi_max == pytest.approx(max(c.indices["NDVI"].max for c in certificates))


def test_violations_count_values_beyond_the_bound_and_none_on_it() -> None:
    """A value exactly on its bound is kept, one step further is not; masked pixels are never counted."""
    decoded = SERIES.pixels.copy()
    row, column = (int(i[0]) for i in np.nonzero(SERIES.valid[1]))
    decoded[1, 0, row, column] += 100
    assert violations(SERIES, decoded, max_error=0.01, index_max=None) == 0
    decoded[1, 0, row, column] += 1
    assert violations(SERIES, decoded, max_error=0.01, index_max=None) == 1
    hidden = SERIES.pixels.copy()
    hidden[1][:, ~SERIES.valid[1]] += 5000
    assert violations(SERIES, hidden, max_error=0.01, index_max=0.02) == 0


def test_every_fourth_date_is_held_out() -> None:
    """Dates 3, 7, ... are unseen, and a part of the series holds exactly the others."""
    assert np.flatnonzero(PLACE.unseen).tolist() == [3]
    seen = part(SERIES, ~PLACE.unseen)
    assert len(seen) == 4
    assert np.array_equal(seen.pixels[3], SERIES.pixels[4])


def test_a_psnr_over_the_spread_is_an_error_on_n1() -> None:
    """Noise of the size that `mse_at` gives has that PSNR over the 1-99 % range of the values."""
    psnr = 10 * np.log10(PLACE.spread**2 / (PLACE.mse_at(30) * PLACE.n1_span**2))
    assert psnr == pytest.approx(30)
    assert PLACE.psnr_of(PLACE.mse_at(30)) == pytest.approx(30)


def test_filling_leaves_usable_pixels_alone() -> None:
    """Masked pixels get other values, usable ones none."""
    values = filled(SERIES)
    usable = np.broadcast_to(SERIES.valid[:, None], SERIES.pixels.shape)
    assert np.array_equal(values[usable], SERIES.pixels[usable])
    assert values[~usable].max() < 8000  # the cloud's 10000 is gone


def test_the_transform_inverts_and_orders_by_variance() -> None:
    """There and back is the identity to float32; components come by falling variance; levels cost half a step."""
    values = filled(SERIES)
    rotation = Rotation.of(values, SERIES.valid)
    components = rotation.forward(values)
    assert np.abs(rotation.inverse(components) - values).max() < 0.05
    spread = components.transpose(0, 2, 3, 1)[SERIES.valid].var(axis=0)
    assert (np.diff(spread) <= 0).all()
    levels = Levels.of(components, 10)
    assert np.abs(levels.restore(levels.quantise(components)) - components).max() <= levels.step / 2 * (1 + 1e-9)


LADDERS = {
    "KLT + SVT-AV1": [{"domain": "linear", "gop": 1, "crf": c, "offset": 16} for c in (50, 25)],
    "KLT + HEVC": [{"domain": "log", "gop": 0, "crf": c} for c in (40, 15)],
    "KLT + libaom AVIF": [{"domain": "linear", "gop": 2, "level": c} for c in (20, 70)],
    "KLT + JPEG 2000": [{"domain": "log", "rmse": c} for c in (0.3, 0.05)],
    "JPEG XL": [{"quality": c} for c in (0.05, 1.0)],
    "JPEG 2000": [{"quality": c} for c in (0.005, 0.05)],
    "LERC": [{"quality": c} for c in (0.01, 0.1)],
    "SZ3": [{"bound": c} for c in (200, 20)],
    "rounded + JPEG XL": [{"bound": c} for c in (200, 20)],
}


@pytest.mark.parametrize("codec", LADDERS)
def test_more_bytes_buy_less_error(codec: str) -> None:
    """The finer of two settings takes more bytes, and errs less, by a factor; shape and dtype are the series'."""
    if package := rd_plan.missing(codec):
        pytest.skip(f"{package} is not installed; `make bench` installs it")
    coarse, fine = (CODERS[codec](SERIES, setting) for setting in LADDERS[codec])
    assert fine.pixels.dtype == SERIES.pixels.dtype
    assert fine.pixels.shape == SERIES.pixels.shape
    assert coarse.nbytes < fine.nbytes < SERIES.pixels.nbytes
    every = np.ones(5, bool)
    assert errors(SERIES, fine.pixels, every).mse < 0.7 * errors(SERIES, coarse.pixels, every).mse


@pytest.mark.parametrize(("codec", "setting"), [("SZ3", "bound"), ("rounded + JPEG XL", "bound"), ("LERC", "quality")])
def test_codecs_that_promise_a_bound_keep_it(codec: str, setting: str) -> None:
    """No usable value is off by more than 100 stored units."""
    if package := rd_plan.missing(codec):
        pytest.skip(f"{package} is not installed; `make bench` installs it")
    coded = CODERS[codec](SERIES, {setting: 100 if setting == "bound" else 0.01})
    assert violations(SERIES, coded.pixels, max_error=0.01, index_max=None) == 0


def test_the_lossless_baseline_is_lossless() -> None:
    """LZW GeoTIFF gives the series back."""
    coded = CODERS["LZW GeoTIFF"](SERIES, {})
    assert coded.nbytes > 0
    assert np.array_equal(coded.pixels, SERIES.pixels)


def test_a_cell_is_measured_once_and_again_when_it_changes(tmp_path: Path) -> None:
    """A second run reads what the first kept; another setting is another cell; a failure is told, not raised."""
    cell = Cell("synthetic-small", "LERC", "", {"quality": 0.01})
    shop = Workshop(tmp_path, 0)
    first = shop.run([cell], "test")
    (kept,) = tmp_path.rglob("*.json")
    kept.write_text(json.dumps({**first[0].to_dict(), "seconds": 99.0}))
    assert shop.run([cell], "test")[0].seconds == 99.0
    finer = replace(cell, setting={"quality": 0.02})
    assert finer.fingerprint != cell.fingerprint
    broken = replace(cell, setting={})
    assert len(shop.run([cell, finer, broken], "test")) == 2
    assert [(c.setting, "KeyError" in why) for c, why in shop.failed] == [({}, True)]
    reader = Workshop(tmp_path, None)
    other = replace(cell, setting={"quality": 0.03})
    assert len(reader.run([cell, other], "test")) == 1
    assert reader.left == [other]


def test_cells_of_another_machine_are_read_from_the_archive(tmp_path: Path) -> None:
    """What one run packs the next one finds without its folder; places it did not look at stay in the archive."""
    cell, archive = Cell("synthetic-small", "LERC", "", {"quality": 0.01}), tmp_path / "cells.json.xz"
    shop = Workshop(tmp_path / "one", 0, archive)
    measured = shop.run([cell], "test")
    shop.found["elsewhere"] = replace(measured[0], place="elsewhere")
    shop.pack()
    reader = Workshop(tmp_path / "two", None, archive)
    assert reader.run([cell], "test") == measured
    assert reader.left == []
    reader.pack()
    assert set(Workshop(tmp_path, None, archive).packed) == {cell.fingerprint, "elsewhere"}


def test_variants_far_above_the_best_are_not_run_further() -> None:
    """Of two variants probed, the one near the known curve is swept, the one at twice its bytes is not."""
    codec, first, near, far = VIDEO[0], "linear, GOP 16", "linear, one GOP", "log, GOP 1"
    known = [point(codec, 1000 * 2**k, 1e-3 / 4**k, variant=first) for k in range(6)]
    probes = [point(codec, 2100, 2.5e-4, variant=near), point(codec, 4000, 2.5e-4, variant=far)]
    swept = {c.variant for c in rd_plan.promising(PLACE, [*known, *probes])}
    assert near in swept
    assert far not in swept


def test_the_best_classical_is_the_smallest_well_measured_curve() -> None:
    """A curve of fewer than five settings, or of a codec that is no video codec, is not the best classical."""
    whole = [point(VIDEO[0], 1000 * 2**k, 1e-3 / 2**k, variant="whole") for k in range(5)]
    sparse = [point(VIDEO[1], 10 * 2**k, 1e-3 / 2**k, variant="sparse") for k in range(4)]
    other = [point("SZ3", 20 * 2**k, 1e-3 / 2**k) for k in range(5)]
    found = Found([PLACE], [*whole, *sparse, *other])
    best = found.best(PLACE, EVERYTHING, 5e-4)
    assert best is not None
    assert best.nbytes == pytest.approx(2000)


def test_unseen_dates_are_compared_by_their_own_errors_and_bytes() -> None:
    """The axis of unseen dates reads their bytes and their errors, not those of the whole series."""
    points = [point("x", 1000 * 2**k, 1e-3 / 2**k, unseen=2e-3 / 2**k) for k in range(3)]
    size = UNSEEN.size(points, 1e-3)
    assert size is not None
    assert size.nbytes == pytest.approx(500)


def test_the_guide_shows_the_committed_result() -> None:
    """The tables between the guide's marks are those of bench/results/rate_distortion.json, word for word."""
    guide, result = rd_tables.GUIDE.read_text(), json.loads((RESULTS / "rate_distortion.json").read_text())
    assert rd_tables.put(guide, rd_tables.tables(result)) == guide
    assert rd_tables.BEGIN in guide


def test_masks_are_left_out_of_both_sides() -> None:
    """Of the unseen dates the bytes of their own masks go, whoever coded them, and nothing else changes."""
    masks = len(pack_mask(SERIES.valid[3]))
    points = [point("geostore vae", 4000, 1e-3), point("JPEG XL", 4000, 1e-3)]
    for kept in without_masks(Found([PLACE], points)).points:
        assert kept.unseen_bytes == pytest.approx(1000 - masks)
        assert kept.nbytes == 4000


def test_cells_measured_before_are_recounted_with_the_masks_of_today() -> None:
    """What told no masks, or those of formats 1 and 2, gives exactly what measuring again would; LZW has none."""
    now, before = ([len(pack(valid)) for valid in SERIES.valid] for pack in (pack_mask, pack_rows))
    assert sum(now) < sum(before)
    for facts in (None, {"mask_bytes": sum(before), "family": "vae"}):
        old = replace(point("JPEG XL", 4000 + sum(before), 1e-3), facts=facts, unseen_bytes=1000.0 + before[3])
        new = recounted(old, PLACE)
        assert (new.nbytes, new.marginal) == (4000 + sum(now), 4000 + sum(now))
        assert new.unseen_bytes == 1000 + now[3]
        assert new.facts == {**(facts or {}), "mask_bytes": sum(now)}
        assert recounted(new, PLACE) == new
    lzw = point("LZW GeoTIFF", 4000, 0)
    assert recounted(lzw, PLACE) == lzw
    with pytest.raises(ValueError, match="measure it again"):
        recounted(replace(point("geostore vae", 4000, 1e-3), facts={"mask_bytes": 7}), PLACE)


def test_the_index_term_is_compared_at_equal_bytes() -> None:
    """Two straight curves: NDVI error halves at every size, MSE is 1.1 times; a curve without overlap gives nothing."""
    sizes = [float(2**k) for k in range(len(loss_terms.STEPS))]
    without = [(s, 1e-2 / s, 1 / s) for s in sizes]
    halved = [(s, 1.1e-2 / s, 0.5 / s) for s in sizes]
    assert loss_terms.ratios({"with": halved, "without": without}) == pytest.approx((0.5, 1.1))
    far = [(1e6 * s, m, n) for s, m, n in halved]
    assert loss_terms.ratios({"with": far, "without": without}) == (None, None)
