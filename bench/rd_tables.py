"""The guide's tables of the rate-distortion bench, written from its committed result.

`python -m bench.rd_tables` puts them between the two marks in docs/guides/rate-distortion.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.harness import RESULTS

GUIDE = Path(__file__).parents[1] / "docs" / "guides" / "rate-distortion.md"
BEGIN, END = "<!-- tables: python -m bench.rd_tables -->", "<!-- end of tables -->"
_TARGETS = {
    "mse_0.0005": "MSE 5e-4",
    "mse_0.0003": "MSE 3e-4",
    "mse_0.0002": "MSE 2e-4",
    "mse_0.0001": "MSE 1e-4",
    "ndvi_0.02": "NDVI 0.02",
}
_FIGURES = {  # beside the ratios of _TARGETS, in words
    "jpegxl.own": "everything stored, with an own network / JPEG XL at MSE 3e-4",
    "jpegxl.shared": "everything stored but the shared network / JPEG XL at MSE 3e-4",
    "unseen_over_seen": "MSE of unseen / seen dates, own network, one quality",
    "unseen_over_flat": "the same unseen MSE / that of the flat VAE",
    "index_term.ndvi": "NDVI error with / without the index term, equal bytes, unseen dates",
    "index_term.mse": "MSE for that",
    "sz3.max_0.01": "largest error 0.01: bytes / SZ3",
    "violations": "values beyond a bound that was promised",
    "never_larger": "share of partitions no larger than `klt-av1` at the same policy",
    "romania.lzw_ratio": "`romania` at MSE 5e-4: LZW GeoTIFF / ours",
}
_SIZES = ("MSE 0.0005", "MSE 0.0003", "MSE 0.0002", "MSE 0.0001", "NDVI 0.02")
_DECIBELS = ("30 dB", "35 dB")
Rows = Sequence[Mapping[str, Any]]


def tables(result: Mapping[str, Any]) -> str:
    """Markdown of everything the guide shows of a result."""
    rows = result["rows"]
    parts = [
        _figures(result["figures"]),
        "Unseen dates, the smallest of our families over the best classical codec; without masks, "
        "which both pay alike; and with our own `klt-av1` counted among the classical codecs:\n\n" + _ratios(rows),
        "Bytes of the whole series, everything counted but networks that places share:\n\n" + _sizes(rows, _SIZES),
        "8-bit and index series, bytes at a PSNR over the 1-99 % range:\n\n" + _sizes(rows, _DECIBELS),
        "A bound that holds for every value, the smallest codec of ours and of others:\n\n" + _bounds(rows),
        "What a node stores under one policy, all dates seen:\n\n" + _stored(rows),
        "Which commit measured the cells:\n\n" + _commits(rows),
    ]
    return "\n".join(parts)


def _figures(figures: Mapping[str, Mapping[str, Any]]) -> str:
    lines = []
    for key, name in _TARGETS.items():
        ends = (".node", ".node.real", ".pixels", ".node_over_all")
        held, real, bare, over_all = (figures.get(f"unseen_bytes_{key}{end}", {}) for end in ends)
        beside = (
            f"real places {_number(real.get('value'))}, without masks {_number(bare.get('value'))}, "
            f"`klt-av1` among the classical ones {_number(over_all.get('value'))}"
        )
        lines.append([f"unseen dates: bytes / best classical at {name} ({beside})", *_held(held)])
    lines += [[words, *_held(figures[key])] for key, words in _FIGURES.items() if key in figures]
    return _table(("figure", "value", "bar", "kept", "of"), lines)


def _held(figure: Mapping[str, Any]) -> list[str]:
    value, bar = figure["value"], figure["bar"]
    sign = "<=" if figure["better"] == "lower" else ">="
    kept = "" if bar is None or value is None else "yes" if (value <= bar) == (sign == "<=") or value == bar else "no"
    return [_number(value), "" if bar is None else f"{sign} {bar:g}", kept, str(figure["n"])]


def _ratios(rows: Rows) -> str:
    found = [r for r in rows if "unseen_bytes" in r and "klt-dct" in r["unseen_bytes"]]
    body = [[f"`{r['place']}`", _over(r["over"]), *(_number(r[key]) for key in _TARGETS)] for r in found]
    return _table(("place", "over", *_TARGETS.values()), body)


def _over(words: str) -> str:
    return "without masks" if "masks" in words else "`klt-av1` too" if "among" in words else "best classical"


def _sizes(rows: Rows, columns: Sequence[str]) -> str:
    kept = [r for r in rows if r.get("counted") == "everything" and columns[0] in r and "LZW" not in r["codec"]]
    body = [[f"`{r['place']}`", r["codec"], *(_bytes(r[c]) for c in columns)] for r in kept]
    told = [line for line in body if any(cell != "-" for cell in line[2:])]
    return _table(("place", "codec", *columns), told)


def _bounds(rows: Rows) -> str:
    best: dict[tuple[str, str, bool], Mapping[str, Any]] = {}
    for row in (r for r in rows if "sz3_ratio" in r):
        key = (row["place"], row["bound"], row["codec"].startswith("geostore"))
        if key not in best or row["bytes"] < best[key]["bytes"]:
            best[key] = row
    body = [
        [f"`{place}`", bound, r["codec"], f"{r['bytes']:,}", _number(r["sz3_ratio"]), str(r["violations"])]
        for (place, bound, _), r in best.items()
    ]
    return _table(("place", "bound", "codec", "bytes", "over SZ3", "violations"), body)


def _stored(rows: Rows) -> str:
    body = [
        [f"`{r['place']}`", r["stored_as"], *(_bytes(r[k]) for k in ("bytes", "vae", "klt-dct", "klt-av1", "lossless"))]
        for r in rows
        if "stored_as" in r
    ]
    return _table(("place", "stored as", "bytes", "with `vae`", "with `klt-dct`", "with `klt-av1`", "lossless"), body)


def _commits(rows: Rows) -> str:
    body = [[r["codec"], str(r["cells"]), r["measured_at"]] for r in rows if "measured_at" in r]
    return _table(("codec", "cells", "commit"), body)


def _bytes(value: int | str | None) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else value


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def put(guide: str, made: str) -> str:
    """The guide with `made` between its marks."""
    before, _, rest = guide.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{made}{END}{after}"


def main() -> None:
    """Write the tables into the guide."""
    result = json.loads((RESULTS / "rate_distortion.json").read_text())
    GUIDE.write_text(put(GUIDE.read_text(), tables(result)))


if __name__ == "__main__":
    main()
