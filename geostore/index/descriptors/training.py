"""How a network learns to describe places without labels: two views of what belongs together are to look alike.

Views belong together if they show one place at the same date or another, or places side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from geostore.codec import Series
from geostore.errors import InvalidInput
from geostore.index.descriptors import Floats, Progress
from geostore.index.descriptors.simsiam import LIMIT, STRIDES, Network, bands_facts, logarithms

CHANNELS = (24, 48, 96)  # of the convolutions
WIDTH = 128  # components of the descriptor
BATCH, PIXELS = 96, 2**17  # pairs of views a step, fewer where views are large: their pixels are at most so many
SIDES = (8, 16, 32, 64)  # of views in pixels; one of them a step
USABLE_MIN = 0.5  # share of a view that may be used
_HIDDEN = 256
_TEMPERATURE = 0.2
_GAIN, _TINT = 0.15, 0.03  # views differ by a common shift of logarithms, and by one of each band
_NOISE = 0.05  # of standardised values
_TRIES = 20  # at a view that may be used


@dataclass(frozen=True)
class _Place:
    """(T, B, H, W) float32 standardised and zero under the mask, and (T, H, W) bool."""

    values: Floats
    valid: npt.NDArray[np.bool_]


def train_network(
    series: Sequence[Series], *, loss: str = "simsiam", steps: int = 300, seed: int = 0, device: str = "auto",
    progress: Progress = lambda _, __: None,
) -> Network:  # fmt: skip
    """Train the network of `simsiam.SimSiam`.

    Args:
        series: places with their dates, all of the same bands; masked pixels weigh nothing.
        loss: "simsiam", or "simclr".
        steps: of the optimiser.
        seed: everything random follows from it.
        device: "cpu", "cuda", or "auto": a GPU where there is one.
        progress: told now and then; may raise to stop.

    Raises:
        InvalidInput: no usable pixels, other bands among the series, or no such loss or device.

    References:
        Chen, He 2021, "Exploring simple Siamese representation learning"; Chen et al. 2020, "A simple framework for
        contrastive learning of visual representations". Ours differs: views are other dates and neighbours too, colours
        are hardly changed (in multi-band imagery they are what tells places apart), pooled spreads stand beside means.
    """
    import torch

    if loss not in ("simsiam", "simclr"):
        raise InvalidInput(f"loss {loss!r}; use simsiam or simclr")
    places, mean, spread = _standardised(series)
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    where = torch.device(_device(device))
    model = _model(len(mean)).to(where)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    for step in range(steps):
        views = torch.from_numpy(_views(places, rng, np.float32(1) / spread)).to(where)  # (2 N, B + 1, S, S)
        value = _loss(model, views, loss)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        schedule.step()
        if step % 10 == 0:
            progress(f"training {loss}", step / steps)
    return _exported(model.cpu().eval(), bands_facts(series[0].bands), mean, spread)


def _device(wanted: str) -> str:
    import torch

    if wanted not in ("auto", "cpu", "cuda"):
        raise InvalidInput(f"device {wanted!r}; use auto, cpu or cuda")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InvalidInput("no CUDA device is to be had here; use device auto or cpu")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def _standardised(series: Sequence[Series]) -> tuple[list[_Place], Floats, Floats]:
    """Places with usable pixels, and the (B,) mean and spread of their logarithms."""
    facts = {bands_facts(s.bands) for s in series}
    if len(facts) != 1:
        raise InvalidInput(f"series of bands {sorted(facts)}; a descriptor is trained on one kind")
    logs = [(logarithms(s.pixels, s.valid, s.bands), s.valid) for s in series if s.valid.any()]
    if not logs:
        raise InvalidInput("no usable pixel in any series; give rasters that are not masked throughout")
    sample = np.concatenate([_some(values, valid) for values, valid in logs])  # (N, B)
    mean, spread = sample.mean(axis=0), np.maximum(sample.std(axis=0), 1e-3)
    scaled = [
        _Place(np.clip((v - mean[:, None, None]) / spread[:, None, None], -LIMIT, LIMIT) * m[:, None], m)
        for v, m in logs
    ]
    return scaled, mean.astype(np.float32), np.asarray(spread, np.float32)


def _some(values: Floats, valid: npt.NDArray[np.bool_]) -> Floats:
    """Up to 20,000 usable pixels of (T, B, H, W), evenly taken: (N, B)."""
    usable = np.moveaxis(values, 1, 3)[valid]
    return usable[:: max(1, len(usable) // 20_000)]


def _views(places: Sequence[_Place], rng: np.random.Generator, unit: Floats) -> Floats:
    """(2 N, B + 1, S, S): views of N places, then for each another view of what belongs to it."""
    smallest = min(SIDES[0], *(min(p.valid.shape[1:]) for p in places))
    fitting = [s for s in SIDES if s <= max(min(p.valid.shape[1:]) for p in places)] or [smallest]
    side = int(rng.choice(fitting))
    count = min(BATCH, PIXELS // side**2)
    pairs = [_pair(places, side, rng) for _ in range(count)]
    flat = [view for half in zip(*pairs, strict=True) for view in half]
    return np.stack([_altered(view, rng, unit) for view in flat])


def _pair(places: Sequence[_Place], side: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """A view of a place, and one of any date up to a side away in rows and columns."""
    place = places[int(rng.integers(len(places)))]
    _, height, width = place.valid.shape
    for _ in range(_TRIES):
        row, col = int(rng.integers(max(height - side, 0) + 1)), int(rng.integers(max(width - side, 0) + 1))
        first = _view(place, row, col, side, rng)
        if first[-1].mean() >= USABLE_MIN:
            break
    second = first
    for _ in range(_TRIES):
        down, right = rng.integers(-side, side + 1, 2)
        near = np.clip(row + down, 0, max(height - side, 0)), np.clip(col + right, 0, max(width - side, 0))
        second = _view(place, int(near[0]), int(near[1]), side, rng)
        if second[-1].mean() >= USABLE_MIN:
            return first, second
    return first, first


def _view(place: _Place, row: int, col: int, side: int, rng: np.random.Generator) -> Floats:
    """(B + 1, side, side) of a random date, the mask last; beyond the raster nothing may be used."""
    date, part = int(rng.integers(len(place.valid))), np.s_[row : row + side, col : col + side]
    values, seen = place.values[date][:, *part], place.valid[date][part]
    view = np.zeros((len(values) + 1, side, side), np.float32)
    view[:-1, : seen.shape[0], : seen.shape[1]] = values
    view[-1, : seen.shape[0], : seen.shape[1]] = seen
    return view


def _altered(view: Floats, rng: np.random.Generator, unit: Floats) -> Floats:
    """Turned, mirrored, lighter or darker, with some noise; `unit` is a logarithm of 1 in standardised values."""
    turned = np.rot90(view, int(rng.integers(4)), (1, 2))
    turned = turned[:, :, ::-1] if rng.random() < 0.5 else turned
    seen = turned[-1]
    shift = (rng.normal(0, _GAIN) + rng.normal(0, _TINT, len(unit))) * unit
    noise = rng.normal(0, _NOISE, (len(unit), *seen.shape))
    values = (turned[:-1] + shift[:, None, None] + noise) * seen
    return np.concatenate([np.clip(values, -LIMIT, LIMIT), seen[None]]).astype(np.float32)


def _model(bands: int) -> Any:
    """Convolutions, pooling, a projection to WIDTH, and what only training needs."""
    import torch
    from torch import nn

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            sizes = (bands + 1, *CHANNELS)
            self.convolutions = nn.ModuleList(
                nn.Conv2d(a, b, 3, stride=s, padding=1) for a, b, s in zip(sizes, CHANNELS, STRIDES, strict=False)
            )
            self.norm = nn.BatchNorm1d(2 * sum(CHANNELS), affine=False)
            self.out = nn.Linear(2 * sum(CHANNELS), WIDTH)
            self.projector = nn.Sequential(
                nn.BatchNorm1d(WIDTH), nn.ReLU(), nn.Linear(WIDTH, _HIDDEN), nn.BatchNorm1d(_HIDDEN, affine=False)
            )
            self.predictor = nn.Sequential(
                nn.Linear(_HIDDEN, _HIDDEN // 4), nn.BatchNorm1d(_HIDDEN // 4), nn.ReLU(),
                nn.Linear(_HIDDEN // 4, _HIDDEN),
            )  # fmt: skip

        def forward(self, views: Any) -> Any:
            x, seen, pooled = views, views[:, -1:], []
            for convolution, stride in zip(self.convolutions, STRIDES, strict=True):
                seen = seen[:, :, ::stride, ::stride]
                x = torch.relu(convolution(x)) * seen  # (B, C, H, W)
                count = seen.sum(dim=(2, 3)).clamp(min=1)
                mean = x.sum(dim=(2, 3)) / count
                square = (x**2).sum(dim=(2, 3)) / count
                pooled += [mean, ((square - mean**2).clamp(min=0) + 1e-6).sqrt()]
            return self.out(self.norm(torch.cat(pooled, dim=1)))  # (B, WIDTH)

    return Model()


def _loss(model: Any, views: Any, loss: str) -> Any:
    import torch
    from torch.nn.functional import cosine_similarity, cross_entropy, normalize

    projected = model.projector(model(views))
    if loss == "simsiam":
        first, second = projected.chunk(2)
        asked = model.predictor(projected).chunk(2)
        likeness = cosine_similarity(asked[0], second.detach()) + cosine_similarity(asked[1], first.detach())
        return -likeness.mean() / 2
    unit = normalize(projected, dim=1)
    rows = torch.arange(len(unit), device=unit.device)
    scores = (unit @ unit.T / _TEMPERATURE).masked_fill(rows[:, None] == rows, -1e9)  # (2 N, 2 N)
    return cross_entropy(scores, rows.roll(len(unit) // 2))


def _exported(model: Any, bands: str, mean: Floats, spread: Floats) -> Network:
    """The weights as arrays, in the layouts that `Network` says."""
    kernels = tuple(_array(c.weight.permute(2, 3, 1, 0)) for c in model.convolutions)
    biases = tuple(_array(c.bias) for c in model.convolutions)
    scale = (model.norm.running_var + model.norm.eps).rsqrt()
    return Network(
        bands, mean, spread, kernels, biases, _array(model.norm.running_mean), _array(scale),
        _array(model.out.weight.T), _array(model.out.bias),
    )  # fmt: skip


def _array(tensor: Any) -> Floats:
    return np.ascontiguousarray(tensor.detach().numpy(), np.float32)
