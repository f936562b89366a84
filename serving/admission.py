"""Admission control: limits on the bytes and rows that a replica holds, and on waits for clients.

Bytes count as they are read, so a slow client holds no more than it has sent. Rows count from
decoding until the answer is sent. A request beyond the limits is refused with a RequestError 503.
"""

import asyncio

from eagleray import errors

MOST_BYTES = 64 * 1024 * 1024
"""Bytes of request bodies that a replica holds: four of the largest bodies."""


class Capacity:
    """Capacity of a replica, shared by the versions that it serves.

    A request is refused from `most_rows` in progress on, and beyond `most_bytes` of bodies that are
    not decoded yet.
    """

    def __init__(self, most_rows: int = 10_000, most_bytes: int = MOST_BYTES) -> None:
        self._most_rows, self._most_bytes = most_rows, most_bytes
        self.rows = self.bytes = 0

    def check_rows(self) -> None:
        """Refuse a request while too many rows are in progress."""
        if self.rows >= self._most_rows:
            raise errors.RequestError("too many rows are in progress", status=503)

    def check_bytes(self, more: int) -> None:
        """Refuse a request whose further bytes exceed the capacity."""
        if self.bytes + more > self._most_bytes:
            raise errors.RequestError("too many bytes are in progress", status=503)


class Reservation:
    """Share of the capacity that one request holds; `release` returns it."""

    __slots__ = ("_bytes", "_rows", "capacity")

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self._bytes = self._rows = 0

    def add_bytes(self, count: int) -> None:
        """Count bytes that were read, within the capacity."""
        self.capacity.check_bytes(count)
        self._bytes += count
        self.capacity.bytes += count

    def decoded(self, rows: int) -> None:
        """Count the body's rows, within the capacity, in place of its bytes."""
        self.capacity.check_rows()
        self.capacity.bytes -= self._bytes
        self._bytes = 0
        self._rows += rows
        self.capacity.rows += rows

    def release(self) -> None:
        self.capacity.bytes -= self._bytes
        self.capacity.rows -= self._rows
        self._bytes = self._rows = 0


class Timeout:
    """A timeout for the body of a `with` statement, which ends after one to two times `seconds`.

    It raises TimeoutError, as `asyncio.timeout` does. All tasks share one timer: a timer of its own
    would cost a small request a tenth of its time.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._ticks: dict[asyncio.Task[object], int] = {}  # of the timer, since a task's wait began
        self._loop: asyncio.AbstractEventLoop | None = None  # on which the timer runs

    def __enter__(self) -> None:
        self._ticks[_current_task()] = 0
        if self._loop is None or self._loop.is_closed():
            self._start()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        task = _current_task()
        if self._ticks.pop(task) >= 2 and isinstance(error, asyncio.CancelledError):
            task.uncancel()
            raise TimeoutError from error

    def _start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.call_later(self.seconds, self._tick)

    def _tick(self) -> None:
        for task in self._ticks:
            self._ticks[task] += 1
            if self._ticks[task] == 2:
                task.cancel()
        self._loop = None
        if self._ticks:
            self._start()


def _current_task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    assert task is not None
    return task
