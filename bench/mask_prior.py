"""What the coder of masks knows before it has seen one: a small network and a few probabilities, trained once.

`python -m bench.mask_prior` writes `geostore/coding/bilevel.json`, which is part of the disk format: a table that
differs needs a tag of its own. Trained on shapes of the real world, none of them a mask that a bench measures:
brightness of the places that bases are trained on (`bench.base_places`: public domain and CC0), cut at a quantile, and
straight edges.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from bench.base_places import naip, peru, scene
from geostore.coding import bilevel
from geostore.compiled import compiled
from geostore.raster import Mask

TABLE = Path(bilevel.__file__).parent / "bilevel.json"
SIDES = (32, 48, 64, 96, 128, 192, 256)
_STEPS, _BATCH, _RATE = 6000, 2048, 1e-2
_KEPT, _KEPT_ALIKE = 0.3, 0.006  # share of pixels trained on; the second where all around is alike
Words = npt.NDArray[np.int64]
Values = npt.NDArray[np.float32]


def masks(rng: np.random.Generator) -> Iterator[Mask]:
    """Shapes, each neither full nor empty."""
    for one in _shapes(rng):
        if one.any() and not one.all():
            yield np.ascontiguousarray(one)


def _shapes(rng: np.random.Generator) -> Iterator[Mask]:
    bands = ("blue", "red", "nir", "swir16")
    for factor, count in ((1, 100), (3, 30)):
        for plane in scene("s2_l1c_virginia_scene", "S2_L1C_virginia_{}.tif", bands, factor):
            yield from (_clouded(_window(plane, rng), rng) for _ in range(count))
    for stack in (*peru(), *naip()):
        for date in rng.choice(len(stack), 3, replace=False):
            yield _clouded(stack[date, rng.integers(2, 4)], rng)
    yield from (_straight(rng) for _ in range(150))


def _window(plane: Values, rng: np.random.Generator) -> Values:
    side = int(rng.choice([s for s in SIDES if s <= min(plane.shape)]))
    top, left = (int(rng.integers(0, length - side + 1)) for length in plane.shape)
    return plane[top : top + side, left : left + side]


def _clouded(plane: npt.NDArray[np.generic], rng: np.random.Generator) -> Mask:
    """Usable where not bright, at a quantile drawn; often grown, as masks of clouds are, now and then in blocks."""
    smooth = ndimage.gaussian_filter(plane.astype(np.float32), rng.uniform(0.6, 4))
    bright = smooth >= np.quantile(smooth, 1 - rng.beta(0.7, 1.2))
    if rng.random() < 0.5:
        bright = ndimage.binary_dilation(bright, iterations=int(rng.integers(1, 4)))
    if rng.random() < 0.12:
        bright = bright.repeat(2, axis=0).repeat(2, axis=1)
    return np.asarray(~bright, np.bool_)


def _straight(rng: np.random.Generator) -> Mask:
    """A swath's edge, or the outline of a box that lies askew."""
    height, width = (int(n) for n in rng.integers(24, 300, 2))
    rows, columns = np.mgrid[:height, :width].astype(float)
    rows, columns = rows - height / 2, columns - width / 2
    if rng.random() < 0.5:
        angle, away = rng.uniform(0, 2 * np.pi), rng.uniform(-0.45, 0.45) * max(height, width)
        return np.asarray(columns * np.cos(angle) + rows * np.sin(angle) > away, np.bool_)
    angle, margins = rng.normal() / 40, rng.uniform(0, 8, 4)
    along, across = columns * np.cos(angle) - rows * np.sin(angle), columns * np.sin(angle) + rows * np.cos(angle)
    inside = (along > margins[0] - width / 2) & (along < width / 2 - margins[1])
    return np.asarray(inside & (across > margins[2] - height / 2) & (across < height / 2 - margins[3]), np.bool_)


@compiled
def _words(plane: npt.NDArray[np.uint8], out: Words) -> None:
    """(height, width) the word near every pixel of a padded plane, as the coder makes it."""
    for y in range(out.shape[0]):
        near = bilevel.first_word(plane, y + bilevel.UP)
        for x in range(out.shape[1]):
            out[y, x] = near
            near = bilevel.next_word(near, plane, y + bilevel.UP, x + bilevel.LEFT)


