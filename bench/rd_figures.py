"""Tables and figures of the rate-distortion bench, from the points measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.harness import Bench, median
from bench.rd_curves import SETTINGS_MIN, Point, Size, bytes_at, curves, error_at, smallest
from bench.rd_masks import mask_sizes
from bench.rd_ours import OWN
from bench.rd_places import Place
from bench.rd_plan import (
    ALONE_STORED,
    AS_STORED,
    INDEX_BOUNDS,
    MAX_BOUNDS,
    MSE_TARGETS,
    NDVI_TARGET,
    ONE_STEP_MSE,
    PSNR_TARGETS,
    VIDEO,
)

SHIPPED = "geostore klt-av1"  # KLT + AV1 as the package does it
KLT_DCT = "geostore klt-dct"
BEST = "best classical"
OWN_NETWORK = "geostore vae" + OWN
LEARNED = ("geostore vae", OWN_NETWORK)
OURS = ("geostore vae", OWN_NETWORK, KLT_DCT, SHIPPED)  # what a node may choose from
_LIGHT = 3e-4  # MSE on n1 at which everything stored is held against JPEG XL


@dataclass(frozen=True)
class Axis:
    """What is compared: an error to be equal at, and which bytes count."""

    error: Callable[[Point], float | None]
    nbytes: Callable[[Point], float]

    def size(self, points: Iterable[Point], error: float, *, settings: int = 1) -> Size | None:
        """The fewest bytes at `error` of the curves in `points`; a curve of fewer than `settings` points is none."""
        found = []
        for curve in curves(points).values():
            pairs = [(self.nbytes(p), e) for p in curve if (e := self.error(p)) is not None]
            if len(pairs) >= settings:
                found.append(bytes_at(pairs, error))
        return smallest(found)


EVERYTHING = Axis(lambda p: p.every.mse, lambda p: p.nbytes)
MARGINAL = Axis(lambda p: p.every.mse, lambda p: p.marginal)
UNSEEN = Axis(lambda p: p.unseen.mse, lambda p: p.unseen_bytes)
NDVI = Axis(lambda p: p.every.ndvi_mae, lambda p: p.nbytes)
NDVI_MARGINAL = Axis(lambda p: p.every.ndvi_mae, lambda p: p.marginal)
NDVI_UNSEEN = Axis(lambda p: p.unseen.ndvi_mae, lambda p: p.unseen_bytes)


@dataclass(frozen=True)
class Found:
    """Everything measured.

    Attributes:
        places: what was measured.
        points: all of them.
    """

    places: Sequence[Place]
    points: Sequence[Point]

    def of(self, place: Place, *codecs: str) -> list[Point]:
        """A place's points by some codecs; of all codecs if none is named."""
        return [p for p in self.points if p.place == place.name and (not codecs or p.codec in codecs)]

    def own(self, place: Place, *codecs: str) -> list[Point]:
        """Points of geostore's codecs, all policies one curve; what was fitted on all dates is left out."""
        kept = [p for p in self.of(place, *codecs) if "as_stored" not in p.setting]
        return [_as_one_curve(p) for p in kept]

    def best(self, place: Place, axis: Axis, error: float, *, shipped: bool = True) -> Size | None:
        """The best classical codec's bytes; with `shipped`, geostore's own KLT + AV1 is one of them."""
        plain = axis.size(self.of(place, *VIDEO), error, settings=SETTINGS_MIN)
        return smallest([plain, axis.size(self.own(place, SHIPPED), error)]) if shipped else plain

    @property
    def reflectance(self) -> list[Place]:
        """Places compared by MSE on n1."""
        return [p for p in self.places if p.table == "reflectance"]


def _as_one_curve(point: Point) -> Point:
    return Point(**{**vars(point), "variant": ""})


def tabulate(bench: Bench, found: Found) -> None:
    """One row a place and codec: bytes at each error asked for."""
    for place in found.places:
        codecs = dict.fromkeys(p.codec for p in found.of(place) if "as_stored" not in p.setting)
        for codec in codecs:
            own = codec.startswith("geostore")
            points = found.own(place, codec) if own else found.of(place, codec)
            for counted, at, ndvi in _countings(own):
                bench.row(place=place.name, codec=codec, counted=counted, **_sizes(place, points, at, ndvi))
        for name, shipped in ((f"{BEST}, one stream a component", False), (f"{BEST}, with klt-av1", True)):
            targets = _targets(place, EVERYTHING, NDVI).items()
            best = {key: found.best(place, axis, error, shipped=shipped) for key, (axis, error) in targets}
            bench.row(place=place.name, codec=name, counted="everything", **{k: _shown(v) for k, v in best.items()})


