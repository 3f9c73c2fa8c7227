"""geostore base: the networks that places share, and one trained on the places of a store."""

from __future__ import annotations

from geostore.vae.base import Base, shipped


def test_the_bases_that_ship_are_listed(run):
    """Proves that a list names every base with its digest and the bands it takes."""
    listed = run("base", "list", "--json").json["bases"]
    assert [(b["digest"], b["from"]) for b in listed] == [(base.digest, "ships") for base in shipped()]
    assert "blue|swir16" in run("base", "list").out


def test_a_base_is_trained_on_a_store_and_listed_first(world, run, tmp_path, monkeypatch):
    """Proves that training writes a base that opens, goes on when it is run again, and tells held-out places."""
    out = tmp_path / "bases" / "meadow.safetensors"
    command = ("base", "train", "--store", world.store, "-o", out, "--json")
    first = run(*command, "--seconds", 0.5).json
    assert (first["places"], first["held_out"], first["rasters"]) == (1, 1, 6)
    base = Base.from_bytes(out.read_bytes())
    assert (base.digest, len(base.data)) == (first["digest"], first["bytes"])
    assert base.slots == (("blue",), ("green",), ("red",), ("nir",))
    assert (first["exact"], first["policy"]) == (6, "MSE <= 0.005")
    second = run(*command, "--seconds", 1.5).json
    assert second["steps"] > first["steps"]
    assert set(second["bytes_a_raster"]) == {"this base", "the base that ships", "no network"}
    monkeypatch.setenv("GEOSTORE_BASES", str(out.parent))
    listed = run("base", "list", "--json").json["bases"]
    assert [b["from"] for b in listed] == ["setting bases", *("ships" for _ in shipped())]
    assert listed[0]["digest"] == second["digest"]


def test_what_cannot_be_trained_is_refused(world, run, tmp_path):
    """Proves that another suffix, a place inside the store, another training's state and no places are refused."""
    store = ("--store", world.store)
    assert "does not end in .safetensors" in run("base", "train", *store, "-o", tmp_path / "base.pt").err
    assert "lies in the store" in run("base", "train", *store, "-o", world.store / "x.safetensors").err
    out = tmp_path / "b.safetensors"
    assert "1 place of 'meadow' with 3 usable dates" in run("base", "train", "u2pc0", *store, "-o", out).err
    assert "no band group '20m'" in run("base", "train", *store, "-o", out, "--group", "20m").err
    (tmp_path / "b.state").write_bytes(b"nothing of the kind")
    assert "does not read as the state of a training" in run("base", "train", *store, "-o", out, "--seconds", 1).err
    assert not out.exists()
    (tmp_path / "taken.safetensors").write_bytes(b"weights of somebody else")
    assert "exists already" in run("base", "train", *store, "-o", tmp_path / "taken.safetensors").err


def test_a_folder_that_holds_no_base_is_refused(world, run, tmp_path, monkeypatch):
    """Proves that a fit says which folder or file of the setting is wrong before it begins."""
    monkeypatch.setenv("GEOSTORE_BASES", str(tmp_path / "none"))
    assert "is no folder" in run("fit", "--store", world.store, "--refit").err
    assert run("config", "check").code == 4
    monkeypatch.setenv("GEOSTORE_BASES", str(tmp_path))
    assert "holds no *.safetensors" in run("fit", "--store", world.store, "--refit").err
    (tmp_path / "bad.safetensors").write_bytes(b"\0" * 64)
    outcome = run("fit", "--store", world.store, "--refit")
    assert outcome.code == 2
    assert "bad.safetensors" in outcome.err
