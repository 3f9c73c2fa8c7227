"""A head by kernel regression: each group gets a code, and descriptors are brought to their group's in closed form.

Fitted from labels, where it generalises better than a trained network; it needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import scipy.linalg

from geostore.errors import Corrupt
from geostore.index.learned import Floats, Groups, Progress, groups_of_rows
from geostore.index.views import Views

Doubles = npt.NDArray[np.float64]
GROUPS_MIN = 8  # of fewer, signatures would hold little but whose rows are whose
ANCHORS_MAX = 8_192  # rows and views of them that others are compared with, each of them as long as there are no more
ANCHORS_SAMPLED = 2_048  # of more rows
ROWS_MAX = 32_768  # that a head is fitted on; more cost minutes
NUMBERS_MAX = 2**21  # of the anchors' coordinates: 8 MB
WHITENINGS = (0.0, 0.25, 0.5, 0.75)  # 0 leaves principal components as they vary, 1 would make all vary alike
_RIDGE = 0.01
_LEAST = 1e-3  # of the anchors' likeness: eigenvalues below are lost in float32
_MAGIC = b"GSHEAD3\0"
_FAR = 30.0  # squared distance from which the kernel is taken relative to the nearest anchor: float32 ends at 87
_BATCH = 2_048  # rows compared with the anchors together


@dataclass(frozen=True)
class KernelHead:
    """exp(-(distance to each anchor)^2) @ weights, in turned and scaled coordinates; a bit is set above 0.

    Attributes:
        name: of the method.
        roots: 1 where the square roots of descriptors are taken first, else 0.
        mean: (width,) float32, taken off first.
        turn: (width, directions) float32; scales too.
        anchors: (anchors, directions) float32, rows that were learned from, turned.
        weights: (anchors, bits) float32.
    """

    name: str
    roots: int
    mean: Floats
    turn: Floats
    anchors: Floats
    weights: Floats
    magic: ClassVar[bytes] = _MAGIC

    @property
    def width(self) -> int:
        """Components of a descriptor."""
        return len(self.mean)

    @property
    def bits(self) -> int:
        """Bits of a signature."""
        return int(self.weights.shape[1])

    def project(self, descriptors: Floats) -> Floats:
        """(N, width) -> (N, bits)."""
        made = np.empty((len(descriptors), self.bits), np.float32)
        for at in range(0, len(descriptors), _BATCH):
            points = np.asarray(_rooted(descriptors[at : at + _BATCH], self.roots) - self.mean, np.float32) @ self.turn
            made[at : at + _BATCH] = _kernel(points, self.anchors) @ self.weights
        return made

    def to_bytes(self) -> bytes:
        """Sizes, name, arrays in the order of the attributes; little-endian float32."""
        name = self.name.encode()
        sizes = np.array([len(name), self.roots, self.width, *self.anchors.shape, self.bits], "<u4").tobytes()
        arrays = (self.mean, self.turn, self.anchors, self.weights)
        return self.magic + sizes + name + b"".join(a.astype("<f4").tobytes() for a in arrays)


def kernel_from_bytes(data: bytes) -> KernelHead:
    """The inverse of `KernelHead.to_bytes`. Raises Corrupt."""
    if not data.startswith(_MAGIC) or len(data) < 32:
        raise Corrupt("no kernel head: its first bytes are wrong; fit the head again")
    length, roots, width, anchors, directions, bits = (int(v) for v in np.frombuffer(data[8:32], "<u4"))
    shapes = ((width,), (width, directions), (anchors, directions), (anchors, bits))
    counts = [int(np.prod(s)) for s in shapes]
    if len(data) != 32 + length + 4 * sum(counts):
        raise Corrupt(f"a kernel head of {len(data)} bytes is cut short or damaged; fit the head again")
    numbers = np.frombuffer(data[32 + length :], "<f4").astype(np.float32)
    parts = np.split(numbers, np.cumsum(counts)[:-1])
    return KernelHead(
        data[32 : 32 + length].decode(), roots, *(p.reshape(s) for p, s in zip(parts, shapes, strict=True))
    )


def enough(groups: Groups) -> bool:
    """Whether GROUPS_MIN of (N,) groups have two rows or more, for which a kernel head is the better one."""
    _, counts = np.unique(groups, return_counts=True)
    return int((counts > 1).sum()) >= GROUPS_MIN


def fit_kernel_head(
    descriptors: Floats,
    groups: Groups,
    bits: int,
    *,
    views: Views | None = None,
    seed: int = 0,
    progress: Progress = lambda _, __: None,
) -> KernelHead:
    """Fit a head so that rows of one group get the code of the group, and rows like them nearly that.

    Principal components are whitened as far as lets most rows come nearest to the code of their own group by a head
    fitted without them. Where no number is negative, descriptors are counts or activations with long tails, and their
    roots are taken.

    Args:
        descriptors: (N, D) float32.
        groups: (N,) int64; equal numbers belong together. Groups of one row teach nothing and are passed over.
        bits: of a signature.
        views: of the rows, learned from as further rows of their groups, as far as ANCHORS_MAX leaves room for them.
        seed: codes and samples (of more than ROWS_MAX rows, and of more than ANCHORS_MAX the anchors) follow from it.
        progress: told now and then; may raise to stop.

    Raises:
        InvalidInput: shapes do not fit, or fewer than two groups have two rows.

    References:
        Saunders, Gammerman, Vovk 1998, "Ridge regression learning algorithm in dual variables"; Dietterich, Bakiri
        1995, "Solving multiclass learning problems via error-correcting output codes"; Williams, Seeger 2001, "Using
        the Nystroem method to speed up kernel machines", for more rows than anchors. Ours differs: codes are rows of a
        Hadamard matrix, equally far from each other, as long as there are enough of them.
    """
    kept = groups_of_rows(descriptors, groups, bits)
    rng = np.random.default_rng(seed)
    codes = _codes(len(kept), bits, rng)
    rows, which = np.concatenate(kept), np.repeat(np.arange(len(kept)), [len(r) for r in kept])
    order = rng.permutation(len(rows))[:ROWS_MAX]
    rows, which = rows[order], which[order]
    roots = int(bool((descriptors[rows] >= 0).all()))
    points = _rooted(descriptors[rows], roots)
    seen = None if views is None else views.among(rows)
    more = rng.permutation(0 if seen is None else len(seen))[: max(ANCHORS_MAX - len(rows), 0)]
    count = len(rows) + len(more) if len(rows) <= ANCHORS_MAX else ANCHORS_SAMPLED
    mean = points.mean(axis=0, dtype=np.float64).astype(np.float32)
    of = np.arange(len(rows))
    if seen is not None:
        points, of = np.concatenate([points, _rooted(seen.vectors[more], roots)]), np.append(of, seen.of[more])
    which = which[of]
    turn = _chosen(points - mean, which, of, codes, NUMBERS_MAX // count, progress)
    turned = (points - mean) @ turn
    weights = _weights(turned, turned[:count], codes[which], progress)
    return KernelHead("kernel", roots, mean, turn, turned[:count], weights)


def _codes(groups: int, bits: int, rng: np.random.Generator) -> Floats:
    """(groups, bits) of +1 and -1: half of the bits apart as far as there are orthogonal rows, random beyond."""
    square = np.ones((1, 1))
    while len(square) < bits:
        square = np.block([[square, square], [square, -square]])
    codes = rng.choice([-1, 1], (groups, bits)).astype(np.float32)
    apart = rng.permutation(square)[:groups, :bits]
    codes[: len(apart)] = apart * rng.choice([-1, 1], (len(apart), 1))
    return codes


def _chosen(points: Floats, which: Groups, of: Groups, codes: Floats, directions: int, progress: Progress) -> Floats:
    """(width, directions) turn with which most of the first rows are nearest to their code, each left out in turn.

    Of (N, width) points, `of` is their own number, or of a view, which follow the rows, that of its row, with which it
    is left out.
    """
    first = points[: min(int(of.max()) + 1, ANCHORS_SAMPLED)]
    values, vectors = np.linalg.eigh(first.T.astype(np.float64) @ first / len(first))
    kept = np.argsort(values)[::-1][: min(directions, len(first) - 1)]
    tried = np.flatnonzero(of < np.sort(of)[ANCHORS_SAMPLED]) if len(of) > ANCHORS_SAMPLED else np.arange(len(of))
    values = np.maximum(values[kept], 1e-4 * values[kept].mean() + 1e-20)
    best, chosen = -1.0, np.empty(0, np.float32)
    for step, whitening in enumerate(WHITENINGS):
        progress("choosing how the head is fitted", step / len(WHITENINGS))
        turn = _turn(values, vectors[:, kept], whitening)
        right = _right_without(points[tried] @ turn, which[tried], of[tried], codes)
        if right > best:
            best, chosen = right, turn
    return chosen


def _turn(values: Doubles, vectors: Doubles, whitening: float) -> Floats:
    """(width, directions): onto principal components, the mean squared distance of two rows 1."""
    divided = values ** (whitening / 2)
    return np.asarray(vectors / divided / np.sqrt(2 * (values / divided**2).sum()), np.float32)


def _right_without(points: Floats, which: Groups, of: Groups, codes: Floats) -> float:
    """Share of rows nearest to their group's code, each by the head that the others give (in closed form)."""
    inverse = np.linalg.inv(_kernel(points, points).astype(np.float64) + _RIDGE * np.eye(len(points)))
    wanted = codes[which].astype(np.float64)
    left, order = inverse @ wanted, np.argsort(of, kind="stable")
    together = np.split(order, np.flatnonzero(np.diff(of[order])) + 1)  # a row, and its views
    made = np.array([wanted[t[0]] - np.linalg.solve(inverse[np.ix_(t, t)], left[t])[0] for t in together])
    rows = np.array([t[0] for t in together])
    return float((np.argmax(made @ codes.T, axis=1) == which[rows]).mean())


