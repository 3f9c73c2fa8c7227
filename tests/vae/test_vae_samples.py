"""What training reads: dates are mingled where they are few, and edges weigh more in the flat VAE."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geostore.collection import Policy
from geostore.testing.codecs import synthetic_series
from geostore.vae.fit import choose_layout, prepare
from geostore.vae.model import STRIDE
from geostore.vae.samples import Samples, draw, edged
from geostore.vae.sizing import sized

FREE = Policy(mse_max=None, index_mae_max=None)
SERIES = synthetic_series((6, 3, 32, 40))


def drawn(samples: Samples, mode: str, seed: int = 3):
    layout = choose_layout(samples.series, mode, sized(len(samples.series.bands), 3))
    return draw(samples, layout, np.arange(6), np.random.default_rng(seed), torch.device("cpu"))


def test_few_dates_are_mingled_and_many_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a short series some rasters are no date of it; with the threshold at 0 each is one, pixel by pixel."""
    samples = prepare(SERIES, "grid", FREE)
    every = np.stack([samples.residual(t) for t in range(6)])

    def strangers(samples: Samples) -> int:
        batches = [drawn(samples, "grid", seed) for seed in range(5)]
        return sum(not any(np.array_equal(r.numpy(), e) for e in every) for b in batches for r in b.residual)

    assert samples.scarce
    assert strangers(samples) > 5
    monkeypatch.setattr("geostore.vae.samples._SCARCE", 0)
    plain = prepare(SERIES, "grid", FREE)
    assert not plain.scarce
    assert strangers(plain) == 0


def test_mingled_rasters_stay_within_what_was_valid() -> None:
    """Every residual is finite, and 0 wherever its mask is: no blend or patch brings in a masked pixel."""
    samples = prepare(SERIES, "grid", FREE)
    for seed in range(5):
        batch = drawn(samples, "grid", seed)
        assert torch.isfinite(batch.residual).all()
        assert (batch.residual * (1 - batch.mask) == 0).all()
        assert set(batch.mask.unique().tolist()) <= {0.0, 1.0}
        assert all(side % STRIDE == 0 for side in batch.residual.shape[2:])


@pytest.mark.parametrize("mode", ["flat", "flat-single"])
def test_edges_weigh_more_in_the_flat_vae(mode: str) -> None:
    """The weights of a batch sum up to its valid pixels; masked ones weigh nothing, those beside them the most."""
    mask = np.ones((1, 1, 9, 9), np.float32)
    mask[0, 0, 3, 3] = 0
    weights = edged(mask)[0, 0]
    assert weights.sum() == pytest.approx(80)
    assert weights[3, 3] == 0
    assert weights[0].min() == weights.max() == weights[3, 4] > weights[1, 5] > weights[5, 5] > 0
    batch = drawn(prepare(SERIES, mode, FREE), mode)
    rows, columns = SERIES.valid.shape[1:]
    assert batch.mask.shape[2:] == (rows, columns)
    assert batch.mask[0, 0, 0, 0] >= batch.mask[0, 0, rows // 2, columns // 2]
