"""Tables and times as the terminal shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from geostore.amounts import NOTHING

if TYPE_CHECKING:
    from rich.table import Table


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


def when(time_us: int) -> str:
    """UTC microseconds as 2020-06-14T09:05:31."""
    from geostore.keys import from_time_us

    return f"{from_time_us(time_us):%Y-%m-%dT%H:%M:%S}"
