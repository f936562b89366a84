"""Contents addressed by their hash, verified on every read."""

import hashlib
import re
from dataclasses import dataclass

from eagleray import errors
from eagleray.storage import Storage

PREFIX = "blobs/sha256/"
_HASH = re.compile(rb"\b[0-9a-f]{64}\b")


@dataclass(frozen=True)
class Blob:
    """A content: the hex of its SHA-256 and its `size` in bytes."""

    sha256: str
    size: int


def put(storage: Storage, data: bytes) -> Blob:
    """Store a content, even if it is there: this repairs a corrupt one and makes it young.

    A young content is not swept before a document refers to it (`eagleray.state.sweep`).
    """
    blob = Blob(hashlib.sha256(data).hexdigest(), len(data))
    storage.put(key(blob), data)
    return blob


def get(storage: Storage, blob: Blob) -> bytes:
    """Read a content; CorruptObjectError if its size or hash differs."""
    data = storage.get(key(blob))
    found = Blob(hashlib.sha256(data).hexdigest(), len(data))
    if found != blob:
        raise errors.CorruptObjectError(
            f"{storage.uri}: key {key(blob)!r}: must hold {blob.size} bytes with this SHA-256, "
            f"but got {found.size} bytes with {found.sha256}"
        )
    return data


def hashes(text: bytes) -> set[str]:
    """All hashes in a text."""
    return {found.decode() for found in _HASH.findall(text)}


def key(blob: Blob) -> str:
    """The key of a content."""
    return PREFIX + blob.sha256
