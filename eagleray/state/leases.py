"""Leases: the right of one process to act on something, for as long as it shows signs of life.

A lease is one document, changed by compare-and-swap alone. The highest fence is kept a second time,
beside it, so that a lease that cannot be read is taken over with a fence above it.

No clock is compared with another machine's. A watcher takes the lease over when the document has
not changed for `TTL_S` by its own monotonic clock, as Amazon's DynamoDB lock client and
Kubernetes' leader election do. A wrong guess costs work, never correctness: the former holder's
next write is refused by its fence.

    https://aws.amazon.com/blogs/database/building-distributed-locks-with-the-dynamodb-lock-client/
    https://pkg.go.dev/k8s.io/client-go/tools/leaderelection
    https://martin.kleppmann.com/2016/02/08/how-to-do-distributed-locking.html (fencing numbers)
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from pydantic import StrictInt

from eagleray import errors
from eagleray.state import documents, keys
from eagleray.storage import Storage

BEAT_S = 2.0
"""A holder renews its lease this often."""
TTL_S = 15.0
"""A lease that has not changed for this many seconds, by its watcher's clock, may be taken over."""
ALIVE_S = 2.5 * BEAT_S
"""A holder that lives changes its lease within this time."""
_POLL_S = 0.25
_JUMP_BITS = 32


class LeaseDocument(documents.Replaceable, frozen=True):
    """Who holds a lease."""

    KIND = "lease"

    holder: str | None = None  # host, process, random token; None: nobody, empty: unreadable
    fence: StrictInt | None = None  # counts the holders; every guarded write carries its writer's
    sealed: StrictInt = 0  # guarded documents with a lower fence do not count
    beat: StrictInt = 0  # counts the signs of life of this holder

    @property
    def free(self) -> bool:
        """Whether nobody holds it."""
        return self.holder is None

    @property
    def owner(self) -> str:
        """Host and process of the holder, for people."""
        return (self.holder or "nobody").split(" ")[0]


class Fence(documents.Document):
    """The highest fence of a lease, beside it."""

    KIND = "fence"

    fence: StrictInt = 0


def read(store: Storage, key: str) -> LeaseDocument:
    """Read a lease, present or not, whole or damaged; NewerFormatError when it is too new."""
    try:
        data, etag = store.get_tagged(key)
    except errors.ObjectNotFoundError:
        return LeaseDocument()
    try:
        return LeaseDocument.tagged(data, etag, documents.where(store, key))
    except errors.CorruptObjectError:
        return LeaseDocument(holder="", etag=etag)


def alive(store: Storage, keys: Iterable[str]) -> set[str]:
    """Those of the leases whose holders live; takes `ALIVE_S` where one does not, else less."""
    held = {key: lease.etag for key in keys if not (lease := read(store, key)).free}
    living, until = set(), time.monotonic() + ALIVE_S
    while held and time.monotonic() < until:
        time.sleep(_POLL_S)
        for key, etag in list(held.items()):
            lease = read(store, key)
            if lease.etag != etag:
                del held[key]
                living |= set() if lease.free else {key}
    return living


class Lease:
    """A lease that this process holds; `Watcher.acquire` gives it. Threads may share it."""

    def __init__(self, store: Storage, key: str, document: LeaseDocument) -> None:
        assert document.fence is not None
        self._store, self.key, self._document = store, key, document
        self._holder, self.fence = document.holder, document.fence
        self._lost, self._lock = False, threading.Lock()

    @property
    def sealed(self) -> int:
        """See `LeaseDocument`."""
        return self._document.sealed

    def check(self) -> None:
        """Raise LeaseLostError when it is known that another process holds the lease."""
        if self._lost:
            raise self.lose()

    def verify(self) -> None:
        """Read whether this process still holds the lease, else raise LeaseLostError."""
        self._read()

    def lose(self) -> errors.LeaseLostError:
        """Take note that another process holds the lease; give the error to raise."""
        self._lost = True
        return errors.LeaseLostError(
            f"{documents.where(self._store, self.key)}: somebody else holds this lease by now"
        )

    def beat(self) -> None:
        """Renew the lease; after a StorageError but LeaseLostError, try again."""
        self._change(beat=self._document.beat + 1)

    def seal(self) -> None:
        """Make the guarded writes of all earlier holders count no more."""
        self._change(sealed=self.fence)

    def release(self) -> None:
        """Leave the lease to the next: it need not wait."""
        self._change(holder=None)
        self._lost = True

    def _change(self, **changes: Any) -> None:
        """Change the document; one with another etag may be of this process, by a lost answer."""
        with self._lock:
            self.check()
            while True:
                try:
                    self._document = self._document.replace(self._store, self.key, **changes)
                    return
                except documents.MISSED:
                    self._document = self._read()

    def _read(self) -> LeaseDocument:
        current = read(self._store, self.key)
        if (current.holder, current.fence) != (self._holder, self.fence):
            raise self.lose()
        return current


class Watcher:
    """Waits for a lease; `clock` gives monotonic seconds of this machine."""

    def __init__(
        self, store: Storage, key: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store, self._key, self._clock = store, key, clock
        self._name = f"{socket.gethostname()}:{os.getpid()} {secrets.token_hex(6)}"
        self._since: float | None = None
        self._acquired: int | None = None
        self.document = LeaseDocument()

    def acquire(self) -> Lease | None:
        """Take the lease where it is free or its holder silent; else None.

        After a StorageError the next call shows whether the lease was taken.
        """
        unchanged_s, ours = self.observe(), self.document.holder == self._name
        if ours and self.document.fence != self._acquired:
            return self._hold()  # taken by a request that was not answered
        # one that is ours was refused by a fence that was not on record
        takes = ours or self.document.free or unchanged_s >= TTL_S
        return self._take() if takes else None

    def observe(self) -> float:
        """Read without taking: seconds for which the lease is known not to have changed."""
        before, etag = self._clock(), self.document.etag
        self.document = read(self._store, self._key)
        if self._since is None or self.document.etag != etag:
            self._since = self._clock()
            return 0.0
        return before - self._since

    def _take(self) -> Lease | None:
        fence = self._next()
        try:
            self.document = self.document.replace(
                self._store, self._key, holder=self._name, fence=fence
            )
        except documents.MISSED:
            self.observe()  # a first attempt without an answer may have taken it
            if (self.document.holder, self.document.fence) != (self._name, fence):
                return None
        return self._hold()

    def _hold(self) -> Lease:
        lease = Lease(self._store, self._key, self.document)
        self._acquired = lease.fence
        return lease

    def _next(self) -> int:
        """A fence above all before; by chance far above, where the last one is not on record."""
        recorded = Fence()
        with contextlib.suppress(errors.CorruptObjectError):
            recorded = Fence.find(self._store, keys.fence(self._key)) or recorded
        last, known = self.document.fence, recorded.fence
        if last is not None:
            return max(last, known) + 1
        return known + 1 + (secrets.randbits(_JUMP_BITS) if self.document.etag or known else 0)
