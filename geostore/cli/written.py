"""Files that a verb writes for its user: names that fit, and none written over by a slip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from geostore.errors import InvalidInput

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Write over files that are there.")]
PICTURES = (".png", ".svg", ".pdf", ".jpg", ".jpeg")


def check_free(flag: str, paths: Sequence[Path], *, overwrite: bool) -> None:
    """Refuse to write over files of the user's, before anything is written.

    Raises:
        InvalidInput: one of `paths` is there, and nobody said that it may be lost.
    """
    there = [] if overwrite else [path for path in paths if path.exists() or path.is_symlink()]
    if there:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise InvalidInput(f"{flag}: {there[0]}{more} exists already; name another place, or add --overwrite")


def check_picture(path: Path | None, *, overwrite: bool) -> None:
    """Refuse a name that no picture should be drawn to, before anything is asked.

    Raises:
        InvalidInput: its end is none of a picture's, its folder is not there, or a file of that name is and is to stay.
    """
    if path is None:
        return
    if path.suffix.lower() not in PICTURES:
        raise InvalidInput(f"--plot {path}: cannot draw to {path.suffix or 'a name without an end'!r}; name it .png")
    if not path.parent.is_dir():
        raise InvalidInput(f"--plot {path}: no folder {path.parent}; make it, or name another")
    check_free("--plot", [path], overwrite=overwrite)
