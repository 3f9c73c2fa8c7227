"""Small scenes of one ingest share commits, within bounds; one that is refused does not take others with it."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine

from geostore import ingest as intake
from geostore.client import Client, steps
from geostore.collection import Collection, Files, Policy
from geostore.connection import Local
from geostore.errors import Cancelled, OutOfRange
from geostore.ingest import ingest
from geostore.node import Node
from geostore.query.messages import Put
from geostore.raster import Band, Bands
from geostore.scene.ahead import Cut
from geostore.settings import Settings

BANDS = Bands((Band("red", "red", 10.0, valid_max=9000, nodata=0), Band("nir", "nir", 10.0, valid_max=9000, nodata=0)))
COLLECTION = Collection(
    name="place",
    groups={"10m": BANDS},
    policy=Policy(),
    time_pattern="([0-9]{8})|%Y%m%d",
    files=Files(positional=("red", "nir")),
)
DAYS = 12
SCENE_BYTES = 2 * 24 * 24 * 2


class Heard(Client):
    """A client that notes the scenes of every put it asks for."""

    def __init__(self, asker: Local) -> None:
        super().__init__(asker)
        self.node = asker.node
        self.puts: list[list[str]] = []

    def put_scenes(self, collection: str, scenes: Any) -> dict[str, int]:
        self.puts.append([facts.id for facts, _ in scenes])
        return super().put_scenes(collection, scenes)

    def put(self, collection: str, scene: Any, splits: Any) -> dict[str, int]:
        self.puts.append([scene.id])
        return super().put(collection, scene, splits)


class Late(Future[Cut]):
    """A scene that is not cut yet, and is as soon as somebody asks for it."""

    def __init__(self, cut: Cut) -> None:
        super().__init__()
        self.cut = cut

    def result(self, timeout: float | None = None) -> Cut:
        return self.cut


@pytest.fixture
def client(tmp_path: Path):
    with Node.open(str(tmp_path / "store"), settings=Settings(), create=True, slots=2) as node:
        yield Heard(Local(node))


def scenes(folder: Path, *, high: tuple[int, ...] = ()) -> list[str]:
    """A small file a day; those in `high` hold a value out of range. Their ids."""
    import rasterio

    folder.mkdir(exist_ok=True)
    for day in range(1, DAYS + 1):
        pixels = np.random.default_rng(day).integers(1, 9000, (2, 24, 24), dtype=np.uint16)
        pixels[0, 5, 5] = 60_000 if day in high else 7
        profile = {"driver": "GTiff", "count": 2, "height": 24, "width": 24, "dtype": "uint16", "crs": "EPSG:32634"}
        where = Affine(10, 0, 604_000, 0, -10, 5_003_000)
        with rasterio.open(folder / f"a_202006{day:02d}.tif", "w", transform=where, **profile) as file:
            file.write(pixels)
    return [f"a_202006{day:02d}" for day in range(1, DAYS + 1)]


def held(client: Client) -> list[str]:
    """The scenes that the store says are complete."""
    return sorted(s["id"] for s in client.scenes("place") if s["complete"])


def test_scenes_share_puts_up_to_a_size(client: Heard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four scenes fill a request here: three puts for twelve, in order, each told once it is acknowledged."""
    names = scenes(tmp_path / "in")
    monkeypatch.setattr(steps, "BATCH_BYTES", int(4.8 * 1.25 * SCENE_BYTES))
    monkeypatch.setattr(intake, "SMALL_SHARE", 2)
    monkeypatch.setattr(intake, "GROUP_S", 1000.0)
    told: list[tuple[str, float, int]] = []
    summary = ingest(
        client, [tmp_path / "in"], COLLECTION, progress=lambda n, s: told.append((n, s, len(held(client))))
    )
    assert client.puts == [names[:4], names[4:8], names[8:]]
    assert [n for n, _, _ in told] == names
    assert [s for _, s, _ in told] == pytest.approx([(i + 1) / DAYS for i in range(DAYS)])
    assert [count for _, _, count in told] == [4] * 4 + [8] * 4 + [12] * 4
    assert (summary.scenes, summary.rasters, summary.unchanged) == (DAYS, 2 * DAYS, 0)  # two cells each
    again = ingest(client, [tmp_path / "in"], COLLECTION)
    assert (again.scenes, again.rasters, again.unchanged) == (0, 0, DAYS)
    assert len(client.puts) == 3


