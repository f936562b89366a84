"""Replicas that are killed and versions that change, shorter than `make bench` does it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from benchmarks import replicas, traffic
from eagleray import storage
from eagleray.state.models import Registry

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]


def claim(program: str, *options: str) -> dict[str, Any]:
    """The last claim that a program prints."""
    command = [sys.executable, "-m", f"benchmarks.{program}", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found | {"said": done.stdout}


def test_no_request_fails_while_one_replica_of_several_is_killed_again_and_again() -> None:
    found = claim("replicas", "--seconds", "30", "--rate", "50")
    assert (found["ours"], found["killed"] >= 2) == (0, True), found["said"]


def test_requests_that_the_heads_proxy_has_passed_on_outlive_their_replica() -> None:
    """HAProxy asks that proxy where it holds no replica for up."""
    with (
        tempfile.TemporaryDirectory(prefix="b-", dir="/tmp") as name,  # a short path, for sockets
        ThreadPoolExecutor(4) as pool,
    ):
        store, scratch = Path(name, "store"), Path(name, "t")
        for folder in (store, scratch):
            folder.mkdir()
        models = Registry(storage.open(store.as_uri()))
        models.register(traffic.NAME, traffic.version(seconds=4.0), {})
        models.promote(traffic.NAME, 1)
        with traffic.endpoint(store, replicas=2, scratch=scratch) as (_, process):
            while len(found := replicas.replicas(process, scratch)) < 2:
                time.sleep(0.5)
            asked = [pool.submit(ask, proxy(scratch)) for _ in range(4)]  # both have some
            time.sleep(2.0)  # the models sleep for four seconds
            assert not any(one.done() for one in asked)
            os.kill(found[0], signal.SIGKILL)
            assert [one.result(100)[9:12] for one in asked] == [b"200"] * 4


def proxy(scratch: Path) -> int:
    """The port of the head's proxy, which HAProxy has as a reserve."""
    (config,) = scratch.glob("er-*/**/haproxy.cfg")
    (port,) = re.findall(r"server SERVE_PROXY_ACTOR\S+ 127\.0\.0\.1:(\d+)", config.read_text())
    return int(port)


def ask(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=100) as connection:
        connection.sendall(traffic.bodies(1)[0])
        return connection.recv(65536)


def test_the_memory_of_a_replica_does_not_grow_with_the_versions_that_it_has_served() -> None:
    found = claim("memory", "--changes", "20", "--minutes", "0.5")
    assert found["ratio"] <= 1.1, found["said"]
