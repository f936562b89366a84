"""What the chart's releases look like through the API: the one owner of labels and ports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from k8s import api

INSTANCE = "app.kubernetes.io/instance"
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


def ready(pod: Mapping[str, Any]) -> bool:
    """Whether a pod says that it is ready."""
    conditions = pod.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _instance(thing: Mapping[str, Any]) -> str:
    metadata = thing["metadata"]
    return str(metadata.get("labels", {}).get(INSTANCE, metadata["name"]))
