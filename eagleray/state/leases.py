"""Leases: the right of one process to act on something, for as long as it shows signs of life.

A lease is one document, changed by compare-and-swap alone:

    holder   who acts; null when nobody does
    fence    counts the holders; every guarded write carries its writer's (`guarded`)
    sealed   the holder from which on guarded writes count
    beat     counts the signs of life of this holder

The highest fence is kept a second time, beside the lease: a lease that cannot be read is taken over
with a fence above it.

No clock is compared with another machine's. A watcher takes the lease over when the document has
not changed for `TTL_S` by its own monotonic clock, as Amazon's DynamoDB lock client and
Kubernetes' leader election do. A wrong guess costs work, never correctness: the former holder's
next write is refused by its fence.

    https://aws.amazon.com/blogs/database/building-distributed-locks-with-the-dynamodb-lock-client/
    https://pkg.go.dev/k8s.io/client-go/tools/leaderelection
    https://martin.kleppmann.com/2016/02/08/how-to-do-distributed-locking.html (fencing numbers)
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from eagleray import errors
from eagleray.state import documents, keys
from eagleray.storage import Storage

BEAT_S = 2.0
"""A holder renews its lease this often."""
TTL_S = 15.0
"""A lease that has not changed for this many seconds, by its watcher's clock, may be taken over."""
LOOK_S = 2.5 * BEAT_S
"""A holder that lives changes its lease within this time."""
_POLL_S = 0.25
TYPE = documents.Type("lease")
FENCE = documents.Type("fence")
_JUMP_BITS = 32


@dataclass(frozen=True)
class Seen:
    """A lease as it was read.

    Attributes:
        etag: of the document; None when there is none.
        fields: of the document; None when it cannot be read.
    """

    etag: str | None
    fields: documents.Fields | None = field(default_factory=dict)

    @property
    def free(self) -> bool:
        """Whether nobody holds it."""
        return self.fields is not None and self.fields.get("holder") is None

    @property
    def holder(self) -> str:
        """Who holds it, for people: host and process."""
        name = (self.fields or {}).get("holder") or "nobody"
        return str(name).rpartition(" ")[0] or str(name)

    @property
    def fence(self) -> int | None:
        """The number of its last holder; None when that is not on record."""
        return (self.fields or {}).get("fence")

    @property
    def sealed(self) -> int:
        """Guarded documents with a lower fence do not count."""
        return int((self.fields or {}).get("sealed", 0))


def read(store: Storage, key: str) -> Seen:
    """Read a lease, present or not, whole or damaged.

    Raises:
        NewerFormatError: a newer EagleRay has written it.
    """
    try:
        data, etag = store.get_tagged(key)
    except errors.ObjectNotFoundError:
        return Seen(None)
    try:
        where = documents.where(store, key)
        return Seen(etag, _checked(TYPE.decode(documents.load(data, where), where)))
    except errors.CorruptObjectError:
        return Seen(etag, None)


def alive(store: Storage, keys: Iterable[str]) -> set[str]:
    """Those of the leases whose holders live; takes `LOOK_S` where one does not, else less."""
    held = {key: seen.etag for key in keys if not (seen := read(store, key)).free}
    living, until = set(), time.monotonic() + LOOK_S
    while held and time.monotonic() < until:
        time.sleep(_POLL_S)
        for key, etag in list(held.items()):
            seen = read(store, key)
            if seen.etag != etag:
                del held[key]
                living |= set() if seen.free else {key}
    return living


def recorded(store: Storage, key: str) -> int:
    """The highest fence that is on record beside a lease; 0 where that cannot be read."""
    try:
        found = documents.parse(store.get(keys.fence(key)), key).get("fence")
    except (errors.ObjectNotFoundError, errors.CorruptObjectError):
        return 0
    return found if type(found) is int else 0


