"""The front door: a dozen names, light to import, the same however they are reached."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import geostore

HEAVY = ("torch", "rasterio", "lmdb", "deltalake", "zmq", "xarray", "numpy")


def test_every_exported_name_is_there_and_is_no_module() -> None:
    """Each name of `__all__` gives a value twice over, also after its module was imported by itself."""
    importlib.import_module("geostore.connection")
    for _ in range(2):
        for name in geostore.__all__:
            assert type(getattr(geostore, name)) is not type(sys), name
    assert callable(geostore.connect)


def test_importing_geostore_loads_nothing_heavy() -> None:
    """A fresh interpreter that imports the package has none of the heavy ones."""
    program = f"import sys, geostore; print([m for m in {HEAVY!r} if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"


def test_what_a_verb_does_not_need_is_not_loaded_for_it(tmp_path: Path) -> None:
    """A fresh interpreter that makes a store and asks for its status has loaded neither torch nor xarray or pandas."""
    program = (
        f"import sys, geostore; geostore.connect({str(tmp_path / 's')!r}, create=True).status();"
        "print([m for m in ('torch', 'xarray', 'pandas', 'matplotlib') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert shown.stdout.strip() == "[]", shown.stderr
