"""Leases: the right of one process to act on something, which it renews while it lives.

A lease is one document, changed by compare-and-swap alone. A second one holds the highest fence, so
that a damaged lease is taken over with a higher fence too.

Clocks of two machines are never compared. A watcher takes a lease over when it has not changed for
`TTL_S` by the watcher's own monotonic clock, as Amazon's DynamoDB lock client and Kubernetes'
leader election do. A wrong guess costs work, never correctness: fences stop the former holder.

    https://aws.amazon.com/blogs/database/building-distributed-locks-with-the-dynamodb-lock-client/
    https://pkg.go.dev/k8s.io/client-go/tools/leaderelection
    https://martin.kleppmann.com/2016/02/08/how-to-do-distributed-locking.html (fencing numbers)
"""

import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pydantic import StrictInt

from eagleray import errors, process
from eagleray.state import documents, keys
from eagleray.storage import Storage

BEAT_S = 2.0
"""A holder renews its lease this often."""
TTL_S = 15.0
"""A watcher may take over a lease that has not changed for this many seconds."""
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
    beat: StrictInt = 0  # counts the renewals by this holder

    @property
    def free(self) -> bool:
        return self.holder is None

    @property
    def owner(self) -> str:
        """Host and process of the holder, for people."""
        return (self.holder or "nobody").split(" ")[0]


class Fence(documents.Document):
    """The highest fence of a lease, in case the lease is damaged."""

    KIND = "fence"

    fence: StrictInt = 0


def read(store: Storage, key: str) -> LeaseDocument:
    """Read a lease: free if it is absent, with holder "" if damaged; raises NewerFormatError."""
    try:
        data, etag = store.get_tagged(key)
    except errors.ObjectNotFoundError:
        return LeaseDocument()
    try:
        return LeaseDocument.tagged(data, etag, documents.where(store, key))
    except errors.CorruptObjectError:
        return LeaseDocument(holder="", etag=etag)


def alive(store: Storage, keys: Iterable[str]) -> set[str]:
    """The leases that are renewed; waits for a renewal of each, for `ALIVE_S` at most."""
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
    """A lease that this process holds, from `Watcher.acquire`. Threads may share it."""

    def __init__(self, store: Storage, key: str, document: LeaseDocument) -> None:
        assert document.fence is not None
        self._store, self.key, self._document = store, key, document
        self._holder, self.fence = document.holder, document.fence
        self._lost, self._lock = False, threading.Lock()

    @property
    def sealed(self) -> int:
        return self._document.sealed

    def check(self) -> None:
        """Raise LeaseLostError if the lease is known to be lost; makes no request."""
        if self._lost:
            raise self.lose()

    def verify(self) -> LeaseDocument:
        """Read the lease; raise LeaseLostError if another process holds it."""
        current = read(self._store, self.key)
        if (current.holder, current.fence) != (self._holder, self.fence):
            raise self.lose()
        return current

    def lose(self) -> errors.LeaseLostError:
        """Mark the lease as lost; return the error to raise."""
        self._lost = True
        return errors.LeaseLostError(
            f"{documents.where(self._store, self.key)}: another process holds this lease"
        )

    def beat(self) -> None:
        """Renew the lease; repeat it after any StorageError but LeaseLostError."""
        self._change(beat=self._document.beat + 1)

    def seal(self) -> None:
        """Exclude guarded documents with the fence of an earlier holder from reading."""
        self._change(sealed=self.fence)

    def release(self) -> None:
        """Free the lease, so that the next holder does not wait for `TTL_S`."""
        self._change(holder=None)
        self._lost = True

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Renew the lease in the block, and free it at the end."""
        with process.beating(BEAT_S, self.beat):
            try:
                yield
            finally:
                with contextlib.suppress(errors.StorageError):  # the lease then expires
                    self.release()

    def _change(self, **changes: Any) -> None:
        with self._lock:
            self.check()
            while True:
                try:
                    self._document = self._document.replace(self._store, self.key, **changes)
                    return
                except documents.MISSED:  # perhaps by our own request, whose answer was lost
                    self._document = self.verify()


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
        """Take the lease if it is free or has expired, else None; repeat after StorageError."""
        unchanged_s, ours = self.observe(), self.document.holder == self._name
        if ours and self.document.fence != self._acquired:
            return self._hold()  # taken by a request that was not answered
        # ours again: a document has a higher fence than the one that was on record
        takes = ours or self.document.free or unchanged_s >= TTL_S
        return self._take() if takes else None

    def observe(self) -> float:
        """Read the lease; return for how many seconds it has not changed."""
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
        """A fence above all before; above by a random number if the last one is not on record."""
        recorded = Fence()
        with contextlib.suppress(errors.CorruptObjectError):
            recorded = Fence.find(self._store, keys.fence(self._key)) or recorded
        last, known = self.document.fence, recorded.fence
        if last is not None:
            return max(last, known) + 1
        return known + 1 + (secrets.randbits(_JUMP_BITS) if self.document.etag or known else 0)
