"""Vectors of others are read in the columns their publishers use, and searched in a space of their own."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from pyproj import CRS, Transformer

from geostore.errors import Cancelled, Corrupt, InvalidInput, NotComparable, NotFound
from geostore.index.filters import Filter
from geostore.index.imported import import_vectors, open_imported
from geostore.index.spatial import where
from geostore.index.vectors import convention_of, read_vectors
from geostore.keys import time_us

COUNT, WIDTH = 60, 16
LON, LAT = np.linspace(10, 12, COUNT), np.linspace(44, 46, COUNT)
JUNE = datetime(2021, 6, 1, tzinfo=UTC)


def _vectors(seed=0, width=WIDTH):
    return np.random.default_rng(seed).normal(size=(COUNT, width)).astype(np.float32)


def _unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _boxes():
    return [shapely.to_wkb(shapely.box(x - 0.01, y - 0.01, x + 0.01, y + 0.01)) for x, y in zip(LON, LAT, strict=True)]


def _lists(vectors, dtype=None):
    flat = pa.array(vectors.ravel(), dtype or pa.float32())
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])


def _written(path, columns, geo=None):
    table = pa.table(columns)
    meta = {b"geo": json.dumps({"columns": {"geometry": geo or {}}}).encode()}
    pq.write_table(table.replace_schema_metadata(meta), path)
    return path


def _only(path, **more):
    (part,) = read_vectors(path, **more)
    return part


def _earth_index(path, vectors=None, **more):
    made = _vectors() if vectors is None else vectors
    return _written(
        path, {"id": [f"e{i}" for i in range(COUNT)], "geometry": _boxes(), "embedding": _lists(made), **more}
    )


def test_earth_index_has_outlines_and_no_time(tmp_path):
    """The middle of an outline is the place; the time is given, or asked for."""
    path = _earth_index(tmp_path / "a.parquet")
    assert convention_of(path).name == "earth-index"
    part = _only(path, acquired=JUNE)
    assert part.ids[:2] == ["e0", "e1"]
    assert np.allclose(part.lon, LAT - 44 + 10)
    assert np.allclose(part.lat, LAT)
    assert (part.times_us == time_us(JUNE)).all()
    assert np.allclose(part.vectors, _unit(_vectors()), atol=1e-6)
    with pytest.raises(InvalidInput, match="tells no time"):
        _only(path)


def test_clay_names_a_date_and_no_row(tmp_path):
    """`embeddings`, lists of any length column; rows are named by what there is."""
    columns = {
        "source_url": ["s3://a.tif"] * COUNT, "date": ["2021-06-01"] * COUNT, "geometry": _boxes(),
        "embeddings": pa.array(_vectors().tolist(), pa.list_(pa.float32())),
    }  # fmt: skip
    path = _written(tmp_path / "clay.parquet", columns)
    part = _only(path)
    assert convention_of(path).name == "clay"
    assert set(part.ids) == {"s3://a.tif"}
    assert (part.times_us == time_us(JUNE)).all()


def test_major_tom_names_the_middle_and_an_instant(tmp_path):
    """`centre_lon` and `centre_lat` count before the outline, in whatever CRS that is."""
    stamps = pa.array([JUNE] * COUNT, pa.timestamp("ms", tz="UTC"))
    columns = {
        "unique_id": [f"m{i}" for i in range(COUNT)], "embedding": _lists(_vectors()), "timestamp": stamps,
        "product_id": ["S2A"] * COUNT, "grid_cell": ["1U_2R"] * COUNT, "geometry": _boxes(),
        "centre_lat": LAT, "centre_lon": LON,
    }  # fmt: skip
    path = _written(tmp_path / "tom.parquet", columns)
    part = _only(path)
    assert convention_of(path).name == "major-tom"
    assert (part.ids[3], part.times_us[3]) == ("m3", time_us(JUNE))
    assert (part.lon == LON).all()


def test_alphaearth_is_unpacked_as_published_and_masked_rows_are_left_out(tmp_path):
    """Whole numbers are squared with their sign; -128 is no measurement; a year is its first instant."""
    stored = np.random.default_rng(1).integers(-127, 128, (COUNT, 64)).astype(np.int8)
    stored[5] = -128
    columns = {f"A{i:02d}": stored[:, i] for i in range(64)}
    path = _written(tmp_path / "aef.parquet", {**columns, "year": [2021] * COUNT, "lon": LON, "lat": LAT})
    part = _only(path)
    assert convention_of(path).name == "alphaearth"
    assert part.left_out == 1
    unpacked = np.sign(stored[0].astype(float)) * (stored[0] / 127.5) ** 2
    assert np.allclose(part.vectors[0], unpacked / np.linalg.norm(unpacked), atol=1e-6)
    assert part.times_us[0] == time_us(datetime(2021, 1, 1, tzinfo=UTC))
    whole = {f"A{i:02d}": (stored[:, i] / 127.0).astype(np.float32) for i in range(64)}
    floats = _only(_written(tmp_path / "f.parquet", {**whole, "year": [2021] * COUNT, "lon": LON, "lat": LAT}))
    assert np.allclose(floats.vectors[0], _unit(stored[:1].astype(np.float32)), atol=1e-6)


@pytest.mark.parametrize("each", [False, True])
def test_tessera_has_a_scale(tmp_path, each):
    """One a row, or one a component."""
    stored = np.random.default_rng(2).integers(-100, 100, (COUNT, 128)).astype(np.int8)
    scales = np.random.default_rng(3).uniform(0.01, 0.1, (COUNT, 128 if each else 1)).astype(np.float32)
    columns = {
        "embedding": _lists(stored, pa.int8()), "scales": _lists(scales) if each else scales[:, 0],
        "year": [2020] * COUNT, "longitude": LON, "latitude": LAT,
    }  # fmt: skip
    path = _written(tmp_path / "tessera.parquet", columns)
    assert convention_of(path).name == "tessera"
    assert np.allclose(_only(path).vectors, _unit(stored * scales), atol=1e-6)


def test_another_crs_is_brought_to_degrees(tmp_path):
    """GeoParquet says what its coordinates are."""
    to_metres = Transformer.from_crs("OGC:CRS84", "EPSG:32632", always_xy=True)
    points = [shapely.to_wkb(shapely.Point(*to_metres.transform(x, y))) for x, y in zip(LON, LAT, strict=True)]
    columns = {"id": [str(i) for i in range(COUNT)], "geometry": points, "embedding": _lists(_vectors())}
    path = _written(tmp_path / "utm.parquet", columns, {"crs": CRS.from_epsg(32632).to_json_dict()})
    part = _only(path, acquired=JUNE)
    assert np.allclose(part.lon, LON, atol=1e-7)
    assert np.allclose(part.lat, LAT, atol=1e-7)


def test_rows_that_cannot_be_searched_are_left_out_and_counted(tmp_path):
    """No vector, no direction, nothing finite, no place, no time."""
    made = _vectors()
    made[1], made[2, 3] = 0, np.nan
    rows = [None if i == 0 else v for i, v in enumerate(made.tolist())]
    lon = LON.copy()
    lon[3] = np.nan
    columns = {
        "id": [str(i) for i in range(COUNT)], "embedding": pa.array(rows, pa.list_(pa.float32())),
        "lon": lon, "lat": LAT, "datetime": [None if i == 4 else "2021-06-01T00:00:00Z" for i in range(COUNT)],
    }  # fmt: skip
    part = _only(_written(tmp_path / "holes.parquet", columns))
    assert part.left_out == 5
    assert part.ids[0] == "5"


def test_search_agrees_with_a_comparison_of_all(tmp_path):
    """The same rows in the same order as by all cosines, whole and under a filter; open again it answers alike."""
    path = _earth_index(tmp_path / "a.parquet")
    made = import_vectors([path], tmp_path / "index", model="earth-index v2", acquired=JUNE)
    vectors, query = _unit(_vectors()), _vectors(seed=9)[0]
    best = np.argsort(-(vectors @ _unit(query[None])[0]))
    hits = made.nearest(query, 5)
    assert [h.id for h in hits] == [f"e{i}" for i in best[:5]]
    assert np.allclose([h.score for h in hits], (vectors @ _unit(query[None])[0])[best[:5]], atol=0.02)
    assert hits == open_imported(tmp_path / "index").nearest(query, 5)
    wanted = Filter(within=where((9.0, 43.0, 11.0, 45.0)))
    inside = [i for i in best if LON[i] < 10.99]
    assert [h.id for h in made.nearest(query, 3, wanted=wanted)] == [f"e{i}" for i in inside[:3]]
    assert made.nearest(query, 3, wanted=Filter(start=datetime(2022, 1, 1, tzinfo=UTC))) == []
    assert len(made) == COUNT


def test_rows_of_one_name_are_all_kept(tmp_path):
    """Names need not be unique, in one file or in several."""
    paths = [_earth_index(tmp_path / f"{i}.parquet", _vectors(i)) for i in range(2)]
    made = import_vectors(paths, tmp_path / "index", acquired=JUNE)
    assert len(made) == 2 * COUNT
    assert [h.id for h in made.nearest(_vectors(1)[7], 1)] == ["e7"]


def test_spaces_of_different_models_are_not_comparable(tmp_path):
    """Another width, another convention, another model's name; an index whose files do not belong together."""
    path = _earth_index(tmp_path / "a.parquet")
    first = import_vectors([path], tmp_path / "first", model="v1", acquired=JUNE)
    second = import_vectors([path], tmp_path / "second", model="v2", acquired=JUNE)
    with pytest.raises(NotComparable, match="imported: v2"):
        first.rows.space.check(second.rows.space)
    with pytest.raises(NotComparable, match="16 components"):
        first.nearest(np.ones(17, np.float32), 1)
    wide = _earth_index(tmp_path / "w.parquet", _vectors(width=24))
    with pytest.raises(NotComparable, match="24 components after 16"):
        import_vectors([path, wide], tmp_path / "mixed", acquired=JUNE)
    tom = {"unique_id": ["a"], "embedding": _lists(_vectors()[:1]), "lon": [1.0], "lat": [2.0]}
    with pytest.raises(NotComparable, match="columns of"):
        import_vectors([path, _written(tmp_path / "t.parquet", tom)], tmp_path / "both", acquired=JUNE)
    (tmp_path / "first" / "model.json").write_bytes((tmp_path / "second" / "model.json").read_bytes())
    with pytest.raises(Corrupt, match="import again"):
        open_imported(tmp_path / "first")


