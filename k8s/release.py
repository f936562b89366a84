"""What the chart's releases look like through the API: the one owner of labels and ports."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from typing import Any

import yaml

from k8s import api

INSTANCE, COMPONENT = "app.kubernetes.io/instance", "app.kubernetes.io/component"
SKELETON = "eagleray/skeleton=rayjob"
SERVE_PORT, METRICS_PORT = 8000, 8001
"""Of workers: the first passes HAProxy, which chooses who answers; the second is a worker's own."""


def skeletons(cluster: api.Api) -> dict[str, api.Object]:
    """The ConfigMap with the skeleton of a run, of each release in the namespace."""
    return {_instance(one): one for one in cluster.list(api.CONFIG_MAPS, SKELETON)}


def arguments(service: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments of the application that a RayService serves; empty when it is not ours."""
    try:
        config = yaml.safe_load(service["spec"]["serveConfigV2"])
        found = config["applications"][0]["args"]
    except (KeyError, IndexError, TypeError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def value(labels: Mapping[str, str], key: str, group: str) -> str | None:
    """The chart's value that a pod was made from; None when it is none of the chart's.

    Args:
        labels: the pod's.
        key: what it is about, such as `memory`.
        group: the worker group that it is of, as the caller calls it.
    """
    component, role = labels.get(COMPONENT, ""), labels.get("eagleray/role")
    part = {"serving": "serving", "runs": "tuning", "tuning": "tuning"}.get(component)
    if component == "store":
        return f"objectStore.{key}"
    if part is None or role not in ("head", "worker"):
        return None
    if role == "head":
        return f"{part}.head.{key}"
    return f"serving.workers.{key}" if part == "serving" else f"tuning.workers[{group}].{key}"


def history(cluster: api.Api, release: str) -> list[str]:
    """What Helm says of each revision of a release, the oldest first: `Install complete`.

    Its Secrets hold gzipped JSON, in base64 as Kubernetes has it, and once more.
    """
    found = cluster.list(api.SECRETS, f"owner=helm,name={release}")
    latest = sorted(found, key=lambda one: int(one["metadata"]["labels"]["version"]))
    packed = [base64.b64decode(base64.b64decode(one["data"]["release"])) for one in latest]
    return [str(json.loads(gzip.decompress(one))["info"].get("description", "")) for one in packed]


def ready(pod: Mapping[str, Any]) -> bool:
    """Whether a pod says that it is ready."""
    conditions = pod.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _instance(thing: Mapping[str, Any]) -> str:
    metadata = thing["metadata"]
    return str(metadata.get("labels", {}).get(INSTANCE, metadata["name"]))
