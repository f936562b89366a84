"""Releases of the chart, as the API shows them; the one owner of their labels and ports."""

import base64
import gzip
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml

from k8s import api
from k8s.objects import at, labels, name

INSTANCE, COMPONENT = "app.kubernetes.io/instance", "app.kubernetes.io/component"
SKELETON, SKELETONS = "rayjob.yaml", "eagleray/skeleton=rayjob"
"""The key of a run's skeleton in its ConfigMap, and the label of these ConfigMaps."""
SERVE_PORT, METRICS_PORT = 8000, 8001
"""Of workers: the first is HAProxy's, which chooses a replica; the second is a worker's own."""

_SERVICE = re.compile(r"https?://([a-z0-9-]+)(?:\.([a-z0-9-]+)\.svc[a-z0-9.-]*)?:(\d+)/?")
_PARTS = {"serving": "serving", "runs": "tuning", "tuning": "tuning"}


def skeletons(maps: Iterable[api.Object]) -> dict[str, api.Object]:
    """By release, the ConfigMap with the skeleton of a run, from those listed by `SKELETONS`."""
    return {labels(one).get(INSTANCE, name(one)): one for one in maps}


def chosen(known: Collection[str], named: str | None) -> str:
    """The release that is meant: the `named` one, or the only one; empty if that is not known."""
    wanted = named or (next(iter(known)) if len(known) == 1 else "")
    return wanted if wanted in known else ""


def arguments(service: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments of the application that a RayService serves; empty when it is not ours."""
    try:
        config = yaml.safe_load(service["spec"]["serveConfigV2"])
        return dict(config["applications"][0]["args"])
    except (KeyError, IndexError, TypeError, ValueError, yaml.YAMLError):
        return {}


def value(pod: api.Object, key: str, group: object) -> str:
    """The chart's value that sets `key`, such as `memory`, of a pod of a worker group."""
    component, role = labels(pod).get(COMPONENT, ""), labels(pod).get("eagleray/role")
    workers = "serving.workers" if component == "serving" else f"tuning.workers[{group}]"
    if component == "store":
        return f"objectStore.{key}"
    if component in _PARTS and role in ("head", "worker"):
        return f"{_PARTS[component]}.head.{key}" if role == "head" else f"{workers}.{key}"
    return f"{key} of its pod template"


def tunnel(skeleton: Mapping[str, Any], namespace: str) -> str | None:
    """Shell commands that open a tunnel to the S3 of runs; None if it is not in the cluster."""
    found = {one["name"]: one for one in variables(skeleton)}
    inside = _SERVICE.fullmatch(str(found.get("AWS_ENDPOINT_URL_S3", {}).get("value", "")))
    if inside is None:
        return None
    service, space, port = inside.groups()
    words = [f"AWS_ENDPOINT_URL_S3=http://127.0.0.1:{port}"]
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        if secret := at(found, variable, "valueFrom", "secretKeyRef"):
            path = f"-o 'jsonpath={{.data.{secret['key']}}}'"
            read = f"kubectl get secret -n {namespace} {secret['name']} {path} | base64 -d"
            words.append(f"{variable}=$({read})")
    forward = f"kubectl port-forward -n {space or namespace} svc/{service} {port}"
    return f"{forward} & export {' '.join(words)}"


def history(cluster: api.Api, release: str) -> list[str]:
    """Helm's description of each revision, the oldest first; empty if it cannot be read."""
    return [_description(one) for one in revisions(cluster, release)]


def revisions(cluster: api.Api, release: str) -> Sequence[api.Object]:
    """The Secrets in which Helm keeps the revisions of a release, the oldest first."""
    secrets = cluster.list(api.SECRETS, f"owner=helm,name={release}")
    return sorted(secrets, key=lambda one: int(one["metadata"]["labels"]["version"]))


def variables(node: Any) -> Iterator[Mapping[str, Any]]:
    """The environment variables of all containers in an object."""
    if isinstance(node, list):
        for item in node:
            yield from variables(item)
    elif isinstance(node, Mapping):
        env = node.get("env")
        yield from env if isinstance(env, list) else ()
        yield from variables([*node.values()])


def _description(secret: Mapping[str, Any]) -> str:
    """Helm keeps a revision as gzipped JSON, in base64 twice: its own, and that of Secrets."""
    try:
        packed = base64.b64decode(base64.b64decode(secret["data"]["release"]))
        return str(json.loads(gzip.decompress(packed))["info"]["description"])
    except (KeyError, ValueError, OSError, EOFError):
        return ""
