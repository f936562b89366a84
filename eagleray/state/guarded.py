"""Documents that only the holder of a lease can change, however long it sleeps between two steps.

Each document carries the fence of its writer, since a holder may go on after it has lost the lease.

- A write replaces what its writer has read, and is refused if the document has a later fence.
- A new holder records its fence, puts it on every document (`adopt`), then seals the lease: lower
  fences do not count from now on, so documents that a former holder creates are never seen.
- After it has created a document, a writer checks that it still holds the lease.

The next holder finds every write that has returned; one that has not may be lost.
"""

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from eagleray import errors
from eagleray.state import documents, keys, leases
from eagleray.storage import Storage


class Writer:
    """Writes documents under a lease, each from one thread only."""

    def __init__(self, store: Storage, lease: leases.Lease) -> None:
        self._store, self._lease = store, lease
        self._written: dict[str, tuple[str, documents.Fields]] = {}  # etag and fields, by key

    def put(self, key: str, fields: Mapping[str, Any]) -> None:
        """Write a document: one request, and two more the first time.

        LeaseLostError if another process holds the lease; readers do not see the write.
        """
        etag, before = self._written.get(key, (None, {}))
        whole, ours = {**before, **fields}, etag is not None
        while True:
            self._lease.check()
            try:
                written = self._replace(key, whole, etag)
            except documents.MISSED:
                etag, ours = self._current(key)[1], False
                continue
            if not ours:  # a new holder may have listed the documents before this one was there
                self._lease.verify()
            self._written[key] = written, whole
            return

    def adopt(self, prefixes: Sequence[str]) -> None:
        """Take over what earlier holders wrote below these prefixes; what they write later is lost.

        CorruptObjectError if one cannot be read, LeaseLostError if another process holds the lease.
        """
        self.put(keys.fence(self._lease.key), leases.Fence().fields())
        listed = [entry.key for prefix in prefixes for entry in self._store.list(prefix)]
        documents.read_all(self._adopt, listed)
        self._lease.seal()

    def _adopt(self, key: str) -> None:
        while True:
            data, etag = self._current(key)
            if etag is None:
                return
            fields = _parse(data, documents.where(self._store, key))
            if _fence(fields) < self._lease.sealed:
                return  # created by a holder who had lost the lease
            with contextlib.suppress(*documents.MISSED):
                self._written[key] = self._replace(key, fields, etag), fields
                return

    def _current(self, key: str) -> tuple[bytes, str | None]:
        """Read an object, absent or not, and its etag; LeaseLostError if its fence is later."""
        try:
            data, etag = self._store.get_tagged(key)
        except errors.ObjectNotFoundError:
            return b"", None
        with contextlib.suppress(errors.CorruptObjectError):
            if _fence(_parse(data, key)) > self._lease.fence:
                raise self._lease.lose()
        return data, etag

    def _replace(self, key: str, fields: documents.Fields, etag: str | None) -> str:
        fenced = {**fields, "fence": self._lease.fence}
        return documents.replace(self._store, key, json.dumps(fenced).encode(), etag)


def read(store: Storage, lease: str, wanted: Iterable[str]) -> dict[str, documents.Fields]:
    """Read the documents that count, by key; read again if a new holder took over meanwhile."""
    known = list(wanted)

    def get(key: str) -> documents.Fields | None:
        try:
            return _parse(store.get(key), documents.where(store, key))
        except errors.ObjectNotFoundError:
            return None

    while True:
        sealed = leases.read(store, lease).sealed
        found = zip(known, documents.read_all(get, known), strict=True)
        counted = {key: one for key, one in found if one is not None and _fence(one) >= sealed}
        if leases.read(store, lease).sealed == sealed:
            return {key: documents.without(one, "fence") for key, one in counted.items()}


def _parse(data: bytes, where: str) -> documents.Fields:
    content = documents.load(data, where)
    if not isinstance(content, dict):
        raise errors.CorruptObjectError(f"{where}: must be a JSON object, but got {content!r:.60}")
    return content


def _fence(fields: documents.Fields) -> int:
    fence = fields.get("fence", 0)
    return fence if isinstance(fence, int) else 0