class Lease:
    """A lease that this process holds; made by `Watcher.look`. Threads may share it."""

    def __init__(self, store: Storage, key: str, seen: Seen) -> None:
        self._store, self.key, self._seen = store, key, seen
        self._holder, self._lost = (seen.fields or {})["holder"], False
        self._lock = threading.Lock()
        self.fence: int = (seen.fields or {})["fence"]
        self.sealed = seen.sealed

    def check(self) -> None:
        """Raise LeaseLostError when it is known that somebody else holds the lease."""
        if self._lost:
            raise self.lose()

    def verify(self) -> None:
        """Read whether this process still holds the lease, else raise LeaseLostError."""
        self._mine(read(self._store, self.key))

    def lose(self) -> errors.LeaseLostError:
        """Take note that somebody else holds the lease."""
        self._lost = True
        return errors.LeaseLostError(
            f"{documents.where(self._store, self.key)}: somebody else holds this lease by now"
        )

    def beat(self) -> None:
        """Renew the lease.

        Raises:
            LeaseLostError: somebody else holds the lease.
            StorageError: nobody can tell; try again.
        """
        self._swap(lambda fields: {"beat": fields.get("beat", 0) + 1})

    def seal(self) -> None:
        """Make the guarded writes of all earlier holders count no more."""
        self._swap(lambda _: {"sealed": self.fence})
        self.sealed = self.fence

    def release(self) -> None:
        """Leave the lease to the next: it need not wait."""
        self._swap(lambda _: {"holder": None})
        self._lost = True

    def _swap(self, change: Callable[[documents.Fields], documents.Fields]) -> None:
        """Change the document; one whose etag is not ours may be one of our own, unanswered."""
        with self._lock:
            self.check()
            while True:
                fields = {**(self._seen.fields or {}), **change(self._seen.fields or {})}
                try:
                    etag = documents.replace(
                        self._store, self.key, TYPE.encode(fields), self._seen.etag
                    )
                except documents.MISSED:
                    self._seen = self._mine(read(self._store, self.key))
                    continue
                self._seen = Seen(etag, fields)
                return

    def _mine(self, seen: Seen) -> Seen:
        fields = seen.fields or {}
        if (fields.get("holder"), fields.get("fence")) != (self._holder, self.fence):
            raise self.lose()
        return seen


class Watcher:
    """Waits for a lease.

    Args:
        store: where the lease is.
        key: of its document.
        clock: monotonic seconds of this machine.
    """

    def __init__(
        self, store: Storage, key: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store, self._key, self._clock = store, key, clock
        self._name = f"{socket.gethostname()}:{os.getpid()} {secrets.token_hex(6)}"
        self._since: float | None = None
        self._given = 0
        self.seen = Seen(None)

    def look(self) -> Lease | None:
        """Take the lease where it is free or its holder silent; else None.

        Raises:
            StorageError: storage fails, and whether the lease was taken shows the next look.
        """
        silent = self.watch()
        if self._is_mine(self.seen) and self.seen.fence != self._given:
            return self._give()  # taken by a request that was not answered
        lost = self._is_mine(self.seen)  # refused by a fence that was not on record
        return self._take() if lost or self.seen.free or silent >= TTL_S else None

    def watch(self) -> float:
        """Look without taking: seconds for which the lease is known not to have changed."""
        before, known = self._clock(), self.seen.etag
        self.seen = read(self._store, self._key)
        if self._since is None or self.seen.etag != known:
            self._since = self._clock()
            return 0.0
        return before - self._since

    def _take(self) -> Lease | None:
        fields = {
            "beat": 0,
            **(self.seen.fields or {}),
            "holder": self._name,
            "fence": self._next(),
            "sealed": self.seen.sealed,
        }
        data = TYPE.encode(fields)
        try:
            etag = documents.replace(self._store, self._key, data, self.seen.etag)
        except documents.MISSED:
            self.watch()  # what was refused may have been written by a first, unanswered attempt
            taken = self._is_mine(self.seen) and self.seen.fence == fields["fence"]
            return self._give() if taken else None
        self.seen = Seen(etag, fields)
        return self._give()

    def _give(self) -> Lease:
        lease = Lease(self._store, self._key, self.seen)
        self._given = lease.fence
        return lease

    def _next(self) -> int:
        """A fence above all before; by chance far above, where the last one is not on record."""
        known = recorded(self._store, self._key)
        if self.seen.fence is not None:
            return max(self.seen.fence, known) + 1
        return known + 1 + (secrets.randbits(_JUMP_BITS) if self.seen.etag or known else 0)

    def _is_mine(self, seen: Seen) -> bool:
        return (seen.fields or {}).get("holder") == self._name


def _checked(fields: documents.Fields) -> documents.Fields:
    """Raise CorruptObjectError where a number is none."""
    for name in ("fence", "sealed", "beat"):
        if type(fields.get(name, 0)) is not int:
            raise errors.CorruptObjectError(f"lease: {name} must be a number")
    return fields
