"""Turn a function into a verb: the common flags, a session, and errors as one line and an exit code."""

from __future__ import annotations

import errno
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, NoReturn, get_type_hints

import typer

from geostore import exit_codes
from geostore.cli import options
from geostore.cli.session import Session
from geostore.errors import GeostoreError, InvalidInput

_COMMON: dict[str, tuple[Any, Any]] = {
    "store": (options.Store, None),
    "node": (options.Node, None),
    "config": (options.Config, None),
    "client_key": (options.ClientKey, None),
    "server_key": (options.ServerKey, None),
    "as_json": (options.AsJson, False),
    "debug": (options.Debug, False),
}
RESUME = "interrupted; what was committed stays: run the same command again to go on"


def verb(function: Callable[..., None]) -> Callable[..., None]:
    """`function(session, ...)` as a command that also takes the common flags."""
    hints = get_type_hints(function, include_extras=True)
    own = [p.replace(annotation=hints[p.name]) for p in list(inspect.signature(function).parameters.values())[1:]]
    common = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in _COMMON.items()
    ]

    @wraps(function)
    def run(**given: Any) -> None:
        flags = {name: given.pop(name) for name in _COMMON}
        with errors_as_exits(debug=flags["debug"]):
            function(open_session(flags), **given)

    run.__signature__ = inspect.Signature([p.replace(kind=p.KEYWORD_ONLY) for p in own] + common)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in (*own, *common)}
    del run.__wrapped__
    return run


def open_session(flags: dict[str, Any]) -> Session:
    """The session of these common flags.

    Raises:
        InvalidInput: store and node are both given, a setting is unknown or out of its range, or the settings file
            is missing or not TOML.
    """
    from geostore.settings import Settings, unknown_variables

    names = ("store", "node", "client_key", "server_key")
    given = {name: flags[name] for name in names}
    if given["store"] and given["node"]:
        raise InvalidInput(f"--store {given['store']} and --node {given['node']}; give one of the two")
    if given["store"] and not given["node"]:
        given["node"] = ""  # a store on the command line wins over a daemon in the settings file
    session = Session(Settings.load(flags["config"], **given), flags["as_json"])
    for line in unknown_variables(os.environ):
        session.note(f"warning: {line}")
    return session


@contextmanager
def errors_as_exits(*, debug: bool) -> Iterator[None]:
    """Errors leave as one line on stderr and an exit code; with `debug` as tracebacks."""
    try:
        yield
    except (typer.Exit, typer.BadParameter):
        raise
    except KeyboardInterrupt:
        _leave("cancelled", RESUME, exit_codes.INTERRUPTED)
    except BrokenPipeError:  # nobody reads on, as in `geostore rasters | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(exit_codes.OK) from None
    except GeostoreError as error:
        if debug:
            raise
        _leave(error.kind, str(error), exit_codes.code_of(error))
    except OSError as error:
        if debug:
            raise
        _leave(*_of_the_disk(error))
    except Exception as error:
        if debug:
            raise
        _leave("internal", f"{type(error).__name__}: {error}; run again with --debug", exit_codes.INTERNAL)


def _of_the_disk(error: OSError) -> tuple[str, str, int]:
    """Kind, message and exit code of a file that cannot be read or written."""
    where = f"{error.filename}: " if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "storage-full", f"{where}{error.strerror}; make room and run it again", exit_codes.STORAGE_FULL
    step = "give a path that can be used"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        step = "it may be read (status, decode, verify), but this verb writes: use a place that may be written to"
    return "invalid-input", f"{where}{error.strerror or error}; {step}", exit_codes.USAGE


def _leave(kind: str, message: str, code: int) -> NoReturn:
    sys.stderr.write(f"{kind}: {' '.join(message.split())}\n")
    raise typer.Exit(code) from None
