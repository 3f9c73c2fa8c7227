"""The flags every verb takes, and those that several share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_WHERE, _HOW = "Where", "Output"

Store = Annotated[str | None, typer.Option("--store", help="Folder or URL of the store.", rich_help_panel=_WHERE)]
Node = Annotated[
    str | None, typer.Option("--node", help="A daemon, tcp://host:port, instead of a store.", rich_help_panel=_WHERE)
]
Config = Annotated[
    Path | None,
    typer.Option("--config", help="Settings file; ./geostore.toml if it is there.", rich_help_panel=_WHERE),
]
ClientKey = Annotated[
    Path | None, typer.Option("--client-key", help="File with this client's CURVE key.", rich_help_panel=_WHERE)
]
ServerKey = Annotated[
    str | None, typer.Option("--server-key", help="The daemon's public CURVE key.", rich_help_panel=_WHERE)
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.", rich_help_panel=_HOW)]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=_HOW)]

Collection = Annotated[str | None, typer.Option("--collection", "-c", help="Name of a collection in the store.")]
Declared = Annotated[
    str | None,
    typer.Option("--collection", "-c", help="Collection: a TOML or STAC file, a preset, or a name in the store."),
]
Time = Annotated[
    str | None,
    typer.Option("--time", "-t", help="2020, 2020-06, 2020-06-14, an instant, or a range 2020-05/2020-09."),
]
Group = Annotated[str | None, typer.Option("--group", help='Native resolution, such as "10m".')]
