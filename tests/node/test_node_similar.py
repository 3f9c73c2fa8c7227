"""similar and changes on a real store, against a look at every decoded raster; what cannot be compared is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from search_store import (
    BANDS,
    CELLS,
    COLLECTION,
    MONTHS,
    arrays_of,
    brute,
    fill,
    hits,
    key,
    new_node,
    picture,
    put,
    similar,
    when,
)

from geostore.collection import collection_to_dict
from geostore.errors import BadRequest, InvalidInput, NotComparable, NotFound
from geostore.index.descriptors.spectral import Spectral
from geostore.node import Node
from geostore.partition.geohash import bounds
from geostore.query import messages
from geostore.raster import Bands

FIRST = key("u8hks", "2020-01-10")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with new_node(tmp_path_factory.mktemp("similar") / "store") as made:
        fill(made)
        labels = {"u8hks": ["water", "shore"], "u8hkt": ["field"], "u8hku": ["town"], "u8hkv": ["water"]}
        for cell, names in labels.items():
            made.answer(messages.Label(keys=[key(cell, day) for day in MONTHS], labels=names))
        yield made


@pytest.fixture(scope="module")
def ranking(node: Node) -> list[tuple[float, tuple[str, str]]]:
    return brute(node, FIRST)


def test_similar_is_what_a_look_at_every_decoded_raster_gives(node: Node, ranking: list) -> None:
    """All other rasters, in the order of their cosines, with these cosines; the example itself is not among them."""
    reply = similar(node, FIRST, k=100)
    assert reply.fields["count"] == len(CELLS) * len(MONTHS)
    assert hits(reply) == [hit for _, hit in ranking]
    np.testing.assert_allclose(reply.arrays[1], [score for score, _ in ranking], atol=1e-5)
    assert reply.arrays[0].dtype == np.int32
    assert (np.diff(reply.arrays[1]) <= 0).all()


def test_every_kind_of_example_means_the_same(node: Node) -> None:
    """A key, its pixels, its descriptor, and itself twice give the same hits."""
    by_key = similar(node, FIRST, k=5)
    raster = picture("u8hks", "2020-01-10")
    bands = [vars(b) for b in BANDS]
    by_pixels = node.answer(
        messages.Similar(like=[messages.Example(pixels=0, valid=1, bands=bands)], k=6), arrays_of(raster)
    )
    by_vector = node.answer(messages.Similar(like=[messages.Example(vector=0)], k=6), [by_key.arrays[2]])
    twice = node.answer(messages.Similar(like=[messages.Example(key=FIRST), messages.Example(key=FIRST)], k=5))
    assert hits(by_pixels) == hits(by_vector) == [("u8hks", "2020-01-10"), *hits(by_key)]
    assert hits(twice) == hits(by_key)
    np.testing.assert_allclose(twice.arrays[2], by_key.arrays[2], atol=1e-6)


def test_counter_examples_push_away(node: Node) -> None:
    """What is like the first place but not like the fourth has the first place's dates further up."""
    other = key("u8hkv", "2020-01-10")
    both = [messages.Example(key=FIRST)], [messages.Example(key=other)]
    plain = [hit for hit in hits(similar(node, FIRST, k=100)) if hit != ("u8hkv", "2020-01-10")]
    pushed = hits(node.answer(messages.Similar(like=both[0], unlike=both[1], k=100)))
    assert sorted(pushed) == sorted(plain)
    ranks = [[i for i, (cell, _) in enumerate(order) if cell == "u8hks"] for order in (pushed, plain)]
    assert sum(ranks[0]) < sum(ranks[1])


def test_a_radius_is_a_limit_in_bits(node: Node) -> None:
    """Hits within 8 bits are those of the whole answer whose distance is at most 8."""
    whole = similar(node, FIRST, k=100)
    near = similar(node, FIRST, k=100, radius=8)
    assert hits(near) == [hit for hit, far in zip(hits(whole), whole.arrays[0], strict=True) if far <= 8]
    assert 0 < len(hits(near)) < len(hits(whole))


