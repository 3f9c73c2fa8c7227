"""A daemon that gives kept answers again never gives one that a change has overtaken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from small_store import CELL, COLLECTION, DATES, DAY_US, piece

import geostore
from geostore.daemon.service import Service
from geostore.query.messages import SceneFields
from geostore.settings import Settings


def test_every_answer_holds_what_was_acknowledged_before_it(tmp_path: Path) -> None:
    """Two clients: whatever one has put or withdrawn, the other lists and decodes at once, asked before or not."""
    settings = Settings(store=str(tmp_path / "store"), listen="tcp://127.0.0.1:0", http="127.0.0.1:0")
    service = Service(settings, create=True)
    try:
        address = service.router.address
        with geostore.connect(address) as writer, geostore.connect(address) as reader:
            writer.put_collection(COLLECTION)
            for t in range(DATES):
                scene = SceneFields(id=f"scene-{t}", time_us=t * DAY_US, platform="s2a")
                writer.put("farm", scene, [piece(t, "10m")])
                for _ in range(3):
                    found = reader.decode_rasters(reader.rasters(CELL))
                    assert [info.key.time_us for info, _ in found] == [i * DAY_US for i in range(t + 1)]
                    np.testing.assert_array_equal(found[t][1].pixels, piece(t, "10m").raster.pixels)
            writer.withdraw("farm", "scene-3")
            assert len(reader.rasters(CELL)) == DATES - 1
            assert len(reader.scenes()) == DATES - 1
        recalled = service.metrics.page().decode().split("\ngeostore_answers_recalled_total ")[1]
        assert float(recalled.split()[0]) >= 4 * DATES
    finally:
        service.close()
