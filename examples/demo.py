"""`make demo`: one file to one autoscaled endpoint, on this machine, with real data.

Everything is done by the commands that a user would type; they are printed before they run.
"""

import contextlib
import http.client
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".eagleray" / "demo"
CONNECTIONS = 24
REPLICAS = 3
PATIENCE_S = 60


def main() -> int:
    """Run the whole story; 0 when every request was answered and the replicas moved."""
    began = time.monotonic()
    shutil.rmtree(HOME, ignore_errors=True)
    os.environ["EAGLERAY_HOME"] = str(HOME)
    with storage():
        say("Search: Ray Tune over a convolutional network for handwritten digits")
        run("eagleray run examples/digits.yaml --set tune.trials=8")
        say("Another search, so that there is a second version to promote")
        run("eagleray run examples/digits.yaml --set tune.trials=2 --set train.seed=1")
        run("eagleray models list")
        say("Serve the champion: HAProxy in front of 1 to 3 replicas")
        with serving() as endpoint:
            failed = ask_and_load(endpoint)
        say("All that was made is kept")
        run("eagleray models events digits")
    print(f"storage: {HOME}\nlook into it again: EAGLERAY_HOME={HOME} eagleray local up")
    print(f"failed requests: {failed}\ndone in {time.monotonic() - began:.0f} s")
    return int(failed > 0)


def ask_and_load(endpoint: dict[str, Any]) -> int:
    """Ask by hand, then put load on it while replicas and versions change; how many failed."""
    say("Ask it for a real row")
    run(endpoint["curl"])
    say(f"Load from {CONNECTIONS} connections: one replica becomes several")
    with load(endpoint) as answered:
        wait_for("replicas", lambda: replicas(endpoint), lambda count: count == REPLICAS)
        say("Promote version 2 under that load")
        run("eagleray models promote digits 2 --why demo")
        version = "version that answers"
        wait_for(version, lambda: answered.latest, lambda latest: latest == "2")
        time.sleep(2)
    print("answers by version and status:", dict(answered.seen))
    say("The load is gone: the replicas follow")
    wait_for("replicas", lambda: replicas(endpoint), lambda count: count == 1)
    return answered.failed


class Answers:
    """What the load got; written by its threads."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.failed = 0
        self.latest: str | None = None
        self._lock = threading.Lock()

    def add(self, version: str | None, status: int | str) -> None:
        with self._lock:
            self.seen[f"version {version}: {status}"] += 1
            self.failed += status != 200
            self.latest = version


@contextlib.contextmanager
def load(endpoint: dict[str, Any]) -> Iterator[Answers]:
    """Closed-loop requests from `CONNECTIONS` connections until the block ends."""
    answers, stop = Answers(), threading.Event()
    body = shlex.split(endpoint["curl"])[-1].encode()
    threads = [
        threading.Thread(target=request, args=(endpoint["url"], body, answers, stop))
        for _ in range(CONNECTIONS)
    ]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def request(url: str, body: bytes, answers: Answers, stop: threading.Event) -> None:
    """Ask again and again over one connection, opened anew where the server has closed it."""
    address = urlsplit(url).netloc
    connection = http.client.HTTPConnection(address, timeout=30)
    while not stop.is_set():
        try:
            connection.request("POST", "/predict", body, {"content-type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            answers.add(answer.getheader("x-eagleray-version"), answer.status)
        except (OSError, http.client.HTTPException) as error:
            answers.add(None, type(error).__name__)
            connection.close()


def replicas(endpoint: dict[str, Any]) -> int:
    """How many replicas serve, by the endpoint's own metrics."""
    with urlopen(endpoint["url"] + "/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return sum(
        int(float(count)) for count in re.findall(r"eagleray_model_version\{.*\} (\S+)", text)
    )


def wait_for(what: str, read: Callable[[], Any], reached: Callable[[Any], bool]) -> None:
    """Print each new value until it is what is waited for."""
    until, shown = time.monotonic() + PATIENCE_S, None
    while time.monotonic() < until:
        value = read()
        if value != shown:
            print(f"  {what}: {value}", flush=True)
            shown = value
        if reached(value):
            return
        time.sleep(0.2)
    sys.exit(f"{what} stayed at {shown} for {PATIENCE_S} s")


@contextlib.contextmanager
def storage() -> Iterator[None]:
    """The embedded S3 server, for the time of the block."""
    say("Storage: a real S3 server on this machine, with keys of its own")
    run("eagleray local up")
    try:
        yield
    finally:
        run("eagleray local down")


@contextlib.contextmanager
def serving() -> Iterator[dict[str, Any]]:
    """The endpoint, for the time of the block."""
    command = (
        f"eagleray serve digits --port 8321 --max {REPLICAS} --target 4 --scale-up-after 1"
        " --scale-down-after 3 --json"
    )
    print(f"$ {command} &", flush=True)
    server = subprocess.Popen(shlex.split(command), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        if not line:
            sys.exit("the endpoint did not come up")
        yield json.loads(line)
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)


def say(what: str) -> None:
    """A headline."""
    print(f"\n== {what}", flush=True)


def run(command: str) -> None:
    """Print a command and run it; the demo ends where one fails."""
    print(f"$ {command}", flush=True)
    subprocess.run(shlex.split(command), cwd=ROOT, check=True)
    print(flush=True)


if __name__ == "__main__":
    sys.exit(main())
