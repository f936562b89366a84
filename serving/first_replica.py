"""Requests at zero replicas: they wait, bounded, until the first replica answers them.

While there is no replica, HAProxy sends requests to the Ray Serve proxy of the head node. That one
holds them, tells the controller at once, and passes them on when a replica runs; alone it would
hold any number for any time. Here number, bytes and time are bounded: by a middleware of the HTTP
server of the proxy, and around the methods of its gRPC server.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving import correlation

WAIT_VARIABLE, WAIT_S = "EAGLERAY_FIRST_REPLICA_S", 60.0
"""The environment variable of the head node that sets the longest wait, and its default."""
MOST_REQUESTS = 1000
MOST_BYTES = 64 * 1024 * 1024
RETRY_S = 5
_TOO_MANY = "at most {} requests wait for a first replica"
_TOO_MUCH = "at most {} bytes wait for a first replica"
_TOO_LONG = "no replica could answer within {:g} s"

_V2 = "/v2/"  # whose errors are one text, see `serving.wire.inference_pages`

Answering = Callable[[bytes, Any], Awaitable[bytes]]


@dataclass(slots=True)
class Room:
    """What waits in this process, by HTTP and gRPC together."""

    requests: int = 0
    bytes: int = 0


_ROOM = Room()


class Waiting:
    """Answers 503 in place of the proxy where a request would wait too long, or too many do."""

    def __init__(self, app: ASGIApp, wait_s: float | None = None) -> None:
        self._app = app
        self._wait_s = _longest_s() if wait_s is None else wait_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/-/"):  # Ray Serve's own
            await self._app(scope, receive, send)
        elif _ROOM.requests >= MOST_REQUESTS:
            await _refuse(scope, send, _TOO_MANY.format(MOST_REQUESTS))
        else:
            await self._wait(scope, receive, send)

    async def _wait(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, until it is answered or refused."""
        held, answered, settled = 0, False, asyncio.Event()
        _ROOM.requests += 1

        async def count() -> Message:
            nonlocal held
            message = await receive()
            size = len(message.get("body", b""))
            held, _ROOM.bytes = held + size, _ROOM.bytes + size
            if _ROOM.bytes > MOST_BYTES:
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
            _ROOM.requests, _ROOM.bytes = _ROOM.requests - 1, _ROOM.bytes - held
            task.cancel()
        too_much, too_long = _TOO_MUCH.format(MOST_BYTES), _TOO_LONG.format(self._wait_s)
        await _refuse(scope, send, too_much if settled.is_set() else too_long)


def bounded(answer: Answering, wait_s: float | None = None) -> Answering:
    """A method of the proxy's gRPC server that is UNAVAILABLE instead of waiting too long."""
    longest_s = _longest_s() if wait_s is None else wait_s

    async def within(request: bytes, context: Any) -> bytes:
        if _ROOM.requests >= MOST_REQUESTS:
            return _unavailable(context, _TOO_MANY.format(MOST_REQUESTS))
        if _ROOM.bytes + len(request) > MOST_BYTES:
            return _unavailable(context, _TOO_MUCH.format(MOST_BYTES))
        _ROOM.requests, _ROOM.bytes = _ROOM.requests + 1, _ROOM.bytes + len(request)
        task = asyncio.ensure_future(answer(request, context))
        try:
            if (await asyncio.wait({task}, timeout=longest_s))[0]:
                return task.result()
            return _unavailable(context, _TOO_LONG.format(longest_s))
        finally:
            _ROOM.requests, _ROOM.bytes = _ROOM.requests - 1, _ROOM.bytes - len(request)
            task.cancel()

    return within


def _longest_s() -> float:
    return float(os.environ.get(WAIT_VARIABLE, WAIT_S))


def _unavailable(context: Any, message: str) -> bytes:
    """Refuse a call. Ray Serve leaves a code that is set as it is."""
    marked = correlation.REQUEST_ID.decode()
    given = dict(context.invocation_metadata() or ()).get(marked)
    identity = correlation.request_id({correlation.REQUEST_ID: given.encode()} if given else {})
    context.set_code(grpc.StatusCode.UNAVAILABLE)
    context.set_details(message)
    context.set_trailing_metadata([(marked, identity.decode()), ("retry-after", str(RETRY_S))])
    return b""


async def _refuse(scope: Scope, send: Send, message: str) -> None:
    error: object = {"type": "unavailable", "message": message, "field": None}
    if scope["path"].startswith(_V2):
        error = message
    headers = [
        (b"content-type", b"application/json"),
        (correlation.REQUEST_ID, correlation.request_id(dict(scope["headers"]))),
        (b"retry-after", str(RETRY_S).encode()),
        (b"connection", b"close"),  # its body may not have been read
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": msgspec.json.encode({"error": error})})
