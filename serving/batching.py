"""Micro-batches across requests: the requests that arrive during a batch form the next one.

A single request runs at once. When several requests ran together, the next one waits for as many,
at most `wait_s`. A large request queues part by part, so that small requests run in between.
A quick batch runs on the event loop, because a thread switch would take longer than the batch; any
other batch runs in a thread. The versions of a model have batches of their own, which run together:
one that gets few requests would else run one or two of them at a time. Their answers are delivered
in the order in which the requests came, whichever version they are of.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from eagleray import errors

INLINE_S = 0.002  # a batch with a shorter expected time runs on the event loop
SMOOTHING = 0.3  # weight of the newest batch in the moving average of batch times
FORGETTING = 1.05  # by which the shortest time grows with each batch that took longer

Row = TypeVar("Row")
Answer = TypeVar("Answer")
Outcome: TypeAlias = Sequence[Answer] | Exception
"""The answers of a request, or why there are none."""


@dataclass(frozen=True)
class Limits:
    """Limits of a batch."""

    max_rows: int = 256
    wait_s: float = 0.001  # for further requests, under load
    stuck_s: float = 300.0  # a batch that runs longer is considered hung


class Request(NamedTuple, Generic[Row, Answer]):
    """Rows of one caller, and the future of their answers."""

    number: int  # in the order of all requests of a schedule
    rows: Sequence[Row]
    answers: asyncio.Future[Sequence[Answer]]


Batch: TypeAlias = list[Request[Row, Answer]]
Answered: TypeAlias = list[tuple[Request[Row, Answer], Outcome[Answer]]]


class Schedule:
    """Runs the batchers of one event loop together, one after another.

    They run once as many requests wait as ran together the last time, or after `wait_s`.
    """

    def __init__(self, wait_s: float) -> None:
        self.numbers = itertools.count()  # of requests
        self.turn = 0  # how often they have run
        self._wait_s = wait_s
        self._ready: list[Batcher[Any, Any]] = []  # have requests, and no batch in the thread
        self._waiting = 0  # requests of these
        self._last = 1  # requests that ran together
        self._timer: asyncio.TimerHandle | None = None
        self._is_due = False  # at the event loop's next turn

    def add(self, batcher: Batcher[Any, Any], requests: int) -> None:
        """Count further requests of a batcher; run it with the others when it is time."""
        if batcher not in self._ready:
            self._ready.append(batcher)
        self._waiting += requests
        if self._is_due:
            return
        loop = asyncio.get_running_loop()
        if self._waiting >= self._last or batcher.is_full:
            if self._timer is not None:
                self._timer.cancel()
            self._is_due = True
            loop.call_soon(self._run)
        elif self._timer is None:
            self._timer = loop.call_later(self._wait_s, self._run)

    def _run(self) -> None:
        self._timer, self._is_due, self.turn = None, False, self.turn + 1
        ready, self._ready, self._waiting = self._ready, [], 0
        answered, together = list[Any](), 0
        for batcher in ready:
            batch = batcher.next_batch()
            together += len(batch)
            answered += batcher.run_batch(batch)
        self._last = together or self._last
        if len(ready) > 1:
            answered.sort(key=_number)
        _deliver(answered)
        for batcher in ready:
            batcher.reschedule()


class Batcher(Generic[Row, Answer]):
    """Calls a function with the rows of many callers, on one event loop.

    `run` returns one answer per row, in order; one thread at a time calls it. `thread` runs the
    batches that are too slow for the event loop. Batchers with the same `schedule` run together.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Row]], Sequence[Answer]],
        limits: Limits,
        thread: ThreadPoolExecutor,
        schedule: Schedule | None = None,
    ) -> None:
        self._run, self._limits, self._thread = run, limits, thread
        self._schedule = schedule or Schedule(limits.wait_s)
        self._queue: deque[Request[Row, Answer]] = deque()
        self._waiting = 0  # rows in the queue
        self._times: dict[int, tuple[float, float]] = {}  # by bit length of the number of rows
        self._running: asyncio.Task[None] | None = None  # waits for the batch in the thread
        self._began = 0.0  # start of that batch
        self.is_quick = False  # whether the last batch ran on the event loop
        self._broken: str | None = None

    @property
    def is_full(self) -> bool:
        """Whether more requests would not fit into the next batch."""
        return self._waiting >= self._limits.max_rows

    @property
    def failure(self) -> str | None:
        """Reason why batches cannot run any more; None while they can."""
        since = time.monotonic() - self._began
        if self._broken is None and self._running and since > self._limits.stuck_s:
            return f"a batch has been running for {since:.0f} s"
        return self._broken

    def next_batch(self) -> Batch[Row, Answer]:
        """Remove waiting requests from the queue, as many as fit into a batch."""
        batch, room = [], self._limits.max_rows
        while self._queue and len(self._queue[0].rows) <= room:
            request = self._queue.popleft()
            self._waiting -= len(request.rows)
            if not request.answers.cancelled():
                batch.append(request)
                room -= len(request.rows)
        return batch

    def run_batch(self, batch: Batch[Row, Answer]) -> Answered[Row, Answer]:
        """Run a batch; return the outcome of each request, or nothing if it runs in the thread."""
        if not batch:
            return []
        rows = sum(len(request.rows) for request in batch)
        self.is_quick = self._expected(rows) <= INLINE_S
        if self.is_quick:
            return list(zip(batch, self._outcomes(batch), strict=True))
        self._began = time.monotonic()
        self._running = asyncio.get_running_loop().create_task(self._run_in_thread(batch))
        return []

    def reschedule(self) -> None:
        """Schedule the requests that still wait, unless a batch runs in the thread."""
        if self._queue and self._running is None:
            self._schedule.add(self, len(self._queue))

    async def submit(self, rows: Sequence[Row]) -> Sequence[Answer]:
        """Return an answer per row; ServingError if the model fails or batches cannot run."""
        most = self._limits.max_rows
        if len(rows) <= most:
            return await self._enqueue(rows)
        answers: list[Answer] = []
        for start in range(0, len(rows), most):
            answers += await self._enqueue(rows[start : start + most])
        return answers

    def _enqueue(self, rows: Sequence[Row]) -> asyncio.Future[Sequence[Answer]]:
        answers: asyncio.Future[Sequence[Answer]] = asyncio.get_running_loop().create_future()
        self._queue.append(Request(next(self._schedule.numbers), rows, answers))
        self._waiting += len(rows)
        if self._running is None:
            self._schedule.add(self, 1)
        return answers

    async def _run_in_thread(self, batch: Batch[Row, Answer]) -> None:
        loop = asyncio.get_running_loop()
        try:
            outcomes = await loop.run_in_executor(self._thread, self._outcomes, batch)
        except (RuntimeError, asyncio.CancelledError) as cause:  # the thread was shut down
            why = str(cause) or "the batch was cancelled"
            self._broken = f"the thread that runs batches has stopped: {why}"
            outcomes = [errors.ServingError(self._broken) for _ in batch]
        self._running = None
        _deliver(zip(batch, outcomes, strict=True))
        self.reschedule()

    def _outcomes(self, batch: Batch[Row, Answer]) -> list[Outcome[Answer]]:
        """Return the answers or the failure of each request; a failure affects one request only."""
        rows = [row for request in batch for row in request.rows]
        started, began = time.thread_time(), time.perf_counter()
        try:
            parts = _parts(self._run(rows), [len(request.rows) for request in batch])
        except BaseException as cause:  # noqa: BLE001 - even after SystemExit the callers wait
            if len(batch) > 1:
                return [self._outcomes([request])[0] for request in batch]
            if isinstance(cause, Exception):
                return [cause]
            failure = errors.ServingError(f"the model must answer, but raised {cause!r}")
            failure.__cause__ = cause
            return [failure]
        self._record(len(rows), time.thread_time() - started, time.perf_counter() - began)
        return parts

    def _expected(self, rows: int) -> float:
        """Estimate the seconds of a batch from batches of its size, or of the next smaller size."""
        size = rows.bit_length()
        nearest = max((known for known in self._times if known <= size), default=None)
        return math.inf if nearest is None else max(self._times[nearest]) * 2 ** (size - nearest)

    def _record(self, rows: int, worked: float, passed: float) -> None:
        """Keep what a batch took: the mean of the thread's processor time, and the shortest time.

        The shortest one has the waits for a device or another service in it, which block an event
        loop too, but hardly those for the interpreter lock.
        """
        size = rows.bit_length()
        mean, least = self._times.get(size, (worked, passed))
        self._times[size] = mean + SMOOTHING * (worked - mean), min(passed, FORGETTING * least)


def _number(answered: tuple[Request[Any, Any], object]) -> int:
    return answered[0].number


def _deliver(answered: Iterable[tuple[Request[Any, Any], Outcome[Any]]]) -> None:
    for request, outcome in answered:
        if request.answers.cancelled():
            continue
        if isinstance(outcome, Exception):
            request.answers.set_exception(outcome)
        else:
            request.answers.set_result(outcome)


def _parts(answers: Sequence[Answer], sizes: list[int]) -> list[Outcome[Answer]]:
    if len(answers) != sum(sizes):
        raise errors.ServingError(
            f"a model must give one answer a row, but gave {len(answers)} for {sum(sizes)}"
        )
    ends = itertools.accumulate(sizes)
    return [answers[end - size : end] for size, end in zip(sizes, ends, strict=True)]
