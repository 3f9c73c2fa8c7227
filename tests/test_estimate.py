"""Estimates against what really came of it, on synthetic cloudy series with known scenes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from geostore.collection import Collection, Policy
from geostore.connection import connect
from geostore.errors import NotInstalled
from geostore.estimate import estimate, sampling, totals
from geostore.estimate.sampling import Look, Sample, half_interval
from geostore.ingest import ingest
from geostore.raster import Grid
from geostore.scene.synthetic import Synthetic, write_scenes
from geostore.settings import Settings

GRID = Grid("EPSG:32634", 604_000.0, 5_003_000.0, 40.0, 40.0, 40, 60)
CLOUDY = Synthetic(seed=11, grid=GRID, dates=8, cloud_share=0.5, swath_share=0.2, haze=0.2)


def test_a_cloudy_series_comes_out_within_the_intervals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Baselines and stored bytes that status measures after a fit, from five of eight dates of every cell."""
    monkeypatch.setattr(totals, "VALUES_MAX", 0)
    monkeypatch.setattr(sampling, "DATES_MIN", 5)
    collection = Collection(name="place", groups={"40m": CLOUDY.bands}, policy=Policy(mse_max=1e-3))
    write_scenes(CLOUDY, tmp_path / "scenes")
    expected = estimate([tmp_path / "scenes"], collection, cells=9, steps=4, pilot_steps=4)
    with connect(tmp_path / "store", create=True, settings=Settings(workers=1, fit_steps=4)) as client:
        ingest(client, [tmp_path / "scenes"], collection)
        client.fit()
        status = client.status()
    assert expected.rasters_sampled < expected.rasters
    assert expected.rasters == pytest.approx(status["rasters"], rel=0.1)
    for name in ("lzw", "jxl", "stored"):
        low, high = getattr(expected, f"bytes_{name}_interval")
        seen = status["bytes"][name if name == "stored" else f"source_{name}"]
        print(f"{name}: {low} to {high} expected, {seen} seen")
        assert low <= seen <= high, name


def test_a_codec_family_that_is_not_here_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    """Proves that a policy which no fit here could keep is refused with the collection's name, as a fit refuses it."""
    collection = Collection(name="place", groups={"40m": CLOUDY.bands}, policy=Policy(rivals=("klt-avl",)))
    with pytest.raises(NotInstalled, match=r"collection 'place': policy rivals names 'klt-avl'.*nearest is klt-av1"):
        estimate([tmp_path / "nothing"], collection)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Of 400 samples of a known population of cells and dates at least 90 % hold its sum."""
    rng = np.random.default_rng(3)
    cells = [_cell(rng, 40) for _ in range(30)]
    truth = sum(look.bytes_lzw for cell in cells for look in cell)
    covered = sum(look.covered for cell in cells for look in cell)
    held = 0
    for _ in range(400):
        chosen = rng.choice(len(cells), 5, replace=False)
        samples = [_sample(rng, cells[k], 10) for k in chosen]
        guess = sum(s.sum("bytes_lzw") for s in samples) / sum(s.sum("covered") for s in samples) * covered
        held += abs(guess - truth) <= half_interval(samples, "bytes_lzw", len(cells)) * guess
    assert held >= 0.9 * 400


def _cell(rng: np.random.Generator, dates: int) -> list[Look]:
    """Rasters of one cell: its own density, and clouds that hide a share of each date."""
    density, covered = rng.uniform(1, 3), int(rng.integers(500, 1500))
    seen = rng.beta(0.5, 0.5, dates)
    return [
        Look(covered=covered, pixels=covered, bytes_lzw=int(density * covered * s), bytes_jxl=0, bytes_mask=0)
        for s in seen
    ]


def _sample(rng: np.random.Generator, cell: list[Look], count: int) -> Sample:
    looks = tuple(cell[i] for i in rng.choice(len(cell), count, replace=False))
    return Sample(geohash="", dates=len(cell), looks=looks, seconds=0.0, series=None, grid=None)


def test_a_fit_in_small_sees_all_dates_of_a_cloudy_series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From 4 of 24 dates a cell, payloads are the share of lossless that they are from all of them, to a quarter: dates
    that stood in for others would take nothing beside them."""
    place = Synthetic(seed=5, grid=Grid("EPSG:32634", 604_000.0, 5_003_000.0, 40.0, 40.0, 40, 48), dates=24)
    policy = Policy(codec="klt-av1", rivals=())
    collection = Collection(name="place", groups={"40m": place.bands}, policy=policy)
    write_scenes(place, tmp_path / "scenes")
    shares = []
    for dates in (sampling.DATES_MIN, 4):
        monkeypatch.setattr(sampling, "DATES_MIN", dates)
        found = estimate([tmp_path / "scenes"], collection, steps=4)
        shares.append(found.bytes_embeddings / found.bytes_jxl)
        monkeypatch.setattr(totals, "VALUES_MAX", 0)
    print(f"{shares[0]:.4f} of lossless seen whole, {shares[1]:.4f} from four dates a cell")
    assert 0.8 < shares[1] / shares[0] < 1.25


def test_more_scenes_than_files_may_be_open(tmp_path: Path) -> None:
    """A fresh process that may hold 64 files estimates 80 scenes: they are not all kept open."""
    few = Synthetic(seed=2, grid=Grid("EPSG:32634", 604_000.0, 5_003_000.0, 40.0, 40.0, 16, 16), dates=80)
    write_scenes(few, tmp_path / "scenes")
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "from geostore.estimate import estimate\nfrom geostore.scene.synthetic import Synthetic\n"
        "from geostore.collection import Collection, Policy\n"
        "bands = Synthetic(seed=2).bands\n"
        "policy = Policy(codec='raw')\n"
        "print(estimate([sys.argv[1]], Collection(name='p', groups={'40m': bands}, policy=policy)).scenes)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "scenes"], capture_output=True, text=True, check=False
    )
    assert done.stdout == "80\n", done.stderr


@pytest.mark.parametrize(
    ("scenes", "nbytes", "commits"),
    [(1, 1e3, 1), (140, 13e6, 1), (600, 6e6, 3), (140, 140 * 3e6, 13), (5, 5 * 20e6, 5), (2, 2 * 40e6, 4)],
)
def test_small_scenes_are_reckoned_to_share_commits(scenes: int, nbytes: float, commits: int) -> None:
    """By 256 scenes or 32 MiB together; a large scene alone, one commit a request."""
    assert totals._commits(scenes, nbytes) == commits
