"""Which settings the rate-distortion bench runs: curves of classical codecs, policies for geostore's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bench.rd_cells import Cell, missing
from bench.rd_curves import Point, bytes_at, curves
from bench.rd_ours import OWN
from bench.rd_places import Place

MSE_TARGETS = (5e-4, 3e-4, 2e-4, 1e-4)  # on n1
NDVI_TARGET = 0.02  # mean absolute error
PSNR_TARGETS = (30.0, 35.0)  # over the 1-99 % range, for the table of 8-bit and index series
MAX_BOUNDS = (0.01, 0.005)  # largest error, physical units
INDEX_BOUNDS = (0.05, 0.02)  # largest NDVI error
ONE_STEP_MSE = 3e-4  # what a codec is trained for whose unseen dates are then compared with the seen ones
THOROUGH = ("romania",)  # places with policies close together; fits are the bench's hours
AS_STORED = "geostore, as a node stores it"
ALONE_STORED = "klt-av1, as a node stores it that has no other"
VIDEO = ("KLT + SVT-AV1", "KLT + libaom AVIF", "KLT + HEVC")  # the best classical is one of these
GOPS = (16, 0, 1)
_LADDERS = {  # of each table, coarse to fine, in the codec's own unit
    "reflectance": {
        "KLT + SVT-AV1": ("crf", (63, 58, 52, 45, 38, 30, 21)),
        "KLT + libaom AVIF": ("level", (1, 6, 14, 26, 40, 56, 74)),
        "KLT + HEVC": ("crf", (48, 42, 37, 32, 27, 21, 14)),
    },
    "other": {
        "KLT + SVT-AV1": ("crf", (50, 42, 35, 28, 22, 16, 10)),
        "KLT + libaom AVIF": ("level", (20, 34, 48, 60, 70, 79, 87)),
        "KLT + HEVC": ("crf", (36, 31, 27, 23, 19, 15, 10)),
    },
}
_DISTANCES = {"reflectance": (0.04, 0.06, 0.09, 0.15, 0.3, 0.8), "other": (0.1, 0.2, 0.4, 0.8, 1.6, 4)}  # 1 / JPEG XL's
_ERRORS = (0.035, 0.025, 0.017, 0.012, 0.008, 0.005)  # root mean square, on n1
_LOG_ERRORS = (0.5, 0.3, 0.2, 0.12, 0.07, 0.04)
_HOPELESS = 1.2  # a variant whose middle setting takes so much more than the best known is not run further
_MSE_POLICIES, _MSE_FEW = (1.2e-3, 7e-4, 4.2e-4, 2.4e-4, 1.2e-4), (1.2e-3, 5e-4, 2.4e-4, 1.2e-4)
_NDVI_POLICIES = (0.03, 0.0203)  # bounds of single rasters, as all of these: pooled errors come out lower
_EVEN_OWN = (8e-4, 4.5e-4, 3.75e-4, ONE_STEP_MSE, 1.8e-4)  # fits aim at 0.8 of each
_EVEN_KLT = (1.2e-3, 7e-4, 4.2e-4, 2.4e-4, 1.2e-4, 8e-5)
# klt-dct's step is coarser, single rasters are finer
_EVEN_DCT = (4.5e-4, 3.5e-4, 2.5e-4, 2e-4, 1.6e-4, 1.2e-4, 9e-5, 6e-5, 4e-5, 3e-5, 1.5e-5)
_EVEN_NDVI, _EVEN_NDVI_AV1, _EVEN_NDVI_DCT = (0.03, 0.023), (0.03, 0.023, 0.019), (0.03, 0.02, 0.014, 0.01)
_PSNR_POLICIES = (28.0, 31.5, 35.0)


def classical(place: Place) -> list[Cell]:
    """The first round: whole curves of one variant of every codec, and the middle of all others."""
    cells = [*_plain(place), *_bounded(place)]
    for codec in VIDEO:
        for number, variant in enumerate(_variants(place, codec)):
            whole = _curve(place, codec, variant)
            cells += whole if number == 0 else [whole[len(whole) // 2]]
    return [c for c in cells if not missing(c.codec)]


def promising(place: Place, points: Sequence[Point]) -> list[Cell]:
    """The second round: whole curves of the variants whose middle is not far above the best, by MSE or by NDVI."""
    known = [p for p in points if p.place == place.name and p.codec in VIDEO]
    by_curve = curves(known)
    cells: list[Cell] = []
    for codec in VIDEO:
        for variant in _variants(place, codec)[1:]:
            probe = by_curve.get((codec, variant[0]))
            if probe and _near_best(probe[0], known):
                cells += _curve(place, codec, variant)
    return cells


def _near_best(probe: Point, known: Sequence[Point]) -> bool:
    measures = (lambda p: p.every.mse, lambda p: p.every.ndvi_mae)
    for error in measures:
        if error(probe) is not None:
            best = bytes_at([(p.nbytes, error(p)) for p in known if p is not probe], error(probe))
            if best is None or probe.nbytes <= _HOPELESS * best.nbytes:
                return True
    return False


Variant = tuple[str, dict[str, object]]  # its name, and what it fixes


def _variants(place: Place, codec: str) -> list[Variant]:
    out: list[Variant] = []
    for domain in ("linear", "log") if place.series.indices else ("linear",):
        for gop in GOPS:
            for offset in _offsets(place, codec, domain):
                name = f"{domain}, " + ("one GOP" if not gop else f"GOP {gop}") + (f", offset {offset}" * bool(offset))
                out.append((name, {"domain": domain, "gop": gop, **({"offset": offset} if offset else {})}))
    return out


def _offsets(place: Place, codec: str, domain: str) -> tuple[int, ...]:
    """Finer steps for weak components, which indices need and AV1's rate control does not give by itself."""
    if codec != "KLT + SVT-AV1" or not place.series.indices:
        return (0,)
    return (0, 16, 24) if domain == "linear" else (0, 16)


