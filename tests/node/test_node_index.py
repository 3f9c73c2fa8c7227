"""The index beside the tables: level after every change, healed after every accident, made anew to the same rows."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from search_store import BANDS, CELLS, brute, contents, fill, hits, key, new_node, put, similar

from geostore.errors import Cancelled, Forbidden, InvalidInput, NotComparable, NotFound, Unavailable
from geostore.index import kernel
from geostore.node import Node
from geostore.node.search import following, judging, sampling
from geostore.node.search.levels import Levels
from geostore.query import messages
from geostore.settings import Settings

DAYS = ("2020-01-10", "2020-04-10", "2021-01-10")
FIRST = key("u8hks", "2020-01-10")


def anew(node: Node) -> dict:
    """The rows of the index once it was made from the tables alone."""
    node.answer(messages.IndexBuild(anew=True))
    return contents(node)


def label(node: Node, *names: str, cell: str = "u8hks", day: str = DAYS[0], legend: str = "own") -> dict:
    request = messages.Label(keys=[key(cell, day)], labels=names, legend=legend, who="kim", reason="seen")
    return node.answer(request).fields


def labelled(node: Node, how: str, *names: str) -> list[tuple[str, str]]:
    wanted = {"labels": {"how": how, "names": list(names)}}
    return sorted(hits(similar(node, key("u8hkv", "2021-01-10"), wanted=wanted)))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("index") / "store"
    with new_node(path) as node:
        fill(node, DAYS)
        similar(node, FIRST)
    return path


@pytest.fixture
def node(filled: Path, tmp_path: Path) -> Node:
    shutil.copytree(filled, tmp_path / "store", dirs_exist_ok=True)
    with Node.open(str(tmp_path / "store"), settings=Settings(workers=1)) as node:
        yield node


def test_an_index_made_piece_by_piece_equals_one_made_at_once(node: Node) -> None:
    """Put, label, a later processing, a withdrawal, a fit, prune, compact, with questions in between: equal rows."""
    seen = [len(contents(node)["('raster', 5)"])]
    put(node, "u8hkt", "2021-10-10")
    label(node, "field", cell="u8hkt")
    seen.append(len(contents(node)["('raster', 5)"]))
    put(node, "u8hkt", "2020-01-10", revision=7, kind=2)
    node.answer(messages.Withdraw(collection="farm", scene="u8hku-2020-04-10-0"))
    seen.append(len(contents(node)["('raster', 5)"]))
    assert seen == [12, 13, 12]
    before = contents(node)
    node.answer(messages.Fit(geohash="u8hks"))
    fitted = contents(node)
    assert fitted != before
    assert not {row[0] for row in set(fitted["('chip', 6)"]) ^ set(before["('chip', 6)"])} - {
        row[0] for row in before["('raster', 5)"] if b"u8hks" in row[0]
    }
    node.answer(messages.Prune(now=True))
    node.answer(messages.Compact())
    put(node, "u8hkv", "2021-10-10")
    assert contents(node) == anew(node)
    assert hits(similar(node, FIRST, k=100)) == [hit for _, hit in brute(node, FIRST)]
    assert similar(node, FIRST, wanted={"numbers": {"mse": [None, 0.0]}}).fields["count"] == 8 + 2


def test_measured_errors_of_values_are_conditions(node: Node) -> None:
    """Mean and 99th percentile are asked as the MSE is; what is exact has no error."""
    node.answer(messages.Fit(geohash="u8hks"))
    kept = [r["certificate"] for r in node.answer(messages.Rasters()).fields["rasters"]]
    for name in ("mae", "p99", "max_error", "mse"):
        errors = sorted(c[name] for c in kept)
        assert errors[0] == 0 < errors[-1]
        for bound in (0.0, errors[-2], errors[-1]):
            count = similar(node, FIRST, wanted={"numbers": {name: [None, bound]}}).fields["count"]
            assert count == sum(e <= bound for e in errors), (name, bound)


def test_what_is_withdrawn_is_no_hit_and_no_example(node: Node) -> None:
    """The scene's raster goes from rasters and chips at the next question, and comes back when it is put again."""
    assert ("u8hks", "2021-01-10") in hits(similar(node, FIRST))
    node.answer(messages.Withdraw(collection="farm", scene="u8hks-2021-01-10-0"))
    assert ("u8hks", "2021-01-10") not in hits(similar(node, FIRST, k=100))
    assert ("u8hks", "2021-01-10") not in hits(similar(node, FIRST, k=1000, level="chip"))
    with pytest.raises(NotFound):
        similar(node, key("u8hks", "2021-01-10"))
    put(node, "u8hks", "2021-01-10", platform="landsat-8")
    assert hits(similar(node, FIRST))[0] == ("u8hks", "2021-01-10")


