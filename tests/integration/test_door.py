"""What reaches a replica through HAProxy and its HTTP server: smuggled requests and slow bodies.

uvicorn and HAProxy are those of Ray Serve, the application is a replica's; sockets are real.
"""

import contextlib
import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http import auto, httptools_impl

from serving import batching, environment, metrics, predictor, web
from tests import bundles

HEAD = b"POST /predict HTTP/1.1\r\nHost: left\r\nContent-Type: application/json\r\n"
NEXT = b"GET /smuggled HTTP/1.1\r\nHost: left\r\n\r\n"
BODY = json.dumps({"instances": bundles.instances(bundles.rows(1, seed=3))}).encode()
SMUGGLED = {
    "both lengths": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both lengths, turned": b"Transfer-Encoding: chunked\r\nContent-Length: 50\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 5\r\nContent-Length: 0\r\n\r\nhello",
    "two encodings": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "an unknown encoding": b"Transfer-Encoding: xchunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "a sign": b"Content-Length: +5\r\n\r\nhello",
    "a blank": b"Content-Length : 5\r\n\r\nhello",
}
PROXY = """
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
  option abortonclose
  option http-no-delay
frontend front
  bind 127.0.0.1:{front}
  default_backend replicas
backend replicas
  http-reuse always
  server replica 127.0.0.1:{replica}
"""


class Door:
    """The ports of a replica and of HAProxy before it, and the paths that have reached it."""

    def __init__(self, application: web.Application) -> None:
        self.paths: list[str] = []
        self.front, self.replica = environment.free_ports(2)
        self._application = application

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.paths.append(scope["path"])
        await self._application(scope, receive, send)


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        patch.setenv(metrics.FOLDER, "")
        folder = tmp_path_factory.mktemp("door")
        observer = metrics.Metrics(folder / "metrics", "left")
        application = web.Application("left", observer, read_s=0.3)
        loaded = bundles.make()
        loaded.name, loaded.number, loaded.golden = "left", 3, bundles.golden(loaded)
        thread = stack.enter_context(ThreadPoolExecutor(1))
        application.predictor = predictor.Predictor(loaded, batching.Limits(), thread, observer)
        made = Door(application)
        stack.enter_context(replica(made))
        stack.enter_context(proxy(made, folder))
        yield made


@contextlib.contextmanager
def replica(door: Door) -> Iterator[None]:
    config = uvicorn.Config(door, port=door.replica, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        reachable(door.replica)
        yield
    finally:
        server.should_exit = True
        thread.join(30)


@contextlib.contextmanager
def proxy(door: Door, folder: Path) -> Iterator[None]:
    program = environment._bundled()
    assert program is not None
    file = folder / "haproxy.cfg"
    file.write_text(PROXY.format(front=door.front, replica=door.replica))
    with subprocess.Popen([program, "-db", "-f", str(file)], stderr=subprocess.DEVNULL) as process:
        try:
            reachable(door.front)
            yield
        finally:
            process.terminate()


def reachable(port: int) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        time.sleep(0.02)
    raise AssertionError(f"nothing listens at {port}")


def answers(port: int, sent: bytes) -> bytes:
    """All that is answered to these bytes, until the other side closes or says no more."""
    got = b""
    with socket.create_connection(("127.0.0.1", port), timeout=3) as connection:
        connection.sendall(sent)
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            while part := connection.recv(65536):
                got += part
    return got


def test_the_http_server_is_the_one_that_ray_serve_takes() -> None:
    """It takes uvicorn's choice, which h11 would be without httptools."""
    assert auto.AutoHTTPProtocol is httptools_impl.HttpToolsProtocol


@pytest.mark.parametrize("case", SMUGGLED)
def test_a_replica_refuses_a_request_of_two_lengths(door: Door, case: str) -> None:
    door.paths.clear()
    got = answers(door.replica, HEAD + SMUGGLED[case] + NEXT)
    assert got.startswith(b"HTTP/1.1 400 ")
    assert door.paths == []


@pytest.mark.parametrize("case", SMUGGLED)
def test_no_request_is_smuggled_through_haproxy(door: Door, case: str) -> None:
    """HAProxy refuses all but both lengths: there the encoding counts, and the connection ends."""
    door.paths.clear()
    got = answers(door.front, HEAD + SMUGGLED[case] + NEXT)
    assert got.count(b"HTTP/1.1 ") == 1
    if case.startswith("both"):
        assert door.paths == ["/predict"]
    else:
        assert got.startswith(b"HTTP/1.1 400 ")
        assert door.paths == []


@pytest.mark.parametrize("through", ["front", "replica"])
def test_a_body_that_does_not_come_is_given_up(door: Door, through: str) -> None:
    sent = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY[:20]
    got = answers(getattr(door, through), sent)
    assert got.startswith(b"HTTP/1.1 408 ")
    assert b'"timeout"' in got


def test_a_whole_request_is_answered(door: Door) -> None:
    sent = HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
    assert answers(door.front, sent).startswith(b"HTTP/1.1 200 ")
