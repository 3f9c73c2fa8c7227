"""Rows by words and by distance, against a look at every row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from index_made import LEGEND, SPACE, rows_made
from pyproj import Geod

from geostore.errors import InvalidInput
from geostore.index.encoders.lexical import Lexical
from geostore.index.encoders.static import Static, installed
from geostore.index.filters import Filter
from geostore.index.labels import Legend, called_as, corine, everyday
from geostore.index.ordered import EARTH_KM, by_distance, by_words, distances_km
from geostore.index.segments import Segments
from geostore.partition.geohash import bounds, encode, names_of

GEOD = Geod(a=1000 * EARTH_KM, f=0)


def one_km(lon: float, lat: float, cell: tuple[float, float, float, float]) -> float:
    return float(distances_km(lon, lat, np.array([cell]))[0])


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> tuple[Segments, object]:
    made = Segments.create(tmp_path_factory.mktemp("ordered") / "i", SPACE, 5)
    rows = rows_made(900)
    made.append(rows)
    return made, rows


@pytest.mark.parametrize("seed", range(4))
def test_distances_are_those_of_the_nearest_of_many_points_of_a_cell(seed: int) -> None:
    """On a sphere, by a library, over a dense grid of the cell; by a pole and over the antimeridian; 0 within."""
    rng = np.random.default_rng(seed)
    for letters in (1, 2, 3, 5):
        lon, lat = float(rng.uniform(-180, 180)), float(np.degrees(np.arcsin(rng.uniform(-1, 1))))
        cell = bounds(encode(float(rng.uniform(-180, 180)), float(rng.uniform(-89, 89)), letters))
        x, y = (a.ravel() for a in np.meshgrid(*(np.linspace(cell[i], cell[i + 2], 181) for i in (0, 1))))
        _, _, away = GEOD.inv(np.full(x.size, lon), np.full(x.size, lat), x, y)
        finest = np.radians(max(cell[2] - cell[0], cell[3] - cell[1]) / 180) * EARTH_KM
        found = one_km(lon, lat, cell)
        assert found <= away.min() / 1000 + 1e-6
        assert found >= away.min() / 1000 - finest
        assert one_km((cell[0] + cell[2]) / 2, cell[1], cell) == 0
    assert one_km(179.9, 0.5, (-180.0, 0.0, -179.0, 1.0)) == pytest.approx(np.radians(0.1) * EARTH_KM, rel=1e-3)


def test_the_nearest_cells_come_first_and_of_one_the_newest(index) -> None:
    """All rows, in the order of distance and time; a filter is applied before."""
    made, rows = index
    found = by_distance([made], -55.0, 2.0, 50)
    plain = [one_km(-55.0, 2.0, bounds(str(n))) for n in names_of(rows.cells, 5)]
    np.testing.assert_allclose([-m.score for m in found.found], np.sort(plain)[:50], rtol=1e-5)
    assert found.count == 900
    again = sorted(found.found, key=lambda m: (-m.score, -m.time_us))
    assert [m.row for m in again] == [m.row for m in found.found]
    few = by_distance([made], -55.0, 2.0, 50, wanted=Filter(categories={"sensor": ("landsat-8",)}))
    where = rows.categories["sensor"] == "landsat-8"
    np.testing.assert_allclose([-m.score for m in few.found], np.sort(np.array(plain)[where])[:50], rtol=1e-5)
    assert few.count == where.sum()
    for strange in ((181.0, 0.0), (0.0, float("nan"))):
        with pytest.raises(InvalidInput, match="degrees"):
            by_distance([made], *strange, 3)


def test_words_find_labels_groups_and_facts(index) -> None:
    """Each word counts by the best name of a row, as a look at every row finds; unknown words find nothing."""
    made, rows = index
    encoder = Lexical()

    def plain(words: list[str]) -> np.ndarray:
        vectors = {n.lower(): encoder.text([n])[0] for n in (*LEGEND.labels, *LEGEND.groups)}
        scores = np.zeros(len(rows))
        for i in range(len(rows)):
            mine = {n for b, n in enumerate(LEGEND.labels) if rows.labels[0, i] >> b & 1}
            mine |= {g for g, members in LEGEND.groups.items() if mine & set(members)}
            for word in words:
                near = [float(encoder.text([word])[0] @ vectors[n]) for n in mine]
                scores[i] += max([s for s in near if s >= encoder.least], default=0) / len(words)
        return scores

    found = by_words([made], "lakes of oak", encoder, 60)
    expected = plain(["lakes", "oak", "lakes of oak"])
    np.testing.assert_allclose([m.score for m in found.found], np.sort(expected)[::-1][:60], atol=1e-5)
    assert {m.distance for m in found.found} == {0}
    assert len(by_words([made], "forests", encoder, 900).found) == (plain(["forests", "forests"]) > 0).sum() > 0
    sensor = by_words([made], "sentinel-2a", encoder, 5).found
    assert {made.parts[0].segment.categories["sensor"].names[
        made.parts[0].segment.categories["sensor"].codes[m.row]] for m in sensor} == {"sentinel-2a"}  # fmt: skip
    nothing = by_words([made], "zzz", encoder, 5)
    assert (nothing.found, nothing.count) == ([], 900)
    with pytest.raises(InvalidInput, match="a text of"):
        by_words([made], " ", encoder, 5)
    assert by_words([], "lake", encoder, 5).found == []


def _classes(folder) -> Segments:
    """One row for each class of CORINE, in the legend's order of keys."""
    legend, rows = corine(), rows_made(len(corine().labels))
    labels = legend.pack([(name,) for name in legend.labels])
    made = Segments.create(folder, SPACE, 5)
    made.append(replace(rows, owners=np.arange(len(rows)), labels=labels, legend=legend, categories={}))
    return made


