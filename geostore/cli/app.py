"""The command tree: which file answers which verb."""

from __future__ import annotations

from typing import Annotated

import typer

import geostore
from geostore.cli import (
    backup,
    base,
    bench,
    cancel,
    changes,
    collections,
    compact,
    config,
    decode,
    demo,
    estimate,
    fit,
    index,
    ingest,
    init,
    jobs,
    keys,
    label,
    prune,
    rasters,
    rebuild,
    report,
    restore,
    resume,
    scenes,
    similar,
    status,
    verify,
    withdraw,
)
from geostore.cli.verb import verb

app = typer.Typer(
    name="geostore",
    help="A store for satellite imagery that keeps small learned embeddings instead of pixels.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

_PANELS = {
    "The main road": (init.init, ingest.ingest, fit.fit, status.status, decode.decode, estimate.estimate),
    "Search": (similar.similar, changes.changes, label.label),
    "Look": (report.report, collections.collections, scenes.scenes, rasters.rasters, demo.demo),
    "Keep": (
        *(verify.verify, compact.compact, prune.prune, rebuild.rebuild),
        *(backup.backup, restore.restore, withdraw.withdraw),
    ),
    "Long work in a daemon": (jobs.jobs, cancel.cancel, resume.resume),
}
for _panel, _verbs in _PANELS.items():
    for _verb in _verbs:
        app.command(name=_verb.__name__, rich_help_panel=_panel)(verb(_verb))
app.add_typer(bench.app, name="bench", rich_help_panel="Look")
app.add_typer(base.app, name="base", rich_help_panel="The main road")
app.add_typer(index.app, name="index", rich_help_panel="Search")
app.add_typer(config.app, name="config", rich_help_panel="Set up")
app.add_typer(keys.app, name="keys", rich_help_panel="Set up")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"geostore {geostore.__version__}")
        raise typer.Exit


@app.callback()
def _geostore(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """A store for satellite imagery that keeps small learned embeddings instead of pixels."""
