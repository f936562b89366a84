"""`eagleray doctor` on real storage, a server whose clock is off, and a real Ray dashboard."""

import functools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from eagleray import cli, doctor, storage
from tests import ray_nodes
from tests.conftest import Bucket


def test_options_that_lead_nowhere_are_the_users_mistake(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["doctor", "--release", "demo"]) == 2
    assert cli.main(["doctor", "--address", "head:6379"]) == 2
    assert "must be http://host:8265" in capsys.readouterr().err


def test_this_machine_and_its_storage_are_looked_at_when_no_cluster_is_named(
    s3: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["doctor", "--storage", s3.uri, "--json"])
    lines = {one["check"]: one for one in json.loads(capsys.readouterr().out)}
    storage_lines = ("storage", "conditional writes", "storage clock")
    assert [lines[name]["severity"] for name in storage_lines] == ["pass"] * 3
    assert {"Python", "Ray", "weed", "memory", "shared memory"} < lines.keys()
    assert [one.key for one in storage.open(s3.uri).list("doctor")] == []


class Clock(BaseHTTPRequestHandler):
    """An S3 server an hour off, which refuses every signature as AWS does."""

    def do_GET(self) -> None:
        self.send_response_only(403)
        self.send_header("Date", "Sun, 22 Nov 2020 03:00:00 GMT")
        body = b"<Error><Code>RequestTimeTooSkewed</Code><Message>too large</Message></Error>"
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_PUT = do_DELETE = do_GET  # noqa: N815

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def skewed(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Clock)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_clock_that_makes_storage_refuse_us_is_named_as_the_reason(skewed: None) -> None:
    reach, _, clock = doctor.check_storage("s3://models")
    assert "RequestTimeTooSkewed" in reach.message
    assert clock.severity == "fail"
    assert "signatures are refused from 900 s" in clock.message


def test_an_address_where_nobody_answers_fails_one_line() -> None:
    (line,) = doctor.check_ray(f"http://127.0.0.1:{ray_nodes.free_port()}")
    assert (line.check, line.severity) == ("Ray dashboard", "fail")


def test_an_address_of_something_else_is_told_from_ray(tmp_path: Path) -> None:
    folder = functools.partial(SimpleHTTPRequestHandler, directory=tmp_path)
    (tmp_path / "api").mkdir()
    (tmp_path / "api" / "version").write_text("<html>")
    server = ThreadingHTTPServer(("127.0.0.1", 0), folder)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    said, clock = doctor.check_ray(f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    thread.join()
    server.server_close()
    assert (said.severity, clock.severity) == ("fail", "pass")
    assert "must be a Ray dashboard, but answers 200 to /api/version" in said.message


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_ray_cluster_is_asked_with_its_token_alone() -> None:
    with ray_nodes.running() as nodes:
        refused, *_ = asked(nodes.address, {})
        lines = asked(nodes.address, nodes.environment)
    assert (refused["check"], refused["severity"]) == ("Ray dashboard", "fail")
    assert "asks for a token" in refused["message"]
    assert [one["severity"] for one in lines] == ["pass"] * 4


def asked(address: str, environment: dict[str, str]) -> list[dict[str, str]]:
    """What the command says of an address, in a process of its own: Ray reads its mode once."""
    command = [sys.executable, "-m", "eagleray", "doctor", "--address", address, "--json"]
    own = {name: text for name, text in os.environ.items() if not name.startswith("RAY_AUTH")}
    done = subprocess.run(command, env=own | environment, stdout=subprocess.PIPE, check=False)
    return [one for one in json.loads(done.stdout) if one["check"] != "storage"]
