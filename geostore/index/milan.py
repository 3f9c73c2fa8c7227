"""The published recipe of MiLaN, run again on any descriptors: a baseline to be beaten, not a head to be used.

Training uses torch, which is imported only then.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from geostore.index.learned import Floats, Groups, Progress, groups_of_rows

MARGIN = 0.2  # of the triplet loss
TRIPLETS = 30  # a step, all of one positive and one negative class
STEPS = 10_000  # of the published training
_PUSH, _BALANCE = 0.001, 1.0  # weights of the losses beside the triplets
_LAYERS = (1024, 512)


def train_published(
    descriptors: Floats,
    groups: Groups,
    bits: int,
    *,
    steps: int = STEPS,
    seed: int = 0,
    progress: Progress = lambda _, __: None,
) -> tuple[Floats, list[tuple[Floats, Floats]]]:
    """Train as the published code does, its faults included, on (N, D) descriptors and a group (class) of each.

    Descriptors are standardised first, for the published step size expects the range of its own network's features.

    Returns:
        (2, D) mean and spread, and weights (in, out) and bias of the three layers, for `project_published`.

    Raises:
        InvalidInput: shapes do not fit, or fewer than two groups have two rows.

    References:
        Roy, Sangineto, Demir, Sebe 2021, "Metric-learning-based deep hashing network for content-based retrieval of
        remote sensing images", as its public code does it: "balance" is over the bits of one image, not over images,
        and triplets are drawn from one pair of classes a step, none of them hard.
    """
    import torch

    kept = groups_of_rows(descriptors, groups, bits)
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    scaling = np.stack([descriptors.mean(axis=0), np.maximum(descriptors.std(axis=0), 1e-6)]).astype(np.float32)
    points = torch.from_numpy((descriptors - scaling[0]) / scaling[1])
    network = _network(descriptors.shape[1], bits)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-4, betas=(0.5, 0.9))
    for step in range(steps):
        loss = _loss(torch.sigmoid(network(points[_triplets(kept, rng)])))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 100 == 0:
            progress("training the published recipe", step / steps)
    numbers = [p.detach().numpy() for p in network.parameters()]
    return scaling, [(np.ascontiguousarray(w.T), b) for w, b in zip(numbers[::2], numbers[1::2], strict=True)]


def project_published(scaling: Floats, layers: Sequence[tuple[Floats, Floats]], descriptors: Floats) -> Floats:
    """(N, D) -> (N, bits), before the sigmoid: a bit is set above 0, where the sigmoid is above a half."""
    made = (descriptors - scaling[0]) / scaling[1]
    for weights, bias in layers[:-1]:
        made = made @ weights + bias
        made = np.where(made > 0, made, np.float32(0.2) * made)
    return np.asarray(made @ layers[-1][0] + layers[-1][1], np.float32)


def _network(width: int, bits: int) -> Any:
    import torch

    sizes = (width, *_LAYERS, bits)
    layers: list[Any] = []
    for a, b in pairwise(sizes):
        layers += [torch.nn.Linear(a, b), torch.nn.LeakyReLU(0.2)]
        torch.nn.init.kaiming_normal_(layers[-2].weight, a=0.2)
        torch.nn.init.zeros_(layers[-2].bias)
    return torch.nn.Sequential(*layers[:-1])


def _triplets(groups: Sequence[npt.NDArray[np.int64]], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """(3 * TRIPLETS,) rows: anchors, others of their class, rows of another class."""
    mine, other = rng.choice(len(groups), 2, replace=False)
    pairs = np.stack([rng.choice(groups[mine], 2, replace=False) for _ in range(TRIPLETS)], axis=1)
    return np.concatenate([*pairs, rng.choice(groups[other], TRIPLETS)])


def _loss(made: Any) -> Any:
    """Of (3 * TRIPLETS, bits) outputs in 0..1."""
    import torch

    anchor, same, other = torch.nn.functional.normalize(made, dim=1).chunk(3)
    near, far = ((anchor - same) ** 2).sum(dim=1), ((anchor - other) ** 2).sum(dim=1)
    triplets = (near - far + MARGIN).clamp(min=0).mean()
    push = ((made - 0.5) ** 2).sum(dim=1).mean() / made.shape[1]
    balance = ((made.mean(dim=1) - 0.5) ** 2).mean()
    return triplets - _PUSH * push + _BALANCE * balance
