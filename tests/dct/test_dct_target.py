"""What masked pixels are filled with, against scenes whose masked pixels are known."""

from __future__ import annotations

import numpy as np
import pytest

from geostore.dct.blocks import Blocks
from geostore.dct.target import Target

HERE = np.zeros(2, np.int64)


def scene(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(2, H, W) of a level, in 1/16, and a few cosines."""
    y, x = np.mgrid[:height, :width]
    waves = [
        300 * np.cos(np.pi * (2 * y + 1) * u / 64) * np.cos(np.pi * (2 * x + 1) * v / 64) for u, v in ((1, 2), (3, 1))
    ]
    return np.stack([4000 + waves[0] + waves[1], 9000 - waves[1]]) + rng.normal(0, 3, (2, height, width))


@pytest.mark.parametrize("usable", [0.02, 0.3, 0.8])
@pytest.mark.parametrize("cloud", ["scattered", "whole blocks"])
def test_masked_pixels_are_what_references_and_few_cosines_say(usable: float, cloud: str) -> None:
    """What matters stays as it is to the bit; the rest comes nearer to the truth than its level, or than references."""
    rng, blocks = np.random.default_rng(3), Blocks(64, 96)
    truth = scene(rng, 64, 96)
    known = rng.random((64, 96)) < usable
    if cloud == "whole blocks":
        known = np.ones((64, 96), np.bool_)
        known[:, round(96 * usable) :] = False
    references = [0.7 * truth + 2000 + rng.normal(0, 20, truth.shape) for _ in range(3)]
    for there in (references, []):
        target = Target(np.where(known, truth, 60000.0), known, HERE)
        filled = target.filled(target.guess(there), blocks, 30)
        assert np.array_equal(filled.planes[:, known], truth[:, known])
        away = np.abs(filled.planes - truth)[:, ~known].mean()
        flat = np.abs(truth - truth[:, known].mean(axis=1)[:, None, None])[:, ~known].mean()
        assert away < (0.6 if there else 1.3) * flat
        assert np.isfinite(filled.planes).all()


def test_what_is_filled_asks_for_few_coefficients() -> None:
    """Beside its reference a half seen date has far fewer coefficients of a step than with its level in the gaps."""
    rng, blocks = np.random.default_rng(4), Blocks(64, 64)
    truth = scene(rng, 64, 64)
    reference, known = truth + rng.normal(0, 30, truth.shape), rng.random((64, 64)) < 0.5
    target = Target(np.where(known, truth, truth.mean()), known, HERE)
    filled = target.filled(target.guess([reference]), blocks, 40)

    def told(planes: np.ndarray) -> int:
        return int((np.abs(blocks.forward(planes - reference)) >= 256).sum())

    assert told(filled.planes) <= 0.05 * told(target.planes)


def test_a_date_that_matters_everywhere_is_left_alone() -> None:
    """Nothing is filled, not even with a guess that is far off."""
    truth = scene(np.random.default_rng(5), 32, 32)
    target = Target(truth, np.ones((32, 32), np.bool_), HERE)
    assert target.filled(target.guess([truth + 500]), Blocks(32, 32), 30) is target


@pytest.mark.parametrize("better", ["time", "references"])
def test_what_foretells_the_seen_better_fills_the_masked(better: str) -> None:
    """What lies along time where that is clearly nearer on pixels that matter, else references, as if it were not."""
    rng = np.random.default_rng(6)
    truth, known = scene(rng, 64, 64), np.ones((64, 64), np.bool_)
    known[:, 40:] = False
    near, far = truth + 5000 + rng.normal(0, 5, truth.shape), rng.normal(0, 300, truth.shape)
    there, line = ([far], near) if better == "time" else ([near], far)
    found = Target(np.where(known, truth, 0), known, HERE, line).guess(there).planes
    without = Target(np.where(known, truth, 0), known, HERE).guess(there).planes
    away = np.abs(found - truth)[:, ~known].mean()
    if better == "time":
        assert away < 20 < np.abs(without - truth)[:, ~known].mean()
    else:
        assert np.array_equal(found, without)
