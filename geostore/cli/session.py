"""What a verb works with: settings, a client, a progress bar, and one way to answer."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geostore.errors import InvalidInput

if TYPE_CHECKING:
    from rich.console import Console

    from geostore.client import Client
    from geostore.settings import Settings

ADDRESSES = ("tcp://", "ipc://")
PIPE_WIDTH = 200  # columns of a table where stdout is no terminal
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Session:
    """One run of one verb.

    Attributes:
        settings: flags over environment over file.
        as_json: answer with one JSON object on stdout.
    """

    settings: Settings
    as_json: bool

    @property
    def target(self) -> str:
        """The daemon's address if one is named, else the store's.

        Raises:
            InvalidInput: neither is named, or the address is none.
        """
        node = self.settings.node
        if node and not node.startswith(ADDRESSES):
            raise InvalidInput(
                f"--node {node!r} is no address; write it as tcp://host:port, or name a store by --store"
            )
        target = node or self.settings.store
        if not target:
            raise InvalidInput("no store named; give --store DIR or --node tcp://host:port, or set GEOSTORE_STORE")
        return target

    @property
    def store(self) -> str:
        """The store's folder or URL, for verbs that work without a daemon.

        Raises:
            InvalidInput: none is named.
        """
        if not self.settings.store:
            raise InvalidInput("no store named; give --store DIR, or set GEOSTORE_STORE")
        return self.settings.store

    @property
    def remote(self) -> bool:
        """True if a daemon answers."""
        return self.target.startswith(ADDRESSES)

    @property
    def is_unnamed(self) -> bool:
        """True if neither a store nor a daemon is named."""
        return not (self.settings.node or self.settings.store)

    @property
    def is_new(self) -> bool:
        """True if the store is a local folder that holds none yet."""
        return not self.remote and "://" not in self.target and not (Path(self.target) / "geostore.json").exists()

    def check_outside(self, out: Path) -> None:
        """Raise InvalidInput if `out` lies in the store, whose files are counted and copied."""
        if not self.remote and "://" not in self.target and out.resolve().is_relative_to(Path(self.target).resolve()):
            raise InvalidInput(f"-o {out} lies in the store {self.target}; name a place outside it")

    def reader(self) -> Client:
        """A client for verbs that change nothing: it stands beside a writer."""
        return self._connect(readonly=True)

    def writer(self) -> Client:
        """A client for verbs that change the store."""
        return self._connect()

    def maker(self) -> Client:
        """A writer that makes the store first if it is not there."""
        return self._connect(create=not self.remote)

    def _connect(self, *, readonly: bool = False, create: bool = False) -> Client:
        from geostore.connection import connect

        return connect(self.target, settings=self.settings, readonly=readonly and not self.remote, create=create)

    @contextmanager
    def progress(self, verb: str) -> Iterator[Progress]:
        """A bar on stderr while work goes on; silent where stderr is no terminal."""
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        console = _stderr()
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
        with Bar(
            *columns,
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        ) as bar:
            task = bar.add_task(verb, total=1.0)
            yield lambda what, share: bar.update(task, description=what or verb, completed=share)

    def answer(self, fields: dict[str, Any], show: Callable[[Console], None]) -> None:
        """The verb's answer on stdout: `fields` as one JSON object, or what `show` prints for people."""
        if self.as_json:
            sys.stdout.write(to_json(fields) + "\n")
            sys.stdout.flush()
            return
        show(_stdout())

    def note(self, line: str) -> None:
        """A remark beside the answer, on stderr."""
        _stderr().print(line, soft_wrap=True)


def _stdout() -> Console:
    from rich.console import Console

    class Output(Console):
        def on_broken_pipe(self) -> None:
            """Nobody reads on: left to `errors_as_exits`, which ends quietly."""
            raise BrokenPipeError

    return Output(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False, markup=False, emoji=False)


def _stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def to_json(fields: dict[str, Any]) -> str:
    """One line of strict JSON; numbers that are not finite become null."""
    return json.dumps(_finite(fields), allow_nan=False, default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