def test_scenes_share_puts_up_to_a_number(client: Heard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With five scenes a request at most, twelve take three; those that are cut too late to wait for go alone."""
    names = scenes(tmp_path / "in")
    monkeypatch.setattr(intake, "SCENES_MAX", 5)
    monkeypatch.setattr(intake, "GROUP_S", 1000.0)
    ingest(client, [tmp_path / "in"], COLLECTION)
    assert client.puts == [names[:5], names[5:10], names[10:]]
    client.puts.clear()
    monkeypatch.setattr(intake, "GROUP_S", -1.0)
    in_time = intake.cut_ahead
    monkeypatch.setattr(intake, "cut_ahead", lambda *a, **k: ((s, Late(c.result())) for s, c in in_time(*a, **k)))
    ingest(client, [tmp_path / "in"], replace(COLLECTION, name="other"))
    assert client.puts == [[name] for name in names]


def test_large_scenes_keep_their_own_puts(client: Heard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scene that would fill a request by itself is cut as it is put, and shares nothing."""
    names = scenes(tmp_path / "in")
    monkeypatch.setattr(steps, "BATCH_BYTES", SCENE_BYTES)
    ingest(client, [tmp_path / "in"], COLLECTION)
    assert client.puts == [[name] for name in names]
    assert held(client) == names


@pytest.mark.parametrize("keep_going", [True, False])
def test_a_bad_scene_leaves_the_others_in(client: Heard, tmp_path: Path, keep_going: bool) -> None:
    """Scene 7 of 12 does not read right: those before it are stored, and if told so those after it too."""
    names = scenes(tmp_path / "in", high=(7,))
    if keep_going:
        summary = ingest(client, [tmp_path / "in"], COLLECTION, keep_going=True)
        assert len(summary.errors) == 1
        assert "a_20200607" in summary.errors[0]
        assert held(client) == [*names[:6], *names[7:]]
    else:
        with pytest.raises(OutOfRange):
            ingest(client, [tmp_path / "in"], COLLECTION)
        assert held(client) == names[:6]


class Spoiling(Local):
    """A way to the store on which the pixels of one scene become such as it does not take."""

    spoilt = ""

    def ask(self, request: Any, arrays: Any = (), progress: Any = None) -> Any:
        if isinstance(request, Put) and any(s.scene.id == self.spoilt for s in request.scenes):
            arrays = [np.full_like(a, 20_000) if a.dtype == np.uint16 else a for a in arrays]
        return super().ask(request, arrays, progress)


def test_a_scene_the_store_refuses_is_found_in_its_group(client: Heard, tmp_path: Path) -> None:
    """The store refuses a group of twelve for one of them: put one by one the others come in, and that one is named."""
    names = scenes(tmp_path / "in")
    spoiling = Spoiling(client.node)
    spoiling.spoilt = names[4]
    summary = ingest(Heard(spoiling), [tmp_path / "in"], COLLECTION, keep_going=True)
    assert [e.split(":")[0].rsplit("/", 1)[-1] for e in summary.errors] == [f"{names[4]}.tif"]
    assert held(client) == [n for n in names if n != names[4]]
    assert summary.scenes == DAYS - 1


def test_cancelled_between_groups_keeps_what_was_told(client: Heard, tmp_path: Path) -> None:
    """Cancelled raised by progress leaves the ingest with every scene of its group in the store; the rest follows."""
    names = scenes(tmp_path / "in")

    def stop(name: str, share: float) -> None:
        raise Cancelled("stop")

    with pytest.raises(Cancelled):
        ingest(client, [tmp_path / "in"], COLLECTION, progress=stop)
    assert set(client.puts[0]) <= set(held(client))
    ingest(client, [tmp_path / "in"], COLLECTION)
    assert held(client) == names