def _countings(own: bool) -> list[tuple[str, Axis, Axis]]:
    whole = ("everything", EVERYTHING, NDVI)
    return [whole, ("without weights", MARGINAL, NDVI_MARGINAL)] if own else [whole]


def _targets(place: Place, at: Axis, ndvi: Axis) -> dict[str, tuple[Axis, float]]:
    if place.table == "other":
        return {f"{psnr:g} dB": (at, place.mse_at(psnr)) for psnr in PSNR_TARGETS}
    out = {f"MSE {mse:g}": (at, mse) for mse in MSE_TARGETS}
    return {**out, f"NDVI {NDVI_TARGET}": (ndvi, NDVI_TARGET)}


def _sizes(place: Place, points: Sequence[Point], at: Axis, ndvi: Axis) -> dict[str, Any]:
    return {key: _shown(axis.size(points, error)) for key, (axis, error) in _targets(place, at, ndvi).items()}


def _shown(size: Size | None) -> int | str | None:
    if size is None:
        return None
    return f"<= {round(size.nbytes):,}" if size.at_most else round(size.nbytes)


def bounded(bench: Bench, found: Found) -> None:
    """One row a place, codec and bound that is promised for every value."""
    for place in found.places:
        for bound in _bounds(place):
            promised = [p for p in found.of(place) if p.variant == bound and p.violations is not None]
            least = min((p.nbytes for p in promised if p.codec == "SZ3"), default=None)
            for point in sorted(promised, key=lambda p: p.nbytes):
                ratio = None if least is None else point.nbytes / least
                bench.row(
                    place=place.name,
                    bound=bound,
                    codec=point.codec,
                    bytes=point.nbytes,
                    sz3_ratio=ratio,
                    largest=point.every.max_error,
                    largest_ndvi=point.every.ndvi_max,
                    violations=point.violations,
                )


def _bounds(place: Place) -> list[str]:
    return [f"max {b}" for b in MAX_BOUNDS] + [f"max NDVI {b}" for b in INDEX_BOUNDS if place.series.indices]


def one_step(bench: Bench, found: Found) -> None:
    """One row a place and codec: errors of seen and unseen dates when all are quantised alike."""
    for place in found.places:
        for point in (p for p in found.of(place) if "one_step" in p.setting):
            seen, unseen = point.seen, point.unseen
            bench.row(
                place=place.name,
                codec=point.codec,
                one_step="all dates",
                bytes=point.nbytes,
                without_weights=point.marginal,
                mse_seen=seen.mse,
                mse_unseen=unseen.mse,
                ndvi_seen=seen.ndvi_mae,
                ndvi_unseen=unseen.ndvi_mae,
            )


def figures(bench: Bench, found: Found) -> None:
    """The figures held to a bar."""
    _against_best(bench, found)
    _against_jpegxl(bench, found)
    _generalisation(bench, found)
    _guarantees(bench, found)
    _never_larger(bench, found)
    _lzw(bench, found)


@dataclass(frozen=True)
class Comparison:
    """Some of geostore's codecs against some classical ones.

    Attributes:
        key: end of the figure's name. ours: codecs, the smallest counts.
        shipped: whether klt-av1 is among the classical ones.
        against: those, in words.
    """

    key: str
    ours: tuple[str, ...]
    shipped: bool
    against: str


_COMPARISONS = (  # the last is held to the bar
    Comparison("", LEARNED, True, "best of KLT + AV1, klt-av1 among them, and KLT + HEVC"),
    Comparison(".plain", LEARNED, False, "KLT + AV1 or HEVC, one stream a component"),
    Comparison(".node_over_all", OURS, True, "the same, geostore's own klt-av1 among the classical codecs"),
    Comparison(".node", OURS, False, "KLT + AV1 or HEVC, one stream a component; ours the smallest of all families"),
)
_BARE = "without the masks that both pay alike"
_UNSEEN_TARGETS = {f"mse_{t:g}": (UNSEEN, t) for t in MSE_TARGETS} | {f"ndvi_{NDVI_TARGET}": (NDVI_UNSEEN, NDVI_TARGET)}
_BARS = (0.70, 0.70, 0.85, 1.0, 0.50)


def ratios(bench: Bench, found: Found) -> None:
    """One row a place and comparison: bytes of the unseen dates over the classical codec's, at each error."""
    bare = without_masks(found)
    for place in found.reflectance:
        for one in _COMPARISONS:
            of = {key: _ratio(found, place, one, *target) for key, target in _UNSEEN_TARGETS.items()}
            bench.row(place=place.name, unseen_bytes=" or ".join(one.ours), over=one.against, **of)
        of = {key: _ratio(bare, place, one, *target) for key, target in _UNSEEN_TARGETS.items()}
        bench.row(place=place.name, unseen_bytes=" or ".join(one.ours), over=f"the same, {_BARE}", **of)