@pytest.mark.parametrize(
    ("wanted", "meets"),
    [
        ({"within": {"geohashes": ["u8hkt"]}}, lambda cell, day: cell == "u8hkt"),
        ({"within": {"geohashes": ["u8hk"]}}, lambda cell, day: True),
        ({"within": {"box": bounds("u8hku")}}, lambda cell, day: cell == "u8hku"),
        ({"within": {"circle": [*((np.array(bounds("u8hkv")[:2]) + bounds("u8hkv")[2:]) / 2), 0.5]}},
         lambda cell, day: cell == "u8hkv"),
        ({"seasons": ["winter"]}, lambda cell, day: day[5:7] == "01"),
        ({"seasons": ["summer", "spring"]}, lambda cell, day: day[5:7] in ("07", "04")),
        ({"sensors": ["sentinel-2"]}, lambda cell, day: day < "2021"),
        ({"sensors": ["landsat-8", "spot"]}, lambda cell, day: day > "2021"),
        ({"start_us": when("2020-04-10"), "end_us": when("2021-01-10")}, lambda cell, day: "2020-04" < day < "2021"),
        ({"numbers": {"cloud": [None, 0.05]}}, lambda cell, day: day[5:7] in ("01", "04")),
        ({"numbers": {"valid_fraction": [0.98, None], "mse": [None, 0.0]}}, lambda cell, day: day[5:7] in ("01", "04")),
        ({"labels": {"how": "some", "names": ["water", "town"]}}, lambda cell, day: cell != "u8hkt"),
        ({"labels": {"how": "at-least", "names": ["water", "shore"]}}, lambda cell, day: cell == "u8hks"),
        ({"labels": {"how": "exactly", "names": ["water"]}}, lambda cell, day: cell == "u8hkv"),
        ({"collection": "farm", "group": "100m"}, lambda cell, day: True),
    ],
)  # fmt: skip
def test_filters_come_first_and_are_exact(node: Node, ranking: list, wanted: dict, meets: object) -> None:
    """The hits are the brute-force order of just the rasters that meet the filter; the count includes the example."""
    reply = similar(node, FIRST, k=100, wanted=wanted, explain=True)
    assert hits(reply) == [hit for _, hit in ranking if meets(*hit)]  # type: ignore[operator]
    every = [(c, d) for c in CELLS for d in MONTHS if meets(c, d)]  # type: ignore[operator]
    assert reply.fields["count"] == len(every) == sum(p["left"] for p in reply.fields["plan"])


def test_nothing_meets_and_the_answer_is_well_formed(node: Node) -> None:
    """An area without rasters, a sensor nobody has, and conditions that exclude each other: no hits, a count of 0."""
    for wanted in (
        {"within": {"box": [-70, -10, -60, 0]}},
        {"sensors": ["spot"]},
        {"seasons": ["winter"], "start_us": when("2020-07-01"), "end_us": when("2020-08-01")},
    ):
        reply = similar(node, FIRST, wanted=wanted)
        assert reply.fields["hits"] == []
        assert reply.fields["count"] == 0
        assert [a.shape for a in reply.arrays] == [(0,), (0,), (Spectral().width(BANDS),)]
        lone = node.answer(messages.Changes.model_validate({"geohash": "u8hks", "wanted": {"sensors": ["spot"]}}))
        assert lone.fields["rasters"] == []


def test_chips_say_where_in_the_cell(node: Node) -> None:
    """Hits among chips lie in children of their raster's cell; an area smaller than a cell leaves its chips alone."""
    reply = similar(node, FIRST, k=20, level="chip")
    assert reply.fields["count"] > 20 * len(CELLS)
    assert all(len(h["cell"]) == 6 and h["cell"].startswith(h["geohash"]) for h in reply.fields["hits"])
    west, south, east, north = bounds("u8hkt")
    corner = {"box": [west, south, west + (east - west) / 9, south + (north - south) / 9]}
    found = similar(node, FIRST, k=100, level="chip", wanted={"within": corner}).fields["hits"]
    assert {h["cell"] for h in found} == {"u8hkt0"}


