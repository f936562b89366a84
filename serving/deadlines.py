"""Answers that nobody waits for any more are not computed: their requests leave the queue.

A client says how long it waits (`x-request-timeout-ms`), or goes away. A batch that runs already
ends; its answer is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import TypeVar

from starlette.types import Receive

from eagleray import errors

HEADER = b"x-request-timeout-ms"
LEFT = 499
"""Status in logs and metrics of a request whose client left; it gets no answer."""
MOST_MS = 3_600_000
_LOOK_S = 0.05

Answer = TypeVar("Answer")


def seconds(headers: Mapping[bytes, bytes]) -> float | None:
    """The seconds that a client waits, None if it does not say; RequestError if it is no number."""
    given = headers.get(HEADER)
    if given is None:
        return None
    if not given.isdigit() or len(given) > 9 or not 0 < int(given) <= MOST_MS:
        law = f"{HEADER.decode()} must be a whole number from 1 to {MOST_MS}"
        raise errors.RequestError(f"{law}, but got {given[:20].decode('latin-1')!r}", status=422)
    return int(given) / 1000


async def within(limit_s: float, answering: Coroutine[object, object, Answer]) -> Answer:
    """The answer; RequestError 504 if it is not there in time."""
    try:
        async with asyncio.timeout(limit_s):
            return await answering
    except TimeoutError as late:
        law = f"the answer must be there within {limit_s * 1000:g} ms, as the request says"
        raise errors.RequestError(f"{law}, but is late", status=504) from late


class Departures:
    """Cancels the task of a request whose client has left, if it takes longer than a look.

    All requests share one timer, as in `admission.Timeout`: a task that listens to each client
    would cost a small request a tenth of its time.
    """

    def __init__(self, every_s: float = _LOOK_S) -> None:
        self._every_s = every_s
        self._new: dict[asyncio.Task[object], Receive] = {}
        self._old: dict[asyncio.Task[object], Receive] = {}  # were there at the last look
        self._listening: dict[asyncio.Task[object], asyncio.Task[None]] = {}
        self._left: set[asyncio.Task[object]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def watch(self, receive: Receive) -> None:
        """From now on look after the client of the current task, whose body has been read."""
        task = asyncio.current_task()
        assert task is not None
        self._new[task] = receive
        if self._loop is None or self._loop.is_closed():
            self._start()

    def end(self) -> bool:
        """End the watch of the current task, if there is one; whether its client has left."""
        task = asyncio.current_task()
        assert task is not None
        if self._new.pop(task, None) or self._old.pop(task, None):
            return False
        listener = self._listening.pop(task, None)
        if listener is not None:
            listener.cancel()
        if task not in self._left:
            return False
        self._left.discard(task)
        task.uncancel()
        return True

    def _start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.call_later(self._every_s, self._look)

    def _look(self) -> None:
        for task, receive in self._old.items():
            self._listening[task] = asyncio.create_task(self._listen(task, receive))
        self._old, self._new, self._loop = self._new, {}, None
        if self._old:
            self._start()

    async def _listen(self, task: asyncio.Task[object], receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        if self._listening.pop(task, None):
            self._left.add(task)
            task.cancel()
