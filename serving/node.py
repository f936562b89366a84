"""The aliases document, asked for once a node: one replica reads storage, the others its copy.

The reader holds a lock of the operating system, which is free again when its process ends. It
writes what it has read to a file, whose time of change says that it goes on; if that is too long
ago, each replica asks storage itself.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from eagleray import errors
from eagleray.state.aliases import Aliases


class Source(Protocol):
    """Where aliases are read; see `eagleray.state.models.Registry`."""

    def watch(self, name: str, etag: str | None) -> Aliases | None: ...


class NodeAliases:
    """Reads the aliases of a model for the replicas of a node, which share `folder`.

    A copy that has not been touched for `stale_s` is not believed.
    """

    def __init__(
        self,
        source: Source,
        name: str,
        folder: Path,
        *,
        stale_s: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._source, self._name, self._stale_s, self._now = source, name, stale_s, now
        self._file = folder / f"{name}.json"
        self._lock = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        self._reads = False
        self._etag: str | None = None  # of the copy that this reader has written

    def __del__(self) -> None:
        os.close(self._lock)

    def watch(self, etag: str | None) -> Aliases | None:
        """The aliases, or None when they are still those of `etag`; raises StorageError."""
        if self._reader():
            return self._read(etag)
        copy = self._copy()
        if copy is None:
            return self._source.watch(self._name, etag)
        return None if copy.etag == etag else copy

    def _reader(self) -> bool:
        """Whether this replica asks storage for its node."""
        if not self._reads:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._reads = True
            except BlockingIOError:
                return False
        return True

    def _read(self, etag: str | None) -> Aliases | None:
        found = self._source.watch(self._name, etag)
        if found is None and self._etag == etag and etag is not None:
            os.utime(self._file)
        elif found is not None:
            self._write(found)
        return found

    def _write(self, found: Aliases) -> None:
        temporary = self._file.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps({"etag": found.etag, "document": found.fields()}))
        temporary.replace(self._file)
        self._etag = found.etag

    def _copy(self) -> Aliases | None:
        """The reader's copy; None if it is absent, stale or unreadable."""
        try:
            if self._now() - self._file.stat().st_mtime > self._stale_s:
                return None
            held: dict[str, Any] = json.loads(self._file.read_text())
            document = Aliases.decode(held["document"], str(self._file))
            return document.model_copy(update={"etag": held["etag"]})
        except (OSError, ValueError, TypeError, LookupError, errors.StorageError):
            return None
