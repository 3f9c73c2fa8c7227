"""How well descriptors and signatures find scenes like the one asked for, on a public labelled set.

The database is the training part, queries are the test part; heads learn from the training part alone. A scene is
relevant if it shares a label with the query.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from geostore.codec import Series
from geostore.errors import InvalidInput
from geostore.index.bits import check_bits
from geostore.index.descriptors import GROUP, Descriptor, Trainable
from geostore.index.encoders import unit
from geostore.index.evaluation import average_precision, hits_expected, lenient_precision, strict_precision
from geostore.index.kernel import ANCHORS_MAX, enough, fit_kernel_head
from geostore.index.learned import train_head
from geostore.index.milan import STEPS, project_published, train_published
from geostore.index.signatures import BASELINES
from geostore.index.views import Views, drawn, no_views, turned, views_of
from geostore.plugins import find
from geostore.raster import Pixels
from geostore.scene.labelled import LabelledScene, LabelledSet, find_labelled, pixels_of

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Progress = Callable[[str, float], None]
Project = Callable[[Floats], Floats]  # (N, D) -> (N, bits), a bit is set above 0
PUBLISHED, PUBLISHED_VIEWED = "milan-published", "milan-published-views"
UNLABELLED, LEARNED = "learned-unlabelled", "learned"
METHODS = ("rotation", "pca-sign", "itq", PUBLISHED, PUBLISHED_VIEWED, "milan", UNLABELLED, LEARNED)
VIEWED = (PUBLISHED_VIEWED, LEARNED)  # methods that learn from views, too
HEAD_STEPS = 1500  # of a network's training
BITS = (32, 64, 128, 256)
DEPTHS = (1, 5, 10, 20, 100)  # at which precision and recall are given
K = 20
TRAINED_ON = 400  # scenes that a descriptor with weights learns from
_BATCH = 256  # queries ranked together


@dataclass(frozen=True, kw_only=True)
class Described:
    """A labelled set as numbers.

    Attributes:
        descriptors: (N, D) float32 of length 1.
        quarters: (M, 4, D) float32, the quarters of each scene of the database; M is 0 where none were asked for.
        views: of scenes of the database, turned and mirrored; none where no method learns from them.
        labels: (N, L) bool.
        train, test: (N,) bool, database and queries.
        facts: what was read and how it was parted, JSON values.
    """

    descriptors: Floats
    quarters: Floats
    views: Views
    labels: Bools
    train: Bools
    test: Bools
    facts: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Score:
    """Means over all queries, 0..1.

    Attributes:
        method: "descriptor" (float nearest neighbours, no signature), "ceiling" (the learned head's output before it is
            made bits), or one of METHODS.
        bits: of a signature; 0 where there is none.
        map: mean average precision at k, expected over ties, divided by what there is to find.
        map_strict: the same with ties in their worst order.
        map_lenient: as MiLaN's published code counts: among the queries themselves, ties in the order of the rows,
            divided by what was found. Not comparable with the others.
        precision, recall: at each depth, expected over ties.
    """

    method: str
    bits: int
    map: float
    map_strict: float
    map_lenient: float
    precision: dict[int, float]
    recall: dict[int, float]


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """What `retrieval` measured.

    Attributes:
        facts: the set, its parts, the descriptor.
        k: how far down rankings count.
        scores: of every method at every width.
        left_out: what could not be run, and why.
    """

    facts: dict[str, Any]
    k: int
    scores: tuple[Score, ...]
    left_out: tuple[str, ...]

    def score(self, method: str, bits: int = 0) -> Score | None:
        """The score of one method at one width; None if it was not run."""
        return next((s for s in self.scores if (s.method, s.bits) == (method, bits)), None)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def retrieval(
    path: Path,
    *,
    descriptor: str = "spectral",
    bits: Sequence[int] = BITS,
    methods: Sequence[str] = METHODS,
    k: int = K,
    train_share: float = 0.8,
    scenes_max: int = 30_000,
    steps: int = HEAD_STEPS,
    published_steps: int = STEPS,
    seed: int = 0,
    progress: Progress = lambda _, __: None,
) -> Retrieval:
    """Evaluate a labelled set in the folder `path`; see `scene.labelled` for the layouts.

    Args:
        path: where the set was unpacked.
        descriptor: name of an installed descriptor; one with weights learns them from the training part, not from its
            labels.
        bits: widths of signatures.
        methods: some of METHODS.
        k: how far down rankings count.
        train_share: of each class, where the set gives no parts.
        scenes_max: a larger set is sampled, each class alike.
        steps: of a network's training.
        published_steps: of the published recipe's training.
        seed: parts, samples and trainings follow from it.
        progress: told now and then; may raise to stop.

    Raises:
        NotFound: there is no labelled set. BadScene: a file does not fit it. InvalidInput: a number is out of its
            range. NotInstalled: no descriptor has that name.
    """
    described = read_described(
        path, descriptor=descriptor, methods=methods, train_share=train_share, scenes_max=scenes_max, seed=seed,
        progress=progress,
    )  # fmt: skip
    return evaluate(
        described, bits=bits, methods=methods, k=k, steps=steps, published_steps=published_steps, seed=seed,
        progress=progress,
    )  # fmt: skip


def read_described(
    path: Path,
    *,
    descriptor: str = "spectral",
    methods: Sequence[str] = METHODS,
    train_share: float = 0.8,
    scenes_max: int = 30_000,
    seed: int = 0,
    progress: Progress = lambda _, __: None,
) -> Described:
    """The labelled set in a folder as numbers, for `evaluate`; arguments and errors are those of `retrieval`."""
    found = find(GROUP, descriptor)
    labelled = find_labelled(path)
    kept = replace(labelled, scenes=tuple(sampled(labelled.scenes, scenes_max, seed)))
    if isinstance(found, Trainable):
        found = _trained(found, kept, train_share, seed, progress)
    described = describe(kept, found, methods=methods, train_share=train_share, seed=seed, progress=progress)
    facts = {"scenes_found": len(labelled.scenes), "unlabelled": labelled.unlabelled, **described.facts}
    return replace(described, facts=facts)


def sampled(scenes: Sequence[LabelledScene], most: int, seed: int) -> list[LabelledScene]:
    """At most `most` scenes, in their order: the same share of every first label in every part."""
    if most < 2:
        raise InvalidInput(f"scenes_max {most}; use at least 2")
    if len(scenes) <= most:
        return list(scenes)
    rng, share = np.random.default_rng(seed), most / len(scenes)
    strata: dict[tuple[str, str], list[int]] = {}
    for i, scene in enumerate(scenes):
        strata.setdefault((scene.part, scene.labels[0]), []).append(i)
    kept = [i for s in strata.values() for i in rng.permutation(s)[: int(share * len(s))]]
    return [scenes[i] for i in sorted(kept)]


def _trained(found: Trainable, labelled: LabelledSet, share: float, seed: int, progress: Progress) -> Descriptor:
    """A descriptor that learned, without labels, from scenes of the training part."""
    train, _ = _parts(labelled.scenes, share, seed)
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(train))[:TRAINED_ON]
    return found.train([_series(labelled, labelled.scenes[i]) for i in rows], seed=seed, progress=progress)


def _series(labelled: LabelledSet, scene: LabelledScene) -> Series:
    """One scene as a place with one date."""
    pixels = pixels_of(labelled, scene)[None]
    valid = np.ones((1, *pixels.shape[2:]), np.bool_)
    return Series(pixels=pixels, valid=valid, times_us=np.zeros(1, np.int64), bands=labelled.bands)


def describe(
    labelled: LabelledSet,
    descriptor: Descriptor,
    *,
    methods: Sequence[str] = METHODS,
    train_share: float = 0.8,
    seed: int = 0,
    progress: Progress = lambda _, __: None,
) -> Described:
    """Read and describe every scene of a labelled set, and part it as the set says or else by class."""
    scenes, names = labelled.scenes, labelled.labels
    train, test = _parts(scenes, train_share, seed)
    made = np.empty((len(scenes), descriptor.width(labelled.bands)), np.float32)
    quarters: list[Floats] = []
    for i, scene in enumerate(scenes):
        pixels = pixels_of(labelled, scene)
        made[i] = _describe(descriptor, labelled, pixels)
        if train[i] and UNLABELLED in methods:
            halves = [half for rows in np.array_split(pixels, 2, axis=1) for half in np.array_split(rows, 2, axis=2)]
            quarters.append(np.stack([_describe(descriptor, labelled, half) for half in halves]))
        if i % 20 == 0:
            progress("describing scenes", i / len(scenes))
    facts = {
        "layout": labelled.layout,
        "bands": list(labelled.bands.names),
        "labels": len(names),
        "database": int(train.sum()),
        "queries": int(test.sum()),
        "parts": "of the set" if any(s.part for s in scenes) else f"{train_share:g} of each class by seed {seed}",
        "descriptor": f"{descriptor.name}-{descriptor.version}",
        "width": made.shape[1],
    }
    labels = np.array([[n in s.labels for n in names] for s in scenes], np.bool_)
    views = no_views(made.shape[1])
    if set(methods) & set(VIEWED) and enough(_groups(labels[train])):
        views = _views(labelled, descriptor, np.flatnonzero(train), seed, progress)
    parts = np.array(quarters, np.float32).reshape(-1, 4, made.shape[1])
    return Described(
        descriptors=made, quarters=parts, views=views, labels=labels, train=train, test=test,
        facts={**facts, "views": len(views)},
    )  # fmt: skip


def _views(labelled: LabelledSet, descriptor: Descriptor, known: Ints, seed: int, progress: Progress) -> Views:
    """As many views of scenes of the database, which are `known`, as a head has room for."""
    asked = drawn(len(known), ANCHORS_MAX - len(known), seed=seed)
    pixels = lru_cache(maxsize=1)(lambda row: pixels_of(labelled, labelled.scenes[known[row]]))

    def view(row: int, way: int) -> Floats:
        progress("describing views", row / len(known))
        return _describe(descriptor, labelled, turned(pixels(row), way))

    shown = ((row, way, partial(view, row)) for row, way in asked.tolist())
    return views_of(shown, descriptor.width(labelled.bands))


def _describe(descriptor: Descriptor, labelled: LabelledSet, pixels: Pixels) -> Floats:
    return descriptor.describe(np.ascontiguousarray(pixels), np.ones(pixels.shape[1:], np.bool_), labelled.bands)


def _parts(scenes: Sequence[LabelledScene], share: float, seed: int) -> tuple[Bools, Bools]:
    """Database and queries; a validation part is in neither."""
    if not 0 < share < 1:
        raise InvalidInput(f"train_share {share}; use a number between 0 and 1")
    if any(s.part for s in scenes):
        train, test = (np.array([s.part == part for s in scenes]) for part in ("train", "test"))
    else:
        train, rng = np.zeros(len(scenes), np.bool_), np.random.default_rng(seed)
        firsts = np.array([s.labels[0] for s in scenes])
        for label in np.unique(firsts):
            rows = rng.permutation(np.flatnonzero(firsts == label))
            train[rows[: round(share * len(rows))]] = True
        test = ~train
    if not train.any() or not test.any():
        raise InvalidInput(f"{train.sum()} scenes to search, {test.sum()} to ask for; both parts need some")
    return train, test


def evaluate(
    described: Described,
    *,
    bits: Sequence[int] = BITS,
    methods: Sequence[str] = METHODS,
    k: int = K,
    steps: int = HEAD_STEPS,
    published_steps: int = STEPS,
    seed: int = 0,
    progress: Progress = lambda _, __: None,
) -> Retrieval:
    """Score float descriptors and the signatures of every method at every width; see `retrieval`."""
    strange = [m for m in methods if m not in METHODS]
    if strange or k < 1:
        raise InvalidInput(f"methods {strange}, k {k}; use some of {', '.join(METHODS)}, and k from 1")
    scores = [_score("descriptor", 0, described, described.descriptors, k)]
    left_out = []
    for width in bits:
        check_bits(width)
        for method in methods:
            progress(f"{method}, {width} bits", 0.0)
            try:
                project = _fitted(
                    method, described, width, published_steps if method.startswith(PUBLISHED) else steps, seed, progress
                )
            except InvalidInput as error:
                left_out.append(f"{method} at {width} bits: {error}")
                continue
            made = project(described.descriptors)
            if method == LEARNED:
                scores.append(_score("ceiling", width, described, unit(np.tanh(made)), k))
            scores.append(_score(method, width, described, np.where(made > 0, 1, -1).astype(np.float32), k))
    return Retrieval(facts=described.facts, k=k, scores=tuple(scores), left_out=tuple(left_out))


def _fitted(method: str, described: Described, bits: int, steps: int, seed: int, progress: Progress) -> Project:
    """A head fitted on the training part."""
    known = described.descriptors[described.train]
    if method in BASELINES:
        return BASELINES[method](known, bits).project
    if method == UNLABELLED:
        return _unlabelled(known, described.quarters, bits, steps, seed, progress)
    groups = _groups(described.labels[described.train])
    if method == LEARNED and enough(groups):
        return fit_kernel_head(known, groups, bits, views=described.views, seed=seed, progress=progress).project
    if method in (LEARNED, "milan"):
        return train_head(known, groups, bits, steps=steps, seed=seed, progress=progress).project
    if method == PUBLISHED_VIEWED:
        if not len(described.views):
            raise InvalidInput("no views of scenes that the descriptor tells apart; the recipe is the published one")
        known = np.concatenate([known, described.views.vectors])
        groups = np.concatenate([groups, groups[described.views.of]])
    scaling, layers = train_published(known, groups, bits, steps=steps, seed=seed, progress=progress)
    return lambda descriptors: project_published(scaling, layers, descriptors)


def _groups(labels: Bools) -> Ints:
    """(N,) number of each row's set of labels, of (N, L) labels."""
    _, groups = np.unique(labels, axis=0, return_inverse=True)
    return np.asarray(groups, np.int64).ravel()