def test_a_chip_is_an_example_of_its_own(node: Node) -> None:
    """What is like one chip: itself left out, its own score 1, the order that of its descriptor; no chip elsewhere."""
    chip = messages.Example(key=FIRST, cell="u8hks3")
    by_chip = node.answer(messages.Similar(like=[chip], level="chip", k=10))
    by_vector = node.answer(
        messages.Similar(like=[messages.Example(vector=0)], level="chip", k=11), [by_chip.arrays[2]]
    )
    mine = by_vector.fields["hits"][0]
    assert (mine["cell"], mine["time_us"]) == ("u8hks3", FIRST.time_us)
    assert by_vector.arrays[1][0] == pytest.approx(1.0, abs=1e-6)
    assert by_chip.fields["hits"] == by_vector.fields["hits"][1:]
    for cell, match in (("u8hkt3", "no chip of"), ("u8hkt", "no chip of"), ("u8hks33", "no chip of")):
        with pytest.raises(InvalidInput, match=match):
            node.answer(messages.Similar(like=[messages.Example(key=FIRST, cell=cell)]))


@pytest.mark.parametrize(("product", "found"), [("generic", []), ("sentinel-2-l2a", ["u8hkt"])])
def test_a_sensor_that_no_file_told_is_the_product(tmp_path: Path, product: str, found: list[str]) -> None:
    """A raster of unknown platform in a Sentinel-2 collection is found by "sentinel-2"; in a generic one it is not."""
    with new_node(tmp_path / "store") as made:
        collection = collection_to_dict(replace(COLLECTION, product=product, version=2))
        made.answer(messages.PutCollection(collection=collection))
        put(made, "u8hks", "2020-01-10")
        put(made, "u8hkt", "2020-01-10", platform="unknown")
        like = [messages.Example(key=key("u8hks", "2020-01-10", "sentinel-2a"))]
        reply = made.answer(messages.Similar(like=like, wanted=messages.Wanted(sensors=["sentinel-2"])))
        assert [hit["geohash"] for hit in reply.fields["hits"]] == found


def test_changes_are_dated_and_placed(tmp_path: Path) -> None:
    """A field that is built over in the fifth of eight dates: that date is the change, and only that."""
    days = [f"2020-{month:02d}-10" for month in (1, 2, 3, 4, 5, 6, 7, 8)]
    with new_node(tmp_path / "store") as made:
        for day in days:
            put(made, "u8hkt", day, kind=1 if day < "2020-05" else 2)
        reply = made.answer(messages.Changes(geohash="u8hkt"))
        rows = reply.fields["rasters"]
        assert [r["changed"] for r in rows] == [day == "2020-05-10" for day in days]
        assert rows[4]["where"].startswith("u8hkt")
        assert len(rows[4]["where"]) == 6
        likeness, step, shift = reply.arrays
        assert likeness[:4].max() < likeness[4:].min()
        assert np.isnan(step[0])
        assert int(np.nanargmax(step)) == int(np.nanargmax(shift)) == 4
        assert np.isnan(shift).tolist() == [i < 3 or i > 5 for i in range(8)]  # fewer than three on a side say nothing
        example = messages.Example(key=key("u8hkt", days[0], "sentinel-2a"))
        back = made.answer(messages.Changes(geohash="u8hkt", to=example)).arrays[0]
        assert back[:4].min() > back[4:].max()
        fine = made.answer(messages.Changes(geohash=rows[4]["where"]))
        assert [r["changed"] for r in fine.fields["rasters"]] == [day == "2020-05-10" for day in days]


def test_seasons_are_no_change(node: Node) -> None:
    """Where every season was seen in two years it is taken off; here only some were, and the answer says so."""
    assert node.answer(messages.Changes(geohash="u8hks")).fields["deseasoned"] is False
    twice = messages.Wanted(seasons=["winter", "summer"])
    assert node.answer(messages.Changes(geohash="u8hks", wanted=twice)).fields["deseasoned"] is True


