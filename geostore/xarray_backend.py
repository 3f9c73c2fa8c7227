"""xr.open_dataset("geostore:./store/9qdfr"): a cell of a store as a lazy Dataset."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from xarray.backends import BackendEntrypoint

from geostore.errors import InvalidInput
from geostore.keys import check_geohash

if TYPE_CHECKING:
    import xarray as xr

PREFIX = "geostore:"


class GeostoreBackend(BackendEntrypoint):
    """Opens "geostore:STORE/GEOHASH", where STORE is a folder, a URL or a daemon's address."""

    description: ClassVar[str] = "Cells of a geostore, decoded from their embeddings when they are looked at"
    url: ClassVar[str] = ""
    open_dataset_parameters: ClassVar[tuple[str, ...]] = (
        *("filename_or_obj", "drop_variables", "collection", "group", "time", "bands", "tier", "within"),
    )

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        collection: str | None = None,
        group: str | None = None,
        time: Any = None,
        bands: list[str] | None = None,
        tier: Any = "best",
        within: dict[str, float] | None = None,
    ) -> xr.Dataset:
        """The Dataset that `Client.decode` gives; closing it lets go of the store, which is opened read-only.

        Raises:
            InvalidInput: the name is not "geostore:STORE/GEOHASH". NotFound: no such store or cell.
        """
        from geostore.connection import connect

        target, geohash = read_name(filename_or_obj)
        client = connect(target, readonly=not target.startswith(("tcp://", "ipc://")))
        try:
            found = client.decode(
                geohash, collection=collection, group=group, time=time, bands=bands, tier=tier, within=within
            )
        except BaseException:
            client.close()
            raise
        dropped = [drop_variables] if isinstance(drop_variables, str) else list(drop_variables or ())
        found = found.drop_vars(dropped)
        found.set_close(client.close)
        return found

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """True for names that begin with "geostore:"."""
        return isinstance(filename_or_obj, str | os.PathLike) and os.fspath(filename_or_obj).startswith(PREFIX)


def read_name(name: Any) -> tuple[str, str]:
    """(store or address, geohash) of "geostore:STORE/GEOHASH".

    Raises:
        InvalidInput: it has another form.

    Examples:
        >>> read_name("geostore:./store/9qdfr")
        ('./store', '9qdfr')
    """
    text = os.fspath(name) if isinstance(name, str | os.PathLike) else ""
    target, _, geohash = text.removeprefix(PREFIX).rstrip("/").rpartition("/")
    if not text.startswith(PREFIX) or not target:
        raise InvalidInput(f"{name!r} is not a cell of a store; write geostore:./store/9qdfr")
    if (Path(text.removeprefix(PREFIX)) / "geostore.json").is_file():
        raise InvalidInput(f"{text!r} is a store without a cell; add one, as {text.rstrip('/')}/9qdfr")
    return target, check_geohash(geohash)