def test_a_folder_keeps_the_vectors_of_its_model(tmp_path):
    """Another model is refused and changes nothing; the same one, or one whose files are torn, is imported again."""
    path = _earth_index(tmp_path / "e.parquet")
    folder = tmp_path / "index"
    import_vectors([path], folder, model="v1", acquired=JUNE)
    with pytest.raises(NotComparable, match="holds vectors of 'v1'; give those of 'v2' a folder"):
        import_vectors([path], folder, model="v2", acquired=JUNE)
    assert open_imported(folder).model == "v1"
    assert len(import_vectors([path], folder, model="v1", acquired=JUNE)) == len(_vectors())
    (folder / "model.json").write_text("{")
    assert import_vectors([path], folder, model="v2", acquired=JUNE).model == "v2"
    with pytest.raises(InvalidInput, match=r"paths = \[\]; give"):
        import_vectors([], folder)


def test_an_import_that_fails_or_is_stopped_leaves_what_was_there(tmp_path):
    """A second file that does not fit, or a stop while rows are read: the old index answers, nothing else is there."""
    path, folder = _earth_index(tmp_path / "a.parquet"), tmp_path / "index"
    told = []
    made = import_vectors([path], folder, acquired=JUNE, progress=lambda what, share: told.append((what, share)))
    assert told == [("reading a.parquet", 0.0), ("import", 1.0)]
    before = made.nearest(_vectors()[0], 5)
    wide = _earth_index(tmp_path / "w.parquet", _vectors(width=24))

    def stop(what, share):
        raise Cancelled("enough")

    for paths, progress, error in (([path, wide], lambda *_: None, NotComparable), ([path], stop, Cancelled)):
        with pytest.raises(error):
            import_vectors(paths, folder, acquired=JUNE, progress=progress)
        assert open_imported(folder).nearest(_vectors()[0], 5) == before
        assert sorted(p.name for p in folder.iterdir()) == ["head.bin", "model.json", "rows"]


