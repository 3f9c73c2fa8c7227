"""Tables and numbers as the terminal shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

NOTHING = "-"


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    """A table; a column whose name begins with ">" is right-aligned."""
    from rich import box
    from rich.table import Table

    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name in columns:
        made.add_column(name.lstrip(">"), justify="right" if name.startswith(">") else "left", overflow="fold")
    for row in rows:
        made.add_row(*(NOTHING if cell is None or cell == "" else str(cell) for cell in row))
    return made


def size(count: float | None) -> str:
    """Bytes for people, in powers of 1000: 12.3 kB."""
    if count is None:
        return NOTHING
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while abs(value) >= 999.5 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.3g} {units[0]}"


def number(value: float | None, pattern: str = ".3g") -> str:
    """A number, or "-" where there is none."""
    return NOTHING if value is None else format(value, pattern)


def ratio(value: float | None) -> str:
    """A compression ratio: 12.3 x."""
    return NOTHING if value is None else f"{value:.3g} x"


def minutes(seconds: float) -> str:
    """A duration for people."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def when(time_us: int) -> str:
    """UTC microseconds as 2020-06-14T09:05:31."""
    from geostore.keys import from_time_us

    return f"{from_time_us(time_us):%Y-%m-%dT%H:%M:%S}"
