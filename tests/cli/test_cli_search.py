"""The commands of search on a real store: what they answer, what they draw, how they leave."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from geostore.partition.geohash import bounds


@pytest.fixture(scope="module")
def store(world, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("search") / "store"
    shutil.copytree(world.store, path)
    return path


@pytest.fixture(scope="module")
def place(run, store) -> tuple[str, str]:
    """The fullest cell, and one of its dates."""
    found = run("rasters", "--store", store, "--json").json["rasters"]
    cells = [r["key"]["geohash"] for r in found]
    return max(sorted(set(cells)), key=cells.count), "2020-05-03"


def test_similar_lists_explains_and_draws(run, store, place, tmp_path) -> None:
    """A table for people and JSON for programs say the same hits; the plan has exact counts; the picture is a PNG."""
    example = f"{place[0]}@{place[1]}"
    shown = run("similar", example, "--store", store, "--explain", "--plot", tmp_path / "hits.png")
    assert shown.code == 0, shown.err
    found = run("similar", example, "--store", store, "--explain", "--json").json
    assert found["count"] == len(found["hits"]) + 1 == found["plan"][0]["left"]
    assert f"{len(found['hits'])} of {found['count']} rasters meeting the conditions" in shown.out
    assert all(f"{hit['score']:.4f}" in shown.out for hit in found["hits"])
    far = run("similar", example, "--store", store, "--radius", 0)
    assert "none of them lies within 0 bits" in far.out
    assert f"0 of {found['count']} rasters meeting the conditions, within 0 bits" in far.out
    assert (tmp_path / "hits.png").read_bytes().startswith(b"\x89PNG")


def test_conditions_reach_the_search(run, store, world, place, tmp_path) -> None:
    """Areas in each form, time, season, errors, labels; a scene's file as the example; chips."""
    example = f"{place[0]}@{place[1]}"
    west, south, east, north = bounds(place[0])
    area = tmp_path / "area.geojson"
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    area.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))

    def count(*flags: object) -> int:
        answer = run("similar", example, "--store", store, "--json", *flags)
        assert answer.code == 0, answer.err
        return answer.json["count"]

    whole = count("--within", place[0])
    middle = f"{(west + east) / 2},{(south + north) / 2},0.01"
    assert count("--within", area) == count("--within", middle) == whole
    assert count("--within", f"{west},{south},{east},{north}") == whole
    assert 0 < count("--within", place[0], "--time", "2020-05/2020-06") < whole
    assert count("--within", place[0], "--season", "spring") == 2
    assert count("--within", place[0], "--season", "winter") == 0
    assert count("--within", place[0], "--certificate", "mse=0.005", "--valid", 0.001) == whole
    labelled = run(
        "label", place[0], "grass", "wet", "--time", "2020-05-03", "--who", "kim", "--store", store, "--json"
    )
    assert labelled.json == {"labelled": 1, "unchanged": 0}
    assert count("--label", "wet") == count("--label", "wet", "--label", "grass", "--match", "exactly") == 1
    assert count("--level", "chip") > count()
    shown = run("similar", example, "--store", store, "--level", "cell", "-k", 3)
    assert "read 1 of 2 cells" in shown.out
    near = run(
        "similar", "--near", f"{(west + east) / 2},{(south + north) / 2}", "--store", store, "-k", 2, "--json"
    ).json
    assert [(hit["cell"], hit["score"]) for hit in near["hits"]] == [(place[0], 0), (place[0], 0)]
    words = run("similar", "--words", "wet grass", "--store", store, "-k", 1, "--json").json["hits"]
    assert run("similar", "--text", "wet grass", "--store", store, "-k", 1, "--json").json["hits"] == words
    assert words[0]["labels"] == ["grass", "wet"]
    assert run("similar", "--near", "here", "--store", store).code != 0
    assert "text or location" in run("similar", example, "--text", "wet", "--store", store).err
    file = next(iter(sorted(world.scenes.glob("*.tif"))))
    hits = run("similar", file, "--unlike", example, "-k", 3, "--store", store, "--json").json["hits"]
    assert len(hits) == 3


