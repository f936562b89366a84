"""The KubeRay that a cluster has: its definitions, its operator, and the operator's feature gates.

Definitions are read from the API's own description (`/openapi/v3/apis/ray.io/v1`), which every
account may read, and not from the definitions themselves, which few may. Pure.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from packaging.version import Version

from eagleray.findings import Finding, failed, passed, warned
from k8s.api import Object
from k8s.objects import at, ready

KINDS = ("RayCluster", "RayJob", "RayService")
PATH = "/openapi/v3/apis/ray.io/v1"
NEWEST = "1.7.1"
OLDEST, LATEST = "1.4", NEWEST.rpartition(".")[0]
MARKS: tuple[tuple[str, str, Object], ...] = (
    ("1.6", "RayCronJob", {}),
    ("1.5", "RayCluster", {"spec": {"authOptions": {}}}),
    ("1.4", "RayCluster", {"spec": {"autoscalerOptions": {"version": ""}}}),
)
"""Kinds and fields that a version has added; 1.7 has added none that we use."""

_CHART = f"kuberay-operator --repo https://ray-project.github.io/kuberay-helm --version {NEWEST}"
_PLACE = "--namespace kuberay-system"
UPGRADE = (  # Helm installs definitions, but never upgrades them
    "kubectl apply --server-side --force-conflicts -k "
    f"'github.com/ray-project/kuberay/ray-operator/config/crd?ref=v{NEWEST}' && "
    f"helm upgrade kuberay-operator {_CHART} {_PLACE}"
)
GATE = "GCSFaultToleranceEmbeddedStorage"
"""The feature gate that `ray.faultTolerance.embedded` needs; since KubeRay 1.7."""
LABEL = "app.kubernetes.io/component=kuberay-operator"
_GATES = re.compile(r"--feature-gates[= ](\S+)")
_TAG = re.compile(r":v?(\d+\.\d+)[^@/]*(?:@|$)")
"""The version in an image's tag, whether or not a digest follows."""


def schemas(described: Object) -> dict[str, Object]:
    """The schema of each kind in an OpenAPI document."""
    return {
        kind["kind"]: schema
        for schema in at(described, "components", "schemas").values()
        for kind in at(schema, "x-kubernetes-group-version-kind")
    }


def install(*, gated: bool) -> str:
    """The command that installs the operator, with the gate for the embedded store if it is on."""
    command = f"helm install kuberay-operator {_CHART} {_PLACE} --create-namespace"
    return f"{command} --set '{_listed({GATE: True})}'" if gated else command


def enable(gates: Mapping[str, bool]) -> str:
    """The command that turns the gate on and keeps the others: Helm sets the whole list."""
    return f"{UPGRADE} --reset-then-reuse-values --set '{_listed({**gates, GATE: True})}'"


def check(known: Mapping[str, Object], things: Sequence[Object]) -> Finding:
    """Compare the definitions with the objects that a release creates.

    The API drops unknown fields silently: a cluster that should require tokens would be open.
    """
    if missing := [kind for kind in KINDS if kind not in known]:
        gated = any(embedded(at(one, "spec", "rayClusterSpec")) for one in things)
        return failed(f"the cluster lacks the CRDs {', '.join(missing)}", install(gated=gated))
    marked = [kind in known and not [*unknown(keys, known[kind])] for _, kind, keys in MARKS]
    if not any(marked):
        return failed(f"must be of KubeRay {OLDEST}, but are older", UPGRADE)
    version = MARKS[marked.index(True)][0]
    specs = [({one["kind"]: {"spec": one["spec"]}}, {"properties": known}) for one in things]
    if dropped := sorted({key for spec, schema in specs for key in unknown(spec, schema)}):
        message = f"are of KubeRay {version} and drop what the release sets: {', '.join(dropped)}"
        return failed(message, UPGRADE)
    newer = " or newer" if version == MARKS[0][0] else ""
    return passed(f"{', '.join(KINDS)}, of KubeRay {version}{newer}")


def unknown(value: Any, schema: Object, path: str = "") -> Iterator[str]:
    """Dotted keys of a value that its schema lacks."""
    if isinstance(value, list):
        for one in value:
            yield from unknown(one, at(schema, "items"), path)
    fields = at(schema, "properties")
    for key, inner in value.items() if isinstance(value, dict) and fields else ():
        dotted = f"{path}.{key}" if path else key
        if key in fields:
            yield from unknown(inner, fields[key], dotted)
        elif not schema.get("x-kubernetes-preserve-unknown-fields"):
            yield dotted


def operator(pods: Sequence[Object], *, gated: bool) -> Finding:
    """Check by the operator's pods whether one is ready, and its version."""
    if not pods:
        return warned(f"no pod is labelled {LABEL}", install(gated=gated))
    space = pods[0]["metadata"]["namespace"]
    image = str(pods[0]["spec"]["containers"][0].get("image", ""))
    subject, tag = f"{image} in {space}", _TAG.search(image)
    if not any(map(ready, pods)):
        return failed(f"{subject} is not ready", f"kubectl -n {space} logs -l {LABEL}")
    version = Version(tag[1] if tag else LATEST)
    if Version(OLDEST) <= version <= Version(LATEST):
        return passed(subject)
    judge = failed if version < Version(OLDEST) else warned
    return judge(f"{subject}: must be {OLDEST} to {LATEST}", UPGRADE)


def gate(pods: Sequence[Object]) -> Finding:
    """Check by the operator's flags whether a head may keep its state on a volume."""
    if not pods:
        return warned(f"no operator pod was found; it needs {GATE}", enable({}))
    container = pods[0]["spec"]["containers"][0]
    words = " ".join([*at(container, "command"), *at(container, "args")])
    pairs = [pair.partition("=") for one in _GATES.findall(words) for pair in one.split(",")]
    gates = {name: enabled.lower() == "true" for name, _, enabled in pairs}
    if gates.get(GATE):
        return passed(f"{GATE} is on")
    law = f"ray.faultTolerance.embedded needs the operator's {GATE}, but it is off"
    return failed(law, enable(gates))


def embedded(cluster: Object) -> bool:
    """Whether a RayClusterSpec keeps the head's state on a volume."""
    return bool(at(cluster, "gcsFaultToleranceOptions").get("backend") == "rocksdb")


def _listed(gates: Mapping[str, bool]) -> str:
    return ",".join(
        f"featureGates[{number}].name={name},featureGates[{number}].enabled={str(on).lower()}"
        for number, (name, on) in enumerate(gates.items())
    )
