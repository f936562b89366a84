"""The port that answers scrapes for the replicas of a node."""

import contextlib
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from serving import scrape


@contextlib.contextmanager
def listening(port: int, said: bytes) -> Iterator[scrape.Server]:
    with scrape.Server(port, lambda: said, lambda: True) as server:
        server.start()
        yield server
        server.shutdown()


def ask(port: int) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        found: bytes = answer.read()
    return found


def test_two_replicas_share_the_port_and_the_one_that_stays_goes_on_answering() -> None:
    with listening(0, b"first") as first:
        port = first.server_address[1]
        with listening(port, b"second"):
            assert {ask(port) for _ in range(40)} <= {b"first", b"second"}
        assert [ask(port) for _ in range(5)] == [b"first"] * 5


def test_a_probe_is_told_whether_traffic_may_come() -> None:
    answers = iter((True, False))
    with scrape.Server(0, lambda: b"", lambda: next(answers)) as server:
        server.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/readyz"
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert answer.status == 200
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(url, timeout=10)
        server.shutdown()


def test_a_port_of_somebody_else_is_refused() -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            scrape.Server(port, lambda: b"mine", lambda: True)
