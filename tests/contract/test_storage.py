"""The laws of storage, on the file system and on a real S3 server with access keys."""

from __future__ import annotations

import errno
import io
import os
import resource
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eagleray import errors, storage
from eagleray.storage import blobs, server, sinks, streams
from eagleray.storage import s3 as s3_storage

if TYPE_CHECKING:
    from tests.conftest import Bucket
    from tests.contract.conftest import Wire

MIB = 1 << 20
Result = TypeVar("Result")
IMPATIENT = s3_storage.Patience(attempts=2, connect_s=0.5, silence_s=0.5)
PATIENT = s3_storage.Patience(attempts=4, silence_s=2)
BRIEF = s3_storage.Patience(attempts=2)

segments = st.text(min_size=1, max_size=40).filter(
    lambda s: s.isprintable() and not set("/\\") & set(s) and s not in (".", "..")
)
keys = st.lists(segments, min_size=1, max_size=4).map("/".join)


class Once(sinks.Memory):
    """Memory that counts the bytes it takes: those of a part that broke off come once too."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.taken, self._lock = 0, threading.Lock()

    def write(self, piece: memoryview, start: int, /) -> None:
        super().write(piece, start)
        with self._lock:
            self.taken += len(piece)


def many(work: Callable[[int], Result], times: int) -> list[Result]:
    with ThreadPoolExecutor(times) as pool:
        return list(pool.map(work, range(times)))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=keys, data=st.binary(max_size=300))
def test_whatever_is_put_under_any_lawful_key_is_read_back_and_listed(
    store: storage.Storage, key: str, data: bytes
) -> None:
    key = f"{uuid.uuid4().hex}/{key}"
    etag = store.put(key, data)
    assert store.get_tagged(key) == (data, etag)
    assert [(one.key, one.size, one.etag) for one in store.list(key)] == [(key, len(data), etag)]
    store.delete(key)
    assert list(store.list(key)) == []


@pytest.mark.parametrize(
    "key", ["", "/a", "a\\b", "a/", "a//b", ".", "a/../b", "a\nb", "a" * 256, "é" * 600]
)
def test_an_unlawful_key_is_refused(store: storage.Storage, key: str) -> None:
    with pytest.raises(errors.UserError, match="a key must be printable segments"):
        store.put(key, b"")


def test_an_absent_object_is_not_found_and_may_be_deleted(store: storage.Storage) -> None:
    store.delete("a/b")
    for read in (
        store.get,
        lambda key: store.get_if_changed(key, None),
        lambda key: store.get_if_changed(key, "etag"),
        lambda key: store.get_range(key, 0, 1),
        lambda key: store.compare_and_swap(key, b"", "etag"),
        lambda key: store.download(key, sinks.Memory(0)),
    ):
        with pytest.raises(errors.ObjectNotFoundError, match="key 'a/b': there is no such object"):
            read("a/b")


@given(start=st.integers(0, 99), length=st.integers(1, 200))
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_range_of_an_object_ends_with_it(store: storage.Storage, start: int, length: int) -> None:
    data = bytes(range(100))
    store.put("range", data)
    assert store.get_range("range", start, start + length) == data[start : start + length]
    stream = io.BufferedReader(streams.Ranges(store, "range", len(data)), 16)
    stream.seek(start)
    assert stream.read(length) == data[start : start + length]
    assert stream.read() == data[start + length :]


def test_an_object_is_sent_again_only_when_it_changed(store: storage.Storage) -> None:
    etag = store.put("a", b"1")
    assert store.get_if_changed("a", etag) is None
    assert store.get_if_changed("a", None) == (b"1", etag)
    newer = store.put("a", b"2")
    assert store.get_if_changed("a", etag) == (b"2", newer)


def test_of_many_who_put_if_absent_one_wins(store: storage.Storage) -> None:
    def put(writer: int) -> int | None:
        try:
            store.put_if_absent("races/one", str(writer).encode())
        except errors.ObjectExistsError:
            return None
        return writer

    winners = [writer for writer in many(put, 16) if writer is not None]
    assert len(winners) == 1
    assert store.get("races/one") == str(winners[0]).encode()


def test_counting_by_compare_and_swap_loses_no_update(store: storage.Storage) -> None:
    store.put("counter", b"0")

    def count(_: int) -> None:
        done = 0
        while done < 10:
            data, etag = store.get_tagged("counter")
            try:
                store.compare_and_swap("counter", str(int(data) + 1).encode(), etag)
            except errors.ObjectChangedError:
                continue
            done += 1

    many(count, 6)
    assert store.get("counter") == b"60"


def test_a_swap_with_an_old_etag_changes_nothing(store: storage.Storage) -> None:
    old = store.put("a", b"1")
    store.put("a", b"2")
    with pytest.raises(errors.ObjectChangedError):
        store.compare_and_swap("a", b"3", old)
    assert store.get("a") == b"2"


def test_a_reader_sees_one_whole_object_or_the_other(store: storage.Storage) -> None:
    store.put("a", bytes(MIB))

    def write(turn: int) -> None:
        store.put("a", bytes([turn % 7]) * MIB)

    with ThreadPoolExecutor(2) as pool:
        writes = [pool.submit(write, turn) for turn in range(30)]
        while not all(write.done() for write in writes):
            data = store.get("a")
            assert data == data[:1] * MIB


def test_a_listing_spans_pages_and_folders(store: storage.Storage) -> None:
    names = {f"many/{i % 3}/{i}" for i in range(1100)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.put(key, b""), names))
    store.put("manyfold", b"")
    assert {entry.key for entry in store.list("many/")} == names
    assert {entry.key for entry in store.list("many/1/2")} == {
        name for name in names if name.startswith("many/1/2")
    }
    assert len(list(store.list())) == len(names) + 1


@pytest.mark.parametrize("size", [0, 5, 8 * MIB, 8 * MIB + 1, 97 * MIB])
def test_an_object_of_any_size_goes_up_and_comes_down_whole(
    store: storage.Storage, size: int
) -> None:
    data, sink = os.urandom(MIB) * (size // MIB) + os.urandom(size % MIB), Once(size)
    pieces = [data[start : start + 5 * MIB] for start in range(0, size, 5 * MIB)]
    store.upload("files/big", streams.Buffers(pieces))
    store.download("files/big", sink)
    assert (sink.taken, sink.getvalue() == data) == (size, True)
    assert [(one.key, one.size) for one in store.list()] == [("files/big", size)]
    assert store.get("files/big") == data


def test_an_upload_replaces_what_was_there(store: storage.Storage) -> None:
    store.put("a", b"old")
    store.upload("a", io.BytesIO(b"new"))
    assert store.get("a") == b"new"


KILLED = """
import io, os, sys
from eagleray import storage

