"""Open a store, here or behind a daemon, by what it is called."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from geostore.client import Asker, AsyncClient, Client
from geostore.errors import InvalidInput
from geostore.node import Node
from geostore.query.auth import read_pair
from geostore.query.dealer import Dealer
from geostore.query.messages import Array, Progress, Reply, Request
from geostore.settings import Settings, warn_of_unknown_variables

_ADDRESSES = ("tcp://", "ipc://")


def connect(
    target: str | Path,
    *,
    key: str | Path | None = None,
    server_key: str = "",
    create: bool = False,
    readonly: bool = False,
    options: dict[str, str] | None = None,
    settings: Settings | None = None,
) -> Client:
    """A client of `target`.

    Args:
        target: a store's folder or URL, opened in this process; or a daemon's address, tcp://host:port.
        key: the file with the client's CURVE key pair, where the daemon asks for one.
        server_key: the daemon's public CURVE key, 40 characters.
        create: make the store if it is not there.
        readonly: open the store beside its writer; `verify` and the reading verbs work.
        options: credentials of a store on S3, GCS or Azure.
        settings: limits; `Settings.load()` if None.

    Raises:
        NotFound: no store there. StoreLocked: another writer holds it.
        Unreachable, Forbidden: no daemon answers, or it does not let this key in.
        InvalidInput: one of `key` and `server_key` without the other.
    """
    return Client(_asker(str(target), key, server_key, create, readonly, options, settings))


def connect_async(
    target: str | Path,
    *,
    key: str | Path | None = None,
    server_key: str = "",
    create: bool = False,
    readonly: bool = False,
    options: dict[str, str] | None = None,
    settings: Settings | None = None,
) -> AsyncClient:
    """As `connect`, for coroutines. Opening itself waits: milliseconds for a folder or a daemon that is there."""
    return AsyncClient(_asker(str(target), key, server_key, create, readonly, options, settings))


def _asker(
    target: str,
    key: str | Path | None,
    server_key: str,
    create: bool,
    readonly: bool,
    options: dict[str, str] | None,
    settings: Settings | None,
) -> Asker:
    if settings is None:
        settings = Settings.load()
        warn_of_unknown_variables(os.environ)
    if not target.startswith(_ADDRESSES):
        return Local(Node.open(target, settings=settings, readonly=readonly, create=create, options=options))
    file, server_key = key or settings.client_key, server_key or settings.server_key
    if bool(file) != bool(server_key):
        seen = f"the client's key file {str(file)!r} alone" if file else "the daemon's public key alone"
        raise InvalidInput(f"{seen}: a daemon with keys needs both; give both (client_key and server_key)")
    dealer = Dealer(target, settings, pair=read_pair(Path(file)) if file else None, server_key=server_key)
    try:
        dealer.hello()
    except BaseException:
        dealer.close()
        raise
    return dealer


class Local:
    """A node in this process, asked without a wire. It owns the node."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._threads = ThreadPoolExecutor(node.settings.threads, thread_name_prefix="geostore-local")

    def ask(self, request: Request, arrays: Sequence[Array] = (), progress: Progress | None = None) -> Reply:
        """Answer in the calling thread."""
        return self.node.answer(request, arrays, progress)

    def submit(self, request: Request, arrays: Sequence[Array] = (), progress: Progress | None = None) -> Future[Reply]:
        """Answer in another thread."""
        return self._threads.submit(self.node.answer, request, arrays, progress)

    def close(self) -> None:
        """Wait for what is under way, then close the node."""
        self._threads.shutdown()
        self.node.close()
