"""What a client asks through: a daemon's address or a node in this process."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Protocol

from geostore.query.messages import Array, Progress, Reply, Request


class Asker(Protocol):
    """Answers requests; `geostore.query.dealer.Dealer` is one."""

    def ask(self, request: Request, arrays: Sequence[Array] = (), progress: Progress | None = None) -> Reply:
        """Ask and wait. `progress` is called only where the work runs in this process."""
        ...

    def submit(self, request: Request, arrays: Sequence[Array] = (), progress: Progress | None = None) -> Future[Reply]:
        """Ask without waiting."""
        ...

    def close(self) -> None:
        """Let go of whatever answers."""
        ...