def _curve(place: Place, codec: str, variant: Variant) -> list[Cell]:
    key, ladder = _LADDERS[place.table][codec]
    return [Cell(place.name, codec, variant[0], {**variant[1], key: value}) for value in ladder]


def _plain(place: Place) -> list[Cell]:
    span = place.n1_span
    quality = [1 / (e * span) for e in _ERRORS]
    cells = [Cell(place.name, "JPEG XL", "", {"quality": q}) for q in _DISTANCES[place.table]]
    cells += [Cell(place.name, "JPEG 2000", "", {"quality": q}) for q in quality]
    cells += [Cell(place.name, "LERC", "", {"quality": q / 2}) for q in quality]
    cells += [Cell(place.name, "SZ3", "", {"bound": 2 * e * span}) for e in _ERRORS]
    for domain, errors in (("linear", [e * span for e in _ERRORS]), ("log", _LOG_ERRORS)):
        if domain == "linear" or place.series.indices:
            cells += [Cell(place.name, "KLT + JPEG 2000", domain, {"domain": domain, "rmse": e}) for e in errors]
    return [*cells, Cell(place.name, "LZW GeoTIFF", "lossless", {})]


def _bounded(place: Place) -> list[Cell]:
    """Codecs that promise a largest error; a bound in stored units is a whole number for whole numbers."""
    scale, cells = place.series.bands.items[0].scale, []
    for bound in MAX_BOUNDS:
        whole = int(bound / scale * (1 + 1e-9))
        variant, promise = f"max {bound}", (bound, None)
        for codec, setting in (
            ("SZ3", {"bound": whole}),
            ("LERC", {"quality": 1 / whole}),
            ("rounded + JPEG XL", {"bound": whole}),
        ):
            cells.append(Cell(place.name, codec, variant, setting, bound=promise))
    return cells


