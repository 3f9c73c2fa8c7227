"""Read the Delta log of one slot, version by version, with the fence's rules."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import xxhash

from geostore.errors import Corrupt
from geostore.storage.files import Files

LOG = "_delta_log"
_PAGE = 4096
VERBS = ("put", "compact", "prune")
CHECKED = ("epoch", "node", "run", "commit", "verb", "live")


@dataclass(frozen=True)
class Seal:
    """Who may write: the highest epoch committed so far, and the run that committed it first."""

    epoch: int = 0
    run: str = ""

    def rejects(self, epoch: int, run: str) -> bool:
        """True if a commit of `epoch` by `run` comes from an owner that was sealed off before."""
        return epoch < self.epoch or (epoch == self.epoch and bool(self.run) and run != self.run)


@dataclass(frozen=True)
class Commit:
    """One version of a slot's table.

    Attributes:
        version: of the Delta log.
        epoch, run: of the owner that wrote it.
        id: unique to the attempt.
        verb: one of VERBS; only "put" adds rows that are new.
        adds, removes: paths of part files below the table's folder.
        live: check of the sorted paths of every part file that counts after this commit.
        stale: the owner was sealed off before: readers skip it.
    """

    version: int
    epoch: int
    run: str
    id: str
    verb: str
    adds: tuple[str, ...]
    removes: tuple[str, ...]
    live: str = ""
    stale: bool = False


def log_name(version: int) -> str:
    """The file of one version."""
    return f"{LOG}/{version:020d}.json"


def commit_metadata(
    *,
    epoch: int,
    node: str,
    run: str,
    commit: str,
    verb: str,
    adds: Iterable[str],
    removes: Iterable[str],
    live: Iterable[str],
) -> dict[str, str]:
    """What every commit carries in its commitInfo.

    `digests` names each file added, `live` checks the list of all part files that count after it, `check` guards
    the entry itself with the paths it adds and removes.
    """
    plain = {"epoch": str(epoch), "node": node, "run": run, "commit": commit, "verb": verb, "live": live_check(live)}
    digests = ",".join(sorted(path.rsplit("/", 1)[-1].removesuffix(".parquet") for path in adds))
    return {**plain, "digests": digests, "check": _check(plain, adds, removes)}


def live_check(paths: Iterable[str]) -> str:
    """xxh3-64 of the sorted paths as JSON."""
    return xxhash.xxh3_64_hexdigest(json.dumps(sorted(paths), separators=(",", ":")).encode())


def _check(plain: dict[str, str], adds: Iterable[str], removes: Iterable[str]) -> str:
    text = json.dumps([[plain[n] for n in CHECKED], sorted(adds), sorted(removes)], separators=(",", ":"))
    return xxhash.xxh3_64_hexdigest(text.encode())


def versions(files: Files, root: str) -> list[int]:
    """Versions whose log file is there, ascending; empty if there is no table. A torn last one does not count."""
    names = files.names(f"{root}/{LOG}")
    found = [int(n[:20]) for n in names if len(n) == 25 and n.endswith(".json") and n[:20].isdigit()]
    while found and files.local is not None and torn(files, f"{root}/{log_name(found[-1])}"):
        found.pop()
    return found


def torn(files: Files, path: str, *, pages: bool = True) -> bool:
    """True if a power loss left a file that was not flushed empty, filled up with zeros, or (`pages`) cut at a page.

    Rot does not do that: a whole log file that a flipped bit spoils is not torn.
    """
    size = files.size(path)
    if not size:
        return size == 0
    last = files.read(path, size - 1, 1)
    return last == b"\0" or (pages and size % _PAGE == 0 and last not in (b"}", b"\n"))


def read_commit(files: Files, root: str, version: int, seal: Seal) -> Commit:
    """One version as an owner or reader at `seal` sees it.

    Raises:
        FileNotFoundError: the log file is gone. Corrupt: it is not what an owner wrote.
    """
    path = f"{root}/{log_name(version)}"
    try:
        actions = [json.loads(line) for line in files.read(path).splitlines() if line.strip()]
        info: dict[str, Any] = next(a["commitInfo"] for a in actions if "commitInfo" in a)
        adds = tuple(unquote(a["add"]["path"]) for a in actions if "add" in a)
        removes = tuple(unquote(a["remove"]["path"]) for a in actions if "remove" in a)
        plain = {n: str(info[n]) for n in CHECKED}
        epoch = int(plain["epoch"])
        good = info["check"] == _check(plain, adds, removes)
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, StopIteration, TypeError) as error:
        raise Corrupt(f"{path}: not a commit of geostore ({error!r}); restore it from a backup") from error
    if not good:
        raise Corrupt(f"{path}: fails its check; restore it from a backup")
    return Commit(
        version=version,
        epoch=epoch,
        run=plain["run"],
        id=plain["commit"],
        verb=plain["verb"],
        adds=adds,
        removes=removes,
        live=plain["live"],
        stale=seal.rejects(epoch, plain["run"]),
    )


def after(seal: Seal, commit: Commit) -> Seal:
    """The seal once `commit` is read."""
    if commit.stale or (commit.epoch == seal.epoch and seal.run):
        return seal
    return Seal(commit.epoch, commit.run)
