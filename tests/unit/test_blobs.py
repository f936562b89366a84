"""Contents whose pieces come in any order, from several threads, are whole or refused."""

import itertools
import tempfile
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eagleray import errors, storage
from eagleray.storage import blobs, files, sinks

Opened = Callable[[int], AbstractContextManager[tuple[sinks.Content, Callable[[], bytes]]]]
ANY = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Way(NamedTuple):
    """A content, and how it comes."""

    data: bytes
    pieces: list[tuple[int, int]]  # starts and stops, in the order of their coming
    threads: int


@st.composite
def ways(draw: st.DrawFn) -> Way:
    data = draw(st.binary(min_size=1, max_size=300))
    cuts = sorted(draw(st.sets(st.integers(1, len(data)), max_size=12)) | {0, len(data)})
    order = draw(st.permutations(list(itertools.pairwise(cuts))))
    return Way(data, order, draw(st.integers(1, 4)))


class InPieces(files.FileStorage):
    """A folder that gives an object's pieces in a given way."""

    def __init__(self, root: Path, way: Way) -> None:
        super().__init__(root)
        self._way = way

    def download(self, key: str, sink: storage.Sink) -> None:
        data = self.get(key)
        with futures.ThreadPoolExecutor(self._way.threads) as pool:
            written = [
                pool.submit(sink.write, memoryview(data[start:stop]), start)
                for start, stop in self._way.pieces
            ]
        for one in written:
            one.result()


@contextmanager
def in_file(_: int) -> Iterator[tuple[sinks.Content, Callable[[], bytes]]]:
    with tempfile.TemporaryFile() as file:
        yield sinks.File(file.fileno()), file.read


@contextmanager
def in_memory(size: int) -> Iterator[tuple[sinks.Content, Callable[[], bytes]]]:
    sink = sinks.Memory(size)
    yield sink, sink.getvalue


@pytest.mark.parametrize("opened", [in_file, in_memory])
@ANY
@given(way=ways())
def test_a_content_is_whole_in_whatever_order_its_pieces_come(
    tmp_path: Path, opened: Opened, way: Way
) -> None:
    store = InPieces(tmp_path, way)
    blob = blobs.put(store, way.data)
    with opened(blob.size) as (content, read):
        blobs.download(store, blob, content)
        assert read() == way.data


@ANY
@given(way=ways(), place=st.integers(0), changed=st.integers(1, 255))
def test_one_changed_byte_is_found_wherever_it_is(
    tmp_path: Path, way: Way, place: int, changed: int
) -> None:
    store, rotten = InPieces(tmp_path, way), bytearray(way.data)
    blob = blobs.put(store, way.data)
    rotten[place % len(rotten)] ^= changed
    store.put(blobs.key(blob), bytes(rotten))
    with pytest.raises(
        errors.CorruptObjectError, match=f"{blob.sha256}': must hold {blob.size} bytes"
    ):
        blobs.get(store, blob)


@ANY
@given(way=ways(), missing=st.integers(0))
def test_a_piece_that_is_missing_or_beyond_the_end_is_found(
    tmp_path: Path, way: Way, missing: int
) -> None:
    blob = blobs.put(files.FileStorage(tmp_path), way.data)
    number = missing % len(way.pieces)
    left = [one for one in way.pieces if one != way.pieces[number]]
    with pytest.raises(errors.CorruptObjectError, match=f"{way.pieces[number][0]} bytes with"):
        blobs.get(InPieces(tmp_path, way._replace(pieces=left)), blob)
    longer = blobs.Blob(blob.sha256, blob.size - 1)
    with pytest.raises(errors.CorruptObjectError, match="but got more"):
        blobs.get(InPieces(tmp_path, way), longer)


@ANY
@given(way=ways())
def test_a_sink_that_fails_is_told_and_not_taken_for_damage(tmp_path: Path, way: Way) -> None:
    store = InPieces(tmp_path, way)
    blob = blobs.put(store, way.data)
    with Path("/dev/null").open("rb") as file, pytest.raises(OSError, match="Bad file descriptor"):
        blobs.download(store, blob, sinks.File(file.fileno()))