def words(mask: Mask) -> Words:
    """(height, width) the bits near every pixel."""
    out = np.empty(mask.shape, np.int64)
    plane = bilevel.padded(mask)
    plane[bilevel.UP :, : bilevel.LEFT] = plane[bilevel.UP :, bilevel.LEFT, None]
    plane[bilevel.UP :, -bilevel.RIGHT :] = plane[bilevel.UP :, -bilevel.RIGHT - 1, None]
    _words(plane, out)
    return out


def _inputs(near: Words, rows: Words) -> torch.Tensor:
    """(N, 59 + ROWS) the bits near as -1 and 1, and in which row from the top."""
    bits = (near[:, None] >> np.arange(len(bilevel.NEAR)) & 1).astype(np.float32) * 2 - 1
    return torch.tensor(np.concatenate([bits, np.eye(bilevel.ROWS, dtype=np.float32)[rows]], axis=1))


def train(rng: np.random.Generator) -> dict[str, Any]:
    """The table, from shapes drawn with `rng`; torch's seed is fixed."""
    torch.manual_seed(0)
    seen: list[tuple[Words, Words, npt.NDArray[np.float32]]] = []
    counts = np.zeros((2 * bilevel.ROWS, 2))
    for mask in masks(rng):
        near = words(mask).ravel()
        rows = np.minimum(np.arange(mask.shape[0]), bilevel.ROWS - 1).repeat(mask.shape[1])
        alike = (near == 0) | (near == bilevel.ALIKE)
        at = (2 * rows + (near != 0))[alike]
        for bit in (0, 1):
            counts[:, bit] += np.bincount(at[mask.ravel()[alike] == bit], minlength=len(counts))
        kept = rng.random(len(near)) < np.where(alike, _KEPT_ALIKE, _KEPT)
        seen.append((near[kept], rows[kept], mask.ravel()[kept].astype(np.float32)))
    near, rows, bits = (np.concatenate(parts) for parts in zip(*seen, strict=True))
    return {**_whole(_fitted(near, rows, bits, rng)), "alike": _probabilities(counts)}


def _probabilities(counts: npt.NDArray[np.float64]) -> list[int]:
    return [round(float(n1 + 0.2) / float(n0 + n1 + 0.4) * 2**30) for n0, n1 in counts]


def _fitted(near: Words, rows: Words, bits: Values, rng: np.random.Generator) -> torch.nn.Sequential:
    width = len(bilevel.NEAR) + bilevel.ROWS
    net = torch.nn.Sequential(
        torch.nn.Linear(width, bilevel.HIDDEN), torch.nn.LeakyReLU(0.125), torch.nn.Linear(bilevel.HIDDEN, 1)
    )
    optimiser = torch.optim.Adam(net.parameters(), _RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=_STEPS)
    for _ in range(_STEPS):
        at = rng.integers(0, len(near), _BATCH)
        odds = net(_inputs(near[at], rows[at]))[:, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(odds, torch.tensor(bits[at]))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return net


def _whole(net: torch.nn.Sequential) -> dict[str, Any]:
    """The network in whole numbers, for bits that are 0 and 1."""
    state = {name: tensor.double().numpy() for name, tensor in net.state_dict().items()}
    near, rows = np.split(state["0.weight"].T, [len(bilevel.NEAR)])
    begin = state["0.bias"] + rows - near.sum(axis=0)
    table = {"first": 2 * near * bilevel.PARTS, "rows": begin * bilevel.PARTS, "second": state["2.weight"][0] * 1024}
    whole: dict[str, Any] = {name: np.rint(values).astype(int).tolist() for name, values in table.items()}
    return {**whole, "bias": round(float(state["2.bias"][0]) * 256)}


def main() -> None:
    """Train, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=TABLE)
    given = parser.parse_args()
    torch.set_num_threads(1)
    made = train(np.random.default_rng(7))
    lines = [f'"{name}": {json.dumps(values)}' for name, values in made.items()]
    given.out.write_text("{" + ",\n".join(lines).replace("], [", "],\n [") + "}\n")


if __name__ == "__main__":
    main()