def test_changes_lists_every_date(run, store, place, tmp_path) -> None:
    """Six dates, ascending, in a table and as JSON; `--only` leaves the changes; the picture is a PNG."""
    found = run("changes", place[0], "--store", store, "--json").json
    times = [row["time"] for row in found["rasters"]]
    assert times == sorted(times)
    assert len(times) == 6
    shown = run("changes", place[0], "--to", f"{place[0]}@{place[1]}", "--store", store, "--plot", tmp_path / "c.png")
    assert shown.code == 0, shown.err
    assert "6 dates" in shown.out
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    only = run("changes", place[0], "--store", store, "--only", "--json").json
    assert only["rasters"] == [row for row in found["rasters"] if row["changed"]]


def test_index_is_seen_made_and_improved(run, store, place) -> None:
    """Build, status, upgrade: one line each for people, the same facts as JSON."""
    built = run("index", "build", "--anew", "--store", store, "--json").json
    assert built["rasters"] >= 6
    found = run("index", "status", "--store", store, "--json").json["indexes"][0]
    assert (found["rasters"], found["behind"]) == (built["rasters"], False)
    assert "level" in run("index", "status", "--store", store).out
    shown = run("index", "upgrade", "--head", "rotation", "--bits", 64, "--store", store)
    assert "generation 1, spectral-1 and rotation of 64 bits" in " ".join(shown.out.split()), shown.err
    assert run("similar", f"{place[0]}@{place[1]}", "--store", store, "--json").json["space"]["generation"] == 1


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (("similar", "u2pc0@1999"), 4, "not-found"),
        (("similar", "no-such.tif"), 2, "invalid-input"),
        (("similar", "{cell}@{day}", "--season", "monsoon"), 2, "invalid-input"),
        (("similar", "{cell}@{day}", "--within", "1,2"), 2, "invalid-input"),
        (("similar", "{cell}@{day}", "--certificate", "mse"), 2, "invalid-input"),
        (("similar", "{cell}@{day}", "-k", 0), 2, "invalid-input"),
        (("changes", "9q"), 4, "not-found"),
        (("label", "9q", "x"), 4, "not-found"),
        (("index", "upgrade", "--bits", 8), 2, "invalid-input"),
    ],
)
def test_what_is_wrong_is_one_line_and_an_exit_code(run, store, place, arguments, code, kind) -> None:
    """Each refusal names its kind and leaves with the code of the guide."""
    filled = [str(a).format(cell=place[0], day=place[1]) for a in arguments]
    outcome = run(*filled, "--store", store)
    assert outcome.code == code, outcome.err
    assert outcome.err.startswith(f"{kind}: ")
    assert outcome.err.count("\n") == 1


def test_label_takes_a_place_and_time_as_similar_does(run, store, place) -> None:
    """GEOHASH@TIME and --time label the same rasters: the second finds just these labels there."""
    cell, time = place
    first = run("label", f"{cell}@{time}", "meadow", "--store", store, "--json")
    again = run("label", cell, "meadow", "--time", time, "--store", store, "--json")
    assert (first.code, again.code) == (0, 0), first.err + again.err
    assert first.json["labelled"] == again.json["unchanged"] == 1


def test_few_labels_are_left_out_and_words_find_what_they_are_called(run, store, place) -> None:
    """An upgrade and the status say why labels were left out, and how to take them; "town" finds the urban fabric."""
    labels = ("Continuous urban fabric", "--legend", "corine-2018")
    assert run("label", f"{place[0]}@{place[1]}", *labels, "--store", store).code == 0
    found = run("similar", "--text", "town", "-k", 1, "--store", store, "--json").json["hits"]
    assert [hit["labels"] for hit in found] == [["Continuous urban fabric"]]
    refused = run("similar", f"{place[0]}@{place[1]}", "--label", "town", "--store", store)
    assert "did you mean 'Urban fabric'" in refused.err
    shown = run("index", "upgrade", "--bits", 32, "--steps", 2, "--store", store)
    assert "have 32 places or more, 2 have to), --by labels takes them" in " ".join(shown.out.split()), shown.err
    status = " ".join(run("index", "status", "--store", store).out.split())
    assert "have 32 places or more, 2 have to), --by labels takes them" in status
    hardly = run("index", "upgrade", "--by", "labels", "--store", store)
    assert (hardly.code, "fewer than two sets of them have two rasters each" in hardly.err) == (2, True)
