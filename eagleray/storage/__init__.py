"""Storage is the database: objects by key, in an S3 bucket or below a folder.

What the bytes mean does not belong here. `tests/contract/test_storage.py` holds both
implementations to the same laws; `docs/adr/0002-storage.md` says where they come from.
"""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

from eagleray import errors

EMBEDDED = "s3://eagleray"
"""The bucket of the server that `eagleray local up` starts."""
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


@dataclass(frozen=True)
class Entry:
    """One object of a listing."""

    key: str
    size: int  # in bytes
    etag: str
    modified: datetime  # when it was last written, by the server's clock


class Sink(Protocol):
    """Takes the pieces of an object, in any order and from several threads at once."""

    def write(self, piece: memoryview, start: int, /) -> None:
        """Write `piece` at the offset `start`, in bytes; its memory is reused when this returns."""


class Storage(Protocol):
    """Objects by key. Readers see whole objects; equal etags stand for equal contents.

    Methods raise subclasses of `errors.StorageError`, which name endpoint, bucket and key.
    """

    uri: str

    def get(self, key: str) -> bytes:
        """Read an object; ObjectNotFoundError when there is none."""

    def get_tagged(self, key: str) -> tuple[bytes, str]:
        """Read an object and its etag, for `compare_and_swap`."""

    def get_if_changed(self, key: str, etag: str | None) -> tuple[bytes, str] | None:
        """Read an object and its etag; None if it still has this etag."""

    def get_range(self, key: str, start: int, stop: int) -> bytes:
        """Read an object's bytes from `start` to `stop`, or its end; `start` lies within it."""

    def put(self, key: str, data: bytes) -> str:
        """Write an object, whatever was there; return its etag."""

    def put_if_absent(self, key: str, data: bytes) -> str:
        """Create an object; of many writers one wins, the others get ObjectExistsError."""

    def compare_and_swap(self, key: str, data: bytes, etag: str) -> str:
        """Replace the object with this etag; raises ObjectChangedError, ObjectNotFoundError."""

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """List the objects whose keys start with `prefix`, in no order."""

    def delete(self, key: str) -> None:
        """Delete an object, if there is one."""

    def upload(self, key: str, source: io.BufferedIOBase) -> None:
        """Write an object, whatever was there, from a seekable stream; large ones in parallel."""

    def download(self, key: str, sink: Sink) -> None:
        """Write each byte of an object to `sink` once, in any order, read in parallel ranges.

        What `sink` has got is to be thrown away if this raises; nothing is written to it after.
        """

    def discard(self, before: datetime, *, dry_run: bool = False) -> int:
        """Remove what uploads that began before then have left unfinished; return how many."""

    def clock(self) -> datetime | None:
        """The server's time; None if it is this machine's."""


def open(  # noqa: A001 - `storage.open(…)` reads as the built-in does
    uri: str, *, attempts: int | None = None
) -> Storage:
    """Open `s3://bucket[/prefix]` or `file:///path`, else raise a UserError.

    Endpoint and credentials come from the usual AWS variables and files; without any of these
    variables, from the server of `eagleray local up`, if it runs. `attempts` limits the tries.
    """
    scheme, _, rest = uri.partition("://")
    if scheme == "file" and rest.startswith("/"):
        from eagleray.storage import files

        return files.FileStorage(Path(unquote(rest)))
    bucket, _, prefix = rest.partition("/")
    if scheme == "s3" and _BUCKET.fullmatch(bucket):
        from eagleray.storage import s3

        below = checked(prefix.strip("/")) if prefix.strip("/") else ""
        return s3.connect(bucket, below, s3.Patience(attempts) if attempts else None)
    raise errors.UserError(
        f"storage: must be s3://bucket[/prefix] (a bucket has 3 to 63 of a-z, 0-9, '.', '-') "
        f"or file:///absolute/path, but got {uri!r}{_suggestion(uri)}"
    )


def checked(key: str) -> str:
    """Return the key if every storage takes it, else raise a UserError."""
    segments = key.split("/")
    # SeaweedFS takes a backslash for a slash
    whole = key.isprintable() and "\\" not in key and len(key.encode()) <= 1024
    if whole and all(s not in ("", ".", "..") and len(s.encode()) <= 255 for s in segments):
        return key
    raise errors.UserError(
        "storage: a key must be printable segments without '\\' joined by '/', none of them empty, "
        f"'.' or '..', 255 bytes each and 1024 together at most, but got {key[:80]!r}"
    )


def _suggestion(uri: str) -> str:
    if uri.startswith("/"):
        return f"; did you mean 'file://{uri}'"
    if _BUCKET.fullmatch(uri):
        return f"; did you mean 's3://{uri}'"
    return ""
