"""What a replica takes in at once: bytes of bodies and rows, bounded before they are decoded.

Bytes count as they are read, so that a slow sender holds no more than it has sent. Rows count from
when they are decoded until their answer is sent. Both waits on a client, for its body and while it
reads its answer, end after a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

MOST_BYTES = 64 * 1024 * 1024
"""Bytes of bodies that a replica holds: four of the largest bodies."""

T = TypeVar("T")


class FullError(Exception):
    """There is no room for a request now."""


class LateError(Exception):
    """A client took too long."""


class Admission:
    """Room for requests, shared by all versions that a replica serves.

    Args:
        most_rows: requests are refused while so many rows are in progress.
        most_bytes: bytes of bodies held at once, before they are decoded.
    """

    def __init__(self, most_rows: int = 10_000, most_bytes: int = MOST_BYTES) -> None:
        self._most_rows, self._most_bytes = most_rows, most_bytes
        self.rows = self.bytes = 0

    def check_rows(self) -> None:
        """Look for room before a body is read, and again before it is decoded.

        Raises:
            FullError: there is none.
        """
        if self.rows >= self._most_rows:
            raise FullError("too many rows are in progress")

    def check_bytes(self, coming: int) -> None:
        """Look for room before so many bytes are read.

        Raises:
            FullError: there is none.
        """
        if self.bytes + coming > self._most_bytes:
            raise FullError("too many bytes are in progress")


class Ticket:
    """What one request holds; `close` gives it back."""

    __slots__ = ("_admission", "_bytes", "_rows")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._bytes = self._rows = 0

    def read(self, count: int) -> None:
        """Count bytes that were read against the limit.

        Raises:
            FullError: there is no room for them.
        """
        self._admission.check_bytes(count)
        self._bytes += count
        self._admission.bytes += count

    def check_rows(self) -> None:
        """See `Admission.check_rows`."""
        self._admission.check_rows()

    def decoded(self, rows: int) -> None:
        """Hold rows in place of the bytes.

        Raises:
            FullError: there is no room for them.
        """
        self._admission.check_rows()
        self._admission.bytes -= self._bytes
        self._bytes = 0
        self._rows += rows
        self._admission.rows += rows

    def close(self) -> None:
        """Give back what is held."""
        self._admission.bytes -= self._bytes
        self._admission.rows -= self._rows
        self._bytes = self._rows = 0


class Deadline:
    """Ends waits that last too long, one to two times `seconds`.

    One timer does for all waits: one for each would cost a small request a tenth of its time.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._young: set[asyncio.Task[object]] = set()
        self._old: set[asyncio.Task[object]] = set()
        self._late: set[asyncio.Task[object]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def within(self, work: Awaitable[T]) -> T:
        """What `work` gives.

        Raises:
            LateError: it took too long.
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
