"""verify, compact, prune, rebuild, backup: keeping a store well."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from geostore.errors import GeostoreError
from geostore.query import messages
from geostore.query.messages import Array, Progress, Reply

if TYPE_CHECKING:
    from geostore.node.node import Node


def verify(node: Node, request: messages.Verify, arrays: tuple[Array, ...], progress: Progress) -> Reply:
    """Read everything, `bytes` in all, and check it; an empty list of findings means that nothing is wrong."""
    findings = node.store.verify(progress)
    with contextlib.suppress(GeostoreError):  # of what the tables do not tell any more, which was found above
        findings += node.following.verify()
    read = sum(dict(node.store.bytes_durable()).values())
    return Reply({"ok": not findings, "findings": [dataclasses.asdict(f) for f in findings], "bytes": read})


def compact(node: Node, request: messages.Compact, arrays: tuple[Array, ...], progress: Progress) -> Reply:
    """Merge small files; the reply gives durable bytes before and after."""
    return _changed(node, lambda: node.store.compact(progress, retain_days=_days(request.now)))


def prune(node: Node, request: messages.Prune, arrays: tuple[Array, ...], progress: Progress) -> Reply:
    """Drop what is superseded; the reply gives durable bytes before and after."""
    return _changed(node, lambda: node.store.prune(progress, retain_days=_days(request.now)))


def rebuild(node: Node, request: messages.Rebuild, arrays: tuple[Array, ...], progress: Progress) -> Reply:
    """Make the view anew from the tables."""
    return _changed(node, lambda: node.store.rebuild(progress))


def backup(node: Node, request: messages.Backup, arrays: tuple[Array, ...], progress: Progress) -> Reply:
    """Copy what is missing at the target."""
    with node.changing:
        return Reply({"url": request.url, **node.store.backup(request.url, request.options, progress)})


def _days(now: bool) -> float | None:
    """Days superseded files stay: none if they are to go now, else as the settings say."""
    return 0.0 if now else None


def _changed(node: Node, work: Callable[[], object]) -> Reply:
    with node.changing:
        before = sum(node.store.bytes_durable().values())
        work()
        return Reply({"bytes_before": before, "bytes_after": sum(node.store.bytes_durable().values())})