def _against_best(bench: Bench, found: Found) -> None:
    """Bytes of unseen dates, weights apart, over the best classical codec's, at equal error on those dates."""
    bare = without_masks(found)
    for (key, target), bar in zip(_UNSEEN_TARGETS.items(), _BARS, strict=True):
        for one in _COMPARISONS:
            of = {p.name: _ratio(found, p, one, *target) for p in found.reflectance}
            known = {name: ratio for name, ratio in of.items() if ratio is not None}
            what = f"{one.against}; unseen dates, weights not counted"
            _median(bench, f"unseen_bytes_{key}{one.key}", known, found, bar if one.key == ".node" else None, what)
        of = {p.name: _ratio(bare, p, one, *target) for p in found.reflectance}
        known = {name: ratio for name, ratio in of.items() if ratio is not None}
        _median(bench, f"unseen_bytes_{key}.pixels", known, found, None, f"the same, {_BARE}")


def compared(bench: Bench, found: Found, one: Comparison) -> None:
    """A row a place and a figure an MSE: bytes of unseen dates over the classical codec's, masks counted and not."""
    targets = {key: target for key, target in _UNSEEN_TARGETS.items() if target[0] is UNSEEN}
    for end, points, said in (("", found, ""), (".pixels", without_masks(found), f", {_BARE}")):
        of = {key: {p.name: _ratio(points, p, one, *target) for p in found.places} for key, target in targets.items()}
        for place in found.places:
            bench.row(place=place.name, over=one.against + said, **{key: v[place.name] for key, v in of.items()})
        for key, ratios in of.items():
            known = {name: ratio for name, ratio in ratios.items() if ratio is not None}
            _median(bench, f"unseen_bytes_{key}{end}", known, found, None, one.against + said)


def without_masks(found: Found) -> Found:
    """The same points, their unseen dates without masks, which every codec that is compared pays alike."""
    out: list[Point] = []
    for place in found.places:
        masks = float(mask_sizes(place)[place.unseen].sum())
        out += [replace(p, unseen_bytes=p.unseen_bytes - masks) for p in found.of(place)]
    return Found(found.places, out)


def _ratio(found: Found, place: Place, one: Comparison, axis: Axis, target: float) -> float | None:
    """None where either is not known, or the classical codec's coarsest setting was already better."""
    ours = axis.size(found.own(place, *one.ours), target)
    best = found.best(place, axis, target, shipped=one.shipped)
    if ours is None or best is None or best.at_most:
        return None
    return ours.nbytes / best.nbytes


def _median(bench: Bench, key: str, ratios: dict[str, float], found: Found, bar: float | None, against: str) -> None:
    """The median over places, and over real places alone."""
    real = [ratios[p.name] for p in found.places if p.name in ratios and not p.synthetic]
    if not ratios:
        bench.figure(key, None, better="lower", baseline=against)
        return
    count = len(ratios)
    bench.figure(key, median(list(ratios.values())), bar=bar, better="lower", baseline=against, n=count)
    if real and len(real) < count:
        bench.figure(f"{key}.real", median(real), better="lower", baseline="the same, real series only", n=len(real))


def _against_jpegxl(bench: Bench, found: Found) -> None:
    for key, codec, bar, what in (
        ("own", OWN_NETWORK, 0.6, "everything, with a network of its own"),
        ("shared", "geostore vae", 0.2, "everything but networks that places share"),
    ):
        ratios = {}
        for place in found.reflectance:
            ours = EVERYTHING.size(found.own(place, codec), _LIGHT)
            theirs = EVERYTHING.size(found.of(place, "JPEG XL"), _LIGHT)
            if ours is not None and theirs is not None:
                ratios[place.name] = ours.nbytes / theirs.nbytes
        _median(bench, f"jpegxl.{key}", ratios, found, bar, f"JPEG XL per band at MSE {_LIGHT:g}; ours {what}")


def _generalisation(bench: Bench, found: Found) -> None:
    gaps, flats = {}, {}
    for place in found.reflectance:
        ours = _one_step(found, place, OWN_NETWORK)
        flat = _one_step(found, place, "geostore vae-flat")
        if ours is not None:
            gaps[place.name] = ours.unseen.mse / ours.seen.mse
            if flat is not None:
                flats[place.name] = ours.unseen.mse / flat.unseen.mse
    _median(bench, "unseen_over_seen", gaps, found, 1.10, "MSE of the dates the fit saw, one quantiser step")
    _median(bench, "unseen_over_flat", flats, found, 0.4, "MSE of the paper's flat VAE, unseen dates, equal steps")