def test_a_row_is_looked_near_by_its_name_or_its_place(tmp_path):
    """Its vector as it was read, the mean of rows of one name or one cell; a name or a place without a row says so."""
    paths = [_earth_index(tmp_path / f"{i}.parquet", _vectors(i)) for i in range(2)]
    made = import_vectors(paths, tmp_path / "index", acquired=JUNE)
    both = (_unit(_vectors(0)) + _unit(_vectors(1)))[7] / 2
    assert np.allclose(made.vector_of("e7"), both, atol=0.01)
    place = shapely.centroid(shapely.from_wkb(_boxes()[7]))
    assert np.allclose(made.vector_at(place.x, place.y), both, atol=0.01)
    with pytest.raises(NotFound, match="no row '7' among the 120"):
        made.vector_of("7")
    with pytest.raises(NotFound, match="no row of earth-index lies in"):
        made.vector_at(-60.0, 0.0)
    with pytest.raises(InvalidInput, match="not on Earth"):
        made.vector_at(181.0, 0.0)


def test_what_is_no_file_of_vectors_is_refused(tmp_path):
    """Nothing there, no Parquet, no vectors, no places, widths that differ, times that are none."""
    with pytest.raises(NotFound, match="no file"):
        convention_of(tmp_path / "none.parquet")
    with pytest.raises(NotFound, match="no imported vectors"):
        open_imported(tmp_path)
    (tmp_path / "a.parquet").write_bytes(b"PAR0")
    with pytest.raises(InvalidInput, match="no Parquet"):
        convention_of(tmp_path / "a.parquet")
    with pytest.raises(InvalidInput, match="wanted embedding"):
        convention_of(_written(tmp_path / "b.parquet", {"lon": LON, "lat": LAT}))
    with pytest.raises(InvalidInput, match="wanted geometry"):
        convention_of(_written(tmp_path / "c.parquet", {"embedding": _lists(_vectors())}))
    uneven = pa.array([[1.0], [1.0, 2.0]], pa.list_(pa.float32()))
    path = _written(tmp_path / "d.parquet", {"embedding": uneven, "lon": [1.0, 2.0], "lat": [1.0, 2.0]})
    with pytest.raises(InvalidInput, match="different widths"):
        _only(path, acquired=JUNE)
    for time, says in ((["soon", "later"], "ISO 8601"), ([5, 6], "years")):
        columns = {"embedding": _lists(_vectors()[:2]), "lon": [1.0, 2.0], "lat": [1.0, 2.0], "date": time}
        with pytest.raises(InvalidInput, match=says):
            _only(_written(tmp_path / "e.parquet", columns))
