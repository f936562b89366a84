"""What uvicorn writes to the connection of a replica, and how often."""

import asyncio
from typing import Any

import uvicorn
from uvicorn.protocols.http import httptools_impl
from uvicorn.server import ServerState

from serving import fast_path
from tests.wires import Wire


class Application:
    """Answers with some parts; fails once they are sent, if it is to."""

    def __init__(self, *parts: bytes, fails: bool = False) -> None:
        self._parts, self._fails = parts, fails

    def predicts(self, path: str) -> bool:
        return path == "/predict"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        size = b"%d" % sum(map(len, self._parts))
        headers = [(b"content-length", size)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if self._fails:
            raise LookupError("x")
        for part in self._parts:
            more = part is not self._parts[-1]
            await send({"type": "http.response.body", "body": part, "more_body": more})


def ask(application: Application, *requests: bytes) -> Wire:
    """What uvicorn writes for these requests of one connection."""

    async def run() -> Wire:
        fast_path.enable(application)
        app = fast_path.FastPath(application)
        config = uvicorn.Config(app, http="httptools", lifespan="off", log_config=None)
        config.load()
        wire = Wire()
        protocol = httptools_impl.HttpToolsProtocol(config, ServerState(), {})
        protocol.connection_made(wire)
        for request in requests:
            protocol.data_received(request)
            for _ in range(10):
                await asyncio.sleep(0)
        protocol.timeout_keep_alive_task and protocol.timeout_keep_alive_task.cancel()
        return wire

    return asyncio.run(run())


def request(method: str = "POST", *headers: str) -> bytes:
    lines = [f"{method} /predict HTTP/1.1", "host: left", "content-length: 2", *headers]
    return "\r\n".join([*lines, "", "{}"]).encode()


def test_head_and_body_of_an_answer_are_one_write() -> None:
    wire = ask(Application(b"answer"), request(), request())
    assert [one.partition(b"\r\n\r\n")[2] for one in wire.writes] == [b"answer"] * 2


def test_further_parts_of_a_long_answer_follow() -> None:
    wire = ask(Application(b"one", b"two", b"three"), request())
    assert wire.writes[0].endswith(b"\r\n\r\none")
    assert wire.writes[1:] == [b"two", b"three"]


def test_a_client_that_asks_whether_to_send_its_body_is_told_so_first() -> None:
    head, _, body = request("POST", "expect: 100-continue").rpartition(b"\r\n\r\n")
    wire = ask(Application(b"answer"), head + b"\r\n\r\n", body)
    assert wire.writes[0] == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert wire.writes[1].endswith(b"\r\n\r\nanswer")


def test_a_head_alone_is_written_where_no_body_comes() -> None:
    wire = ask(Application(b"answer"), request("HEAD"))
    assert [one.endswith(b"\r\n\r\n") for one in wire.writes] == [True]


def test_an_application_that_fails_after_the_head_ends_the_connection() -> None:
    wire = ask(Application(b"answer", fails=True), request())
    assert (wire.writes, wire.closed) == ([], True)
