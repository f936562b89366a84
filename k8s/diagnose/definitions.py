"""The KubeRay that a cluster has: its definitions, its operator, and the operator's feature gates.

Definitions are read from the API's own description (`/openapi/v3/apis/ray.io/v1`), which every
account may read, and not from the definitions themselves, which few may. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eagleray.findings import Finding, failed, passed, warned
from k8s import release

KINDS = ("RayCluster", "RayJob", "RayService")
PATH = "/openapi/v3/apis/ray.io/v1"
NEWEST = "1.7.1"
OLDEST, LATEST = (1, 4), (1, 7)
MARKS = (
    ("1.6", "RayCronJob", ()),
    ("1.5", "RayCluster", ("spec", "authOptions")),
    ("1.4", "RayCluster", ("spec", "autoscalerOptions", "version")),
)
"""What tells a version's definitions from older ones. 1.7 has no kind or field that we use."""

_CHART = f"kuberay-operator --repo https://ray-project.github.io/kuberay-helm --version {NEWEST}"
_PLACE = "--namespace kuberay-system"
UPGRADE = (  # Helm installs definitions, but never upgrades them
    "kubectl apply --server-side --force-conflicts -k "
    f"'github.com/ray-project/kuberay/ray-operator/config/crd?ref=v{NEWEST}' && "
    f"helm upgrade kuberay-operator {_CHART} {_PLACE}"
)

GATE = "GCSFaultToleranceEmbeddedStorage"
"""What the operator needs to be told for `ray.faultTolerance.embedded`; since KubeRay 1.7."""

_GATES = re.compile(r"--feature-gates[= ](\S+)")
_TAG = re.compile(r":v?(\d+)\.(\d+)[^@/]*(?:@|$)")
"""The version in an image's tag, whether or not a digest follows."""

Schema = Mapping[str, Any]


def schemas(described: Mapping[str, Any]) -> dict[str, Schema]:
    """The schema of each kind in an OpenAPI document."""
    found = {}
    for schema in described.get("components", {}).get("schemas", {}).values():
        for kind in schema.get("x-kubernetes-group-version-kind", []):
            found[str(kind["kind"])] = schema
    return found


def install(*, gated: bool) -> str:
    """The command that installs the operator, with the gate for the embedded store if it is on."""
    command = f"helm install kuberay-operator {_CHART} {_PLACE} --create-namespace"
    return f"{command} --set '{_listed({GATE: True})}'" if gated else command


def check(known: Mapping[str, Schema], objects: Sequence[Mapping[str, Any]]) -> Finding:
    """Compare the definitions with the objects that a release creates.

    A field that a definition does not have is dropped in silence: a cluster asked to want tokens
    would be open to all.
    """
    missing = [kind for kind in KINDS if kind not in known]
    if missing:
        gated = any(embedded(one["spec"].get("rayClusterSpec") or {}) for one in objects)
        return failed(f"the cluster does not know {', '.join(missing)}", install(gated=gated))
    version = age(known)
    if version is None:
        return failed(f"must be of KubeRay {_dotted(OLDEST)}, but are older", UPGRADE)
    dropped = sorted({key for one in objects for key in _dropped(one, known[one["kind"]])})
    if dropped:
        said = f"are of KubeRay {version} and drop what the release sets: {', '.join(dropped)}"
        return failed(said, UPGRADE)
    newer = " or newer" if version == MARKS[0][0] else ""
    return passed(f"{', '.join(KINDS)}, of KubeRay {version}{newer}")


def age(known: Mapping[str, Schema]) -> str | None:
    """The newest version whose mark is there; None when it is older than all."""
    for version, kind, path in MARKS:
        if kind in known and _has(known[kind], path):
            return version
    return None


def unknown(value: Any, schema: Schema, at: str = "") -> Iterator[str]:
    """Dotted keys that a value has and its schema does not."""
    if isinstance(value, list):
        for one in value:
            yield from unknown(one, schema.get("items", {}), at)
    fields = schema.get("properties")
    if not isinstance(value, Mapping) or not fields:
        return
    for key, inner in value.items():
        dotted = f"{at}.{key}" if at else key
        if key in fields:
            yield from unknown(inner, fields[key], dotted)
        elif not schema.get("x-kubernetes-preserve-unknown-fields"):
            yield dotted


def operator(pods: Sequence[Mapping[str, Any]], *, gated: bool) -> Finding:
    """Check the operator by its pods: whether one is ready, and of which version."""
    if not pods:
        said = "no pod is labelled app.kubernetes.io/component=kuberay-operator"
        return warned(said, install(gated=gated))
    space = pods[0]["metadata"]["namespace"]
    image = pods[0]["spec"]["containers"][0].get("image", "")
    said = f"{image} in {space}"
    if not any(release.ready(pod) for pod in pods):
        logs = f"kubectl -n {space} logs -l app.kubernetes.io/component=kuberay-operator"
        return failed(f"{said} is not ready", logs)
    tag = _TAG.search(image)
    version = (int(tag[1]), int(tag[2])) if tag else None
    if version is None or OLDEST <= version <= LATEST:
        return passed(said)
    law = f"{said}: must be {_dotted(OLDEST)} to {_dotted(LATEST)}"
    return (failed if version < OLDEST else warned)(law, UPGRADE)


def gate(pods: Sequence[Mapping[str, Any]]) -> Finding:
    """Check the operator by its flags: whether it lets a head keep its state on a volume."""
    if not pods:
        return warned(f"no operator is seen; it needs {GATE}", enable({}))
    container = pods[0]["spec"]["containers"][0]
    words = " ".join([*container.get("command", []), *container.get("args", [])])
    pairs = [pair.partition("=") for one in _GATES.findall(words) for pair in one.split(",")]
    gates = {name: enabled.lower() == "true" for name, _, enabled in pairs}
    if gates.get(GATE):
        return passed(f"{GATE} is on")
    law = f"ray.faultTolerance.embedded needs the operator's {GATE}, but it is off"
    return failed(law, enable(gates))


def enable(gates: Mapping[str, bool]) -> str:
    """The command that turns the gate on, with these others as they are: the list is one value."""
    return f"{UPGRADE} --reset-then-reuse-values --set '{_listed({**gates, GATE: True})}'"


def embedded(cluster: Mapping[str, Any]) -> bool:
    """Whether a RayClusterSpec keeps the head's state on a volume."""
    return (cluster.get("gcsFaultToleranceOptions") or {}).get("backend") == "rocksdb"


def _listed(gates: Mapping[str, bool]) -> str:
    """Feature gates as values of the operator's chart."""
    return ",".join(
        f"featureGates[{number}].name={name},featureGates[{number}].enabled={str(on).lower()}"
        for number, (name, on) in enumerate(gates.items())
    )


def _dropped(thing: Mapping[str, Any], schema: Schema) -> Iterator[str]:
    """What an object's definition does not have; metadata is the API's own."""
    inner = schema.get("properties", {}).get("spec", {})
    yield from unknown(thing["spec"], inner, f"{thing['kind']}.spec")


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def _has(schema: Schema, path: Sequence[str]) -> bool:
    for key in path:
        schema = schema.get("properties", {}).get(key)
        if schema is None:
            return False
    return True
