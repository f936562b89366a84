"""The application under load that one replica cannot bear: a real process, real HTTP."""

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving import environment, protocol
from serving.autoscaling import policy
from serving.autoscaling.plan import PRESETS, Plan
from tests import bundles

ROWS = bundles.instances(bundles.rows(150, seed=11))
JSON = {"content-type": "application/json"}
MOST_MB = 350
"""What the process may grow by. 64 MiB are bodies; the rest is decoding, and rows in progress."""


@dataclass
class Running:
    """A server process, and what it last said of itself."""

    process: subprocess.Popen[str]
    url: str
    said: tuple[float, float] = (0.0, 0.0)

    def listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            ongoing, busy = map(float, line.split())
            self.said = ongoing, busy

    def megabytes(self, of: str) -> float:
        """VmRSS, the memory it has now, or VmHWM, the most that it has had."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        (line,) = (line for line in lines if line.startswith(of))
        return int(line.split()[1]) / 1024


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    (port,) = environment.free_ports(1)
    folder = tmp_path_factory.mktemp("metrics")
    command = [sys.executable, "-m", "tests.endpoint", str(port), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        made = Running(process, f"http://127.0.0.1:{port}")
        listener = threading.Thread(target=made.listen)
        listener.start()
        try:
            wait(lambda: answers(made))
            yield made
        finally:
            process.terminate()
            process.wait(60)
            listener.join(60)


def answers(running: Running) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{running.url}/healthz").status_code == 200
    return False


def wait(until: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "this took too long"
        time.sleep(0.1)


def test_memory_is_bounded_under_many_large_bodies(running: Running) -> None:
    row = ROWS[1] | {"note": "word " * 280}
    body = json.dumps({"instances": [row] * protocol.MOST_ROWS}).encode()
    assert 14e6 < len(body) < protocol.MOST_BYTES
    before = running.megabytes("VmRSS")

    def ask(number: int) -> httpx.Response:
        chunks = (body[at : at + 100_000] for at in range(0, len(body), 100_000))
        content = body if number % 2 else chunks  # with a length, and without
        return httpx.post(f"{running.url}/predict", content=content, headers=JSON, timeout=120)

    with ThreadPoolExecutor(40) as clients:
        answered = list(clients.map(ask, range(80)))
    grown = running.megabytes("VmHWM") - before
    statuses = {answer.status_code for answer in answered}
    assert statuses == {200, 503}
    assert all("retry-after" in one.headers for one in answered if one.status_code == 503)
    assert grown < MOST_MB
    print(f"grown by {grown:.0f} MB; {sum(a.status_code == 200 for a in answered)} of 80 answered")


def test_clients_that_send_nothing_keep_nobody_out(running: Running) -> None:
    head = b"POST /predict HTTP/1.1\r\nhost: left\r\ncontent-length: 16000000\r\n\r\n"
    with contextlib.ExitStack() as open_:
        for _ in range(50):
            address = ("127.0.0.1", int(running.url.rpartition(":")[2]))
            client = open_.enter_context(socket.create_connection(address))
            client.sendall(head + b"x" * 1000)
        answer = httpx.post(f"{running.url}/predict", json={"instances": ROWS})
    assert answer.status_code == 200


def wanted(ongoing: float, busy: float) -> int:
    """Replicas that the policy wants without an objective."""
    bounds = {"min_replicas": 1, "max_replicas": 4, "p95_ms": None}
    plan = Plan(**bounds, target_ongoing=16, pace=PRESETS["steady"])
    reading = policy.Reading(ongoing=ongoing, arrived=0.0, served=0.0, busy=busy)
    return policy.need(plan, [reading])[0]


def test_a_replica_that_is_full_asks_for_another_though_few_requests_are_counted(
    running: Running,
) -> None:
    body = json.dumps({"instances": ROWS}).encode()
    stop = threading.Event()

    def ask() -> None:
        with httpx.Client(timeout=60) as client:
            while not stop.is_set():
                client.post(f"{running.url}/predict", content=body, headers=JSON)

    def wants_another() -> bool:
        ongoing, busy = running.said
        return ongoing < 16 and wanted(ongoing, busy) > 1

    wait(lambda: wanted(*running.said) == 1)
    with ThreadPoolExecutor(8) as clients:
        asking = [clients.submit(ask) for _ in range(8)]
        try:
            wait(wants_another)
        finally:
            stop.set()
    for one in asking:
        one.result()
    wait(lambda: wanted(*running.said) == 1)
