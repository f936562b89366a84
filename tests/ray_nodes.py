"""Ray clusters of several nodes on this machine.

`running` starts one as an operator would, token and all; `joining` one that nodes join and leave.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

LIMIT_S = 120.0
MOST_STARTS = 3  # `ray start` gives up after 30 s, which a busy machine may need
HOSTS = ("127.0.0.2", "127.0.0.3")  # loopback; Ray takes 127.0.0.1 for "find out yourself"


@dataclass(frozen=True)
class Cluster:
    """Where its dashboard is, and by which variables a client is let in."""

    address: str
    environment: dict[str, str]


@contextlib.contextmanager
def running() -> Iterator[Cluster]:
    """Start a head and a second node of one CPU each; end both, by their process groups."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: Unix sockets lie below it
    gcs, dashboard = free_port(), free_port()
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    cluster = Cluster(f"http://127.0.0.1:{dashboard}", token)
    head = ["--head", f"--port={gcs}", f"--dashboard-port={dashboard}", f"--temp-dir={folder}"]
    head += [
        f"--node-ip-address={HOSTS[0]}",
        "--dashboard-host=127.0.0.1",
        f"--ray-client-server-port={free_port()}",
    ]
    nodes: list[subprocess.Popen[bytes]] = []
    try:
        nodes.append(started(head, folder, token))
        _wait(cluster, nodes[0], folder)
        worker = [f"--address={HOSTS[0]}:{gcs}", f"--node-ip-address={HOSTS[1]}"]
        nodes.append(started(worker, folder, token))
        _wait(cluster, nodes[1], folder, path="/nodes?view=summary", text='"ALIVE"', times=2)
        yield cluster
    finally:
        for node in reversed(nodes):
            end(node)
        shutil.rmtree(folder, ignore_errors=True)


class Nodes:
    """A head without CPUs at `address`; nodes of one CPU join it, are drained and are lost."""

    def __init__(self, variables: dict[str, str] | None = None) -> None:
        self._variables = {"RAY_AUTH_MODE": "disabled", **(variables or {})}
        self._folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: Unix sockets lie below it
        self._started: list[subprocess.Popen[bytes]] = []
        self.address = f"{HOSTS[0]}:{free_port()}"

    def begin(self) -> None:
        head = ["--head", f"--port={self.address.rpartition(':')[2]}", "--num-cpus=0"]
        head += ["--memory=1"]  # a byte: no trial of a group is there
        head += [f"--node-ip-address={HOSTS[0]}", f"--temp-dir={self._folder}"]
        head += ["--include-dashboard=false", f"--ray-client-server-port={free_port()}"]
        self._start(head)

    def join(self) -> None:
        self._start([f"--address={self.address}", f"--node-ip-address={HOSTS[1]}"])

    def drain(self, process: int) -> None:
        """Tell the node of a process to end, as Kubernetes tells a pod: its `ray start` alone."""
        os.kill(self._node(process).pid, signal.SIGTERM)

    def kill(self, process: int) -> None:
        """End the node of a process, and all that it started, without a word."""
        node = self._node(process)
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()

    def find(self, title: str) -> int:
        """A process of this cluster whose title begins so."""
        sessions = {one.pid for one in self._started}
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):  # no process, or one that has ended
                ours = os.getsid(int(folder.name)) in sessions
                if ours and (folder / "cmdline").read_text().startswith(title):
                    return int(folder.name)
        raise LookupError(f"no process of this cluster is a {title}")

    def other(self, process: int) -> int:
        """A process of a node with a CPU that is not the node of this process."""
        own = self._node(process)
        return next(one.pid for one in self._started[1:] if one is not own)

    def close(self) -> None:
        for node in reversed(self._started):
            end(node)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, options: list[str]) -> None:
        self._started.append(started(options, self._folder, self._variables))

    def _node(self, process: int) -> subprocess.Popen[bytes]:
        session = os.getsid(process)
        return next(one for one in self._started[1:] if one.pid == session)


@contextlib.contextmanager
def joining(nodes: int, variables: dict[str, str] | None = None) -> Iterator[Nodes]:
    """A cluster that so many nodes have joined."""
    cluster = Nodes(variables)
    try:
        cluster.begin()
        for _ in range(nodes):
            cluster.join()
        yield cluster
    finally:
        cluster.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def started(
    options: list[str], folder: Path, variables: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a node and wait until it says so in its log; once more if it ends before."""
    for _ in range(MOST_STARTS):
        log = _next_log(folder)
        node = start(options, folder, variables)
        with contextlib.ExitStack() as stack:
            stack.callback(end, node)
            if _begins(node, log):
                stack.pop_all()
                return node
    raise AssertionError(f"no node in {MOST_STARTS} starts\n{log.read_text()}")


def start(
    options: list[str], folder: Path, variables: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a node of one CPU, in a process group of its own; its log lies in the folder."""
    scripts = Path(sys.executable).parent
    path = f"{scripts}{os.pathsep}{os.environ['PATH']}"
    ports = ["dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port"]
    command = [
        str(scripts / "ray"),
        "start",
        "--block",
        "--disable-usage-stats",
        "--num-cpus=1",
        "--object-store-memory=100000000",
        *(f"--{port}={free_port()}" for port in ports),
        *options,
    ]
    aws = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with _next_log(folder).open("wb") as log:
        return subprocess.Popen(
            command,
            env=aws | {"PATH": path} | dict(variables),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def end(node: subprocess.Popen[bytes]) -> None:
    """End a node and what it started, all of which is in its process group."""
    for number, patience_s in ((signal.SIGTERM, 5), (signal.SIGKILL, 30)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(node.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            node.wait(patience_s)


def _next_log(folder: Path) -> Path:
    return folder / f"node-{len(list(folder.glob('node-*')))}.log"


def _begins(node: subprocess.Popen[bytes], log: Path) -> bool:
    """Whether a node says that it runs, before it ends or the time is up."""
    until = time.monotonic() + LIMIT_S
    while time.monotonic() < until and node.poll() is None:
        if "Ray runtime started" in log.read_text():
            return True
        time.sleep(0.1)
    return False


def _wait(
    cluster: Cluster,
    node: subprocess.Popen[bytes],
    folder: Path,
    *,
    path: str = "/api/version",
    text: str = "ray_version",
    times: int = 1,
) -> None:
    header = {"Authorization": f"Bearer {cluster.environment['RAY_AUTH_TOKEN']}"}
    until, seen = time.monotonic() + LIMIT_S, "nothing"
    while time.monotonic() < until and node.poll() is None:
        with contextlib.suppress(OSError):
            request = urllib.request.Request(cluster.address + path, headers=header)
            with urllib.request.urlopen(request, timeout=10) as answer:
                seen = answer.read().decode()
            if seen.count(text) >= times:
                return
        time.sleep(0.2)
    logs = "\n".join(log.read_text()[-2000:] for log in sorted(folder.glob("node-*.log")))
    raise TimeoutError(f"{cluster.address}{path}: no {text} in {LIMIT_S:g} s, but {seen}\n{logs}")
