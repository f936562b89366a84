"""Contents addressed by their hash: written once, verified on every read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from eagleray import errors
from eagleray.storage import Storage


@dataclass(frozen=True)
class Blob:
    """A content: the hex of its SHA-256 and its `size` in bytes."""

    sha256: str
    size: int


def put(storage: Storage, data: bytes) -> Blob:
    """Store a content; one that lies there already is read back, and mended when it is corrupt."""
    blob = Blob(hashlib.sha256(data).hexdigest(), len(data))
    try:
        storage.put_if_absent(key(blob), data)
    except errors.ObjectExistsError:
        if storage.get(key(blob)) != data:
            storage.put(key(blob), data)
    return blob


def get(storage: Storage, blob: Blob) -> bytes:
    """Read a content.

    Raises:
        errors.CorruptObjectError: what lies there is something else; it is never handed out.
    """
    data = storage.get(key(blob))
    found = Blob(hashlib.sha256(data).hexdigest(), len(data))
    if found != blob:
        raise errors.CorruptObjectError(
            f"{storage.uri}: key {key(blob)!r}: must hold {blob.size} bytes with this SHA-256, "
            f"but got {found.size} bytes with {found.sha256}"
        )
    return data


def key(blob: Blob) -> str:
    """Give the key a content lies under."""
    return f"blobs/sha256/{blob.sha256}"
