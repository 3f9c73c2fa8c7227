"""Heads: what turns descriptors into signatures; here the linear ones, which need no labels and hardly any training.

A head is fitted on descriptors of a store once, and then belongs to the `Space` of every signature it makes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from geostore.errors import Corrupt, InvalidInput, NotComparable
from geostore.index.bits import Words, check_bits, pack_signatures

Floats = npt.NDArray[np.float32]
_MAGIC = b"GSHEAD1\0"


@runtime_checkable
class Head(Protocol):
    """Descriptors to the numbers whose signs are a signature's bits."""

    @property
    def name(self) -> str:
        """Of the method that made it."""
        ...

    @property
    def bits(self) -> int:
        """Bits of a signature."""
        ...

    @property
    def width(self) -> int:
        """Components of a descriptor."""
        ...

    def project(self, descriptors: Floats) -> Floats:
        """(N, width) float32 -> (N, bits) float32; a bit is set where the number is above 0."""
        ...

    def to_bytes(self) -> bytes:
        """All that `project` needs."""
        ...


def signatures(head: Head, descriptors: Floats) -> Words:
    """(N, width) float32 descriptors -> (W, N) uint64 signatures.

    Raises:
        NotComparable: descriptors of another width. InvalidInput: a value is not finite.
    """
    if descriptors.ndim != 2 or descriptors.shape[1] != head.width:
        raise NotComparable(f"descriptors {descriptors.shape}; the head {head.name} takes (rows, {head.width})")
    return pack_signatures(head.project(_finite(descriptors)) > 0)


def digest(head: Head) -> str:
    """32 hexadecimal digits that name the head, for `Space.head_digest`."""
    return hashlib.sha256(head.to_bytes()).hexdigest()[:32]


@dataclass(frozen=True)
class LinearHead:
    """Signs of (descriptor - mean) @ matrix.

    Attributes:
        name: of the method that made it.
        mean: (width,) float32.
        matrix: (width, bits) float32.
    """

    name: str
    mean: Floats
    matrix: Floats
    magic: ClassVar[bytes] = _MAGIC

    @property
    def width(self) -> int:
        """Components of a descriptor."""
        return len(self.mean)

    @property
    def bits(self) -> int:
        """Bits of a signature."""
        return int(self.matrix.shape[1])

    def project(self, descriptors: Floats) -> Floats:
        """(N, width) -> (N, bits)."""
        return np.asarray((descriptors - self.mean) @ self.matrix, np.float32)

    def to_bytes(self) -> bytes:
        """Name, sizes, mean, matrix; little-endian float32."""
        name = self.name.encode()
        sizes = np.array([len(name), self.width, self.bits], "<u4").tobytes()
        return self.magic + sizes + name + self.mean.astype("<f4").tobytes() + self.matrix.astype("<f4").tobytes()


def linear_from_bytes(data: bytes) -> LinearHead:
    """The inverse of `LinearHead.to_bytes`. Raises Corrupt."""
    if not data.startswith(_MAGIC) or len(data) < 20:
        raise Corrupt("no linear head: its first bytes are wrong; fit the head again")
    length, width, bits = (int(v) for v in np.frombuffer(data[8:20], "<u4"))
    if len(data) != 20 + length + 4 * width * (bits + 1):
        raise Corrupt(f"a linear head of {len(data)} bytes is cut short or damaged; fit the head again")
    numbers = np.frombuffer(data[20 + length :], "<f4").astype(np.float32)
    return LinearHead(data[20 : 20 + length].decode(), numbers[:width], numbers[width:].reshape(width, bits))


def rotation(descriptors: Floats, bits: int, *, seed: int = 0) -> LinearHead:
    """Random directions, orthogonal as far as the width allows, around the mean of (N, D) descriptors.

    References:
        Charikar 2002, "Similarity estimation techniques from rounding algorithms". Ours differs: the mean is taken off,
        and directions are made orthogonal in groups of D.
    """
    mean, width, rng = _mean(descriptors), descriptors.shape[1], np.random.default_rng(seed)
    groups = [_orthogonal(width, rng) for _ in range(-(-check_bits(bits) // width))]
    return LinearHead("rotation", mean, np.concatenate(groups, axis=1)[:, :bits])


def pca_sign(descriptors: Floats, bits: int) -> LinearHead:
    """Signs of the first principal components. Raises InvalidInput for more bits than components."""
    return LinearHead("pca-sign", _mean(descriptors), _components(descriptors, bits))


def itq(descriptors: Floats, bits: int, *, rounds: int = 50, seed: int = 0) -> LinearHead:
    """Principal components, rotated so that they lie near +1 and -1.

    References:
        Gong, Lazebnik 2011, "Iterative quantization: a Procrustean approach to learning binary codes".
    """
    mean, components = _mean(descriptors), _components(descriptors, bits)
    points = (_finite(descriptors) - mean).astype(np.float64) @ components
    turned = _orthogonal(bits, np.random.default_rng(seed)).astype(np.float64)
    for _ in range(rounds):
        left, _, right = np.linalg.svd(points.T @ np.sign(points @ turned))
        turned = left @ right
    return LinearHead("itq", mean, (components @ turned).astype(np.float32))


BASELINES: dict[str, Callable[[Floats, int], LinearHead]] = {"rotation": rotation, "pca-sign": pca_sign, "itq": itq}


def _components(descriptors: Floats, bits: int) -> Floats:
    """(D, bits): the directions in which descriptors vary most."""
    if check_bits(bits) > descriptors.shape[1]:
        raise InvalidInput(f"{bits} bits of {descriptors.shape[1]} components; use fewer bits, or the rotation head")
    centred = (_finite(descriptors) - _mean(descriptors)).astype(np.float64)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    return np.ascontiguousarray(vectors[:, ::-1][:, :bits], np.float32)


def _mean(descriptors: Floats) -> Floats:
    if descriptors.ndim != 2 or len(descriptors) < 2:
        raise InvalidInput(f"descriptors {descriptors.shape}; a head is fitted on two rows or more")
    return np.asarray(_finite(descriptors).mean(axis=0, dtype=np.float64), np.float32)


def _orthogonal(size: int, rng: np.random.Generator) -> Floats:
    q, r = np.linalg.qr(rng.normal(size=(size, size)))
    return np.asarray(q * np.sign(np.diag(r)), np.float32)


def _finite(descriptors: Floats) -> Floats:
    if not np.isfinite(descriptors).all():
        raise InvalidInput("descriptors hold NaN or infinity; leave such rows out")
    return descriptors