KILL = """
import os, sys
sys.path.insert(0, {here!r})
from pathlib import Path
from search_store import key, put, similar
from geostore.node import Node
from geostore.node.search.levels import Levels
from geostore.settings import Settings

node = Node.open({store!r}, settings=Settings(workers=1))
similar(node, key("u8hks", "2020-01-10"))
put(node, "u8hks", "2021-10-10")
appended = Levels.append
def append(self, kind, precision, rows):
    if kind == 'raster':
        os._exit(9)
    appended(self, kind, precision, rows)
Levels.append = append
similar(node, key("u8hks", "2020-01-10"))
"""


def test_a_kill_between_commit_and_append_is_caught_up(filled: Path, tmp_path: Path) -> None:
    """Killed after a commit and its chips' rows, before the raster's: the next question finds all, each once."""
    shutil.copytree(filled, tmp_path / "store")
    code = KILL.format(here=str(Path(__file__).parent), store=str(tmp_path / "store"))
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=120)
    assert done.returncode == 9
    with Node.open(str(tmp_path / "store"), settings=Settings(workers=1)) as node:
        status = node.answer(messages.IndexStatus()).fields["indexes"][0]
        assert (status["behind"], status["rasters"]) == (True, 12)
        assert ("u8hks", "2021-10-10") in hits(similar(node, FIRST))
        assert contents(node) == anew(node)


def test_readers_beside_the_writer_see_the_last_commit(node: Node) -> None:
    """Either brings the index level, whoever is asked first; what the other then asks needs no rows of its own."""
    with Node.open(node.store.url, settings=Settings(workers=1), readonly=True) as reader:
        assert hits(similar(reader, FIRST)) == hits(similar(node, FIRST))
        put(node, "u8hks", "2021-10-10")
        assert ("u8hks", "2021-10-10") in hits(similar(reader, FIRST))
        assert not node.answer(messages.IndexStatus()).fields["indexes"][0]["behind"]
        node.answer(messages.Withdraw(collection="farm", scene="u8hks-2021-01-10-0"))
        assert ("u8hks", "2021-01-10") not in hits(similar(node, FIRST, k=100))
        assert hits(similar(reader, FIRST, k=100)) == hits(similar(node, FIRST, k=100))
        for request in (messages.IndexBuild(), messages.IndexUpgrade(), messages.Label(keys=[FIRST], labels=["x"])):
            with pytest.raises(Forbidden):
                reader.answer(request)