def test_what_cannot_be_compared_is_refused(node: Node) -> None:
    """Other bands, other widths, another space: not-comparable, and what to do."""
    few = [vars(b) for b in BANDS][:3]
    raster = picture("u8hks", "2020-01-10")
    with pytest.raises(NotComparable, match="blue, green, red; this store has blue, green, red, nir"):
        node.answer(
            messages.Similar(like=[messages.Example(pixels=0, valid=1, bands=few)]),
            [raster.pixels[:3], raster.valid.view(np.uint8)],
        )
    with pytest.raises(NotComparable, match=r"shape \(8,\)"):
        node.answer(messages.Similar(like=[messages.Example(vector=0)]), [np.ones(8, np.float32)])
    with pytest.raises(NotComparable, match="space 0123"):
        node.answer(messages.Similar(like=[messages.Example(vector=0, space="0123")]), [np.ones(79, np.float32)])


def test_a_place_is_followed_only_with_what_it_can_be_compared_with(node: Node, tmp_path: Path) -> None:
    """`to` of other bands, in another order or fewer: not-comparable; a raster that is not stored: not-found."""
    bands = [vars(b) for b in BANDS]
    arrays = arrays_of(picture("u8hks", "2020-01-10"))
    for chosen in ([3, 2, 1, 0], [0, 1]):
        example = messages.Example(pixels=0, valid=1, bands=[bands[i] for i in chosen])
        for wanted in ({}, {"sensors": ["spot"]}):  # also where no date is left to compare with
            with pytest.raises(NotComparable, match="u8hks has blue, green, red, nir"):
                node.answer(
                    messages.Changes.model_validate({"geohash": "u8hks", "to": example, "wanted": wanted}),
                    [arrays[0][chosen], arrays[1]],
                )
    with pytest.raises(NotFound, match="no raster"):
        node.answer(messages.Changes(geohash="u8hks", to=messages.Example(key=key("u8hks", "1999-01-01"))))


def test_other_collections_and_groups_are_not_an_empty_answer(tmp_path: Path) -> None:
    """A name that is none is not found; a collection of other bands, or other kinds of them, is not comparable."""
    counts = Bands(tuple(replace(b, kind="counts") for b in BANDS))
    other = replace(COLLECTION, name="other", groups={"20m": counts})
    with new_node(tmp_path / "store") as made:
        put(made, "u8hks", "2020-01-10")
        made.answer(messages.PutCollection(collection=collection_to_dict(other)))
        mine = key("u8hks", "2020-01-10", "sentinel-2a")
        for wanted, error, match in (
            ({"collection": "fram"}, NotFound, "no collection 'fram'"),
            ({"group": "10m"}, NotFound, "no band group '10m' in this store; it has 100m, 20m"),
            ({"collection": "farm", "group": "20m"}, NotFound, "no band group '20m' in farm; it has 100m"),
            ({"collection": "other"}, NotComparable, "has bands blue, green, red, nir, and those of other are others"),
            ({"group": "20m"}, NotComparable, "those of 20m are others"),
        ):
            with pytest.raises(error, match=match):
                similar(made, mine, wanted=wanted)
        assert similar(made, mine, wanted={"group": "100m"}).fields["count"] == 1
        with pytest.raises(NotComparable, match=r"bands blue \(counts\), .* this store has blue, green, red, nir:"):
            made.answer(
                messages.Similar(like=[messages.Example(pixels=0, valid=1, bands=[vars(b) for b in counts])]),
                arrays_of(picture("u8hks", "2020-01-10")),
            )


