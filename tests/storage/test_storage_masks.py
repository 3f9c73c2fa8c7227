"""Validity masks as bytes: the smallest tag is taken, those of every format are read, damage is Corrupt or a mask."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from geostore.errors import Corrupt
from geostore.storage import pack_mask, pack_rows, unpack_mask

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "masks.json").read_text())["payloads"]


def clouds(seed: int, shape: tuple[int, int], share: float = 0.3, smooth: float = 2.0) -> np.ndarray:
    """Usable but for ragged holes, about `share` of the mask."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), smooth)
    return noise >= np.quantile(noise, share)


def patterns() -> dict[str, np.ndarray]:
    """Masks that one coder or another is good at."""
    rows, columns = np.mgrid[:96, :130]
    noise = np.random.default_rng(0).random((16, 16)) < 0.5
    return {
        "checks": (rows + columns) % 2 == 0,
        "gaps of a scan line": (rows + columns // 3) % 14 > 3,
        "lone pixels": (rows % 16 == 5) & (columns % 16 == 9),
        "one noise again and again": np.tile(noise, (6, 8)),
        "noise": np.random.default_rng(1).random((96, 130)) < 0.5,
        "one pixel": (rows == 50) & (columns == 60),
        "half": columns < 65,
        "wedge": columns + rows / 3 < 110,
        "clouds": clouds(0, (96, 130)),
    }


@pytest.mark.parametrize("name", patterns())
def test_no_mask_takes_more_than_before(name: str) -> None:
    """Where zstd of packed bits is smaller it is kept; everything comes back."""
    mask = patterns()[name]
    data = pack_mask(mask)
    assert len(data) <= len(pack_rows(mask))
    assert np.array_equal(unpack_mask(data, mask.shape), mask)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.tuples(st.integers(1, 50), st.integers(1, 50)), st.integers(1, 17), st.booleans())
def test_masks_of_blocks_come_back(seed: int, shape: tuple[int, int], side: int, noisy: bool) -> None:
    """Any shape, any side of blocks, cut anywhere: the mask, never more than before."""
    rng = np.random.default_rng(seed)
    coarse = clouds(seed, (60, 60), 0.3, 0.1 if noisy else 2.0)
    top, left = rng.integers(0, side, 2)
    mask = coarse.repeat(side, 0).repeat(side, 1)[top : top + shape[0], left : left + shape[1]]
    data = pack_mask(mask)
    assert np.array_equal(unpack_mask(data, mask.shape), mask)
    assert len(data) <= len(pack_rows(mask))


def test_a_mask_of_a_coarser_grid_costs_what_it_costs_there() -> None:
    """Classes at 20 m laid over pixels of 10 m: three bytes more than the mask at 20 m."""
    coarse = clouds(5, (64, 64), 0.3, 1.0)
    data = pack_mask(coarse.repeat(2, 0).repeat(2, 1)[1:, 1:])
    assert data[0] == 5
    assert len(data) <= len(pack_mask(coarse)) + 3


def test_clouds_take_less_than_two_thirds_of_what_they_took() -> None:
    """Ragged holes, large and small masks, half of them little more than noise: less than 2/3 of zstd's bytes."""
    masks = [clouds(seed, (side, side), 0.3, smooth) for seed in range(4) for side in (32, 96) for smooth in (1.0, 3.0)]
    assert 3 * sum(len(pack_mask(m)) for m in masks) < 2 * sum(len(pack_rows(m)) for m in masks)


def test_masks_of_formats_1_and_2_are_read() -> None:
    """The tags 0 to 3."""
    for mask in (*patterns().values(), np.ones((5, 9), bool), np.zeros((5, 9), bool)):
        data = pack_rows(mask)
        assert data[0] <= 3
        assert np.array_equal(unpack_mask(data, mask.shape), mask)
    assert {pack_rows(mask)[0] for mask in patterns().values()} == {2, 3}


@pytest.mark.parametrize("item", GOLDEN, ids=lambda item: item["name"])
def test_masks_written_once_are_read_for_good_and_written_alike(item: dict[str, object]) -> None:
    """Every tag's golden bytes give the mask they were made of; those in context are what is written today."""
    data, shape = bytes.fromhex(str(item["mask"])), tuple(item["shape"])  # type: ignore[arg-type]
    mask = unpack_mask(data, shape)
    assert hashlib.sha256(mask.tobytes()).hexdigest() == item["sha256"]
    assert data[0] < 4 or pack_mask(mask) == data


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 7), st.binary(max_size=40), st.tuples(st.integers(1, 40), st.integers(1, 40)))
def test_any_bytes_are_a_mask_or_corrupt(tag: int, data: bytes, shape: tuple[int, int]) -> None:
    """Whatever follows a tag, a mask of the shape asked for or Corrupt."""
    with contextlib.suppress(Corrupt):
        assert unpack_mask(bytes([tag]) + data, shape).shape == shape


@pytest.mark.parametrize("data", [b"", b"\4", b"\5", b"\5\2", b"\5\0\x11", b"\5\x10\x11", b"\5\2\x31", b"\5\2\x10"])
def test_what_is_cut_short_or_impossible_is_told(data: bytes) -> None:
    """No tag; blocks without a side, of 16 pixels, of which more is seen than they have; too large a mask."""
    if data != b"\4":
        with pytest.raises(Corrupt, match="geostore verify"):
            unpack_mask(data, (20, 20))
    for tag in (b"\4", b"\5\2\x11"):
        with pytest.raises(Corrupt, match="100000 x 100000"):
            unpack_mask(tag, (100_000, 100_000))