def index_in_logarithms(bench: Bench, found: Found) -> None:
    """One row a fit for NDVI alone: errors of unseen dates over those of fits for MSE alone, at equal bytes."""
    for place in found.reflectance:
        made = [p for p in found.of(place, OWN_NETWORK) if "one_step" in p.setting]
        without = [p for p in made if "mse_max" in p.setting]
        for point in (p for p in made if "index_mae_max" in p.setting and place.series.indices):
            plain = error_at([(p.unseen_bytes, p.unseen.ndvi_mae or 0.0) for p in without], point.unseen_bytes)
            square = error_at([(p.unseen_bytes, p.unseen.mse) for p in without], point.unseen_bytes)
            if plain and square and point.unseen.ndvi_mae:
                bench.row(
                    place=place.name,
                    fitted_for="NDVI alone, in logarithms",
                    setting=point.setting["index_mae_max"],
                    ndvi_ratio=point.unseen.ndvi_mae / plain,
                    mse_ratio=point.unseen.mse / square,
                )


def _one_step(found: Found, place: Place, codec: str) -> Point | None:
    made = [p for p in found.of(place, codec) if "one_step" in p.setting]
    return next((p for p in made if p.setting.get("mse_max") == ONE_STEP_MSE), None)


def _guarantees(bench: Bench, found: Found) -> None:
    for bound, bar in zip(MAX_BOUNDS, (0.6, None), strict=True):
        ratios = {}
        for place in found.reflectance:
            sizes = [p for p in found.of(place) if p.variant == f"max {bound}"]
            ours = min((p.nbytes for p in sizes if p.codec in OURS), default=None)
            theirs = min((p.nbytes for p in sizes if p.codec == "SZ3"), default=None)
            if ours is not None and theirs is not None:
                ratios[place.name] = ours / theirs
        _median(bench, f"sz3.max_{bound}", ratios, found, bar, f"SZ3 at a largest error of {bound}; ours everything")
    own = [p for p in found.points if p.codec in OURS and p.violations is not None]
    if own:
        total = sum(p.violations or 0 for p in own)
        what = f"values beyond the bound asked for, {len(own)} series and bounds"
        bench.figure("violations", float(total), bar=0, better="lower", baseline=what, n=len(own))


def as_stored(bench: Bench, found: Found) -> None:
    """One row a place: what a node keeps under one policy, fitted on all dates, and what else it tried."""
    for place in found.places:
        for point in found.of(place, AS_STORED):
            facts = point.facts or {}
            tried = {name: facts.get(f"bytes_{name}") for name in ("vae", "klt-dct", "klt-av1", "lossless")}
            tried["klt-av1"] = _alone(found, place) or tried["klt-av1"]
            bench.row(
                place=place.name,
                stored_as=facts.get("family"),
                bytes=point.nbytes,
                **tried,
                codec_bytes=facts.get("codec_bytes"),
                networks_shared=facts.get("lent_bytes"),
                mse=point.every.mse,
                psnr_db=place.psnr_of(point.every.mse) if point.every.mse else None,
                ndvi_mae=point.every.ndvi_mae,
                lzw_ratio=_lzw_bytes(found, place) / point.nbytes,
            )


def _alone(found: Found, place: Place) -> int | None:
    """Bytes of a node that fits nothing but klt-av1."""
    return next((p.nbytes for p in found.of(place, ALONE_STORED)), None)


def _lzw_bytes(found: Found, place: Place) -> float:
    return next((float(p.nbytes) for p in found.of(place, "LZW GeoTIFF")), float("nan"))


def _never_larger(bench: Bench, found: Found) -> None:
    """Share of partitions that take no more than klt-av1 at the same policy, whether a node tried that or not."""
    kept = []
    for place in found.places:
        alone = _alone(found, place)
        kept += [p.nbytes <= alone for p in found.of(place, AS_STORED) if alone is not None]
    if kept:
        what = "a node with no codec but klt-av1, at the same policy; share of partitions that are not larger"
        share = sum(kept) / len(kept)
        bench.figure("never_larger", share, bar=1.0, better="higher", baseline=what, n=len(kept))


def _lzw(bench: Bench, found: Found) -> None:
    place = next((p for p in found.places if p.name == "romania"), None)
    if place is None:
        return
    size = smallest([EVERYTHING.size(found.own(place, codec), 5e-4) for codec in OURS])
    lzw = next((p.nbytes for p in found.of(place, "LZW GeoTIFF")), None)
    if size is None or lzw is None:
        return
    what = "LZW GeoTIFF, predictor 2, tiles no larger than the raster; ours everything, MSE 5e-4, 71 dates"
    bench.figure("romania.lzw_ratio", lzw / size.nbytes, bar=430, better="higher", baseline=what)