@pytest.mark.parametrize(
    ("wanted", "match"),
    [
        ({"labels": {"how": "some", "names": ["lake"]}}, "no label 'lake'"),
        ({"seasons": ["monsoon"]}, "no season"),
        ({"numbers": {"greenness": [0, 1]}}, "no column .*valid_fraction"),
        (
            {"within": {"geojson": {"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [1, 0], [0, 1], [0, 0]]]}}},
            "cross",
        ),
        (
            {
                "within": {
                    "geojson": {
                        "type": "Polygon",
                        "coordinates": [[[179, 0], [-179, 1], [-179, 0], [179, 1], [179, 0]]],
                    }
                }
            },
            "cross",
        ),
        ({"within": {"geohashes": ["al"]}}, "not a geohash"),
        ({"start_us": 5, "end_us": 5}, "end before they begin"),
        ({"start_us": 2**62}, "years 1 to 9999"),
    ],
)
def test_a_filter_that_is_none_says_so(node: Node, wanted: dict, match: str) -> None:
    """Unknown labels, seasons and columns, an outline that crosses itself, a name that is no geohash, odd times."""
    with pytest.raises(InvalidInput, match=match):
        similar(node, FIRST, wanted=wanted)


@pytest.mark.parametrize("length", [1e-30, 1e37, 1e300])
def test_a_vector_s_length_says_nothing(node: Node, length: float) -> None:
    """However short or long, it is the direction that is looked near: squares neither vanish nor overflow."""
    plain = similar(node, FIRST, k=3)
    dtype = np.float64 if length > 1e38 else np.float32
    reply = node.answer(
        messages.Similar(like=[messages.Example(vector=0)], k=4), [plain.arrays[2].astype(dtype) * dtype(length)]
    )
    assert hits(reply)[1:] == hits(plain)
    assert reply.arrays[1][0] == pytest.approx(1.0, abs=1e-6)


def test_examples_that_are_none_say_so(node: Node) -> None:
    """NaN, zeros, too few pixels, pixels that are not what their bands say, an unknown raster, two that cancel out."""
    bands = [{**vars(b), "dtype": "float32", "scale": 1.0} for b in BANDS]
    example = messages.Example(pixels=0, valid=1, bands=bands)
    pixels, valid = np.full((4, 9, 9), 0.1, np.float32), np.ones((9, 9), np.uint8)
    pixels[2, 3, 3] = np.nan
    with pytest.raises(InvalidInput, match="not finite"):
        node.answer(messages.Similar(like=[example]), [pixels, valid])
    with pytest.raises(InvalidInput, match="fewer than 16"):
        node.answer(messages.Similar(like=[example]), [pixels, np.zeros((9, 9), np.uint8)])
    with pytest.raises(InvalidInput, match="float32"):
        node.answer(messages.Similar(like=[example]), [np.ones((4, 9, 9), np.uint16), valid])
    with pytest.raises(InvalidInput, match="not finite"):
        node.answer(messages.Similar(like=[messages.Example(vector=0)]), [np.full(79, np.nan, np.float32)])
    with pytest.raises(BadRequest, match="carries 0"):
        node.answer(messages.Similar(like=[messages.Example(vector=0)]), [])
    with pytest.raises(BadRequest, match="as `rasters` describes it"):
        node.answer(messages.Similar(like=[messages.Example(pixels=0, valid=1, bands=[{"nme": "x"}])]), [pixels, valid])
    for scale, error in ((np.nan, InvalidInput), (0.0, InvalidInput), ("x", BadRequest)):
        strange = messages.Example(pixels=0, valid=1, bands=[{**band, "scale": scale} for band in bands])
        with pytest.raises(error, match="number"):
            node.answer(messages.Similar(like=[strange]), [np.ones((4, 9, 9), np.float32), valid])
    with pytest.raises(NotFound, match="no raster"):
        similar(node, key("u8hks", "1999-01-01"))
    with pytest.raises(InvalidInput, match="years 1 to 9999"):
        similar(node, FIRST.model_copy(update={"time_us": 2**62}))
    vector = similar(node, FIRST, k=1).arrays[2]
    pair = [messages.Example(vector=0), messages.Example(vector=1)]
    with pytest.raises(InvalidInput, match="cancel out"):
        node.answer(messages.Similar(like=pair), [vector, -vector])
    with pytest.raises(NotFound, match="nothing is stored at"):
        node.answer(messages.Changes(geohash="9q"))
    with pytest.raises(InvalidInput, match="4 of geohash"):
        node.answer(messages.Changes(geohash="u8hk"))
    with pytest.raises(InvalidInput, match="finer than a chip"):
        node.answer(messages.Changes(geohash="u8hks00"))


def test_an_empty_store_has_nothing_similar(tmp_path: Path) -> None:
    """A store without rasters answers with not-found, and its index is empty."""
    with new_node(tmp_path / "store") as made:
        with pytest.raises(NotFound, match="nothing is stored yet"):
            made.answer(messages.Similar(like=[messages.Example(vector=0)]), [np.ones(79, np.float32)])
        assert made.answer(messages.IndexStatus()).fields["indexes"] == []
        assert made.answer(messages.IndexBuild()).fields["rasters"] == 0
