"""Pods of ours that ask the endpoint from inside the cluster, and what they have counted."""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eagleray import errors
from k8s import api
from tests.e2e import diagnosis, waiting
from tests.e2e.cluster import Cluster

ROOT = Path(__file__).parents[2]
LOAD = ROOT / "examples" / "load.py"
PREDICTION = ROOT / "helm" / "eagleray" / "files" / "prediction.py"
STARTED_S = 120
MARK = "eagleray/e2e"


@dataclass(frozen=True)
class Count:
    """Requests since the load began.

    Attributes:
        versions: answers by the version that gave them.
        errors: failures by status or kind.
        latest: the version of the latest answer.
    """

    answered: int = 0
    failed: int = 0
    versions: Mapping[str, int] = field(default_factory=dict)
    errors: Mapping[str, int] = field(default_factory=dict)
    latest: str = ""


def counted(log: str) -> Count:
    """What the last whole line of a load's log says; nothing before the first one."""
    for line in reversed(log.splitlines()):
        with contextlib.suppress(ValueError, TypeError):
            return Count(**json.loads(line))
    return Count()


def manifest(
    name: str, image: Mapping[str, Any], command: list[str], *, memory: str = "128Mi"
) -> dict[str, Any]:
    """A small pod of the release's image that any namespace takes.

    It has no label of a release: to its policies it is a client like any other.

    Args:
        name: of the pod.
        image: `name`, `policy` and `secrets` as a pod of the release has them.
        command: what to run.
        memory: that it may use.
    """
    container = {
        "name": "client",
        "image": image["name"],
        "imagePullPolicy": image["policy"],
        "command": command,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": {"requests": {"cpu": "50m", "memory": memory}, "limits": {"memory": memory}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {MARK: "client"}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "imagePullSecrets": image["secrets"],
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "runAsGroup": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
        },
    }


def image_of(pod: Mapping[str, Any]) -> dict[str, Any]:
    """The image of a pod of the release, and how it is pulled."""
    container = pod["spec"]["containers"][0]
    secrets = pod["spec"].get("imagePullSecrets", [])
    policy = container["imagePullPolicy"]
    return {"name": container["image"], "policy": policy, "secrets": secrets}


def load_command(url: str, model: str, **options: float) -> list[str]:
    """What the pod runs; its program travels in its command line."""
    given = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return ["python", "-c", LOAD.read_text(), url, model, *given]


def prediction_command(url: str, model: str, patience_s: float) -> list[str]:
    """One prediction, by the chart's own test script."""
    return ["python", "-c", PREDICTION.read_text(), url, model, f"{patience_s:.0f}"]


class Load:
    """Requests that go on while something else happens."""

    def __init__(self, cluster: Cluster, pod: str) -> None:
        self._cluster, self._pod = cluster, pod

    def now(self) -> Count:
        """What was counted until a second ago."""
        return counted(self._cluster.log(self._pod, "client", lines=2))

    def settled(self) -> Count:
        """What was counted until now."""
        time.sleep(3)
        return self.now()


@contextlib.contextmanager
def load(
    cluster: Cluster, image: Mapping[str, Any], command: list[str], *, limit_s: float = STARTED_S
) -> Iterator[Load]:
    """A pod that asks from before the block, from its first answer on, until after it."""
    name = "client-load"
    _start(cluster, manifest(name, image, command))
    going = Load(cluster, name)
    try:
        waiting.until(
            "a load on the endpoint",
            lambda: "" if going.now().answered else "its first answer",
            limit_s=limit_s,
            reason=lambda: diagnosis.report(cluster),
        )
        yield going
    finally:
        _end(cluster, name)


def run(cluster: Cluster, image: Mapping[str, Any], command: list[str], *, limit_s: float) -> str:
    """What a pod prints that ends by itself.

    Raises:
        ClusterError: it ended with a failure.
    """
    name = "client-once"
    _start(cluster, manifest(name, image, command))
    try:
        waiting.until(
            "the end of a client's pod",
            lambda: "" if _phase(cluster, name) in ("Succeeded", "Failed") else "its end",
            limit_s=limit_s,
            reason=lambda: diagnosis.report(cluster),
        )
        said = cluster.log(name, "client", lines=50)
        if _phase(cluster, name) == "Failed":
            raise errors.ClusterError(f"the client's pod must succeed, but printed: {said}")
        return said
    finally:
        _end(cluster, name)


def _start(cluster: Cluster, pod: dict[str, Any]) -> None:
    _end(cluster, pod["metadata"]["name"])
    cluster.api.create(api.PODS, pod)


def _end(cluster: Cluster, name: str) -> None:
    cluster.delete(api.PODS, name)
    gone = lambda: cluster.gone(api.PODS, name)  # noqa: E731
    waiting.until(f"the end of pod {name}", gone, limit_s=60, every_s=0.5)


def _phase(cluster: Cluster, name: str) -> str:
    return str(cluster.api.get(api.PODS, name).get("status", {}).get("phase"))
