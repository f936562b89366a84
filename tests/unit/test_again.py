"""A proxy that loses the replica while it answers is asked again, with the same request."""

import asyncio
from typing import Any

import pytest

from serving import again

PARTS = [
    {"type": "http.request", "body": b"12", "more_body": True},
    {"type": "http.request", "body": b"34", "more_body": False},
]


class Proxy:
    """Gives no answer as often as `lost` says, as Ray Serve's proxy does; notes what it read."""

    def __init__(self, lost: int, *, begins: bool = False, reads: int = 2) -> None:
        self.bodies: list[bytes] = []
        self._lost, self._begins, self._reads = lost, begins, reads

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        scope["headers"].append((b"x-request-id", b"1"))
        assert len(scope["headers"]) == 1
        parts = [await receive() for _ in range(self._reads)]
        self.bodies.append(b"".join(part.get("body", b"") for part in parts))
        gone = len(self.bodies) <= self._lost
        if not gone or self._begins:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        if not gone:
            await send({"type": "http.response.body", "body": b"answer"})


def ask(proxy: Proxy, path: str = "/v1/models/churn:predict") -> list[Any]:
    """What is sent to a client that leaves after its request."""
    said: list[Any] = []
    parts = iter([*PARTS, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(parts)

    async def send(message: Any) -> None:
        said.append(message["type"])

    scope = {"type": "http", "path": path, "headers": []}
    asyncio.run(again.Again(proxy)(scope, receive, send))
    return said


def test_another_replica_gets_the_whole_request_of_one_that_is_lost() -> None:
    proxy = Proxy(lost=2)
    assert ask(proxy) == ["http.response.start", "http.response.body"]
    assert proxy.bodies == [b"1234"] * 3


def test_a_request_that_loses_each_replica_is_given_up() -> None:
    proxy = Proxy(lost=9)
    assert ask(proxy) == []
    assert len(proxy.bodies) == again.MOST_TIMES


@pytest.mark.parametrize("path", ["/v1/models/churn:label", "/v1/models/churn:label/"])
def test_labels_are_sent_to_one_replica_alone(path: str) -> None:
    proxy = Proxy(lost=1)
    assert ask(proxy, path) == []
    assert len(proxy.bodies) == 1


def test_an_answer_that_has_begun_is_not_begun_again() -> None:
    proxy = Proxy(lost=1, begins=True)
    assert ask(proxy) == ["http.response.start"]
    assert proxy.bodies == [b"1234"]


def test_nobody_is_asked_again_for_a_client_that_has_left() -> None:
    proxy = Proxy(lost=1, reads=3)
    assert ask(proxy) == []
    assert len(proxy.bodies) == 1


def test_the_id_that_replica_and_proxy_give_an_answer_stands_once() -> None:
    said: list[Any] = []
    marked, other = (b"x-request-id", b"mine"), (b"content-length", b"2")

    async def proxy(scope: Any, receive: Any, send: Any) -> None:
        headers = [marked, other, list(marked)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    async def send(message: Any) -> None:
        said.append(message)

    async def receive() -> Any:
        return PARTS[1]

    asyncio.run(again.Again(proxy)({"type": "http", "path": "/", "headers": []}, receive, send))
    assert said[0]["headers"] == [marked, other]