def ours(place: Place, families: Iterable[str], *, steps: int, long: int, seed: int) -> list[Cell]:
    """Families of geostore under policies: on squared error, on NDVI, on largest errors; and with one step for all.

    Fits take `steps`; the flat VAE takes `long`, as many as a network of the place's own.
    """
    effort, stored = (steps, seed), {"as_stored": 1.0, **_default_policy(place)}
    asked = [
        (f, *policy) for f in families for policy in _policies(place) if f != "klt-dct" or not _is_bounded(policy[1])
    ]
    cells = [_own(place, f, variant, setting, effort) for f, variant, setting in asked]
    if "vae" in families:
        cells.append(replace(_own(place, "vae", "default policy", stored, effort), codec=AS_STORED))
        alone = "vae" + OWN
        if not place.synthetic:  # a network of its own takes the bench's hours
            cells += [_own(place, alone, variant, setting, effort) for variant, setting in _even(place, _EVEN_OWN)]
        one_step = {"mse_max": ONE_STEP_MSE, "one_step": 1.0}
        if place.table == "reflectance" and not place.synthetic:
            cells.append(_own(place, "vae", "one quality", one_step, effort))
            cells.append(_own(place, "vae-flat", "one quality", one_step, (long, seed)))
    if "klt-dct" in families:
        even = _even(place, _EVEN_DCT, _EVEN_NDVI_DCT)
        cells += [_own(place, "klt-dct", variant, setting, effort) for variant, setting in even]
    if "klt-av1" in families:
        alone_stored = _own(place, "klt-av1", "default policy", stored | {"rivals": ()}, effort)
        cells.append(replace(alone_stored, codec=ALONE_STORED))
        even = _even(place, _EVEN_KLT, _EVEN_NDVI_AV1)
        cells += [_own(place, "klt-av1", variant, setting, effort) for variant, setting in even]
    return cells


def _own(place: Place, family: str, variant: str, setting: Mapping[str, Any], effort: tuple[int, int]) -> Cell:
    return Cell(place.name, f"geostore {family}", variant, dict(setting), family=family, effort=effort)


def _policies(place: Place) -> list[tuple[str, dict[str, float]]]:
    if place.table == "other":
        return [
            *(("mse", {"mse_max": place.mse_at(psnr)}) for psnr in _PSNR_POLICIES),
            (f"max {MAX_BOUNDS[0]}", {"max_error": MAX_BOUNDS[0]}),
        ]
    out = [("mse", {"mse_max": mse}) for mse in (_MSE_POLICIES if place.name in THOROUGH else _MSE_FEW)]
    if place.series.indices:
        out += [("ndvi", {"index_mae_max": mae}) for mae in _NDVI_POLICIES]
        out += [(f"max NDVI {b}", {"index_max": b}) for b in INDEX_BOUNDS]
    return out + [(f"max {b}", {"max_error": b}) for b in MAX_BOUNDS]


def _is_bounded(setting: dict[str, float]) -> bool:
    """True for a bound on every value, which `klt-dct` leaves to others."""
    return "max_error" in setting or "index_max" in setting


def _default_policy(place: Place) -> dict[str, float]:
    if place.table == "other":
        return {"mse_max": place.mse_at(_PSNR_POLICIES[1])}
    return {"mse_max": 5e-4, **({"index_mae_max": 0.05} if place.series.indices else {})}


def _even(
    place: Place, errors: Sequence[float], ndvi: Sequence[float] = _EVEN_NDVI
) -> list[tuple[str, dict[str, float]]]:
    """One quality for all dates, made for an error, as classical codecs are run: by squared error, and by NDVI."""
    if place.table != "reflectance":
        return []
    found = [("one quality", {"mse_max": mse, "one_step": 1.0}) for mse in errors]
    if not place.series.indices:
        return found
    return found + [("one quality, ndvi", {"index_mae_max": mae, "one_step": 1.0}) for mae in ndvi]
