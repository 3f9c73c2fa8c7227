"""Two results of one bench side by side: python -m bench.compare OLD.json NEW.json."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.harness import Figure, bar_text, kept_text, text

COLUMNS = ("figure", "old", "new", "new / old", "bar", "old kept", "new kept")


def lines(old: Path, new: Path) -> list[list[str]]:
    """One line for each figure of either file, in the columns of COLUMNS."""
    before, after = _figures(old), _figures(new)
    return [_line(key, before.get(key), after.get(key)) for key in dict.fromkeys([*before, *after])]


def _figures(path: Path) -> dict[str, Figure]:
    return {key: Figure(**fields) for key, fields in _read(path)["figures"].items()}


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _line(key: str, old: Figure | None, new: Figure | None) -> list[str]:
    values = [None if f is None else f.value for f in (old, new)]
    change = values[1] / values[0] if values[0] and values[1] is not None else None
    return [key, *map(text, values), text(change), bar_text(new or old), kept_text(old), kept_text(new)]


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser("bench.compare", description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    args = parser.parse_args(argv)
    titles = [f"{r['name']} at {r['commit']}" for r in (_read(args.old), _read(args.new))]
    table = Table(*COLUMNS, title=" against ".join(titles), title_justify="left")
    for line in lines(args.old, args.new):
        table.add_row(*line)
    Console().print(table)


if __name__ == "__main__":
    main()