def test_an_index_deleted_under_an_open_store_is_made_again(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """`.index` goes before a question, a build, an upgrade, and while rows are written: made again, or refused once."""
    root = node.following.root
    similar(node, FIRST)
    shutil.rmtree(root)
    put(node, "u8hks", "2021-10-10")
    assert hits(similar(node, FIRST, k=100)) == [hit for _, hit in brute(node, FIRST)]
    shutil.rmtree(root)
    assert node.answer(messages.IndexBuild()).fields["rasters"] == 13
    shutil.rmtree(root)
    assert node.answer(messages.IndexUpgrade(head="rotation", bits=64)).fields["indexes"][0]["rows"] > 13
    append = Levels.append

    def harmed(levels: Levels, *rows: object) -> None:
        shutil.rmtree(root, ignore_errors=True)
        append(levels, *rows)

    put(node, "u8hkt", "2021-10-10")
    with monkeypatch.context() as patch:
        patch.setattr(Levels, "append", harmed)
        with pytest.raises(Unavailable, match="ask again"):
            similar(node, FIRST)
    assert len(hits(similar(node, FIRST, k=100))) == 13


def test_where_the_store_cannot_be_written_the_index_goes_with_the_process(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same answers from a temporary folder, which is gone at the end; the store's own folder is left alone."""
    shutil.rmtree(Path(node.store.url) / ".index")
    monkeypatch.setattr("geostore.node.search.following.usable", lambda _: None)
    reader = Node.open(node.store.url, settings=Settings(workers=1), readonly=True)
    found = hits(similar(reader, FIRST))
    folder = reader.following.root
    assert reader.following.disposable
    assert folder.exists()
    assert not (Path(node.store.url) / ".index").exists()
    reader.close()
    assert not folder.exists()
    monkeypatch.undo()
    assert hits(similar(node, FIRST)) == found


def test_a_folder_of_its_own_goes_on_from_the_store_s_index(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `.index` can only be read: level, it is searched there; behind, only the difference is described."""
    described: list[int] = []
    gather = following.gather

    def counted(node: Node, model: object, keys: list, stamps: object) -> dict:
        described.append(len(keys))
        return gather(node, model, keys, stamps)

    own = node.following.root
    monkeypatch.setattr("geostore.node.search.following.usable", lambda _: None)
    monkeypatch.setattr(following, "gather", counted)
    with Node.open(node.store.url, settings=Settings(workers=1), readonly=True) as reader:
        status = reader.answer(messages.IndexStatus()).fields
        assert (status["disposable"], status["indexes"][0]["behind"], status["indexes"][0]["rasters"]) == (
            True,
            False,
            12,
        )
        assert hits(similar(reader, FIRST)) == hits(similar(node, FIRST))
        assert described == []
        put(node, "u8hks", "2021-10-10")
        assert hits(similar(reader, FIRST, k=100)) == [hit for _, hit in brute(node, FIRST)]
        assert described == [1]
        assert hits(similar(node, FIRST, k=100)) == hits(similar(reader, FIRST, k=100))
        put(node, "u8hkt", "2021-10-10")
        next(reader.following.root.rglob("raster-5/*.segment")).unlink()  # as where the writer merged its own meanwhile
        described.clear()
        assert hits(similar(reader, FIRST, k=100)) == [hit for _, hit in brute(node, FIRST)]
        assert described == [1]
        assert reader.following.root != own


def test_a_rotten_index_answers_nothing(node: Node) -> None:
    """A flipped byte in rows, or in what says which of them count, is found when a process opens it: made again."""
    node.answer(messages.Withdraw(collection="farm", scene="u8hks-2021-01-10-0"))
    wanted = hits(similar(node, FIRST, k=100))
    (dead,) = node.following.root.rglob("raster-5/*.dead")
    (segment,) = node.following.root.rglob("raster-5/*.segment")
    for path in (dead, segment):
        raw = bytearray(path.read_bytes())
        raw[-3 if path == dead else len(raw) // 2] ^= 255
        path.write_bytes(raw)
        with Node.open(node.store.url, settings=Settings(workers=1), readonly=True) as other:
            assert hits(similar(other, FIRST, k=100)) == wanted


def test_damage_is_thrown_away_and_made_again(node: Node) -> None:
    """A manifest that does not parse, a segment cut short, a state of another store: named, and the same answers."""
    for cell in CELLS[1:3]:
        for day in DAYS:
            node.answer(messages.Withdraw(collection="farm", scene=f"{cell}-{day}-0"))
    wanted = hits(similar(node, FIRST))
    root = node.following.root
    folder = next(p for p in root.iterdir() if p.is_dir())
    harms = [
        lambda: (folder / "raster-5" / "manifest.json").write_text("{"),
        lambda: next((folder / "chip-6").glob("*.segment")).write_bytes(b"GSINDEX1"),
        lambda: (folder / "state.json").write_text('{"format": 1, "store": "other", "slots": {}, "check": ""}'),
    ]
    for harm in harms:
        harm()
        kinds = [f["kind"] for f in node.answer(messages.Verify()).fields["findings"]]
        assert kinds == ["index"]
        with Node.open(node.store.url, settings=Settings(workers=1), readonly=True) as other:
            assert hits(similar(other, FIRST)) == wanted


def test_the_index_is_no_part_of_what_is_durable(node: Node) -> None:
    """Durable bytes and a backup are the same with and without it; `status` says what it takes beside them."""
    before = sum(node.store.bytes_durable().values())
    similar(node, FIRST)
    assert sum(node.store.bytes_durable().values()) == before
    assert node.answer(messages.Status()).fields["bytes"]["index"] == sum(
        p.stat().st_size for p in node.following.root.rglob("*") if p.is_file()
    )
    assert node.answer(messages.Verify()).fields["ok"]


def test_verify_names_an_index_that_rots(node: Node) -> None:
    """One flipped byte in a segment is found, and `index build --anew` mends it."""
    similar(node, FIRST)
    segment = next(node.following.root.rglob("raster-5/*.segment"))
    raw = bytearray(segment.read_bytes())
    raw[-9] ^= 1
    segment.write_bytes(raw)
    findings = node.answer(messages.Verify()).fields["findings"]
    assert [f["kind"] for f in findings] == ["index"]
    assert "geostore index build --anew" in findings[0]["message"]
    node.answer(messages.IndexBuild(anew=True))
    assert node.answer(messages.Verify()).fields["ok"]


def test_what_is_too_large_to_be_checked_when_opened_is_named_and_verified(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing is small enough a flipped byte passes the opening; status counts the bytes, `verify` finds it."""
    similar(node, FIRST)
    (found,) = node.answer(messages.IndexStatus()).fields["indexes"]
    assert found["bytes_unchecked"] == 0
    monkeypatch.setattr("geostore.node.search.levels.VERIFIED_MAX", 0)
    segment = next(node.following.root.rglob("raster-5/*.segment"))
    raw = bytearray(segment.read_bytes())
    raw[-9] ^= 1
    segment.write_bytes(raw)
    with Node.open(node.store.url, settings=Settings(workers=1), readonly=True) as other:
        assert len(hits(similar(other, FIRST))) == 11
        (found,) = other.answer(messages.IndexStatus()).fields["indexes"]
        assert 0 < found["bytes_unchecked"] < found["bytes"]
        assert [f["kind"] for f in other.answer(messages.Verify()).fields["findings"]] == ["index"]


def test_labels_are_given_changed_and_taken_away(node: Node) -> None:
    """The newest event about a raster counts, at once and after a rebuild; equal ones write nothing."""
    assert label(node, "oak", "lake") == {"labelled": 1, "unchanged": 0}
    assert label(node, "oak", "lake") == {"labelled": 0, "unchanged": 1}
    label(node, "pine", cell="u8hkt")
    first, second = ("u8hks", DAYS[0]), ("u8hkt", DAYS[0])
    assert labelled(node, "some", "oak", "pine") == [first, second]
    assert labelled(node, "at-least", "oak") == [first]
    assert labelled(node, "exactly", "oak") == []
    label(node, "oak", cell="u8hkt")
    label(node, "lake")
    assert labelled(node, "exactly", "oak") == [second]
    assert labelled(node, "exactly", "lake") == [first]
    label(node)
    assert labelled(node, "some", "lake") == []
    assert contents(node) == anew(node)
    found = similar(node, key("u8hkv", "2021-01-10"), k=100).fields["hits"]
    assert {tuple(h["labels"]) for h in found} == {(), ("oak",)}
    events = [e for e in node.store.events() if e.what == "label"]
    assert [(e.who, e.fields["reason"]) for e in events] == [("kim", "seen")] * 5


def test_corine_brings_its_hierarchy_and_a_store_s_own_labels_stand_beside_it(node: Node) -> None:
    """A group stands for its classes, by name or code; a label of one's own is added later; the unknown is refused."""
    label(node, "Water bodies (inland)", legend="corine-2018")
    label(node, "Pastures", cell="u8hkt", legend="corine-2018")
    label(node, "our pond", cell="u8hku")
    first, second, third = [(cell, DAYS[0]) for cell in CELLS[:3]]
    assert labelled(node, "some", "5") == labelled(node, "exactly", "512") == [first]
    assert labelled(node, "some", "Agricultural areas", "our pond") == [second, third]
    for bad, legend in (("forrest", "corine-2018"), ("Our Pond", "own")):
        with pytest.raises(InvalidInput):
            label(node, bad, legend=legend)
    with pytest.raises(NotFound):
        label(node, "x", day="1999-01-01")
    assert contents(node) == anew(node)


def test_labels_before_any_are_there_are_refused(node: Node) -> None:
    """A question about labels in a store without any says how to label."""
    with pytest.raises(NotComparable, match="geostore label"):
        labelled(node, "some", "oak")


def test_an_upgrade_is_a_generation_and_old_and_new_are_never_mixed(node: Node) -> None:
    """Signatures of a trained head, the same descriptors; a vector of the old space is refused; a rebuild is equal."""
    old = similar(node, FIRST, k=100)
    made = node.answer(messages.IndexUpgrade(head="itq", bits=32)).fields["indexes"][0]
    assert (made["space"]["generation"], made["space"]["bits"], made["by"]) == (1, 32, "places")
    new = similar(node, FIRST, k=100)
    assert new.fields["space"] == made["space"]
    assert hits(new) == hits(old)
    assert new.arrays[0].max() <= 32
    vector = messages.Example(vector=0, space=old.fields["space"]["name"])
    with pytest.raises(NotComparable, match="describe it anew"):
        node.answer(messages.Similar(like=[vector]), [old.arrays[2]])
    assert len([p for p in node.following.root.iterdir() if p.is_dir()]) == 1
    put(node, "u8hks", "2021-10-10")
    assert contents(node) == anew(node)
    with Node.open(node.store.url, settings=Settings(workers=1), readonly=True) as reader:
        assert similar(reader, FIRST).fields["space"]["generation"] == 1
    assert node.answer(messages.Verify()).fields["ok"]


def test_a_descriptor_that_learns_is_trained_on_decoded_pixels(node: Node) -> None:
    """Weights are a blob beside the head's; rows are described anew; another process and a rebuild find the same."""
    request = messages.IndexUpgrade(descriptor="simsiam", head="rotation", bits=64, steps=3)
    made = node.answer(request).fields["indexes"][0]
    assert made["space"]["descriptor"] == "simsiam-1"
    found = similar(node, FIRST, k=100)
    assert len(hits(found)) == 11
    put(node, "u8hks", "2021-10-10")
    with Node.open(node.store.url, settings=Settings(workers=1), readonly=True) as reader:
        assert hits(similar(reader, FIRST)) == hits(similar(node, FIRST))
    assert contents(node) == anew(node)
    assert node.answer(messages.IndexUpgrade(head="rotation", bits=32)).fields["indexes"][0]["space"]["generation"] == 2
    assert similar(node, FIRST).fields["space"]["descriptor"] == "simsiam-1"
    assert node.answer(messages.Verify()).fields["ok"]


def test_an_upgrade_that_is_broken_off_changes_nothing(node: Node) -> None:
    """Cancelled while it trains: the old generation answers, and no head is named."""

    def stop(what: str, share: float) -> None:
        if what.startswith("training"):
            raise Cancelled("enough")

    before = similar(node, FIRST)
    with pytest.raises(Cancelled):
        node.answer(messages.IndexUpgrade(head="itq", bits=32), progress=stop)
    after = similar(node, FIRST)
    assert after.fields == before.fields
    np.testing.assert_array_equal(after.arrays[0], before.arrays[0])


KILL_UPGRADE = """
import os, sys
sys.path.insert(0, {here!r})
from geostore.node import Node
from geostore.node.search.following import Following
from geostore.node.search.levels import Levels
from geostore.query import messages
from geostore.settings import Settings
from geostore.storage import Store

def killed(*_):
    os._exit(9)

def dying(append):
    def half(self, kind, precision, rows):
        append(self, kind, precision, rows)
        os._exit(9)
    return half

where = {where!r}
if where == "half of the rows":
    Levels.append = dying(Levels.append)
elif where == "before the commit":
    Store.commit = killed
else:
    Following.forget_others = killed
node = Node.open({store!r}, settings=Settings(workers=1))
node.answer(messages.IndexUpgrade(head="itq", bits=32))
"""


@pytest.mark.parametrize("where", ["half of the rows", "before the commit", "after the commit"])
def test_a_kill_during_an_upgrade_leaves_the_old_generation_or_the_new(
    filled: Path, tmp_path: Path, where: str
) -> None:
    """Killed anywhere: the store answers by one generation alone, every row of it is there, and an upgrade goes on."""
    shutil.copytree(filled, tmp_path / "store")
    code = KILL_UPGRADE.format(here=str(Path(__file__).parent), store=str(tmp_path / "store"), where=where)
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 9
    with Node.open(str(tmp_path / "store"), settings=Settings(workers=1)) as node:
        found = similar(node, FIRST, k=100)
        generation = int(where == "after the commit")
        assert found.fields["space"]["generation"] == generation
        assert found.arrays[0].max() <= (32 if generation else 128)
        assert hits(found) == [hit for _, hit in brute(node, FIRST)]
        before = contents(node)
        assert before == anew(node)
        made = node.answer(messages.IndexUpgrade(head="rotation", bits=64)).fields["indexes"][0]
        assert made["space"]["generation"] == generation + 1
        assert len([p for p in node.following.root.iterdir() if p.is_dir()]) == 1
        assert node.answer(messages.Verify()).fields["ok"]


def test_one_date_a_place_trains_a_head_by_neighbours(tmp_path: Path) -> None:
    """Neither labels nor a second date: chips that lie side by side belong together; the new head answers."""
    with new_node(tmp_path / "store") as node:
        fill(node, DAYS[:1])
        made = node.answer(messages.IndexUpgrade(bits=32, steps=10)).fields["indexes"][0]
        assert (made["by"], made["space"]["head"]) == ("neighbours", "milan")
        assert len(hits(similar(node, key("u8hks", DAYS[0]), k=100))) == 3


def test_labels_make_a_head_by_kernel_regression(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sets of labels, where two are enough: the new head answers, and a rebuild is equal."""
    monkeypatch.setattr(kernel, "GROUPS_MIN", 2)
    for day in DAYS:
        label(node, "water", day=day)
        label(node, "field", cell="u8hkt", day=day)
    made = node.answer(messages.IndexUpgrade(bits=64, by="labels")).fields["indexes"][0]
    assert (made["by"], made["method"], made["space"]["head"]) == ("labels", "kernel", "kernel")
    assert len(hits(similar(node, FIRST, k=100))) == 11
    assert contents(node) == anew(node)


@pytest.mark.parametrize(
    ("codes", "precisions", "wanted"),
    [
        ([1, 1, 2, 2, 3], [5] * 5, ([21, 21, 37, 37, 53], "places")),
        ([1, 32, 33, 2, 64], [5, 6, 6, 5, 6], ([21, 21, 21, 37, 37], "neighbours")),
        ([1, 2, 3], [5] * 3, ([0, 1, 2], "rows")),
    ],
)
def test_what_belongs_together_is_the_first_rule_that_two_groups_keep(
    codes: list, precisions: list, wanted: tuple
) -> None:
    """Other dates of a cell, chips side by side with their raster; else each row by itself."""
    groups, by = sampling.unlabelled(np.stack([codes, precisions], axis=1))
    assert (groups.tolist(), by) == wanted


def test_few_labels_are_left_out_and_taken_where_asked_for(node: Node) -> None:
    """Two sets of labels in two places replace nothing, and why is said; `by` takes them; of one raster each not."""
    label(node, "water")
    label(node, "field", cell="u8hkt")
    label(node, "town", cell="u8hkv")
    with pytest.raises(InvalidInput, match="geostore label"):
        node.answer(messages.IndexUpgrade(bits=32, steps=10, by="labels"))
    for day in DAYS:
        label(node, "water", day=day)
        label(node, "field", cell="u8hkt", day=day)
    made = node.answer(messages.IndexUpgrade(bits=32, steps=10)).fields["indexes"][0]
    assert (made["by"], made["labels"]["used"]) == ("places", False)
    assert "sets of labels have 32 places or more, 2 have to" in made["labels"]["why"]
    assert made["rows"] == sum(map(len, contents(node).values()))
    made = node.answer(messages.IndexUpgrade(bits=32, steps=10, by="labels")).fields["indexes"][0]
    rows = contents(node)
    mine = [row for name in rows for row in rows[name] if b"u8hks" in row[0] or b"u8hkt" in row[0]]
    assert (made["by"], made["rows"]) == ("labels", len(mine))
    learned = node.answer(messages.IndexStatus()).fields["indexes"][0]["learned"]
    assert learned == {name: made[name] for name in ("by", "rows", "views", "method", "labels")}


@pytest.mark.parametrize("truth", ["the ground", "nothing"])
def test_labels_are_used_where_places_held_out_say_so(node: Node, monkeypatch: pytest.MonkeyPatch, truth: str) -> None:
    """Labels of every raster that say what it shows find more than without; labels by date say nothing, and go."""
    monkeypatch.setattr(judging, "PLACES_MIN", 1)
    for cell in CELLS:
        for day in DAYS:
            kind = CELLS.index(cell) % 3 if truth == "the ground" else DAYS.index(day)
            label(node, f"kind {kind}", cell=cell, day=day)
    right = truth == "the ground"
    monkeypatch.setattr(
        judging, "_found_with", lambda head, *_: np.full(9, float(right and head.name == "kernel"), np.float32)
    )
    monkeypatch.setattr(kernel, "GROUPS_MIN", 2)
    made = node.answer(messages.IndexUpgrade(bits=32, steps=10)).fields["indexes"][0]
    assert made["labels"]["used"] is right
    assert made["by"] == ("labels" if right else "places")
    assert made["labels"]["covered"] == 1.0


def test_a_raster_that_cannot_be_described_is_passed_over(node: Node) -> None:
    """One without usable pixels is no hit, no example, and not in the way of others."""
    put(node, "u8hks", "2021-10-10", empty=True)
    assert len(contents(node)["('raster', 5)"]) == 12
    with pytest.raises(InvalidInput, match="fewer than 16"):
        similar(node, key("u8hks", "2021-10-10", "sentinel-2a"))
    assert contents(node) == anew(node)
    assert Levels.open(node.following.root / "none", node.following.model(BANDS).space, "x").holds({})
