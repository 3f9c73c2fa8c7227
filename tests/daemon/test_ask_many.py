"""A decode of several requests gives what one would, in this process, over the wire and awaited, and fails as one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from daemon_process import Daemon
from small_store import CELL, fill

from geostore.client import steps
from geostore.connection import connect, connect_async
from geostore.errors import NotFound


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    path: Path = tmp_path_factory.mktemp("many") / "store"
    with connect(path, create=True) as client:
        fill(client)
    return path


@pytest.fixture(scope="module")
def daemon(store) -> Iterator[Daemon]:
    with Daemon(store) as running:
        yield running


@pytest.fixture(autouse=True)
def _three_rasters_a_request(monkeypatch):
    monkeypatch.setattr(steps, "BATCH_ITEMS", 3)


def infos_and_more(client):
    """The rasters of a cell, seven times over."""
    return client.rasters(CELL, group="10m") * 7


def test_every_way_gives_the_same_in_order(daemon, store):
    """Bit for bit, in the order asked for."""

    async def awaited():
        async with connect_async(daemon.address) as client:
            return await client.decode_rasters((await client.rasters(CELL, group="10m")) * 7)

    with connect(daemon.address) as client:
        infos = infos_and_more(client)
        assert len(infos) > 3 * steps.AHEAD
        wired = client.decode_rasters(infos)
    with connect(store, readonly=True) as client:
        local = client.decode_rasters(infos_and_more(client))
    for found in (wired, local, asyncio.run(awaited())):
        assert [info.key for info, _ in found] == [info.key for info in infos]
        for (_, one), (_, other) in zip(found, wired, strict=True):
            np.testing.assert_array_equal(one.pixels, other.pixels)


def test_one_that_fails_fails_the_decode_and_nothing_else(daemon):
    """A raster that is not there, in the middle: the error names it, and the connection goes on."""

    async def awaited():
        async with connect_async(daemon.address) as client:
            infos = (await client.rasters(CELL, group="10m")) * 7
            infos[5] = replace(infos[5], key=replace(infos[5].key, time_us=7))
            with pytest.raises(NotFound):
                await client.decode_rasters(infos)
            assert await client.decode_rasters(infos[:5])

    with connect(daemon.address) as client:
        infos = infos_and_more(client)
        infos[5] = replace(infos[5], key=replace(infos[5].key, time_us=7))
        with pytest.raises(NotFound):
            client.decode_rasters(infos)
        assert len(client.decode_rasters(infos[:5])) == 5
    asyncio.run(awaited())