class Last(io.BytesIO):
    def read(self, size=-1):
        if self.tell() >= 64 << 20:  # more than is in memory: parts have been sent
            os.kill(os.getpid(), 9)
        return super().read(size)

storage.open(sys.argv[1]).upload("blobs/a", Last(bytes(96 << 20)))
"""


def test_an_upload_that_was_killed_is_not_seen_and_can_be_discarded(store: storage.Storage) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, store.uri], check=False)
    assert killed.returncode == -9
    assert list(store.list()) == []
    now = store.clock() or datetime.now(UTC)
    assert store.discard(now - timedelta(hours=1)) == 0
    later = now + timedelta(hours=1)
    assert [store.discard(later, dry_run=True), store.discard(later), store.discard(later)] == [
        1, 1, 0,
    ]  # fmt: skip


class Failing(io.BytesIO):
    """A stream whose disk fails after 12 MiB."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() > 12 * MIB:
            raise OSError("the disk fails")
        return super().read(size)


def test_an_upload_whose_source_fails_leaves_what_was_there(store: storage.Storage) -> None:
    store.put("a", b"old")
    for key in ("a", "b"):
        with pytest.raises(errors.StorageError, match=f"key '{key}': .*the disk fails"):
            store.upload(key, Failing(bytes(20 * MIB)))
    assert [(one.key, one.size) for one in store.list()] == [("a", 3)]


