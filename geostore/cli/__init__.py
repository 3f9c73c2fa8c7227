"""The `geostore` command: one file per verb, nothing heavy imported before a verb needs it."""

from __future__ import annotations


def main() -> None:
    """The entry point of the `geostore` command; exits with a code of `geostore.cli.exit_codes`."""
    from geostore.cli.app import app

    app(prog_name="geostore")
