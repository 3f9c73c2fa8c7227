"""Plug-ins: what is installed is found; what is missing or broken is told by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from geostore import plugins
from geostore.errors import NotInstalled


def test_a_name_nobody_registered_is_told_what_there_is() -> None:
    """The error of an unknown codec family lists the installed ones."""
    with pytest.raises(NotInstalled, match=r"installed: .*raw"):
        plugins.find("geostore.codecs", "no-such-family")


def test_a_plug_in_that_cannot_be_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution whose entry point leads nowhere: not-installed, with the plug-in, the module and the cause."""
    facts = tmp_path / "broken-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[geostore.codecs]\nlost = gone_module:Family\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(NotInstalled, match=r"'lost' of geostore.codecs cannot be loaded from gone_module:Family"):
        plugins.find("geostore.codecs", "lost")
