"""Contents that were read before, on this machine's disk: verified on every use, the oldest go.

Restored trials and replicas that load a version read through it. Where the disk has no room, or
the folder is not ours, a content is held in memory instead.
"""

import contextlib
import hashlib
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from eagleray import errors
from eagleray.storage import Storage, blobs, sinks

log = logging.getLogger(__name__)

VARIABLE = "EAGLERAY_CACHE"
"""Names the folder; by default it is in the folder of temporary files."""
LIMIT = 4 << 30
"""The most bytes of all contents together, and never more than a tenth of what is free."""


class Cache:
    """Contents in a folder that several processes share; `limit` is in bytes."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit

    @contextlib.contextmanager
    def open(self, store: Storage, blob: blobs.Blob) -> Iterator[Path]:
        """Yield a file with a content, verified; what removes it later does no harm to it.

        Raises:
            StorageError: what `blobs.download` raises.
        """
        handle = self._known(blob) or self._fetched(store, blob) or _in_memory(store, blob)
        try:
            yield Path(f"/dev/fd/{handle}")
        finally:
            os.close(handle)

    def get(self, store: Storage, blob: blobs.Blob) -> bytes:
        """Read a content; raises what `open` raises."""
        with self.open(store, blob) as path:
            return path.read_bytes()

    def _known(self, blob: blobs.Blob) -> int | None:
        """Open a content that is here; one that rotted is removed."""
        path = self._folder / blob.sha256
        try:
            handle = os.open(path, os.O_RDONLY)
        except OSError:
            return None
        with os.fdopen(handle, "rb", closefd=False) as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == blob.sha256:
                with contextlib.suppress(OSError):
                    os.utime(path)  # for `_evict`
                return handle
        os.close(handle)
        log.warning("%s: must hold its content, but does not: it is read anew", path)
        path.unlink(missing_ok=True)
        return None

    def _fetched(self, store: Storage, blob: blobs.Blob) -> int | None:
        """Download a content and open it; None if this disk does not take it."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            free = shutil.disk_usage(self._folder).free
            limit = min(self._limit, free // 10)
            if blob.size > limit or self._folder.stat().st_uid != os.getuid():
                return None
            return self._written(store, blob, limit)
        except (OSError, errors.StorageFullError) as cause:
            log.warning("%s: a content is held in memory: %s", self._folder, cause)
            return None

    def _written(self, store: Storage, blob: blobs.Blob, limit: int) -> int:
        self._evict(limit - blob.size)
        unfinished = self._folder / f"{secrets.token_hex(8)}.unfinished"
        try:
            with unfinished.open("xb+") as file:
                blobs.download(store, blob, sinks.File(file.fileno()))
            handle = os.open(unfinished, os.O_RDONLY)
            unfinished.replace(self._folder / blob.sha256)
            return handle
        finally:
            unfinished.unlink(missing_ok=True)

    def _evict(self, limit: int) -> None:
        """Remove the contents that were not used for longest until `limit` bytes are left."""
        found = []
        for path in self._folder.iterdir():
            with contextlib.suppress(OSError):  # removed meanwhile
                about = path.stat()
                found.append((about.st_mtime, about.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= limit:
                return
            path.unlink(missing_ok=True)
            total -= size


def default() -> Cache:
    """The cache of this user on this machine."""
    own = Path(tempfile.gettempdir(), f"eagleray-cache-{os.getuid()}")
    return Cache(Path(os.environ.get(VARIABLE) or own), LIMIT)


def _in_memory(store: Storage, blob: blobs.Blob) -> int:
    if not hasattr(os, "memfd_create"):  # not Linux
        raise errors.StorageFullError(f"{blobs.key(blob)}: this machine's disk has no room for it")
    handle = os.memfd_create(blob.sha256)
    try:
        blobs.download(store, blob, sinks.File(handle))
    except BaseException:
        os.close(handle)
        raise
    return handle
