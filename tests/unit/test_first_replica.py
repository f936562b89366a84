"""Requests that wait for a first replica: bounded in number, bytes and time."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from serving import first_replica, protocol

App = Callable[..., Awaitable[None]]
GIVEN = [(b"x-request-id", b"mine-7")]
SCOPE = {"type": "http", "path": "/predict", "method": "POST", "headers": GIVEN}


async def ask(waiting: first_replica.Waiting, body: bytes = b"{}", path: str = "/predict") -> Any:
    """Status, headers and body of the answer to one request."""
    said: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        said.append(message)

    await waiting({**SCOPE, "path": path}, receive, send)
    start, *rest = said
    text = b"".join(part.get("body", b"") for part in rest)
    return start["status"], dict(start.get("headers", ())), text


def proxy(replica: asyncio.Event, left: list[str] | None = None) -> App:
    """A proxy that answers once there is a replica, and notes who was sent away."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await receive()
            await replica.wait()
        except asyncio.CancelledError:
            (left if left is not None else []).append(scope["path"])
            raise
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"answer"})

    return app


def test_a_request_waits_for_the_first_replica() -> None:
    async def run() -> None:
        replica = asyncio.Event()
        waiting = first_replica.Waiting(proxy(replica), wait_s=30)
        asked = asyncio.create_task(ask(waiting))
        await asyncio.sleep(0.01)
        assert not asked.done()
        replica.set()
        assert await asked == (200, {}, b"answer")

    asyncio.run(run())


def test_a_request_that_waits_too_long_is_refused_and_given_up() -> None:
    left: list[str] = []
    waiting = first_replica.Waiting(proxy(asyncio.Event(), left), wait_s=0.01)
    status, headers, body = asyncio.run(ask(waiting))
    assert (status, headers[b"retry-after"], left) == (503, b"5", ["/predict"])
    assert headers[b"x-request-id"] == b"mine-7"
    error = json.loads(body)["error"]
    assert error["type"] == protocol.ERRORS[503][0]
    assert error["message"] == "no replica could answer within 0.01 s"


def test_a_client_of_the_open_inference_protocol_is_refused_in_its_form() -> None:
    waiting = first_replica.Waiting(proxy(asyncio.Event()), wait_s=0.01)
    status, _, body = asyncio.run(ask(waiting, path="/v2/models/left/infer"))
    assert status == 503
    assert json.loads(body) == {"error": "no replica could answer within 0.01 s"}


def test_too_many_requests_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_replica, "MOST_REQUESTS", 2)

    async def run() -> None:
        replica = asyncio.Event()
        waiting = first_replica.Waiting(proxy(replica), wait_s=30)
        held = [asyncio.create_task(ask(waiting)) for _ in range(2)]
        await asyncio.sleep(0.01)
        assert (await ask(waiting))[0] == 503
        replica.set()
        assert [(await one)[0] for one in held] == [200, 200]
        assert (await ask(waiting))[0] == 200  # there is room again

    asyncio.run(run())


def test_too_many_bytes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_replica, "MOST_BYTES", 10)

    async def run() -> None:
        replica = asyncio.Event()
        waiting = first_replica.Waiting(proxy(replica), wait_s=30)
        held = asyncio.create_task(ask(waiting, b"12345678"))
        await asyncio.sleep(0.01)
        status, _, body = await ask(waiting, b"12345678")
        assert (status, b"at most 10 bytes wait" in body) == (503, True)
        replica.set()
        assert (await held)[0] == 200
        assert (await ask(waiting, b"12345678"))[0] == 200

    asyncio.run(run())


def test_ray_serves_own_paths_never_wait_here() -> None:
    async def run() -> None:
        replica = asyncio.Event()
        waiting = first_replica.Waiting(proxy(replica), wait_s=0.0)
        asked = asyncio.create_task(ask(waiting, path="/-/healthz"))
        await asyncio.sleep(0.02)
        replica.set()
        assert (await asked)[0] == 200

    asyncio.run(run())


def test_a_client_that_leaves_is_given_up() -> None:
    async def run() -> None:
        left: list[str] = []
        waiting = first_replica.Waiting(proxy(asyncio.Event(), left), wait_s=30)
        asked = asyncio.create_task(ask(waiting))
        await asyncio.sleep(0.01)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        await asyncio.sleep(0)
        assert left == ["/predict"]

    asyncio.run(run())


def test_an_error_of_the_proxy_is_no_refusal() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise LookupError("x")

    with pytest.raises(LookupError):
        asyncio.run(ask(first_replica.Waiting(app, wait_s=30)))


class Context:
    """What a call of a gRPC server is told."""

    def __init__(self) -> None:
        self.said: dict[str, Any] = {}

    def invocation_metadata(self) -> list[tuple[str, str]]:
        return [("x-request-id", "mine-7")]

    def set_code(self, code: grpc.StatusCode) -> None:
        self.said["code"] = code

    def set_details(self, details: str) -> None:
        self.said["details"] = details

    def set_trailing_metadata(self, metadata: list[tuple[str, str]]) -> None:
        self.said |= dict(metadata)


async def call(method: first_replica.Answering, body: bytes = b"{}") -> Any:
    """The answer to one call, and what it is told."""
    context = Context()
    return await method(body, context), context.said


def holding(replica: asyncio.Event, left: list[str] | None = None) -> first_replica.Answering:
    """A method of the proxy that answers once there is a replica, and notes who was sent away."""

    async def answer(request: bytes, _: Any) -> bytes:
        try:
            await replica.wait()
        except asyncio.CancelledError:
            (left if left is not None else []).append(request.decode())
            raise
        return b"answer"

    return answer


def unavailable(details: str) -> Any:
    told = {"x-request-id": "mine-7", "retry-after": "5"}
    return b"", {"code": grpc.StatusCode.UNAVAILABLE, "details": details, **told}


def test_a_call_that_waits_too_long_is_refused_and_given_up() -> None:
    async def run() -> None:
        left: list[str] = []
        method = first_replica.bounded(holding(asyncio.Event(), left), wait_s=0.01)
        assert await call(method) == unavailable("no replica could answer within 0.01 s")
        await asyncio.sleep(0)
        assert left == ["{}"]

    asyncio.run(run())


def test_calls_and_requests_wait_within_the_same_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_replica, "MOST_REQUESTS", 2)
    monkeypatch.setattr(first_replica, "MOST_BYTES", 10)

    async def run() -> None:
        replica = asyncio.Event()
        waiting = first_replica.Waiting(proxy(replica), wait_s=30)
        method = first_replica.bounded(holding(replica), wait_s=30)
        held = asyncio.create_task(ask(waiting, b"12345678"))
        await asyncio.sleep(0.01)
        too_much = unavailable("at most 10 bytes wait for a first replica")
        assert await call(method, b"12345678") == too_much
        also = asyncio.create_task(call(method, b"12"))
        await asyncio.sleep(0.01)
        too_many = unavailable("at most 2 requests wait for a first replica")
        assert (await call(method), (await ask(waiting))[0]) == (too_many, 503)
        replica.set()
        assert ((await held)[0], await also) == (200, (b"answer", {}))
        assert (await call(method)) == (b"answer", {})  # there is room again

    asyncio.run(run())


def test_a_client_of_a_call_that_leaves_is_given_up() -> None:
    async def run() -> None:
        left: list[str] = []
        method = first_replica.bounded(holding(asyncio.Event(), left), wait_s=30)
        asked = asyncio.create_task(call(method))
        await asyncio.sleep(0.01)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        await asyncio.sleep(0)
        assert left == ["{}"]

    asyncio.run(run())
