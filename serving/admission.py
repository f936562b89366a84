"""Admission control: limits on the bytes and rows that a replica holds.

Bytes count as they are read, so a slow client holds no more than it has sent. Rows count from
decoding until the answer is sent. Waiting for a client, to send its body or to read its answer,
has a timeout.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

MOST_BYTES = 64 * 1024 * 1024
"""Bytes of request bodies that a replica holds: four of the largest bodies."""

T = TypeVar("T")


class FullError(Exception):
    """The replica has no capacity for a request now."""


class LateError(Exception):
    """A client exceeded a timeout."""


class Admission:
    """Capacity of a replica, shared by the versions that it serves.

    Args:
        most_rows: rows in progress from which on requests are refused.
        most_bytes: maximum number of bytes in bodies that are not decoded yet.
    """

    def __init__(self, most_rows: int = 10_000, most_bytes: int = MOST_BYTES) -> None:
        self._most_rows, self._most_bytes = most_rows, most_bytes
        self.rows = self.bytes = 0

    def check_rows(self) -> None:
        """Check the capacity for rows; before a body is read, and before it is decoded.

        Raises:
            FullError: it is used up.
        """
        if self.rows >= self._most_rows:
            raise FullError("too many rows are in progress")

    def check_bytes(self, coming: int) -> None:
        """Check the capacity for further bytes.

        Raises:
            FullError: it does not suffice.
        """
        if self.bytes + coming > self._most_bytes:
            raise FullError("too many bytes are in progress")


class Ticket:
    """Share of the capacity that one request holds; `close` returns it."""

    __slots__ = ("_admission", "_bytes", "_rows")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._bytes = self._rows = 0

    def read(self, count: int) -> None:
        """Count bytes that were read.

        Raises:
            FullError: they exceed the capacity.
        """
        self._admission.check_bytes(count)
        self._bytes += count
        self._admission.bytes += count

    def check_rows(self) -> None:
        """See `Admission.check_rows`."""
        self._admission.check_rows()

    def decoded(self, rows: int) -> None:
        """Count rows in place of the bytes.

        Raises:
            FullError: they exceed the capacity.
        """
        self._admission.check_rows()
        self._admission.bytes -= self._bytes
        self._bytes = 0
        self._rows += rows
        self._admission.rows += rows

    def close(self) -> None:
        """Return the share."""
        self._admission.bytes -= self._bytes
        self._admission.rows -= self._rows
        self._bytes = self._rows = 0


class Deadline:
    """A timeout that ends a wait after one to two times `seconds`.

    All waits share one timer: a timer of its own would cost a small request a tenth of its time.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._young: set[asyncio.Task[object]] = set()
        self._old: set[asyncio.Task[object]] = set()
        self._late: set[asyncio.Task[object]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def within(self, work: Awaitable[T]) -> T:
        """Await `work` and return its result.

        Raises:
            LateError: the timeout is over.
        """
        task = asyncio.current_task()
        assert task is not None
        self._young.add(task)
        if self._loop is None or self._loop.is_closed():
            self._start()
        try:
            return await work
        except asyncio.CancelledError:
            if task not in self._late:
                raise
            task.uncancel()
            raise LateError from None
        finally:
            for tasks in (self._young, self._old, self._late):
                tasks.discard(task)

    def _start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.call_later(self._seconds, self._tick)

    def _tick(self) -> None:
        for task in self._old:
            self._late.add(task)
            task.cancel()
        self._old, self._young = self._young, set()
        self._loop = None
        if self._old:
            self._start()
