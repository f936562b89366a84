"""Ray Serve with HAProxy on nodes of this machine: a head without CPUs and workers of one CPU.

Each node has an address of loopback and ports of its own, and is a process group that can be killed
as a whole, as the loss of a pod does. Applications go through the head's REST API, as KubeRay's.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serving import environment
from tests import ray_nodes

ROOT = Path(__file__).parents[1]
TOKEN = secrets.token_hex(16)
LIMIT_S = 180.0


@dataclass
class Node:
    """A node under way.

    Attributes:
        port: of its HAProxy.
        metrics_port: of its replicas; see `serving.settings`.
    """

    process: subprocess.Popen[bytes]
    port: int
    metrics_port: int

    def url(self, path: str = "/predict") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def kill(self) -> None:
        """End all of its processes at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)


@dataclass
class Nodes:
    """The nodes of a cluster, whose files lie in a folder."""

    folder: Path
    gcs: int = field(default_factory=ray_nodes.free_port)
    dashboard: int = field(default_factory=ray_nodes.free_port)
    http: int = field(default_factory=ray_nodes.free_port)
    started: list[Node] = field(default_factory=list)

    def head(self, variables: Mapping[str, str] | None = None) -> Node:
        """Start the head, for the first time or again; gives it once its REST API answers."""
        options = ["--head", f"--port={self.gcs}", "--num-cpus=0", "--dashboard-host=127.0.0.1"]
        options += [f"--dashboard-port={self.dashboard}", f"--temp-dir={self.folder}"]
        options += [f"--ray-client-server-port={ray_nodes.free_port()}"]
        # A new pod's /tmp is empty; by this file Ray would take the workers for a running head.
        (self.folder / "ray_current_cluster").unlink(missing_ok=True)
        node = self._start(options, "127.0.0.2", variables or {})
        self.until("the head answers", lambda: self.applications() is not None)
        return node

    def worker(self, number: int = 1) -> Node:
        """Start a worker; `number` tells workers apart."""
        address, host = f"--address=127.0.0.2:{self.gcs}", f"127.0.0.{2 + number}"
        return self._start([address], host, {"RAY_gcs_rpc_server_reconnect_timeout_s": "600"})

    def apply(self, application: Mapping[str, Any]) -> None:
        """What KubeRay does with `serveConfigV2`; the head's HAProxy listens at `http`."""
        options = {"host": "127.0.0.1", "port": self.http}
        config = {"proxy_location": "EveryNode", "http_options": options}
        self._ask("PUT", json.dumps(config | {"applications": [application]}).encode())

    def applications(self) -> dict[str, Any] | None:
        """What Ray Serve says of each application; None while nobody answers."""
        with contextlib.suppress(OSError):
            found: dict[str, Any] = json.loads(self._ask("GET"))["applications"]
            return found
        return None

    def running(self, name: str) -> bool:
        return (self.applications() or {}).get(name, {}).get("status") == "RUNNING"

    def replicas(self, name: str) -> set[str]:
        """Actors of the replicas that run."""
        (deployment,) = (self.applications() or {})[name]["deployments"].values()
        found = deployment["replicas"]
        return {one["actor_id"] for one in found if one["state"] == "RUNNING"}

    def until(self, what: str, met: Callable[[], bool], limit_s: float = LIMIT_S) -> None:
        """Wait until so; fail with what the nodes printed."""
        until = time.monotonic() + limit_s
        while not met():
            assert time.monotonic() < until, f"{what}: not within {limit_s:g} s\n{self._logs()}"
            time.sleep(0.05)

    def _start(self, options: list[str], host: str, variables: Mapping[str, str]) -> Node:
        ports = environment.free_ports(2 + len(environment.PORTS))
        own = dict(zip(environment.PORTS, map(str, ports[2:]), strict=True))
        own |= {"RAY_SERVE_WORKER_PROXY_HTTP_PORT": str(ports[0]), "PYTHONPATH": str(ROOT)}
        own |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
        own |= {"RAY_agent_register_timeout_ms": "120000"}  # a busy machine starts agents slowly
        place = [f"--node-ip-address={host}"]
        paths = environment.private_paths(self.folder) | environment.haproxy_program(self.folder)
        all_ = environment.FAST | paths | own | dict(variables)
        process = ray_nodes.started([*options, *place], self.folder, all_)
        node = Node(process, ports[0], ports[1])
        self.started.append(node)
        return node

    def _ask(self, method: str, body: bytes | None = None) -> bytes:
        url = f"http://127.0.0.1:{self.dashboard}/api/serve/applications/"
        header = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
        request = urllib.request.Request(url, body, header, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            found: bytes = answer.read()
        return found

    def _logs(self) -> str:
        logs = [*self.folder.glob("node-*.log")]
        logs += self.folder.glob("session_*/logs/serve/*.log")
        return "\n".join(f"--- {log}\n{log.read_text()[-1500:]}" for log in sorted(logs))


@contextlib.contextmanager
def nodes() -> Iterator[Nodes]:
    """No node yet; ends all that were started."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: Unix sockets lie below it
    cluster = Nodes(folder)
    try:
        yield cluster
    finally:
        for node in reversed(cluster.started):
            ray_nodes.end(node.process)
        shutil.rmtree(folder, ignore_errors=True)
