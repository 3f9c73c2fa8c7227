"""The report's HTML: small pieces of escaped text, put together in one page without any request off the host."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources

from geostore.report.charts import Chart

IMAGES = "images"
PICTURE_HIGH = 460  # CSS pixels


def page(title: str, sections: Iterable[str]) -> str:
    """A whole document; its style sheet lies inside it."""
    style = (resources.files("geostore.report") / "style.css").read_text("utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(sections)
        + "\n</main>\n</body>\n</html>\n"
    )


def heading(text: str, level: int = 2) -> str:
    """h1, h2, h3."""
    return f"<h{level}>{escape(text)}</h{level}>"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph; `kind` is a class of the style sheet."""
    return f"<p{f' class={kind!r}' if kind else ''}>{escape(text)}</p>"


def card(*parts: str) -> str:
    """Parts on one sheet."""
    return '<div class="card">' + "\n".join(parts) + "</div>"


def figures(items: Sequence[tuple[str, str, str]]) -> str:
    """(value, what it is, remark) in large type, side by side."""
    cards = (
        f'<div class="card">{escape(what)}<b>{escape(value)}</b><span class="soft">{escape(remark)}</span></div>'
        for value, what, remark in items
    )
    return f'<div class="figures">{"".join(cards)}</div>'


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, texts: Sequence[int] = ()) -> str:
    """A table; columns whose position is in `texts` hold prose and wrap."""
    head = "".join(f'<th scope="col"{_kind(i in texts)}>{escape(c)}</th>' for i, c in enumerate(columns))
    body = "".join(
        "<tr>" + "".join(f"<td{_kind(i in texts)}>{escape(cell)}</td>" for i, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _kind(is_text: bool) -> str:
    return ' class="text"' if is_text else ""


def chart(made: Chart, caption: str = "") -> str:
    """A chart that follows the reader's light or dark setting."""
    return (
        f'<figure class="chart"><picture><source srcset="{IMAGES}/{made.dark}" media="(prefers-color-scheme: dark)">'
        f'<img src="{IMAGES}/{made.light}" alt="{escape(made.alt)}" width="{made.width}" height="{made.height}" '
        f'style="max-width: min(100%, {1.35 * made.width:.0f}px)" loading="lazy"></picture>{_caption(caption)}</figure>'
    )


def picture(name: str, alt: str, caption: str, size: tuple[int, int]) -> str:
    """A raster's picture, its pixels kept square and sharp, no higher than PICTURE_HIGH."""
    width = round(PICTURE_HIGH * size[0] / max(size[1], 1))
    return (
        f'<figure><img class="pixels" src="{IMAGES}/{name}" alt="{escape(alt)}" width="{size[0]}" height="{size[1]}" '
        f'style="max-width:min(100%,{width}px)" loading="lazy">{_caption(caption)}</figure>'
    )


def missing(text: str, caption: str) -> str:
    """A place for a picture that cannot be shown."""
    return f'<figure><div class="missing">{escape(text)}</div>{_caption(caption)}</figure>'


def strip(parts: Iterable[str]) -> str:
    """Three pictures side by side."""
    return f'<div class="strip">{"".join(parts)}</div>'


def colour_legend(label: str, gradient: str, low: str, high: str) -> str:
    """A colour scale with its two ends."""
    return (
        f'<div class="legend"><span>{escape(label)}</span><span>{escape(low)}</span>'
        f'<i style="background: {gradient}"></i><span>{escape(high)}</span></div>'
    )


def _caption(text: str) -> str:
    return f"<figcaption>{escape(text)}</figcaption>" if text else ""
