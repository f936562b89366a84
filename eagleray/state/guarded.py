"""Documents below one prefix that only the holder of a lease can make visible.

An object store has no lock that outlives its holder's pause, so each document carries the fence of
its writer. That is safe however long a holder sleeps between any two steps, since

- a write replaces what its writer has read, and is refused once the document bears a later fence;
- a new holder first puts its fence on record, then on every document there is (`adopt`), and then
  says that lower ones do not count (`sealed`): what a former holder creates later is never seen;
- who creates a document looks at the lease before it counts as written.

So a write that has returned is found by the next holder, and one that has not may be lost.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eagleray import errors
from eagleray.state import documents, keys, leases
from eagleray.storage import Storage


class Writer:
    """Writes documents under a lease; one thread a document."""

    def __init__(self, store: Storage, lease: leases.Lease) -> None:
        self._store, self._lease = store, lease
        self._etags: dict[str, str] = {}  # of documents that bear our fence

    def put(self, key: str, fields: Mapping[str, Any]) -> None:
        """Write a document: one request, and two more the first time.

        Raises:
            LeaseLostError: somebody else holds the lease; the write is not seen.
        """
        data = self._marked(fields)
        etag = self._etags.get(key)
        ours = etag is not None
        while True:
            self._lease.check()
            try:
                written = documents.replace(self._store, key, data, etag)
            except documents.MISSED:
                (fence, _, etag), ours = self._look(key), False
                if fence > self._lease.fence:
                    raise self._lease.lose() from None
                continue
            if not ours:  # a new holder may have looked for what to adopt before it was there
                self._lease.verify()
            self._etags[key] = written
            return

    def adopt(self, prefixes: Sequence[str]) -> None:
        """Take over what earlier holders wrote below these prefixes; theirs count no more then.

        Raises:
            CorruptObjectError: one of the documents cannot be read.
            LeaseLostError: somebody else holds the lease.
        """
        self.put(keys.fence(self._lease.key), leases.FENCE.stamp({}))
        found = [entry.key for prefix in prefixes for entry in self._store.list(prefix)]
        documents.read_all(self._adopt, found)
        self._lease.seal()

    def _adopt(self, key: str) -> None:
        while True:
            fence, data, etag = self._look(key)
            if fence > self._lease.fence:
                raise self._lease.lose()
            if etag is None or fence < self._lease.sealed:
                return  # the latter was created by a holder who had lost the lease
            marked = self._marked(documents.parse(data, documents.where(self._store, key)))
            with contextlib.suppress(*documents.MISSED):
                self._etags[key] = documents.replace(self._store, key, marked, etag)
                return

    def _look(self, key: str) -> tuple[int, bytes, str | None]:
        """What is there, to be replaced: its fence, itself, and its etag; None for nothing."""
        try:
            data, etag = self._store.get_tagged(key)
        except errors.ObjectNotFoundError:
            return 0, b"", None
        with contextlib.suppress(errors.CorruptObjectError):
            return _fence(documents.parse(data, key)), data, etag
        return self._lease.fence, data, etag

    def _marked(self, fields: Mapping[str, Any]) -> bytes:
        return json.dumps({**fields, "fence": self._lease.fence}).encode()


def read(store: Storage, lease: str, key: str) -> documents.Fields | None:
    """Read the document of a key, without its fence; None where none counts."""
    return _read(store, lease, [key]).get(key)


def read_all(store: Storage, lease: str, prefix: str) -> dict[str, documents.Fields]:
    """Read all documents below a prefix by key, in order, without their fences.

    Args:
        store: where they are.
        lease: key of the lease that guards them.
        prefix: of their keys.
    """
    return _read(store, lease, sorted(entry.key for entry in store.list(prefix)))


def _read(store: Storage, lease: str, wanted: list[str]) -> dict[str, documents.Fields]:
    """Read what counts; again, when a new holder has taken over meanwhile."""
    while True:
        sealed = leases.read(store, lease).sealed
        found = {key: one for key, one in _documents(store, wanted) if _fence(one) >= sealed}
        if leases.read(store, lease).sealed == sealed:
            return {key: _without_fence(one) for key, one in found.items()}


def _documents(store: Storage, wanted: list[str]) -> Iterator[tuple[str, documents.Fields]]:
    def get(key: str) -> documents.Fields | None:
        try:
            return documents.parse(store.get(key), documents.where(store, key))
        except errors.ObjectNotFoundError:
            return None

    found = zip(wanted, documents.read_all(get, wanted), strict=True)
    yield from ((key, one) for key, one in found if one is not None)


def _fence(fields: documents.Fields) -> int:
    found = fields.get("fence", 0)
    return found if isinstance(found, int) else 0


def _without_fence(fields: documents.Fields) -> documents.Fields:
    return {name: value for name, value in fields.items() if name != "fence"}