EVERYDAY = {
    "town": {"111", "112"},
    "city centre": {"111"},
    "village": {"111", "112"},
    "road": {"122"},
    "airport": {"124"},
    "quarry": {"131"},
    "wheat": {"211"},
    "rice": {"213"},
    "vineyard": {"221"},
    "orchard": {"222"},
    "olives": {"223"},
    "meadow": {"231"},
    "farmland": {"211", "212", "213", "221", "222", "223", "231", "241", "242", "243", "244"},
    "woods": {"311", "312", "313"},
    "pine": {"312"},
    "heather": {"322"},
    "beach": {"331"},
    "glacier": {"335"},
    "bog": {"412"},
    "mudflat": {"423"},
    "river": {"511"},
    "lake": {"512"},
    "sea": {"523"},
}


@pytest.mark.parametrize("encoder", [Lexical, Static], ids=lambda kind: kind.name)
def test_everyday_words_find_corine_s_classes(tmp_path, encoder) -> None:
    """The best hits of a word are the classes it means, by either encoder, and a word of several finds all of them."""
    if encoder is Static:
        pytest.importorskip("wordllama")
    made, codes = _classes(tmp_path / "i"), corine().codes
    for word, wanted in EVERYDAY.items():
        found = by_words([made], word, encoder(), 44).found
        best = [m for m in found if m.score > found[0].score - 1e-4]
        words = [int(m.segment.labels.words[0, m.row]) for m in best]
        hit = {codes[corine().labels[labels.bit_length() - 1]] for labels in words}
        assert wanted <= hit, (word, hit)
        assert len(hit) <= len(wanted) + 1, (word, hit)


def test_everyday_words_are_of_every_class_and_said_where_a_label_is_unknown() -> None:
    """No class or group without one; a word that is no label names the class it means."""
    assert set(everyday()) == {name.lower() for name in corine().codes}
    assert all(words and len(set(words)) == len(words) for words in everyday().values())
    with pytest.raises(InvalidInput, match="no label 'town' in legend corine-2018; did you mean 'Urban fabric'"):
        corine().positions("town")


def test_what_people_call_the_same_finds_a_store_s_own_labels(tmp_path) -> None:
    """ "pond" finds the label "lake" before what sounds like it; the name itself is better than what it is called."""
    legend, rows = Legend("own-3", ("lake", "pine", "town"), {}, {}), rows_made(3)
    labels = legend.pack([(name,) for name in legend.labels])
    made = Segments.create(tmp_path / "i", SPACE, 5)
    made.append(replace(rows, owners=np.arange(3), labels=labels, legend=legend, categories={}))
    encoders = [Lexical(), *([Static()] if installed() else [])]
    for encoder in encoders:
        for word, wanted, score in (("pond", 1, 0.95), ("lake", 1, 1.0), ("spruce", 2, 0.95), ("city", 4, 0.95)):
            best = by_words([made], word, encoder, 1).found[0]
            assert int(best.segment.labels.words[0, best.row]) == wanted, word
            assert best.score == pytest.approx(score, abs=1e-5)
    assert called_as("nothing of that name") == ()
