"""The processes of a chaos run, which are started again when they are lost.

A head without CPUs, two nodes of one CPU, SeaweedFS, and drivers as a user starts them. Processes
are found by the sessions that were started here, and ended by their ids.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from eagleray.storage import server
from tests import ray_nodes
from tests.chaos.searched import Searched

HEAD, *NODES = "127.0.0.2", "127.0.0.3", "127.0.0.4"
START_S = 40.0
"""A node that takes longer to start has failed."""
Say = Callable[[str], None]


class Cluster:
    """Ray and S3; `tend` starts again what is lost, as Kubernetes would."""

    def __init__(self, say: Say) -> None:
        self._say, self.folder = say, Path(tempfile.mkdtemp(prefix="ray-"))  # short: sockets
        self.server = server.up(self.folder / "s3")
        self.uri, self.address = f"s3://{server.BUCKET}", f"{HEAD}:{ray_nodes.free_port()}"
        self.environment = server.environment(self.server) | {
            "RAY_ADDRESS": self.address,  # as KubeRay does; what a dead group held is freed by it
            "EAGLERAY_CACHE": str(self.folder / "cache"),
            "OMP_NUM_THREADS": "1",
            "RAY_AUTH_MODE": "disabled",
        }
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}
        self._starting: dict[str, threading.Thread] = {}  # nodes, by host
        self._ending = threading.Event()
        self._start()

    def tend(self) -> bool:
        """Start again what is lost; True if the whole cluster was."""
        if server.status(self.server.folder) is None:
            self._say("S3 is started again")
            server.up(self.server.folder)
        if self._nodes[HEAD].poll() is not None:
            self._say("head is lost: the cluster is started again")
            self._end()
            self._start()
            return True
        for host in NODES:
            if self._nodes[host].poll() is not None and host not in self._starting:
                self._say(f"node {host} is started again")
                self._starting[host] = threading.Thread(target=self._replace, args=(host,))
                self._starting[host].start()
        return False

    def close(self) -> None:
        self._end()
        server.down(self.server.folder)
        shutil.rmtree(self.folder, ignore_errors=True)

    def raylets(self) -> list[int]:
        """The raylets of the nodes with CPUs."""
        found = [_processes(self._nodes[host].pid, "raylet") for host in NODES]
        return [pid for pids in found for pid in pids]

    def gcs(self) -> list[int]:
        return _processes(self._nodes[HEAD].pid, "gcs_server")

    def s3(self) -> list[int]:
        running = server.status(self.server.folder)
        return [running.pid] if running else []

    def _start(self) -> None:
        self._ending.clear()
        for host in (HEAD, *NODES):
            self._start_node(host)

    def _start_node(self, host: str) -> None:
        """Start a node, and wait for it; again if it fails, such as for a port that is taken."""
        while not self._starts(host) and not self._ending.is_set():
            self._say(f"node {host} has not started: once more")

    def _starts(self, host: str) -> bool:
        log = self.folder / f"node-{len(list(self.folder.glob('node-*')))}.log"
        options = [f"--address={self.address}"]
        if host == HEAD:
            options = ["--head", f"--port={self.address.rpartition(':')[2]}", "--num-cpus=0"]
            options += [f"--temp-dir={self.folder}", "--dashboard-host=127.0.0.1"]
            options += [f"--dashboard-port={ray_nodes.free_port()}"]
            options += [f"--ray-client-server-port={ray_nodes.free_port()}"]
        options.append(f"--node-ip-address={host}")
        node = ray_nodes.start(options, self.folder, self.environment)
        self._nodes[host], until, began = node, time.monotonic() + START_S, False
        while node.poll() is None and time.monotonic() < until and not self._ending.is_set():
            if "Ray runtime started" in log.read_text():
                return True
            raylets = _processes(node.pid, "raylet")
            if began and not raylets:  # `ray start` would wait for it
                break
            began |= bool(raylets)
            time.sleep(0.2)
        _kill(node)
        return False

    def _replace(self, host: str) -> None:
        _kill(self._nodes[host])
        self._start_node(host)
        del self._starting[host]

    def _end(self) -> None:
        self._ending.set()
        for one in list(self._starting.values()):
            one.join()
        for node in self._nodes.values():
            _kill(node)


class Drivers:
    """The drivers of one search; one that fails is started again, as a person would do it."""

    def __init__(self, cluster: Cluster, searched: Searched, say: Say) -> None:
        self._cluster, self._searched, self._say = cluster, searched, say
        self._all: list[subprocess.Popen[bytes]] = []
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "eagleray", "run", str(self._searched.file), "--json"]
        command += ["--address", self._cluster.address]
        number = len(self._all)
        out, err = (self._searched.folder / f"driver-{number}.{end}" for end in ("out", "err"))
        aws = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        environment = aws | self._cluster.environment | {"PYTHONUNBUFFERED": "1"}
        with out.open("wb") as stdout, err.open("wb") as stderr:
            self._all.append(
                subprocess.Popen(command, env=environment, stdout=stdout, stderr=stderr)
            )

    def tend(self) -> bool:
        """Start a driver where none is left; True once one has ended well, and none runs."""
        if self.alive():
            return False
        if any(one.returncode == 0 for one in self._all):
            return True
        last = self._all[-1].returncode
        said = (self._searched.folder / f"driver-{len(self._all) - 1}.err").read_text().strip()
        self._say(f"driver ended with {last} ({said.splitlines()[-1:]}) and is started again")
        self.start()
        return False

    def alive(self) -> list[int]:
        """Those that run, the first one first."""
        return [one.pid for one in self._all if one.poll() is None]

    def kill(self) -> None:
        for one in self._all:
            if one.poll() is None:
                one.kill()
                one.wait()

    @property
    def count(self) -> int:
        return len(self._all)

    @property
    def results(self) -> list[str]:
        """What the drivers that ended well have printed."""
        done = [number for number, one in enumerate(self._all) if one.returncode == 0]
        return [(self._searched.folder / f"driver-{one}.out").read_text() for one in done]


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _kill(node: subprocess.Popen[bytes]) -> None:
    """End what is left of a node: its machine is lost."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(node.pid, signal.SIGKILL)
    node.wait()


def _processes(session: int, name: str) -> list[int]:
    """Processes of a session, by the name of their program."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            pid = int(folder.name)
            if os.getsid(pid) == session and (folder / "comm").read_text().strip() == name:
                found.append(pid)
    return [pid for pid in sorted(found) if alive(pid)]
