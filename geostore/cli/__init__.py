"""The `geostore` command: one file per verb, nothing heavy imported before a verb needs it."""

from __future__ import annotations


def main() -> None:
    """The entry point of the `geostore` command; exits by `geostore.exit_codes`. SIGTERM is as Ctrl-C."""
    import signal

    from geostore.cli.app import app

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    app(prog_name="geostore")
