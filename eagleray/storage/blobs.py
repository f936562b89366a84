"""Contents addressed by their hash, verified on every read.

They are streams: a large content is sent and read in parallel parts, of which a few are in memory.
"""

import hashlib
import io
import re
from concurrent import futures
from dataclasses import dataclass

from eagleray import errors
from eagleray.storage import Sink, Storage, streams

PREFIX = "blobs/sha256/"
_WRITE = 256 << 10  # bytes: files get their memory in blocks of this size, and large ones are rare
_HASH = re.compile(rb"\b[0-9a-f]{64}\b")


@dataclass(frozen=True)
class Blob:
    """A content: the hex of its SHA-256 and its `size` in bytes."""

    sha256: str
    size: int


def put(storage: Storage, content: bytes | io.BufferedIOBase) -> Blob:
    """Store a content, even if it is there: this repairs a corrupt one and makes it young.

    A young content is not swept before a document refers to it (`eagleray.state.sweep`). A stream
    must be seekable, as it is read twice: its hash is the key, and hashing takes less than sending.
    """
    source = streams.Buffers([content]) if isinstance(content, bytes) else content
    source.seek(0)
    digest = hashlib.file_digest(source, "sha256")
    blob = Blob(digest.hexdigest(), source.seek(0, io.SEEK_END))
    source.seek(0)
    storage.upload(key(blob), source)
    return blob


def get(storage: Storage, blob: Blob) -> bytes:
    """Read a content; CorruptObjectError if its size or hash differs."""
    content = io.BytesIO()
    download(storage, blob, content)
    return content.getvalue()


def download(storage: Storage, blob: Blob, sink: Sink) -> None:
    """Write a content to `sink`, hashed on the way; what it got is void if this raises.

    Raises:
        CorruptObjectError: its size or hash differs.
    """
    with futures.ThreadPoolExecutor(1, "hash") as hashing:
        verified = _Verified(sink, storage, blob, hashing)
        storage.download(key(blob), verified)
    verified.check()


def hashes(text: bytes) -> set[str]:
    """All hashes in a text."""
    return {found.decode() for found in _HASH.findall(text)}


def key(blob: Blob) -> str:
    """The key of a content."""
    return PREFIX + blob.sha256


class _Verified:
    """Passes a content on, and compares its size and hash with what they must be."""

    def __init__(self, sink: Sink, storage: Storage, blob: Blob, hashing: futures.Executor) -> None:
        self._sink, self._storage, self._blob, self._hashing = sink, storage, blob, hashing
        self._digest, self._size = hashlib.sha256(), 0
        self._hashed: futures.Future[None] | None = None  # the last part

    def write(self, data: bytes | memoryview) -> None:
        self._size += len(data)
        if self._size > self._blob.size:
            raise self._error("more")
        before, self._hashed = self._hashed, self._hashing.submit(self._digest.update, data)
        view = memoryview(data)
        for start in range(0, len(view), _WRITE):  # while it is hashed
            self._sink.write(view[start : start + _WRITE])
        if before is not None:
            before.result()

    def check(self) -> None:
        found = Blob(self._digest.hexdigest(), self._size)
        if found != self._blob:
            raise self._error(f"{found.size} bytes with {found.sha256}")

    def _error(self, found: str) -> errors.CorruptObjectError:
        return errors.CorruptObjectError(
            f"{self._storage.uri}: key {key(self._blob)!r}: must hold {self._blob.size} bytes with "
            f"this SHA-256, but got {found}"
        )