def _unlabelled(known: Floats, quarters: Floats, bits: int, steps: int, seed: int, progress: Progress) -> Project:
    """A head as a store with one date a place learns it: a scene and its quarters belong together."""
    if len(quarters) != len(known):
        raise InvalidInput(f"{len(quarters)} of {len(known)} scenes described in quarters; describe them for this head")
    groups = np.arange(len(known), dtype=np.int64)
    points = np.concatenate([known, quarters.reshape(-1, known.shape[1])])
    usable = points.any(axis=1)
    groups = np.concatenate([groups, np.repeat(groups, 4)])
    return train_head(points[usable], groups[usable], bits, steps=steps, seed=seed, progress=progress).project


def _score(method: str, bits: int, described: Described, points: Floats, k: int) -> Score:
    """Rank by inner product of (N, D) points: cosines of unit vectors, Hamming distances of +1 and -1."""
    average, strict, lenient = [], [], []
    precision: dict[int, list[float]] = {d: [] for d in DEPTHS}
    recall: dict[int, list[float]] = {d: [] for d in DEPTHS}
    for far, relevant in _rankings(described, points, described.train):
        average.append(average_precision(far, relevant, k))
        strict.append(strict_precision(far, relevant, k))
        for depth in DEPTHS:
            hits = hits_expected(far, relevant, depth)
            precision[depth].append(hits / depth)
            recall[depth].append(hits / max(int(relevant.sum()), 1))
    for number, (far, relevant) in enumerate(_rankings(described, points, described.test)):
        others = np.arange(len(far)) != number
        lenient.append(lenient_precision(far[others], relevant[others], k))
    mean = {d: float(np.mean(v)) for d, v in precision.items()}, {d: float(np.mean(v)) for d, v in recall.items()}
    return Score(
        method=method, bits=bits, map=float(np.mean(average)), map_strict=float(np.mean(strict)),
        map_lenient=float(np.mean(lenient)), precision=mean[0], recall=mean[1],
    )  # fmt: skip


def _rankings(described: Described, points: Floats, database: Bools) -> Iterator[tuple[Floats, Bools]]:
    """For each query: (N,) distances to the rows of the database, and which of them are relevant."""
    known, labels = points[database], described.labels[database].astype(np.float32)
    asked, wanted = points[described.test], described.labels[described.test].astype(np.float32)
    for at in range(0, len(asked), _BATCH):
        far = -(asked[at : at + _BATCH] @ known.T)
        relevant = wanted[at : at + _BATCH] @ labels.T > 0
        yield from zip(far, relevant, strict=True)
