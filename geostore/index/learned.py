"""A learned head: a small network from descriptors to signatures, trained on what belongs together.

Training uses torch, which is imported only then; a trained head needs NumPy alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from geostore.errors import Corrupt, InvalidInput
from geostore.index.bits import check_bits

Floats = npt.NDArray[np.float32]
Groups = npt.NDArray[np.int64]
Progress = Callable[[str, float], None]  # (what is being done, share done 0..1); may raise Cancelled
_MAGIC = b"GSHEAD2\0"
_TEMPERATURE = 0.2
_BALANCE, _DECORRELATION, _QUANTISATION = 1.0, 1.0, 0.3  # weights of the losses beside the contrastive one


@dataclass(frozen=True)
class LearnedHead:
    """Two layers: relu(norm(x) @ first + first_bias) @ second + second_bias; a bit is set above 0.

    Attributes:
        name: of the method.
        mean, spread: (width,) float32, taken off and divided by first.
        first, first_bias: (width, hidden), (hidden,) float32.
        second, second_bias: (hidden, bits), (bits,) float32.
    """

    name: str
    mean: Floats
    spread: Floats
    first: Floats
    first_bias: Floats
    second: Floats
    second_bias: Floats

    @property
    def width(self) -> int:
        """Components of a descriptor."""
        return len(self.mean)

    @property
    def bits(self) -> int:
        """Bits of a signature."""
        return len(self.second_bias)

    def project(self, descriptors: Floats) -> Floats:
        """(N, width) -> (N, bits), before the tanh that training holds near +1 and -1."""
        hidden = np.maximum((descriptors - self.mean) / self.spread @ self.first + self.first_bias, 0)
        return np.asarray(hidden @ self.second + self.second_bias, np.float32)

    def to_bytes(self) -> bytes:
        """Name, sizes, arrays in the order of the attributes; little-endian float32."""
        name = self.name.encode()
        sizes = np.array([len(name), self.width, len(self.first_bias), self.bits], "<u4").tobytes()
        arrays = (self.mean, self.spread, self.first, self.first_bias, self.second, self.second_bias)
        return _MAGIC + sizes + name + b"".join(a.astype("<f4").tobytes() for a in arrays)


def learned_from_bytes(data: bytes) -> LearnedHead:
    """The inverse of `LearnedHead.to_bytes`. Raises Corrupt."""
    if not data.startswith(_MAGIC) or len(data) < 24:
        raise Corrupt("no learned head: its first bytes are wrong; train the head again")
    length, width, hidden, bits = (int(v) for v in np.frombuffer(data[8:24], "<u4"))
    shapes = ((width,), (width,), (width, hidden), (hidden,), (hidden, bits), (bits,))
    counts = [int(np.prod(s)) for s in shapes]
    if len(data) != 24 + length + 4 * sum(counts):
        raise Corrupt(f"a learned head of {len(data)} bytes is cut short or damaged; train the head again")
    numbers = np.frombuffer(data[24 + length :], "<f4").astype(np.float32)
    parts = np.split(numbers, np.cumsum(counts)[:-1])
    return LearnedHead(data[24 : 24 + length].decode(), *(p.reshape(s) for p, s in zip(parts, shapes, strict=True)))


def train_head(
    descriptors: Floats,
    groups: Groups,
    bits: int,
    *,
    hidden: int = 512,
    steps: int = 1500,
    seed: int = 0,
    progress: Progress = lambda _, __: None,
) -> LearnedHead:
    """Train a head so that rows of one group get signatures that differ in few bits, and of others in many.

    Args:
        descriptors: (N, D) float32.
        groups: (N,) int64; equal numbers belong together: labels, or without labels the place (other dates of it).
            Groups of one row teach nothing and are passed over.
        bits: of a signature.
        hidden: width of the middle layer.
        steps: of the optimiser; a batch is up to 24 groups of 4 rows.
        seed: everything random follows from it.
        progress: told now and then; may raise to stop.

    Raises:
        InvalidInput: shapes do not fit, or fewer than two groups have two rows.

    References:
        Roy, Sangineto, Demir, Sebe 2021, "Metric-learning-based deep hashing network for content-based retrieval of
        remote sensing images" (MiLaN). Ours differs: supervised contrast (Khosla et al. 2020) in place of random
        triplets; bits are balanced over the batch, each by itself, and not over the bits of one image; bits are
        decorrelated; the weight of quantisation grows during training; inputs are standardised.
    """
    import torch

    kept = groups_of_rows(descriptors, groups, bits)
    rng, device = np.random.default_rng(seed), torch.device("cpu")
    torch.manual_seed(seed)
    mean = descriptors.mean(axis=0)
    spread = np.maximum(descriptors.std(axis=0), 1e-6)
    network = torch.nn.Sequential(
        torch.nn.Linear(descriptors.shape[1], hidden),
        torch.nn.ReLU(),
        torch.nn.Dropout(0.2),
        torch.nn.Linear(hidden, bits),
    )
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    points = torch.from_numpy(((descriptors - mean) / spread).astype(np.float32)).to(device)
    for step in range(steps):
        rows, which = _batch(kept, rng)
        made = torch.tanh(network(points[rows] + 0.1 * torch.randn(len(rows), points.shape[1])))
        loss = _loss(made, torch.from_numpy(which), step / steps)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 50 == 0:
            progress("training the head", step / steps)
    layers = [p.detach().numpy() for p in network.parameters()]
    arrays = (mean, spread, layers[0].T, layers[1], layers[2].T, layers[3])
    return LearnedHead("milan", *(np.ascontiguousarray(a, np.float32) for a in arrays))


def groups_of_rows(descriptors: Floats, groups: Groups, bits: int) -> list[npt.NDArray[np.int64]]:
    """Rows of each group that has two or more; raises InvalidInput where shapes do not fit or nothing can be learnt."""
    check_bits(bits)
    if descriptors.ndim != 2 or groups.shape != (len(descriptors),) or not np.isfinite(descriptors).all():
        raise InvalidInput(f"descriptors {descriptors.shape} and groups {groups.shape}; give finite rows, a group each")
    order = np.argsort(groups, kind="stable")
    rows = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    kept = [r for r in rows if len(r) > 1]
    if len(kept) < 2:
        raise InvalidInput(f"{len(kept)} groups of two rows or more; a head learns from at least two")
    return kept


def _batch(
    groups: list[npt.NDArray[np.int64]], rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows of up to 24 groups, 4 of each where there are as many; and the group of each."""
    chosen = rng.choice(len(groups), min(24, len(groups)), replace=False)
    rows = [rng.choice(groups[g], min(4, len(groups[g])), replace=False) for g in chosen]
    return np.concatenate(rows), np.repeat(np.arange(len(rows)), [len(r) for r in rows])


def _loss(made: Any, which: Any, done: float) -> Any:
    """Contrast of (B, bits) outputs in -1..1, with balance, decorrelation and quantisation of each bit."""
    import torch

    unit = torch.nn.functional.normalize(made, dim=1)
    likeness = unit @ unit.T / _TEMPERATURE  # (B, B)
    itself = torch.eye(len(made), dtype=torch.bool)
    same = (which[:, None] == which[None]) & ~itself
    logs = torch.log_softmax(likeness.masked_fill(itself, -1e9), dim=1)
    contrast = -(logs * same).sum(dim=1) / same.sum(dim=1)
    balance = (made.mean(dim=0) ** 2).mean()
    products = made.T @ made / len(made)  # (bits, bits)
    apart = ((products - torch.diag(torch.diagonal(products))) ** 2).mean()
    edge = ((made.abs() - 1) ** 2).mean()
    return contrast.mean() + _BALANCE * balance + _DECORRELATION * apart + _QUANTISATION * done * edge
