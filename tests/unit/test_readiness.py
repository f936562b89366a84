"""What a probe is told, for each answer of HAProxy's health check, and who waits for a probe."""

import asyncio
import contextlib
import importlib.util
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from serving import environment, readiness

_FOUND = importlib.util.find_spec("ray")
assert _FOUND is not None
assert _FOUND.origin is not None
_CONSTANTS = Path(_FOUND.origin).with_name("serve") / "_private/constants.py"
RAYS = {
    name: text.encode()
    for name, text in re.findall(r'^(\w+_MESSAGE) = "(.+)"$', _CONSTANTS.read_text(), re.MULTILINE)
}
"""What Ray Serve says in health checks; read, since its import takes long."""


class HAProxy(HTTPServer):
    """Answers health checks as it is told."""

    says = (503, readiness.NO_REPLICAS)


class _Health(BaseHTTPRequestHandler):
    server: HAProxy

    def do_GET(self) -> None:
        status, text = self.server.says if self.path == "/-/healthz" else (404, b"")
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def haproxy() -> Iterator[HAProxy]:
    with HAProxy(("127.0.0.1", 0), _Health) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "SETTLE_S", 0)


@contextlib.contextmanager
def announced(found: readiness.Readiness, limit_s: float = 30) -> Iterator[threading.Thread]:
    """A replica that is fit, and waits in a thread of its own."""
    waits = threading.Thread(target=lambda: asyncio.run(found.announce(limit_s)))
    waits.start()
    yield waits
    waits.join(20)
    assert not waits.is_alive()


def until_fit(found: readiness.Readiness) -> bool:
    """The first yes of a probe that asks again and again."""
    return any(found.probe() for _ in range(2000))


def test_what_haproxy_says_without_replicas_is_what_ray_serve_makes_it_say() -> None:
    assert RAYS["NO_REPLICAS_MESSAGE"] == readiness.NO_REPLICAS


def test_without_haproxy_no_traffic_comes_and_a_fit_replica_changes_nothing() -> None:
    found = readiness.Readiness(environment.free_ports(1)[0])
    assert not found.probe()
    with announced(found, limit_s=0.3):
        assert not found.probe()


def test_the_first_replica_runs_once_a_probe_has_found_it_fit(haproxy: HAProxy) -> None:
    found = readiness.Readiness(haproxy.server_port)
    assert not found.probe()
    with announced(found) as waits:
        waits.join(0.2)
        assert waits.is_alive()
        assert until_fit(found)
    assert found.probe()


def test_a_fit_replica_of_a_new_worker_waits_until_haproxy_knows_the_others(
    haproxy: HAProxy,
) -> None:
    haproxy.says = (503, RAYS["NO_ROUTES_MESSAGE"])
    found = readiness.Readiness(haproxy.server_port)
    with announced(found) as waits:
        assert not found.probe()
        assert waits.is_alive()
        haproxy.says = (200, b"success")
        assert until_fit(found)


def test_a_node_that_drains_is_not_ready_though_its_replica_is_fit(haproxy: HAProxy) -> None:
    found = readiness.Readiness(haproxy.server_port)
    with announced(found):
        assert until_fit(found)
    haproxy.says = (503, RAYS["DRAINING_MESSAGE"])
    assert not found.probe()


def test_where_nobody_asks_a_replica_does_not_wait_for_good(haproxy: HAProxy) -> None:
    found = readiness.Readiness(haproxy.server_port)
    with announced(found, limit_s=0.1):
        pass
    assert found.probe()
