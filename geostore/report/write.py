"""Write the report: a folder with index.html and its pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from geostore.amounts import counted
from geostore.client import Client
from geostore.codec import quiet
from geostore.report import charts, figures, page
from geostore.report.gather import Facts, Originals, gather
from geostore.report.places import place

Progress = Callable[[str, float], None]


def report(
    client: Client,
    folder: str | Path,
    *,
    collection: str | None = None,
    partitions: int = 6,
    dates: int = 3,
    originals: Originals | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write a report on a store and return its page, `folder`/index.html.

    Args:
        client: the store.
        folder: made if it is not there; files of an earlier report are overwritten.
        collection: only this one.
        partitions: how many are shown with pictures, of each collection in turn.
        dates: how many dates of each.
        originals: gives a raster as it came, for those the store has dropped; asked before the store is.
        progress: told (what is being done, share).

    Raises:
        NotFound: the store, or that collection, holds no raster.
    """
    told = progress or quiet
    facts = gather(
        client,
        collection=collection,
        partitions=partitions,
        dates=dates,
        originals=originals,
        progress=lambda what, share: told(what, 0.6 * share),
    )
    images = Path(folder) / page.IMAGES
    images.mkdir(parents=True, exist_ok=True)
    told("charts", 0.6)
    sections = [*_headline(facts), *_charts(facts, images)]
    told("pictures", 0.8)
    sections += [place(facts, partition, images) for partition in facts.shown]
    sections += _tables(facts)
    index = Path(folder) / "index.html"
    index.write_text(page.page("geostore report", sections), "utf-8")
    told("report", 1.0)
    return index


def _headline(facts: Facts) -> list[str]:
    status = facts.status
    names = ", ".join(sorted(facts.collections.keys() & {p.collection for p in facts.rasters}))
    return [
        page.heading("geostore report", 1),
        page.paragraph(
            f"Store {status['store']}: {counted(status['rasters'], 'raster')} of "
            f"{counted(status['scenes'], 'scene')} in {counted(status['partitions'], 'partition')}. "
            f"Collections: {names}.",
            "soft",
        ),
        page.figures(figures.headline(status)),
        page.heading("Bytes and ratios"),
        page.card(
            page.table(
                "Ratios", ("", "bytes", "against LZW GeoTIFF", "against lossless JPEG XL"), figures.ratios(status)
            ),
            page.paragraph(
                "All ratios are over the same rasters. Payloads alone is how papers count: embeddings, and lossless "
                "payloads where those are kept; with codecs and masks is all that decoding "
                "needs. Everything durable is the sum of all file sizes under the store's "
                "root: codecs, masks, tables, logs and metadata too. LZW GeoTIFF is measured by writing it: "
                "source dtype, native resolution, predictor 2, only the cell's pixels, masked ones as zero.",
                "note",
            ),
        ),
        page.heading("Errors over usable pixels"),
        page.card(
            page.table(
                "Errors",
                ("", "mean", "99th percentile, mean over rasters", "largest"),
                figures.errors(status["quality"]),
            )
        ),
    ]


def _charts(facts: Facts, images: Path) -> list[str]:
    infos = [i for rows in facts.rasters.values() for i in rows]
    parts = [
        page.heading("Where rasters stand"),
        page.card(page.chart(charts.tier_bar(images, "tiers", facts.status["tiers"]))),
    ]
    overall = figures.ratio_rows(facts.status)
    places = figures.place_ratios(facts.status["per_partition"])
    if overall:
        parts += [
            page.heading("Ratios, drawn"),
            page.card(
                page.chart(charts.ratio_bars(images, "ratios", overall), "The whole store."),
                page.chart(
                    charts.ratio_bars(images, "ratios-places", places),
                    "Partitions with most bytes: payloads, masks, every generation of the codec; tables are left out.",
                ),
            ),
        ]
    policies = [facts.collections[name].policy for name in sorted({p.collection for p in facts.rasters})]
    spread = charts.histograms(images, "certificates", infos, policies)
    if spread is not None:
        parts += [page.heading("Certificates"), page.card(page.chart(spread))]
    return [*parts, page.heading("Map of cells"), *(_map(facts, name, images) for name in _names(facts))]


def _names(facts: Facts) -> list[str]:
    return sorted({p.collection for p in facts.rasters})


def _map(facts: Facts, name: str, images: Path) -> str:
    cells = figures.cells([p for p in facts.status["per_partition"] if p["collection"] == name])
    return page.card(page.heading(name, 3), page.chart(charts.cell_map(images, f"map-{name}", name, cells)))


def _tables(facts: Facts) -> list[str]:
    rows: list[dict[str, Any]] = sorted(facts.status["per_partition"], key=lambda p: -p["bytes_lzw"])
    return [
        page.heading("Partitions"),
        page.card(
            page.table(
                "Partitions",
                figures.PARTITION_COLUMNS,
                map(figures.partition, rows),
                texts=(len(figures.PARTITION_COLUMNS) - 1,),
            )
        ),
    ]