@pytest.mark.parametrize("room", [0, 30 * MIB])
def test_a_sink_that_fails_ends_the_download_and_gets_nothing_after_it(
    store: storage.Storage, room: int
) -> None:
    store.put("a", bytes(97 * MIB))

    class Full(Once):
        def write(self, piece: memoryview, start: int, /) -> None:
            if start + len(piece) > room:
                raise OSError(errno.ENOSPC, "no space")
            super().write(piece, start)

    sink, threads = Full(97 * MIB), set(threading.enumerate())
    with pytest.raises(errors.StorageFullError, match=r"key 'a': .*no space"):
        store.download("a", sink)
    assert {one for one in set(threading.enumerate()) - threads if "Pool" in one.name} == set()
    assert sink.taken <= room


def test_a_transfer_holds_a_few_parts_of_a_content(store: storage.Storage) -> None:
    code = f"""
import hashlib, io, resource, tempfile
from eagleray import storage
from eagleray.storage import blobs, sinks

def above():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before >> 10

store, data = storage.open({store.uri!r}), b"%0128d" % 7 * {MIB}
store.upload("warm", io.BytesIO(data[:17 << 20]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
blob = blobs.put(store, data)
up = above()
same, data = hashlib.sha256(data).hexdigest() == blob.sha256, None
with tempfile.TemporaryFile() as file:
    blobs.download(store, blob, sinks.File(file.fileno()))
    down = above()
    file.seek(0)
    print(up, down, same and hashlib.file_digest(file, "sha256").hexdigest() == blob.sha256)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    up, down, same = ran.stdout.split()
    assert (int(up) < 100, int(down) < 100, same) == (True, True, "True")


def test_a_blob_that_rotted_is_named_and_mended_by_the_next_put(store: storage.Storage) -> None:
    blob = blobs.put(store, b"content")
    assert (blobs.put(store, b"content"), blobs.get(store, blob)) == (blob, b"content")
    store.put(blobs.key(blob), b"rotten")
    with pytest.raises(errors.CorruptObjectError, match=blob.sha256):
        blobs.get(store, blob)
    store.put(blobs.key(blob), b"content and more")
    with pytest.raises(errors.CorruptObjectError, match=r"must hold 7 bytes .* but got more"):
        blobs.get(store, blob)
    blobs.put(store, io.BytesIO(b"content"))
    assert blobs.get(store, blob) == b"content"


@pytest.mark.parametrize(
    ("uri", "hint"),
    [
        ("eagleray", "did you mean 's3://eagleray'"),
        ("/data", "did you mean 'file:///data'"),
        ("file://data", "must be"),
        ("s3://", "must be"),
        ("gs://bucket", "must be"),
        ("s3://bucket/../other", "a key must be"),
    ],
)
def test_a_bad_uri_is_refused_with_the_law(uri: str, hint: str) -> None:
    with pytest.raises(errors.UserError, match=hint):
        storage.open(uri)


def test_a_missing_root_folder_is_named(tmp_path: Path) -> None:
    store = storage.open((tmp_path / "typo").as_uri())
    for act in (lambda: store.put("a", b""), lambda: store.get("a"), lambda: list(store.list())):
        with pytest.raises(errors.BucketNotFoundError, match=r"mkdir -p .*typo"):
            act()
    assert not (tmp_path / "typo").exists()


def test_the_private_folder_of_the_file_system_is_out_of_reach(tmp_path: Path) -> None:
    store = storage.open(tmp_path.as_uri())
    store.put("a", b"")
    assert list((tmp_path / ".eagleray").iterdir())
    assert list(store.list(".eagleray/")) == []
    with pytest.raises(errors.UserError, match="is reserved"):
        store.put(".eagleray/a", b"")


def test_a_folder_of_keys_is_no_object_on_the_file_system(tmp_path: Path) -> None:
    store = storage.open(tmp_path.as_uri())
    store.put("a/b", b"")
    for put in (store.put, store.put_if_absent):
        for key in ("a", "a/b/c", "a/b/c/d"):
            with pytest.raises(errors.StorageError, match="no key may lie below another key"):
                put(key, b"")
    with pytest.raises(errors.ObjectNotFoundError):
        store.get("a")


@pytest.fixture
def small_files() -> Iterator[None]:
    """The operating system refuses files over 64 KiB."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_file_that_finds_no_room_leaves_nothing(tmp_path: Path, small_files: None) -> None:
    store = storage.open(tmp_path.as_uri())
    store.put("a/b", b"old")
    for write in (store.put, store.put_if_absent):
        with pytest.raises(errors.StorageFullError, match="key 'a/b': no room left"):
            write("a/b", bytes(MIB))
    assert store.get("a/b") == b"old"
    assert [entry.key for entry in store.list()] == ["a/b"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(disk)]
    refusal = subprocess.run(mount, capture_output=True, text=True, check=False)
    if refusal.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {refusal.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_named_on_the_file_system(small_disk: Path) -> None:
    store = storage.open(small_disk.as_uri())
    with pytest.raises(errors.StorageFullError, match="key 'a': no room left"):
        store.put("a", bytes(33 * MIB))
    assert list(store.list()) == []


def test_a_full_disk_below_the_embedded_server_is_named(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = server.up(small_disk)
    try:
        for name, value in server.environment(running).items():
            monkeypatch.setenv(name, value)
        store = s3_storage.connect(server.BUCKET, "", BRIEF)
        store.put("small", b"kept")
        with pytest.raises(errors.StorageFullError, match="bucket 'eagleray': key 'big'"):
            store.put("big", os.urandom(33 * MIB))
        assert store.get("small") == b"kept"
    finally:
        server.down(small_disk)


def says(bucket: Bucket, key: str, endpoint: str | None = None) -> str:
    return f"^{endpoint or bucket.endpoint}: bucket '{bucket.name}': key '{key}': "


def test_wrong_keys_are_refused_by_name(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"):
        monkeypatch.setenv(name, "wrong")
        store = storage.open(s3.uri)
        with pytest.raises(errors.AccessDeniedError, match=says(s3, "a")):
            store.get("a")
        with pytest.raises(errors.AccessDeniedError, match=says(s3, "a")):
            store.put_if_absent("a", b"")


def test_settings_that_are_not_whole_are_refused(
    s3: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "127.0.0.1:9000")
    with pytest.raises(errors.UserError, match="Invalid endpoint"):
        storage.open(s3.uri)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3.endpoint)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(errors.UserError, match="missing: AWS_SECRET_ACCESS_KEY"):
        storage.open(s3.uri)


def test_a_missing_bucket_is_named(s3: Bucket) -> None:
    store = storage.open("s3://no-such-bucket/below")
    for act in (
        lambda: store.get("a"),
        lambda: store.put("a", b""),
        lambda: store.put_if_absent("a", b""),
        lambda: list(store.list("a")),
    ):
        with pytest.raises(errors.BucketNotFoundError, match="bucket 'no-such-bucket': key 'a'"):
            act()


def test_a_refused_connection_is_named(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    store = s3_storage.connect(s3.name, "", IMPATIENT)
    with pytest.raises(errors.StorageUnavailableError, match=says(s3, "a", endpoint)):
        store.get("a")


def test_an_endpoint_that_hangs_is_given_up_in_time(s3: Bucket, wire: Wire) -> None:
    wire.fail(99, answered=0, hang=True)
    store = s3_storage.connect(s3.name, "", IMPATIENT)
    started = time.monotonic()
    with pytest.raises(
        errors.StorageUnavailableError, match=says(s3, "a", wire.endpoint) + ".*hung"
    ):
        store.get("a")
    assert time.monotonic() - started < 4
    assert wire.connections == IMPATIENT.attempts


READS = ("get", "download")
SIZES = {"get": 3, "put": 3, "download": 20, "upload": 20}  # MiB; large ones have three parts


@pytest.mark.parametrize("hang", [False, True])
@pytest.mark.parametrize("act", SIZES)
def test_a_transfer_that_breaks_off_is_repeated(
    s3: Bucket, wire: Wire, act: str, hang: bool
) -> None:
    data, sink = os.urandom(SIZES[act] * MIB), Once(SIZES[act] * MIB)
    prefix = uuid.uuid4().hex
    calm = storage.open(f"{s3.uri}/{prefix}")
    if act in READS:
        calm.put("a", data)
    store = s3_storage.connect(s3.name, prefix, PATIENT)
    wire.fail(1 if hang else 2, sent=None if act in READS else MIB, answered=MIB, hang=hang)
    if act == "get":
        assert store.get("a") == data
    elif act == "put":
        store.put("a", data)
    elif act == "upload":
        store.upload("a", io.BytesIO(data))
    else:
        store.download("a", sink)
        assert (sink.taken, sink.getvalue() == data) == (len(data), True)
    assert wire.pending == 0
    assert calm.get("a") == data


@pytest.mark.parametrize("act", SIZES)
def test_a_transfer_that_always_breaks_off_is_named_and_leaves_nothing(
    s3: Bucket, wire: Wire, act: str
) -> None:
    data = bytes(20 * MIB)
    prefix = uuid.uuid4().hex
    calm = storage.open(f"{s3.uri}/{prefix}")
    if act in READS:
        calm.put("a", data)
    store = s3_storage.connect(s3.name, prefix, BRIEF)
    acts: dict[str, Callable[[], object]] = {
        "get": lambda: store.get("a"),
        "download": lambda: store.download("a", sinks.Memory(len(data))),
        "put": lambda: store.put("a", data),
        "upload": lambda: store.upload("a", io.BytesIO(data)),
    }
    wire.fail(99, sent=None if act in READS else MIB, answered=MIB)
    with pytest.raises(errors.StorageUnavailableError, match=says(s3, "a", wire.endpoint)):
        acts[act]()
    wire.fail(0)
    assert [entry.key for entry in calm.list()] == (["a"] if act in READS else [])


def test_a_writer_whose_answer_was_lost_still_wins(s3: Bucket, wire: Wire) -> None:
    store = s3_storage.connect(s3.name, uuid.uuid4().hex, PATIENT)
    wire.fail(1, answered=0)
    first = store.put_if_absent("a", b"mine")
    assert wire.connections == 2
    store = s3_storage.connect(s3.name, store.uri.rpartition("/")[2], PATIENT)
    wire.fail(1, answered=0)
    second = store.compare_and_swap("a", b"mine, changed", first)
    assert wire.connections == 4
    assert store.get_tagged("a") == (b"mine, changed", second)


def test_a_writer_whose_answer_was_lost_does_not_take_an_equal_object_for_its_own(
    s3: Bucket, wire: Wire
) -> None:
    prefix = uuid.uuid4().hex
    etag = s3_storage.connect(s3.name, prefix, PATIENT).put_if_absent("a", b"same")
    wire.fail(1, answered=0)
    with pytest.raises(errors.ObjectExistsError):
        s3_storage.connect(s3.name, prefix, PATIENT).put_if_absent("a", b"same")
    wire.fail(1, answered=0)
    with pytest.raises(errors.ObjectChangedError):
        s3_storage.connect(s3.name, prefix, PATIENT).compare_and_swap("a", b"same", etag[::-1])
    assert wire.connections == 5


def test_the_embedded_server_is_found_without_any_setting(
    s3: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in s3.environment:
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    store = storage.open(f"{s3.uri}/{uuid.uuid4().hex}")
    store.put("a", b"1")
    assert store.get("a") == b"1"


def test_a_server_on_this_machine_is_not_sought_behind_a_proxy(
    s3: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    store = storage.open(f"{s3.uri}/{uuid.uuid4().hex}")
    store.put("a", b"1")
    assert store.get("a") == b"1"


def test_storage_is_light_until_a_bucket_is_opened() -> None:
    modules = "eagleray.state.models, eagleray.storage.server"
    code = f"import sys, {modules}; sys.exit('boto3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_object_is_as_old_as_its_last_write(store: storage.Storage) -> None:
    store.put("a", b"1")
    (first,) = store.list("a")
    now = store.clock() or datetime.now(UTC)
    assert abs(first.modified - now) < timedelta(seconds=60)
    while first.modified == next(iter(store.list("a"))).modified:
        store.put("a", b"1")
    (second,) = store.list("a")
    assert (second.modified > first.modified, second.etag) == (True, first.etag)


def test_a_servers_clock_is_told_and_a_folder_has_none(store: storage.Storage) -> None:
    said, now = store.clock(), time.time()
    if store.uri.startswith("file:"):
        assert said is None
    else:
        assert said is not None
        assert abs(said.timestamp() - now) < 5
