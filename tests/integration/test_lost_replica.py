"""HAProxy, as Ray Serve configures it for us, asks another replica where one gives no answer.

The configuration is Ray Serve's, the replicas are sockets of this process. One of them answers; the
other takes a request and is lost with it.
"""

import json
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from serving import environment, protocol, web
from tests.integration.test_door import reachable

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Ray Serve's own, at its import
]
BODY = b'{"instances": []}'
HEAD = b"POST /predict HTTP/1.1\r\nhost: left\r\ncontent-length: %d\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@dataclass
class Replica:
    """Listens, says that it is fit, and meets each other request by what it does."""

    meets: Callable[[socket.socket], None]
    asked: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._listen, daemon=True).start()

    def end(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)  # wakes `accept`
        self._server.close()

    def _listen(self) -> None:
        with suppress(OSError):  # the end
            while True:
                connection, _ = self._server.accept()
                threading.Thread(target=self._answer, args=[connection], daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):  # HAProxy ends connections by a reset
            while kind := connection.recv(4, socket.MSG_PEEK):
                if kind == b"GET ":
                    connection.recv(65536)
                    connection.sendall(ANSWER)
                    continue
                self.asked.set()
                self.meets(connection)


def answer(connection: socket.socket) -> None:
    got = connection.recv(65536)
    head, _, body = got.partition(b"\r\n\r\n")
    missing = int(head.rpartition(b"content-length: ")[2].split()[0]) - len(body)
    while missing > 0 and (part := connection.recv(65536)):
        missing -= len(part)
    connection.sendall(ANSWER)


def close(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.shutdown(socket.SHUT_RDWR)


def reset(connection: socket.socket) -> None:
    """Leave the request unread, as a process does that is killed before it could read it."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def begin(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(ANSWER[:20])
    connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def haproxy(
    folder: Path, *replicas: Replica, body_s: int = environment.BODY_S, buffer: int = 16 * 1024
) -> Iterator[int]:
    """Start HAProxy with these replicas; yields its port."""
    from ray.serve._private import haproxy as ray_haproxy
    from ray.serve.config import HTTPOptions

    port, metrics_port, stats_port = environment.free_ports(3)
    again = environment.FAST["RAY_SERVE_HAPROXY_RETRY_ON"]
    config = ray_haproxy.HAProxyConfig(
        http_options=HTTPOptions(host="127.0.0.1", port=port),
        metrics_port=metrics_port,
        stats_port=stats_port,
        socket_path=str(folder / "admin.sock"),
        server_state_base=str(folder),
        server_state_file=str(folder / "state"),
        retry_on=again.replace(f"{environment.BODY_S}s", f"{body_s}s"),
        retries=int(environment.FAST["RAY_SERVE_HAPROXY_RETRIES"]),
        bufsize=buffer,
    )
    servers = [ray_haproxy.ServerConfig(f"r{one.port}", "127.0.0.1", one.port) for one in replicas]
    backend = ray_haproxy.BackendConfig("http-left", "/", servers=servers, app_name="left")
    file = folder / "haproxy.cfg"
    api = ray_haproxy.HAProxyApi(config, {"http-left": backend}, str(file))
    api._generate_config_file_internal()
    command = [ray_haproxy.get_haproxy_binary(), "-db", "-f", str(file)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            reachable(port)
            yield port
        finally:
            process.terminate()
            for one in replicas:
                one.end()


def ask(
    port: int, body: bytes = BODY, *, asked: threading.Event | None = None, missing: int = 0
) -> bytes:
    """The answer to a request that lacks the end of its body.

    With `asked` the body is held back for a moment, or until that event.
    """
    head = HEAD % (len(body) + missing)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(head if asked else head + body)
        if asked:
            asked.wait(0.3)
            connection.sendall(body)
        return connection.recv(65536)


@pytest.mark.parametrize("apart", [False, True], ids=["one piece", "head and body apart"])
@pytest.mark.parametrize("end", [close, reset, begin])
def test_a_request_whose_replica_is_lost_is_answered_by_another(
    tmp_path: Path, end: Callable[[socket.socket], None], apart: bool
) -> None:
    lost, other = Replica(end), Replica(answer)
    asked = lost.asked if apart else None
    with haproxy(tmp_path, lost, other) as port:
        said = [ask(port, asked=asked) for _ in range(4)]  # each of the two gets some
    assert lost.asked.is_set()
    assert said == [ANSWER] * 4


def test_a_request_above_15_kib_is_lost_with_its_replica(tmp_path: Path) -> None:
    """HAProxy does not hold it as a whole; docs/limits.md says so."""
    with haproxy(tmp_path, Replica(close), Replica(answer)) as port:
        said = [ask(port, BODY.ljust(15 * 1024))[9:12] for _ in range(4)]
    assert set(said) == {b"200", b"500"}


def test_larger_buffers_let_larger_requests_be_answered_by_another(tmp_path: Path) -> None:
    """What a node gets by `environment.BUFFER`."""
    lost = Replica(close)
    with haproxy(tmp_path, lost, Replica(answer), buffer=64 * 1024) as port:
        said = [ask(port, BODY.ljust(62 * 1024)) for _ in range(4)]
    assert lost.asked.is_set()
    assert said == [ANSWER] * 4


def test_a_body_that_is_late_is_a_408_with_the_form_of_other_errors(tmp_path: Path) -> None:
    with haproxy(tmp_path, Replica(answer), body_s=1) as port:
        head, _, body = ask(port, missing=5).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b"content-type: application/json" in head
    error = json.loads(body)["error"]
    assert error["type"] == protocol.ERRORS[408][0]
    assert environment.BODY_S == web.READ_S
    assert error["message"] == f"the body must arrive within {web.READ_S:g} s, but is late"
