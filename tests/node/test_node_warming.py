"""Warming asks an index that is level small questions of every kind; it makes, describes and changes nothing."""

from __future__ import annotations

from pathlib import Path

from search_store import BANDS, CELLS, key, new_node, put, similar

from geostore.node import Node
from geostore.node.search.warming import warm
from geostore.query import messages
from geostore.settings import Settings
from geostore.storage import EventRow


def test_what_is_level_is_asked_and_stays_as_it_is(tmp_path: Path) -> None:
    """No index: none is made. One that is behind: it stays so. A level one: all questions, until told to stop."""
    root = tmp_path / "store"
    with new_node(root) as made:
        for cell in CELLS:
            put(made, cell, "2020-07-10")
        assert warm(made) == 0
        assert not (root / ".index").exists()
        wanted = similar(made, key("u8hks", "2020-07-10")).fields["hits"]
        asked = warm(made)
        assert asked >= 8
        answers = iter([False, False, True])
        assert warm(made, lambda: next(answers)) == 2
        made.store.commit([EventRow(time_us=1, who="kim", what="note", fields={})])
        assert not made.following.on_disk(made.following.model(BANDS))[1]  # a commit without rasters asks for no rows
        assert warm(made) == asked
        mine = key("u8hks", "2020-07-10", "sentinel-2a")
        for labels in ([], ["water"]):  # before any is given there is nothing to take away
            made.answer(messages.Label(keys=[mine], labels=labels))
            assert made.following.on_disk(made.following.model(BANDS))[1] == bool(labels)
        similar(made, mine)
        put(made, "u8hks", "2020-10-10")
        assert warm(made) == 0
        assert made.following.on_disk(made.following.model(BANDS))[1]  # still behind
    with Node.open(str(root), settings=Settings(workers=1), readonly=True) as reader:
        assert warm(reader) == 0
        assert len(similar(reader, key("u8hks", "2020-07-10")).fields["hits"]) == len(wanted) + 1
        assert warm(reader) == asked