def _weights(points: Floats, anchors: Floats, wanted: Floats, progress: Progress) -> Floats:
    """(anchors, bits): least squares over all rows, with a ridge."""
    likeness = np.empty((len(anchors), len(anchors)))
    for part in _parts(len(anchors)):
        likeness[part] = _kernel(anchors[part], anchors)
    if len(points) == len(anchors):
        progress("fitting the head", 0.0)
        likeness[np.diag_indices(len(anchors))] += _RIDGE
        solved = scipy.linalg.solve(likeness.T, wanted, assume_a="pos", overwrite_a=True, check_finite=False)
        return np.asarray(solved, np.float32)
    values, vectors = np.linalg.eigh(likeness)
    basis = (vectors / np.sqrt(np.maximum(values, _LEAST)))[:, values > _LEAST]
    products, sums = np.zeros_like(likeness), np.zeros((len(anchors), wanted.shape[1]))
    for part in _parts(len(points)):
        near = _kernel(points[part], anchors).astype(np.float64)
        products += near.T @ near
        sums += near.T @ wanted[part]
        progress("fitting the head", part.start / len(points))
    inner = basis.T @ products @ basis + _RIDGE * np.eye(basis.shape[1])
    return np.asarray(basis @ np.linalg.solve(inner, basis.T @ sums), np.float32)


def _parts(rows: int) -> Iterator[slice]:
    return (slice(at, at + _BATCH) for at in range(0, rows, _BATCH))


def _kernel(points: Floats, anchors: Floats) -> Floats:
    """(N, anchors) likeness in 0..1; rows far from every anchor are lifted, which no sign feels."""
    far = (points**2).sum(axis=1)[:, None] + (anchors**2).sum(axis=1) - 2 * points @ anchors.T
    far = np.maximum(far, 0)
    return np.asarray(np.exp(np.maximum(far.min(axis=1, keepdims=True) - _FAR, 0) - far), np.float32)


def _rooted(descriptors: Floats, roots: int) -> Floats:
    """Square roots, where asked; what is negative keeps its sign."""
    return np.asarray(np.sign(descriptors) * np.sqrt(np.abs(descriptors)), np.float32) if roots else descriptors
