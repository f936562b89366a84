"""Both storages, and a wire that can be cut."""

import contextlib
import socket
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from eagleray import storage
from tests.conftest import Bucket


@pytest.fixture(params=["files", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> storage.Storage:
    """An empty storage of each kind."""
    if request.param == "files":
        return storage.open(tmp_path.as_uri())
    bucket: Bucket = request.getfixturevalue("s3")
    return storage.open(f"{bucket.uri}/{uuid.uuid4().hex}")


class Wire:
    """Forwards TCP to a server, and fails on as many of the next connections as it is told to.

    A failing connection lets `sent` bytes of requests and `answered` bytes of answers through
    (None: all of them); then it is cut, or, when `hang`, stays open and silent.
    """

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint)
        self._target = (parts.hostname, parts.port)
        self.pending = 0
        self._limits: tuple[int | None, int | None, bool] = (None, None, False)
        self._open: list[socket.socket] = []
        self._closed = False
        self._server = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def fail(
        self,
        times: int,
        *,
        sent: int | None = None,
        answered: int | None = None,
        hang: bool = False,
    ) -> None:
        self.pending, self._limits = times, (sent, answered, hang)

    def close(self) -> None:
        self._closed = True
        for end in (self._server, *self._open):
            _close(end)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                self.connections += 1
                sent, answered, hang = (None, None, False)
                if self.pending:
                    self.pending -= 1
                    sent, answered, hang = self._limits
                server = socket.create_connection(self._target)
                self._open += [client, server]
                if self._closed:  # while this connection was made
                    self.close()
                for source, sink, limit in ((client, server, sent), (server, client, answered)):
                    arguments = (source, sink, limit, hang)
                    threading.Thread(target=_pump, args=arguments, daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket, limit: int | None, hang: bool) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            if limit is not None and not data.startswith(b"HTTP/1.1 100 "):
                data, limit = data[:limit], limit - len(data)
            sink.sendall(data)
            if limit is not None and limit < 0:
                break
    if not (hang and limit is not None and limit < 0):
        _close(source)
        _close(sink)


def _close(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


@pytest.fixture
def wire(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """A wire to the S3 server, which is what the environment points at."""
    cuttable = Wire(s3.endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", cuttable.endpoint)
    yield cuttable
    cuttable.close()
