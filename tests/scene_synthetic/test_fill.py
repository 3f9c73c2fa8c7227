import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from geostore.errors import InvalidInput
from geostore.raster import Band, Bands, Grid, Raster
from geostore.scene.fill import fill

MODES = ("none", "random", "nearest", "neighbourhood")


def _raster(seed: int, dtype: str, height: int = 13, width: int = 17, share: float = 0.4) -> Raster:
    rng = np.random.default_rng(seed)
    bands = Bands(tuple(Band(f"b{i}", f"B{i}", 10.0, dtype=dtype) for i in range(3)))
    pixels = rng.integers(1, 100, (3, height, width)).astype(dtype)
    valid = rng.random((height, width)) > share
    pixels[:, ~valid] = 0
    return Raster(pixels=pixels, valid=valid, bands=bands, grid=Grid("EPSG:32633", 0, 0, 10, 10, height, width))


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(MODES), st.integers(0, 2**32 - 1), st.sampled_from(["uint8", "uint16", "float32"]), st.floats(0, 1)
)
def test_filling_touches_gaps_only_and_marks_them(mode: str, seed: int, dtype: str, share: float) -> None:
    """Known pixels and validity stay; filled pixels are marked, and lie within what is known of each band."""
    raster = _raster(seed, dtype, share=share)
    done = fill(raster, mode, rng=np.random.default_rng(seed))  # type: ignore[arg-type]
    known = raster.valid
    assert np.array_equal(done.raster.pixels[:, known], raster.pixels[:, known])
    assert np.array_equal(done.raster.valid, known)
    can = mode != "none" and known.any()
    assert np.array_equal(done.filled, ~known if can else np.zeros_like(known))
    for plane, before in zip(done.raster.pixels, raster.pixels, strict=True):
        if done.filled.any():
            assert before[known].min() <= plane[done.filled].min()
            assert plane[done.filled].max() <= before[known].max()


def test_nearest_takes_all_bands_of_a_nearest_pixel() -> None:
    """Against a k-d tree: the distance to the chosen pixel is the least there is."""
    raster = _raster(5, "uint16")
    raster.pixels[0] = np.arange(raster.pixels[0].size).reshape(raster.valid.shape)  # names the pixel
    done = fill(raster, "nearest", rng=np.random.default_rng(0))
    gaps = np.argwhere(~raster.valid)
    chosen = np.column_stack(np.unravel_index(done.raster.pixels[0][~raster.valid], raster.valid.shape))
    least, _ = cKDTree(np.argwhere(raster.valid)).query(gaps)
    assert np.allclose(np.linalg.norm(gaps - chosen, axis=1), least)
    assert np.array_equal(done.raster.pixels[:, ~raster.valid][1:], raster.pixels[:, chosen[:, 0], chosen[:, 1]][1:])


def test_neighbourhood_is_the_mean_of_the_smallest_square() -> None:
    """Brute force over squares 3, 5, 9 ... pixels wide gives the same values."""
    raster = _raster(6, "float32", share=0.9)
    done = fill(raster, "neighbourhood", rng=np.random.default_rng(0))
    for row, col in np.argwhere(~raster.valid):
        reach = 1
        while True:
            box = np.s_[max(row - reach, 0) : row + reach + 1, max(col - reach, 0) : col + reach + 1]
            if raster.valid[box].any():
                break
            reach *= 2
        wanted = raster.pixels[(slice(None), *box)][:, raster.valid[box]].mean(1)
        assert np.allclose(done.raster.pixels[:, row, col], wanted, rtol=1e-5)


def test_random_repeats_with_its_generator() -> None:
    """Equal generators fill equally; every filled pixel is a known pixel with all its bands."""
    raster = _raster(7, "uint16")
    a, b = (fill(raster, "random", rng=np.random.default_rng(1)).raster.pixels for _ in range(2))
    assert np.array_equal(a, b)
    known = {tuple(v) for v in raster.pixels[:, raster.valid].T.tolist()}
    assert {tuple(v) for v in a[:, ~raster.valid].T.tolist()} <= known


def test_wrong_wishes() -> None:
    """An unknown mode and a mask of another shape are refused."""
    with pytest.raises(InvalidInput, match="mode"):
        fill(_raster(1, "uint8"), "magic", rng=np.random.default_rng(0))  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="gaps"):
        fill(_raster(1, "uint8"), "nearest", rng=np.random.default_rng(0), missing=np.ones((2, 2), bool))
