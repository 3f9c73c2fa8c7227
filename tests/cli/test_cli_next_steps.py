"""Answers name the next step: what waits, what misses its policy, what is superseded; one of a thing is singular."""

from __future__ import annotations

import shutil

import pytest

from geostore.amounts import counted
from geostore.cli.cancel import said


@pytest.fixture(scope="module")
def tight(run, world, tmp_path_factory):
    """A copy of the fitted store whose policy was then tightened so that nothing keeps it."""
    root = tmp_path_factory.mktemp("tight")
    shutil.copytree(world.store, root / "store")
    (root / "meadow.toml").write_text(world.collection.read_text().replace("mse_max = 0.005", "mse_max = 1e-9"))
    done = run("ingest", world.scenes, "--store", root / "store", "--collection", root / "meadow.toml")
    assert done.code == 0, done.err
    assert "0 scenes in, 6 unchanged: 0 rasters in 0 new partitions" in done.out
    return root / "store"


def test_a_tighter_policy_is_told_with_what_to_run(run, tight):
    """After the policy was tightened, status and fit both say how many rasters miss it, and name `fit --refit`."""
    missed = run("status", "--store", tight, "--json").json["quality"]["missed"]
    assert missed > 1
    told = f"beyond their policy as it is now: {missed} rasters; `geostore fit --refit`"
    assert told in run("status", "--store", tight).err
    fitted = run("fit", "--store", tight)
    assert told in fitted.out
    assert "no original at hand" not in fitted.out


def test_where_originals_are_gone_fit_says_what_is_left_to_do(run, tight, tmp_path):
    """Pruned, those rasters cannot be fitted again: the answer counts them and says to withdraw and ingest."""
    copy = tmp_path / "store"
    shutil.copytree(tight, copy)
    assert run("prune", "--now", "--store", copy).code == 0
    fields = run("fit", "--store", copy, "--json").json
    assert fields["beyond_left"] == fields["beyond"] > 1
    told = f"{fields['beyond']} rasters; no original at hand: withdraw their scenes"
    assert told in run("fit", "--store", copy).out


def test_superseded_bytes_are_counted_and_prune_now_frees_them(run, tight, tmp_path):
    """Status counts what a fit superseded and names `prune --now`; after that nothing is superseded or named."""
    copy = tmp_path / "store"
    shutil.copytree(tight, copy)
    sizes = run("status", "--store", copy, "--json").json["bytes"]
    assert 0.1 * sizes["durable"] < sizes["superseded"] < sizes["durable"]
    assert "`geostore prune --now` deletes them at once" in run("status", "--store", copy).err
    assert run("prune", "--now", "--store", copy).code == 0
    assert run("status", "--store", copy, "--json").json["bytes"]["superseded"] == 0
    assert "geostore prune" not in run("status", "--store", copy).err


def test_a_ratio_that_waits_for_a_fit_says_so(run, world, tmp_path):
    """With one raster a cell not fitted, status gives the reason in place of both ratios, and says what to run."""
    scene = sorted(world.scenes.iterdir())[0]
    done = run("ingest", scene, "--store", tmp_path / "s", "--collection", world.collection)
    assert "1 scene in, 0 unchanged: 2 rasters in 2 new partitions" in done.out
    answer = run("status", "--store", tmp_path / "s")
    assert "of 1 scene in 2 partitions, 16 slots" in answer.out
    rows = [line for line in answer.out.splitlines() if "payloads" in line and "not fitted" in line]
    assert len(rows) == 2
    assert all("2 not fitted yet" in row for row in rows)
    assert "waiting for a fit: 2 rasters" in answer.err
    assert "run `geostore fit`" in answer.err


def test_brackets_in_a_name_are_printed_as_they_are(run, tmp_path):
    """A folder called [/b] is no mark-up."""
    store = tmp_path / "[/b] :cat: [red]"
    assert str(store) in run("init", "--store", store, "--slots", 1).out.replace("\n", "")
    assert "with 1 slot at" in run("init", "--store", tmp_path / "b", "--slots", 1).out


def test_one_is_singular():
    """1 raster; 0, 2 and more rasters."""
    assert [counted(n, "raster") for n in (0, 1, 2, 12_000)] == ["0 rasters", "1 raster", "2 rasters", "12,000 rasters"]


def test_a_store_learns_of_no_collection_that_its_first_scene_does_not_fit(run, world, tmp_path):
    """A refused ingest into a store that is there leaves its collections as they were, and so does a wrong time."""
    store = tmp_path / "store"
    shutil.copytree(world.store, store)
    scene = sorted(world.scenes.iterdir())[0]
    assert run("ingest", scene, "--store", store, "-c", "sentinel-2-l2a").code == 2
    late = run("ingest", scene, "--store", store, "-c", "meadow", "--time", "2999-01-01")
    assert "--time '2999-01-01' lies in the future" in late.err
    assert [c["id"] for c in run("collections", "--store", store, "--json").json["collections"]] == ["meadow"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("decode", "u2pc0", "-o", "{tmp}/x.png", "--store", "{store}"), "x.png: decode writes GeoTIFF alone; name it"),
        (("decode", "u2pc0", "--group", "20m", "--store", "{store}"), "no raster of 'u2pc0' in group '20m'; `geostore"),
        (("decode", "u2pc0", "-t", "1999/2001", "--store", "{store}"), "no raster of 'u2pc0' from 1999 to 2001; `"),
        (("label", "u2pc0@1999", "x", "--store", "{store}"), "no raster of 'u2pc0' at 1999; `geostore rasters u2pc0`"),
        (("changes", "u2pc0", "--plot", "x.xyz", "--store", "{store}"), "cannot draw to '.xyz'; name it .png"),
        (("similar", "--near", "1,2", "--plot", "{tmp}/no/x.png", "--store", "{store}"), "no folder {tmp}/no; make it"),
        (("withdraw", "nosuch", "--store", "{store}"), "no scene 'nosuch' in this store; `geostore scenes` lists them"),
        (("backup", "{store}", "--store", "{store}"), "that is to be copied; name a place outside it"),
        (("backup", "{store}/kept", "--store", "{store}"), "that is to be copied; name a place outside it"),
        (("cancel", "x", "--store", "{store}"), "name a daemon (tcp://host:port)"),
        (("estimate", "nothing.tif", "-c", "meadow", "--store", "{store}"), "nothing.tif does not exist"),
        (("init", "--store", "{file}"), "meadow.toml is a file; name a folder for the store"),
    ],
)
def test_what_was_asked_is_in_the_answer(run, world, tmp_path, arguments, told):
    """The value that was wrong stands in the one line, with what to do."""
    given = [a.format(store=world.store, tmp=tmp_path, file=world.collection) for a in arguments]
    done = run(*given)
    assert done.code != 0
    assert told.format(tmp=tmp_path) in done.err
    assert not (world.store / "kept").exists()


def test_cancel_says_what_became_of_the_job():
    """One that runs is asked; one that waited, or had ended, is told as it is now."""
    assert said("4f2a", "running") == "asked job 4f2a to stop"
    assert said("4f2a", "cancelled") == "job 4f2a is cancelled"
    assert said("4f2a", "done") == "job 4f2a is done"
