"""Pods without Kubernetes: what the chart renders, run here as a kubelet and KubeRay would run it.

A pod is a process in network and mount namespaces of its own: its own address and ports, its own
/tmp, home and /dev/shm, everything else read-only, user 1000, no capability. Services are names in
/etc/hosts. There are no memory and CPU limits, no network policies, and no operator, whose commands
(`ray_start`) are those of KubeRay 1.7's pod builder.

The image is this machine with this checkout, or a built one whose unpacked root
EAGLERAY_IMAGE_ROOT names (`buildah mount` gives it). Needs root on Linux, and the programs `ip`,
`mount` and `setpriv`.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NAMESPACES = ("--net", "--mount", "--uts", "--root", "--wd=/")
OBJECT_STORE = 200 << 20
"""Bytes of Ray's object store in a pod; without a memory limit Ray would take a third of ours."""
_ADDRESSES = iter(range(2, 250))
IMAGE = os.environ.get("EAGLERAY_IMAGE_ROOT", "")

Document = dict[str, Any]


@dataclass
class Pod:
    """A pod under way."""

    name: str
    address: str
    spec: Document
    process: subprocess.Popen[bytes]
    log: Path
    variables: dict[str, str] = field(repr=False)

    @property
    def container(self) -> Document:
        """Its first container."""
        container: Document = self.spec["containers"][0]
        return container

    def ready(self) -> bool:
        """What its readiness probe says."""
        probe = self.container["readinessProbe"]["httpGet"]
        with contextlib.suppress(OSError):
            url = f"http://{self.address}:{probe['port']}{probe['path']}"
            with urllib.request.urlopen(url, timeout=5) as answer:
                return bool(answer.status == 200)
        return False

    def run(self, *command: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """A command inside of the pod, as `kubectl exec` does."""
        return subprocess.run(
            ["nsenter", f"--target={self.process.pid}", *NAMESPACES, *_as_user(), *command],
            env=self.variables,
            cwd="/",
            text=True,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )

    def end(self) -> float:
        """End it as a kubelet does, and give the seconds that it took."""
        began, grace_s = time.monotonic(), self.spec.get("terminationGracePeriodSeconds", 30)
        hook = self.container.get("lifecycle", {}).get("preStop", {}).get("exec")
        if hook:
            self.run(*hook["command"])
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(max(1.0, grace_s - (time.monotonic() - began)))
        self.kill()
        return time.monotonic() - began

    def kill(self) -> None:
        """End it at once, as the loss of its node does."""
        for member in {*self._members(), self.process.pid}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(member, signal.SIGKILL)
        self.process.wait(30)

    def processes(self) -> list[str]:
        """What runs in it, by its command line."""
        found = []
        for member in self._members():
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{member}/cmdline").read_bytes().split(b"\0")
                found.append(b" ".join(words).decode(errors="replace"))
        return found

    def _members(self) -> list[int]:
        command = ["ip", "netns", "pids", self.name]
        found = subprocess.run(command, text=True, capture_output=True, check=False).stdout
        return [int(member) for member in found.split()]


class Node:
    """A network that pods are started on; ends them and itself at the end of its block."""

    def __init__(self) -> None:
        self._tag = f"er{os.getpid() % 100000}"
        self._net = f"10.{77 + os.getpid() % 100}.{os.getpid() // 100 % 250}"
        self.folder = Path(tempfile.mkdtemp(prefix="pods-"))
        self.names: dict[str, str] = {}
        self.secrets: dict[str, dict[str, str]] = {}
        self.pods: list[Pod] = []

    def __enter__(self) -> Node:
        self.folder.chmod(0o755)
        _ip(
            f"link add {self._tag} type bridge",
            f"addr add {self._net}.1/24 dev {self._tag}",
            f"link set {self._tag} up",
        )
        return self

    def __exit__(self, *_: object) -> None:
        for pod in self.pods:
            pod.kill()
            _ip(f"netns delete {pod.name}")
        _ip(f"link delete {self._tag}")

    def start(
        self,
        spec: Document,
        command: list[str],
        *,
        service: str | None = None,
        extra: Mapping[str, str] | None = None,
    ) -> Pod:
        """Start a pod.

        Args:
            spec: of the pod, from the chart.
            command: of its container.
            service: a name by which pods that start later find it.
            extra: variables that KubeRay adds.
        """
        number = next(_ADDRESSES)
        name, address = f"{self._tag}-{number}", f"{self._net}.{number}"
        if service is not None:
            self.names[service] = address
        _ip(
            f"netns add {name}",
            f"link add {name} type veth peer name eth0 netns {name}",
            f"link set {name} master {self._tag} up",
            f"-n {name} link set lo up",
            f"-n {name} addr add {address}/24 dev eth0",
            f"-n {name} link set eth0 up",
            f"-n {name} route add default via {self._net}.1",
        )
        container = spec["containers"][0]
        variables = self._variables(container, address) | dict(extra or {})
        log, hosts = self.folder / f"{number}.log", self.folder / f"{number}.hosts"
        known = {"localhost": "127.0.0.1", name: address, **self.names}
        hosts.write_text("".join(f"{known[one]} {one}\n" for one in known))
        mounts = [one["mountPath"] for one in container.get("volumeMounts", [])]
        script = _script(mounts, hosts, name, command)
        with log.open("wb") as out:
            process = subprocess.Popen(
                ["ip", "netns", "exec", name, "unshare", "--mount", "--uts", "sh", "-c", script],
                env=variables,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        pod = Pod(name, address, spec, process, log, variables)
        self.pods.append(pod)
        wait(f"{name} has begun", lambda: _is_user(process.pid), node=self, limit_s=20)
        return pod

    def logs(self) -> str:
        """The end of every pod's log."""
        return "\n".join(f"--- {pod.name}\n{pod.log.read_text()[-2000:]}" for pod in self.pods)

    def _variables(self, container: Document, address: str) -> dict[str, str]:
        """The image's variables, then the container's."""
        programs = "/opt/code/bin:/opt/eagleray/bin" if IMAGE else Path(sys.executable).parent
        image = {
            "HOME": "/home/eagleray",
            "PATH": f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONPATH": "/opt/code" if IMAGE else str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "GRPC_DNS_RESOLVER": "native",  # gRPC's own asks DNS servers alone, not /etc/hosts
        }
        given = {one["name"]: self._value(one, address) for one in container.get("env", [])}
        return image | given

    def _value(self, variable: Document, address: str) -> str:
        if "value" in variable:
            return str(variable["value"])
        source = variable["valueFrom"]
        if "secretKeyRef" in source:
            wanted = source["secretKeyRef"]
            return self.secrets[wanted["name"]][wanted["key"]]
        assert source["fieldRef"]["fieldPath"] == "status.podIP"
        return address


def ray_start(
    group: Document, *, head: str = "", token: str = ""
) -> tuple[list[str], dict[str, str]]:
    """The command and the variables that KubeRay gives to a Ray container.

    Source: ray-operator/controllers/ray/common/pod.go, generateRayStartCommand and
    setContainerEnvVars.

    Args:
        group: headGroupSpec, or one of workerGroupSpecs.
        head: name of the head's Service, for a worker.
        token: of the cluster, where it asks for one.
    """
    parameters = {
        "dashboard-agent-listen-port": "52365",
        "metrics-export-port": "8080",
        "object-store-memory": str(OBJECT_STORE),
        **group["rayStartParams"],
    }
    options = [f"--{name}={value}" for name, value in parameters.items()]
    where = [f"--address={head}:6379"] if head else ["--head"]
    variables = {
        "RAY_ADDRESS": f"{head or '127.0.0.1'}:6379",
        "RAY_PORT": "6379",
        "RAY_USAGE_STATS_KUBERAY_IN_USE": "1",
        "RAY_NODE_TYPE_NAME": group.get("groupName", "headgroup"),
        "RAY_timeout_ms_task_wait_for_death_info": "0",
        "RAY_gcs_server_request_timeout_seconds": "5",
        "RAY_SERVE_KV_TIMEOUT_S": "5",
    }
    if head:
        variables["RAY_gcs_rpc_server_reconnect_timeout_s"] = "600"
    if token:
        variables |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    return ["ray", "start", *where, *options, "--block"], variables


@contextlib.contextmanager
def load(
    url: str, body: bytes, connections: int = 4, *, pause_s: float = 0.0
) -> Iterator[list[tuple[int, Any]]]:
    """Ask again and again until the block ends; gives status and JSON, or (0, why), of each."""
    answers: list[tuple[int, Any]] = []
    ended = threading.Event()

    def ask() -> None:
        while not ended.wait(pause_s):
            answers.append(predict(url, body))

    askers = [threading.Thread(target=ask) for _ in range(connections)]
    for asker in askers:
        asker.start()
    try:
        yield answers
    finally:
        ended.set()
        for asker in askers:
            asker.join()


def predict(url: str, body: bytes) -> tuple[int, Any]:
    """Status and text of one answer; status 0 where there was none."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, repr(error)


def wait(what: str, met: Callable[[], object], *, node: Node, limit_s: float = 180) -> None:
    """Wait until `met` gives True; fail with what it gave last, and with what the pods printed."""
    until, seen = time.monotonic() + limit_s, None
    while time.monotonic() < until:
        seen = met()
        if seen is True:
            return
        time.sleep(0.5)
    raise AssertionError(f"{what}: not so within {limit_s:g} s, but {seen}\n{node.logs()}")


def _as_user() -> list[str]:
    user = ["--reuid=1000", "--regid=1000", "--clear-groups"]
    return ["setpriv", *user, "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]


def _is_user(process: int) -> bool:
    """Whether a pod's file system is made, and its command has begun."""
    with contextlib.suppress(OSError):
        return "\nUid:\t1000\t" in Path(f"/proc/{process}/status").read_text()
    return False


def _script(mounts: list[str], hosts: Path, name: str, command: list[str]) -> str:
    """Make the file system of a container, from an image or from this machine, and become it."""
    shown = [] if IMAGE else [str(ROOT), sys.base_prefix, str(Path(sys.executable).parents[1])]
    volumes = ["/dev/shm", "/tmp", *mounts, *([] if IMAGE else ["/root", "/home"])]
    made = [f"{IMAGE}{path}" for path in (*volumes, "/home/eagleray")]
    lines = ["set -e", f"hostname {name}", "mount --make-rprivate /"]
    lines += [f"mkdir -p {shlex.join(made)}", f"mount --rbind {shlex.quote(IMAGE or '/')} /mnt"]
    lines += ["mount -o remount,bind,ro /mnt"]
    lines += [f"mount --rbind /{one} /mnt/{one}" for one in ("dev", "proc", "sys")]
    lines += [f"mount --bind {hosts} /mnt/etc/hosts"]
    for path in sorted(set(volumes)):
        lines += [f"mkdir -p /mnt{path}", f"mount -t tmpfs -o mode=1777 tmpfs /mnt{path}"]
    for path in map(shlex.quote, sorted(set(shown))):  # what a volume hides
        lines += [f"mkdir -p /mnt{path}", f"mount --rbind {path} /mnt{path}"]
    start = ["chroot", "/mnt", "env", "--chdir=/home/eagleray", *_as_user(), *command]
    return "\n".join([*lines, f"exec {shlex.join(start)}"])


def _ip(*commands: str) -> None:
    for command in commands:
        subprocess.run(["ip", *command.split()], check=True, capture_output=True, text=True)
