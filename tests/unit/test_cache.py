"""Contents on this machine's disk: read once, verified on every use, bounded."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eagleray import errors, storage
from eagleray.storage import blobs, cache


@pytest.fixture
def store(tmp_path: Path) -> storage.Storage:
    (tmp_path / "storage").mkdir()
    return storage.open((tmp_path / "storage").as_uri())


def held(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def test_a_content_is_read_from_storage_once(store: storage.Storage, tmp_path: Path) -> None:
    local, blob = cache.Cache(tmp_path / "cache", 1000), blobs.put(store, b"content")
    assert local.get(store, blob) == b"content"
    store.delete(blobs.key(blob))
    assert local.get(store, blob) == b"content"
    with pytest.raises(errors.ObjectNotFoundError):
        cache.Cache(tmp_path / "another", 1000).get(store, blob)
    assert held(tmp_path / "another") == set()


def test_a_file_that_rotted_is_read_anew(
    store: storage.Storage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    local, blob = cache.Cache(tmp_path / "cache", 1000), blobs.put(store, b"content")
    local.get(store, blob)
    (tmp_path / "cache" / blob.sha256).write_bytes(b"rotten!")
    with caplog.at_level(logging.WARNING):
        assert local.get(store, blob) == b"content"
    assert blob.sha256 in caplog.text
    assert local.get(store, blob) == b"content"


def test_a_content_that_is_corrupt_in_storage_is_named_and_not_held(
    store: storage.Storage, tmp_path: Path
) -> None:
    local, blob = cache.Cache(tmp_path / "cache", 1000), blobs.put(store, b"content")
    store.put(blobs.key(blob), b"rotten!")
    with pytest.raises(errors.CorruptObjectError, match=blob.sha256):
        local.get(store, blob)
    assert held(tmp_path / "cache") == set()


KILLED = """
import os, sys
from pathlib import Path
from eagleray.storage import blobs, cache, files

class Dying(files.FileStorage):
    def download(self, key, sink):
        sink.write(memoryview(b"cont"), 0)
        os.kill(os.getpid(), 9)

cache.Cache(Path(sys.argv[2]), 1000).get(Dying(Path(sys.argv[1])), blobs.Blob(sys.argv[3], 7))
"""


def test_a_content_whose_reader_was_killed_is_not_seen(
    store: storage.Storage, tmp_path: Path
) -> None:
    folder, blob = tmp_path / "cache", blobs.put(store, b"content")
    arguments = [sys.executable, "-c", KILLED, str(tmp_path / "storage"), str(folder), blob.sha256]
    assert subprocess.run(arguments, check=False).returncode == -9
    assert len(held(folder)) == 1
    assert blob.sha256 not in held(folder)
    assert cache.Cache(folder, 1000).get(store, blob) == b"content"


def test_those_that_were_not_used_for_longest_go(store: storage.Storage, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    local = cache.Cache(folder, 250)
    first, second, third = (blobs.put(store, bytes([n]) * 100) for n in range(3))
    for age, blob in ((30, first), (20, second)):
        local.get(store, blob)
        os.utime(folder / blob.sha256, (1_000_000 - age, 1_000_000 - age))
    local.get(store, first)  # is now younger than the second
    local.get(store, third)
    assert held(folder) == {first.sha256, third.sha256}


def test_a_content_above_the_bound_is_read_and_not_held(
    store: storage.Storage, tmp_path: Path
) -> None:
    local, blob = cache.Cache(tmp_path / "cache", 99), blobs.put(store, bytes(100))
    assert local.get(store, blob) == bytes(100)
    assert held(tmp_path / "cache") == set()


def test_a_disk_that_refuses_is_no_failure(
    store: storage.Storage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_bytes(b"a file is where the folder is to be")
    local, blob = cache.Cache(tmp_path / "cache", 1000), blobs.put(store, b"content")
    with caplog.at_level(logging.WARNING):
        assert local.get(store, blob) == b"content"
    assert "a content is held in memory" in caplog.text


def test_a_file_stays_readable_when_it_is_evicted(store: storage.Storage, tmp_path: Path) -> None:
    local, blob = cache.Cache(tmp_path / "cache", 100), blobs.put(store, bytes(80))
    with local.open(store, blob) as path:
        local.get(store, blobs.put(store, b"1" * 80))
        assert held(tmp_path / "cache") != {blob.sha256}
        assert path.read_bytes() == bytes(80)
