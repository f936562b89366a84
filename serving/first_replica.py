"""Requests at zero replicas: they wait, bounded, until the first replica answers them.

While there is no replica, HAProxy sends requests to the Ray Serve proxy of the head node. That one
holds them, tells the controller at once, and passes them on when a replica runs; alone it would
hold any number for any time. This middleware of the proxy bounds number, bytes and time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

WAIT_VARIABLE, WAIT_S = "EAGLERAY_FIRST_REPLICA_S", 60.0
"""The environment variable of the head node that sets the longest wait, and its default."""
MOST_REQUESTS = 1000
MOST_BYTES = 64 * 1024 * 1024
RETRY_S = 5


class Waiting:
    """Answers 503 in place of the proxy where a request would wait too long, or too many do."""

    def __init__(self, app: ASGIApp, wait_s: float | None = None) -> None:
        self._app = app
        self._wait_s = float(os.environ.get(WAIT_VARIABLE, WAIT_S)) if wait_s is None else wait_s
        self._requests = self._bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/-/"):  # Ray Serve's own
            await self._app(scope, receive, send)
        elif self._requests >= MOST_REQUESTS:
            await _refuse(send, f"at most {MOST_REQUESTS} requests wait for a first replica")
        else:
            await self._wait(scope, receive, send)

    async def _wait(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, until it is answered or refused."""
        held, answered, settled = 0, False, asyncio.Event()
        self._requests += 1

        async def count() -> Message:
            nonlocal held
            message = await receive()
            size = len(message.get("body", b""))
            held, self._bytes = held + size, self._bytes + size
            if self._bytes > MOST_BYTES:
                settled.set()
            return message

        async def answer(message: Message) -> None:
            nonlocal answered
            answered = True
            settled.set()
            await send(message)

        task = asyncio.ensure_future(self._app(scope, count, answer))
        task.add_done_callback(lambda _: settled.set())
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(settled.wait(), self._wait_s)
            if answered or task.done():
                await task
                return
        finally:
            self._requests, self._bytes = self._requests - 1, self._bytes - held
            task.cancel()
        too_much = f"at most {MOST_BYTES} bytes wait for a first replica"
        too_long = f"no replica could answer within {self._wait_s:g} s"
        await _refuse(send, too_much if settled.is_set() else too_long)


async def _refuse(send: Send, message: str) -> None:
    error = {"error": {"type": "unavailable", "message": message, "field": None}}
    headers = [
        (b"content-type", b"application/json"),
        (b"retry-after", str(RETRY_S).encode()),
        (b"connection", b"close"),  # its body may not have been read
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": msgspec.json.encode(error)})
