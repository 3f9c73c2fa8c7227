"""geostore-node: serve one store until told to stop."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from geostore import exit_codes
from geostore.daemon.logs import log_to_stderr
from geostore.daemon.memory import keep_freed_memory
from geostore.daemon.service import Service
from geostore.errors import GeostoreError, InvalidInput
from geostore.settings import Settings, unknown_variables

_log = logging.getLogger("geostore.daemon")
_SETTINGS = ("store", "listen", "http", "keys", "workers", "threads", "device", "drain_s", "seed")


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT.

    Returns:
        A code of `geostore.exit_codes`: 0 after a clean stop, 6 where work had to be given up when `drain_s` was over
        (nothing acknowledged is lost), that of the error where it could not start.
    """
    args = _parser().parse_args(argv)
    log_to_stderr(args.log_level)
    keep_freed_memory()
    try:
        settings = _settings(args)
        service = Service(settings, readonly=args.readonly, create=args.create)
    except GeostoreError as error:
        return _refused(error)
    return _serve(service, settings, args.port_file)


def _serve(service: Service, settings: Settings, port_file: Path | None) -> int:
    stop = threading.Event()

    def asked_to_stop(number: int, _: FrameType | None) -> None:
        _log.info("stopping", extra={"signal": signal.Signals(number).name, "drain_s": settings.drain_s})
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, asked_to_stop)
    addresses = {"address": service.router.address, "http": service.page.address}
    _log.info("ready", extra={**addresses, "store": settings.store, "pid": os.getpid()})
    if port_file is not None:
        _announce(port_file, addresses)
    service.warm()
    while not stop.wait(1.0):
        if not service.router.alive:
            _log.error("the router ended by itself; stopping")
            service.close()
            return exit_codes.INTERNAL
    calm = service.close(settings.drain_s)
    _log.info("stopped", extra={"drained": calm})
    return exit_codes.OK if calm else exit_codes.UNAVAILABLE


def _announce(port_file: Path, addresses: dict[str, str]) -> None:
    """Write the bound addresses, whole or not at all."""
    part = port_file.with_name(port_file.name + ".part")
    part.write_text(json.dumps(addresses))
    part.replace(port_file)


def _refused(error: GeostoreError) -> int:
    """Say why once: a plain line to a person at a terminal, a line of the log elsewhere. Returns the exit code."""
    if sys.stderr.isatty():
        sys.stderr.write(f"geostore-node: {error}\n")
    else:
        _log.error("not started", extra={"reason": str(error), "kind": error.kind})
    return exit_codes.code_of(error)


def _settings(args: argparse.Namespace) -> Settings:
    flags = {name: getattr(args, name) for name in _SETTINGS}
    settings = Settings.load(args.config, **flags, insecure=args.insecure or None)
    for line in unknown_variables(os.environ):
        _log.warning(line)
    if not settings.store:
        raise InvalidInput("no store; name one with --store, GEOSTORE_STORE or in geostore.toml")
    if args.port_file is not None and not args.port_file.parent.is_dir():
        raise InvalidInput(f"--port-file {args.port_file}: no folder {args.port_file.parent}; make it, or name another")
    return settings


def _parser() -> argparse.ArgumentParser:
    about = "Serve one geostore store. Flags win over GEOSTORE_* in the environment, those over geostore.toml."
    parser = argparse.ArgumentParser("geostore-node", description=about)
    parser.add_argument("--config", type=Path, help="settings file instead of ./geostore.toml")
    for name in _SETTINGS:
        text = Settings.model_fields[name].description
        parser.add_argument(f"--{name.replace('_', '-')}", help=text)
    parser.add_argument("--insecure", action="store_true", help=Settings.model_fields["insecure"].description)
    parser.add_argument("--readonly", action="store_true", help="open the store beside its writer")
    parser.add_argument("--create", action="store_true", help="make the store if it is not there")
    parser.add_argument("--port-file", type=Path, help="write the bound addresses there as JSON, once ready")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    return parser
