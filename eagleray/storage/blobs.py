"""Contents addressed by their hash, verified on every read.

They are streams: a large content is sent and read in parallel parts, of which a few are in memory.
"""

import hashlib
import io
import re
import threading
from dataclasses import dataclass

from eagleray import errors
from eagleray.storage import Storage, sinks, streams

PREFIX = "blobs/sha256/"
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
    content = sinks.Memory(blob.size)
    download(storage, blob, content)
    return content.getvalue()


def download(storage: Storage, blob: Blob, content: sinks.Content) -> None:
    """Download a blob into `content` and verify it; discard `content` if this raises.

    Raises:
        CorruptObjectError: its size or hash differs.
    """
    verified = _Verified(storage, blob, content)
    storage.download(key(blob), verified)
    verified.check()


def hashes(text: bytes) -> set[str]:
    """All hashes in a text."""
    return {found.decode() for found in _HASH.findall(text)}


def key(blob: Blob) -> str:
    """The key of a content."""
    return PREFIX + blob.sha256


class _Verified:
    """Passes a content on, and compares its size and hash with what they must be.

    Pieces come in any order. What has come without a gap is read back and hashed by one of the
    threads that write, while the others go on.
    """

    def __init__(self, storage: Storage, blob: Blob, content: sinks.Content) -> None:
        self._storage, self._blob, self._content = storage, blob, content
        self._digest, self._lock = hashlib.sha256(), threading.Lock()
        self._later: dict[int, int] = {}  # ends of pieces beyond a gap, by their starts
        self._end = self._hashed = 0  # of what has come without a gap; of what of it is hashed
        self._hashing = False  # by a thread

    def write(self, piece: memoryview, start: int, /) -> None:
        stop = start + len(piece)
        if stop > self._blob.size:
            raise self._error("more")
        self._content.write(piece, start)
        if self._arrived(start, stop):
            while (stop := self._next()) > self._hashed:
                for view in self._content.views(self._hashed, stop):
                    self._digest.update(view)
                self._hashed = stop

    def _arrived(self, start: int, stop: int) -> bool:
        """Record a piece that was written; return whether this thread is to hash now."""
        with self._lock:
            self._later[start] = stop
            while self._end in self._later:
                self._end = self._later.pop(self._end)
            idle, self._hashing = not self._hashing, True
            return idle

    def _next(self) -> int:
        """The end of what can be hashed; when all of it is, another thread may."""
        with self._lock:
            self._hashing = self._hashed < self._end
            return self._end

    def check(self) -> None:
        found = Blob(self._digest.hexdigest(), self._end)
        if found != self._blob:
            raise self._error(f"{found.size} bytes with {found.sha256}")

    def _error(self, found: str) -> errors.CorruptObjectError:
        return errors.CorruptObjectError(
            f"{self._storage.uri}: key {key(self._blob)!r}: must hold {self._blob.size} bytes with "
            f"this SHA-256, but got {found}"
        )
