import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio

from geostore.errors import InvalidInput
from geostore.raster import Band, Bands
from geostore.scene.synthetic import BANDS, GRID, Synthetic, write_scenes
from geostore.spectral import evaluate_index

SMALL = GRID.window(0, 0, 64, 72)


def _digest() -> str:
    made = Synthetic(seed=7, grid=SMALL, dates=3)
    return hashlib.sha256(b"".join(d.raster.pixels.tobytes() for d in made.series())).hexdigest()


def test_equal_seeds_give_equal_pixels_in_every_process() -> None:
    """A fresh interpreter makes the same bytes; dates do not depend on the order they are asked for."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import test_synthetic as t; print(t._digest())"
    other = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent)], capture_output=True, text=True, check=True
    )
    assert other.stdout.strip() == _digest()
    made = Synthetic(seed=7, grid=SMALL, dates=3)
    last = made.date(2).raster.pixels
    assert np.array_equal(last, list(Synthetic(seed=7, grid=SMALL, dates=3).series())[2].raster.pixels)
    assert not np.array_equal(last, Synthetic(seed=8, grid=SMALL, dates=3).date(2).raster.pixels)


@pytest.mark.parametrize("layout", ["soft", "fields"])
def test_seasons_look_like_seasons(layout: str) -> None:
    """NDVI of crops is low in winter and high in leaf, at different times for the two crops; water stays below 0."""
    made = Synthetic(layout=layout, dates=24)  # type: ignore[arg-type]
    clear = [made.clear(d.time_us) for d in made.series()]
    ndvi = np.stack([evaluate_index("NDVI", c, BANDS.names) for c in clear])
    means = {n: ndvi[:, made.classes == i].mean(1) for i, n in enumerate(made.class_names) if (made.classes == i).any()}
    assert means["water"].max() < 0
    for crop in ("winter crop", "summer crop"):
        assert means[crop].max() > 0.7
        assert means[crop].min() < 0.3
    assert means["winter crop"].argmax() < means["summer crop"].argmax()
    assert means["bare"].max() < 0.3


def test_what_is_seen_is_the_truth_through_the_stated_disturbances() -> None:
    """Without noise, haze and shift, clear pixels are gain * truth + offset to the stored step."""
    made = Synthetic(grid=SMALL, dates=4, noise=0, haze=0, shift_px=0, cloud_share=0.3)
    for each in made.series():
        seen = BANDS.to_physical(each.raster.pixels)
        wanted = np.clip(each.gain * each.clear + each.offset, -0.0999, None)
        assert np.abs(seen - wanted)[:, each.raster.valid].max(initial=0) <= 0.51e-4


def test_masks_are_true_and_complete() -> None:
    """Valid is what no cloud, shadow or swath gap takes; clouds are bright, shadows dark, gaps nodata."""
    made = Synthetic(seed=3, grid=SMALL, dates=30, swath_share=0.5)
    dates = list(made.series())
    for d in dates:
        assert (d.raster.valid == ~(d.cloud | d.shadow | d.nodata)).all()
        assert not (d.cloud & d.shadow).any()
        assert not d.raster.pixels[:, d.nodata].any()
        assert d.raster.pixels[:, ~d.nodata].min() >= 1
    assert any(d.nodata.any() for d in dates)
    assert 0.1 < np.mean([d.cloud.mean() for d in dates]) < 0.5
    cloudy = next(d for d in dates if d.cloud.any() and d.shadow.any())
    red = BANDS.to_physical(cloudy.raster.pixels)[2]
    assert red[cloudy.cloud].mean() > 0.3 > red[cloudy.shadow].mean()


def test_real_texture_shows_in_the_truth() -> None:
    """A texture laid over the ground correlates with what is seen on one class."""
    texture = np.random.default_rng(0).uniform(50, 150, SMALL.shape)
    made = Synthetic(grid=SMALL, texture=texture, dates=1)
    red = made.clear(made.date(0).time_us)[2]
    one = made.classes == np.bincount(made.classes.ravel()).argmax()
    assert np.corrcoef(red[one], texture[one])[0, 1] > 0.7


def test_impossible_wishes() -> None:
    """A band nobody knows, a texture of another size, no dates, and a date that is not there are refused."""
    odd = Bands((Band("thermal", "B10", 100.0),))
    with pytest.raises(InvalidInput, match="no wavelength"):
        Synthetic(grid=SMALL, bands=odd).date(0)
    with pytest.raises(InvalidInput, match="texture"):
        Synthetic(grid=SMALL, texture=np.ones((3, 3)))
    with pytest.raises(InvalidInput, match="dates"):
        Synthetic(dates=0)
    with pytest.raises(InvalidInput, match="date 9"):
        Synthetic(dates=9, grid=SMALL).date(9)


def test_scenes_as_files(tmp_path: Path) -> None:
    """Files carry the pixels, the time, and call themselves synthetic."""
    made = Synthetic(grid=SMALL, dates=2)
    paths = write_scenes(made, tmp_path / "scenes")
    assert [p.name for p in paths] == ["synthetic_20200105.tif", "synthetic_20200120.tif"]
    with rasterio.open(paths[1]) as file:
        assert np.array_equal(file.read(), made.date(1).raster.pixels)
        assert file.tags()["ACQUISITION_DATETIME"].startswith("2020-01-20T09:30")
        assert "synthetic" in file.tags()["SOURCE"]
        assert file.nodata == 0
