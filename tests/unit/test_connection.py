"""The connection of a replica answers as uvicorn's, however requests are cut into packets."""

import asyncio
import itertools
from typing import Any

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from serving import connection, fast_path
from tests.wires import Wire


class Application:
    """Answers with what it was asked; `whole` counts the requests that came the short way."""

    def __init__(self) -> None:
        self.whole, self.left = 0, asyncio.Event()

    def predicts(self, path: str) -> bool:
        return path == "/predict"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.whole += isinstance(getattr(send, "__self__", None), connection.Whole)
        content = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left.set()
                return
            content += message["body"]
            if not message["more_body"]:
                break
        if content == b"wait":
            assert (await receive())["type"] == "http.disconnect"
            self.left.set()
            return
        await asyncio.sleep(0)
        await self._answer(content, scope, send)

    async def _answer(self, content: bytes, scope: Any, send: Any) -> None:
        said = b"%s %s %s" % (scope["method"].encode(), scope["path"].encode(), content)
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(said))]
        if content == b"close":
            headers.append((b"connection", b"close"))
        if content == b"chunks":
            headers = headers[:1]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if content == b"raise":
            raise LookupError("x")
        if content in (b"parts", b"chunks"):
            await send({"type": "http.response.body", "body": said[:3], "more_body": True})
            said = said[3:]
        await send({"type": "http.response.body", "body": said})


def answered(
    kind: type[HttpToolsProtocol], *parts: bytes, leaves: bool = False
) -> tuple[Wire, Application]:
    """What is written to a connection that gets these packets, and by which application."""

    async def run() -> tuple[Wire, Application]:
        application = Application()
        fast_path.enable(application)
        app = fast_path.FastPath(application)
        config = uvicorn.Config(app, lifespan="off", log_config=None)
        config.load()
        state, wire = ServerState(), Wire()
        state.default_headers = [(b"server", b"left")]
        protocol = kind(config, state, {})
        protocol.connection_made(wire)
        for part in parts:
            if not wire.closed:
                protocol.data_received(part)
            for _ in range(20):
                await asyncio.sleep(0)
        if leaves:
            protocol.connection_lost(None)
            await asyncio.wait_for(application.left.wait(), 5)
        if protocol.timeout_keep_alive_task is not None:
            protocol.timeout_keep_alive_task.cancel()
        for task in state.tasks:
            task.cancel()
        return wire, application

    return asyncio.run(run())


def request(
    body: bytes = b"{}", *headers: str, line: str = "POST /predict HTTP/1.1", host: str = "left"
) -> bytes:
    lines = [line, f"host: {host}", f"content-length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


CHUNKED = b"POST /predict HTTP/1.1\r\nhost: left\r\ntransfer-encoding: chunked\r\n\r\n"
REQUESTS: dict[str, bytes] = {
    "plain": request(),
    "empty": request(b""),
    "long": request(b"x" * 100_000),
    "close": request(b"close"),
    "parts": request(b"parts"),
    "chunks": request(b"chunks"),
    "closing": request(b"{}", "connection: close"),
    "upgrade": request(b"{}", "connection: upgrade", "upgrade: h2c"),
    "expects": request(b"{}", "expect: 100-continue"),
    "old": request(b"{}", line="POST /predict HTTP/1.0"),
    "query": request(b"{}", line="POST /predict?a=b HTTP/1.1"),
    "escaped": request(b"{}", line="POST /%70redict HTTP/1.1"),
    "other": request(b"{}", line="POST /other HTTP/1.1"),
    "get": request(b"", line="GET /predict HTTP/1.1"),
    "head": request(b"", line="HEAD /predict HTTP/1.1"),
    "chunked": CHUNKED + b"2\r\n{}\r\n0\r\n\r\n",
    "bad chunk": CHUNKED + b"2\r\n{}zz\r\n",
    "two lengths": request(b"{}", "content-length: 3"),
    "length and chunks": request(b"{}", "transfer-encoding: chunked"),
    "no http": b"\x16\x03\x01 hello\r\n\r\n",
    "control sign": request(b"{}", "x-a: a\x01b"),
}
WHOLE = {"plain", "empty", "long", "close", "parts", "chunks", "closing", "chunked"}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_is_answered_as_uvicorn_does(name: str) -> None:
    ours, application = answered(connection.Connection, REQUESTS[name], request())
    theirs, _ = answered(HttpToolsProtocol, REQUESTS[name], request())
    assert b"".join(ours.writes) == b"".join(theirs.writes)
    assert ours.closed == theirs.closed
    assert application.whole == (name in WHOLE) + (not ours.closed)


@given(
    names=st.lists(st.sampled_from(sorted(REQUESTS)), min_size=1, max_size=4),
    cuts=st.lists(st.floats(0, 1), max_size=4),
)
@settings(deadline=None, max_examples=200)
def test_so_it_is_however_the_bytes_are_cut(names: list[str], cuts: list[float]) -> None:
    whole = b"".join(REQUESTS[name] for name in names)
    places = [0, *sorted(int(cut * len(whole)) for cut in cuts), len(whole)]
    parts = [whole[start:end] for start, end in itertools.pairwise(places)]
    parts = [part for part in parts if part]
    ours, theirs = (
        answered(kind, *parts)[0] for kind in (connection.Connection, HttpToolsProtocol)
    )
    assert (b"".join(ours.writes), ours.closed) == (b"".join(theirs.writes), theirs.closed)


def test_a_failure_before_an_answer_is_told() -> None:
    wire, _ = answered(connection.Connection, request(b"raise"))
    assert b"".join(wire.writes).startswith(b"HTTP/1.1 500 ")
    assert wire.closed


def test_an_answer_is_one_write() -> None:
    wire, application = answered(connection.Connection, request(), request())
    assert [one.endswith(b"POST /predict {}") for one in wire.writes] == [True, True]
    assert application.whole == 2


@pytest.mark.parametrize("cut", [0, 10], ids=["whole", "in parts"])
def test_a_client_that_leaves_is_noticed(cut: int) -> None:
    asked = request(b"wait")
    parts = [part for part in (asked[:-cut], asked[-cut:]) if cut] or [asked]
    wire, _ = answered(connection.Connection, *parts, leaves=True)
    assert wire.writes == []


def test_servers_of_a_replica_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(uvicorn.config.HTTP_PROTOCOLS, "auto", "")
    fast_path.middlewares()
    config = uvicorn.Config(Application(), log_config=None)
    config.load()
    assert config.http_protocol_class is connection.Connection
