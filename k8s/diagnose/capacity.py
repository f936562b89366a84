"""What a release's pods ask of a cluster, and whether quotas and nodes have it. Pure.

Amounts are by the names that a ResourceQuota uses: `requests.cpu`, `limits.memory`, `pods`.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

from kubernetes.utils.quantity import parse_quantity

from eagleray.findings import Finding, failed, passed, skipped, warned
from k8s import release as releases
from k8s.api import Object
from k8s.objects import at, labels, name

Amounts = dict[str, Decimal]

PLAIN = ("cpu", "memory", "ephemeral-storage")
"""Resources that every node has; what else a container asks for is a device, such as a GPU."""
PLUGIN = (
    "kubectl create -f https://raw.githubusercontent.com/NVIDIA/k8s-device-plugin/v0.17.1/"
    "deployments/static/nvidia-device-plugin.yml"
)
_AUTOSCALER = {"cpu": "500m", "memory": "512Mi"}  # KubeRay's own default
_DEFAULTS = {"cpu": "1", "memory": "1Gi"}
_ALIASES = {key: f"requests.{key}" for key in PLAIN} | {"count/pods": "pods"}
_LABELS = {"nvidia.com/gpu.present", "cloud.google.com/gke-accelerator"}
"""Labels of nodes with GPUs, whether or not a device plugin offers these."""


class Pods(NamedTuple):
    """Pods that are alike, `least` to `most` of them."""

    spec: Object
    least: int = 1
    most: int = 1
    value: str = ""  # key of the chart's value that sets their GPUs


@dataclass(frozen=True)
class Requirements:
    """What one cluster of the release asks for."""

    what: str  # the cluster, for people
    pods: Sequence[Pods]
    exists: bool  # whether the pods exist, so that a quota counts them as used

    def total(self, number: str) -> Amounts:
        """The sum over its pods; `number` is `least` or `most`."""
        found: Amounts = {}
        for pods in self.pods:
            for key, amount in of_pod(pods.spec).items():
                found[key] = found.get(key, Decimal(0)) + amount * int(getattr(pods, number))
        return found


def of_run(what: str, job: Object) -> Requirements:
    """What a RayJobSpec with a cluster of its own asks for: trials need one worker at least."""
    head, *workers = _pods(job["rayClusterSpec"])
    if workers and not any(one.least for one in workers):
        workers[0] = workers[0]._replace(least=1, most=max(1, workers[0].most))
    submitter = at(job, "submitterPodTemplate", "spec")
    return Requirements(what, [head, *workers, *([Pods(submitter)] if submitter else [])], False)


def of_cluster(what: str, cluster: Object) -> Requirements:
    """What the RayClusterSpec of an existing cluster asks for."""
    return Requirements(what, [*_pods(cluster)], True)


def of_pod(spec: Object) -> Amounts:
    """What a pod asks for: its containers together, or its largest init container if larger."""
    found: Amounts = {"pods": Decimal(1)}
    for container in spec["containers"]:
        for key, amount in _of_container(container).items():
            found[key] = found.get(key, Decimal(0)) + amount
    for container in at(spec, "initContainers"):
        for key, amount in _of_container(container).items():
            found[key] = max(found.get(key, Decimal(0)), amount)
    return found


def devices(
    nodes: Callable[[], Sequence[Object]], required: Sequence[Requirements]
) -> list[Finding]:
    """Compare the nodes with the GPUs that the release asks for; read them only if it does."""
    requested: dict[str, Amounts] = {}
    for pods in (pods for one in required for pods in one.pods):
        for key, amount in of_pod(pods.spec).items():
            kind, _, device = key.partition(".")
            if kind == "limits" and device not in PLAIN:
                requested.setdefault(device, {})[pods.value] = amount
    found = [_device(device, values, nodes()) for device, values in sorted(requested.items())]
    return found or [skipped("the release asks for none")]


def _device(device: str, values: Amounts, nodes: Sequence[Object]) -> Finding:
    there = [parse_quantity(at(node, "status", "allocatable").get(device, 0)) for node in nodes]
    greatest = max(there, default=Decimal(0))
    above = {value: amount for value, amount in values.items() if amount > greatest}
    if not above:
        return passed(f"{sum(there)} of {device} on {sum(map(bool, there))} nodes")
    if greatest:
        requested = ", ".join(f"{value} asks for {amount:f}" for value, amount in above.items())
        fix = f"set {' and '.join(above)} to {greatest:f} or less in your values, and helm upgrade"
        return failed(f"{requested} of {device}, but no node has more than {greatest:f}", fix)
    if bare := [name(node) for node in nodes if _LABELS & labels(node).keys()]:
        return failed(f"nodes with GPUs offer no {device}: {', '.join(bare)}", PLUGIN)
    law = f"no node has {device} now: fine if an autoscaler adds nodes on demand"
    return warned(law, "kubectl get nodes -o wide; or set the chart's gpus to 0")


def quota(found: Object, required: Sequence[Requirements]) -> Finding:
    """Compare a ResourceQuota with what the clusters ask for; return the worst finding."""
    if found["spec"].get("scopes") or found["spec"].get("scopeSelector"):
        return skipped(f"{name(found)} applies only to pods in its scope")
    troubles = [*_unstated(found, required), *_shortages(found, required)]
    well = passed(f"{name(found)} has room for the release at its maximum size")
    return next(iter(sorted(troubles, key=lambda one: one.severity != "fail")), well)


def _unstated(quota: Object, required: Sequence[Requirements]) -> Iterator[Finding]:
    """Amounts that the quota counts and some containers do not state: their pods are refused."""
    counted = {f"{kind}.{key}" for kind in ("requests", "limits") for key in _DEFAULTS}
    counted &= _amounts(quota, "spec", "hard").keys()
    containers = [each for one in required for pods in one.pods for each in pods.spec["containers"]]
    if bare := sorted({key for one in containers for key in counted - _of_container(one).keys()}):
        law = f"quota {name(quota)} needs each container to state its {', '.join(bare)}"
        yield warned(f"{law}; some do not", _defaults(quota, bare))


def _shortages(quota: Object, required: Sequence[Requirements]) -> Iterator[Finding]:
    """Clusters that never start, that have to wait, and that cannot grow."""
    hard, used = _amounts(quota, "spec", "hard"), _amounts(quota, "status", "used")
    free = {key: had - used.get(key, 0) for key, had in _amounts(quota, "status", "hard").items()}
    cases = (
        (failed, "needs", "least", hard, "allows {}"),
        (warned, "needs", "least", free, "has {} left: it waits"),
        (warned, "may grow to", "most", hard, "stops it at {}"),
    )
    for verdict, needs, number, there, law in cases:
        for one in required if there is hard else [one for one in required if not one.exists]:
            for key, requested in sorted(one.total(number).items()):
                if requested > there.get(key, requested):
                    amount = requested if there is hard else requested + used.get(key, 0)
                    limits = f"quota {name(quota)} {law.format(_formatted(key, there[key]))}"
                    message = f"{one.what} {needs} {_formatted(key, requested)} {key}, but {limits}"
                    yield verdict(message, _allow(quota, key, _formatted(key, amount)))


def _pods(cluster: Object) -> Iterator[Pods]:
    """The pods of a RayClusterSpec: the head, with the container that KubeRay adds, and groups."""
    head = at(cluster, "headGroupSpec", "template", "spec")
    if cluster.get("enableInTreeAutoscaling"):
        default = {"requests": _AUTOSCALER, "limits": _AUTOSCALER}
        resources = at(cluster, "autoscalerOptions", "resources") or default
        head = {**head, "containers": [*head["containers"], {"resources": resources}]}
    yield Pods(head, value=_value(cluster["headGroupSpec"], 0))
    for number, group in enumerate(at(cluster, "workerGroupSpecs")):
        least = int(group.get("minReplicas") or 0)
        most = max(least, int(group.get("maxReplicas") or 0))
        yield Pods(at(group, "template", "spec"), least, most, _value(group, number))


def _value(group: Object, number: int) -> str:
    return releases.value(labels(group["template"]), "gpus", str(number)) or "gpus of a pod"


def _of_container(container: Object) -> Amounts:
    limits = at(container, "resources", "limits")
    requests = limits | at(container, "resources", "requests")  # what is limited is requested
    both = [("requests", requests), ("limits", limits)]
    return {
        f"{kind}.{key}": parse_quantity(n) for kind, amounts in both for key, n in amounts.items()
    }


def _amounts(quota: Object, *keys: str) -> Amounts:
    """A quota's amounts; `cpu` is another name of `requests.cpu`."""
    return {_ALIASES.get(key, key): parse_quantity(n) for key, n in at(quota, *keys).items()}


def _allow(quota: Object, key: str, amount: str) -> str:
    """The command that raises the quota for `key`, by the name that the quota has for it."""
    known = next(one for one in quota["spec"]["hard"] if _ALIASES.get(one, one) == key)
    body = json.dumps({"spec": {"hard": {known: amount}}})
    space = quota["metadata"]["namespace"]
    return f"kubectl -n {space} patch quota {name(quota)} --type merge -p '{body}'"


def _defaults(quota: Object, bare: Sequence[str]) -> str:
    """The command that creates a LimitRange with defaults for these amounts."""
    limit: Object = {"type": "Container"}
    for kind, field in (("requests", "defaultRequest"), ("limits", "default")):
        missing = {one: amount for one, amount in _DEFAULTS.items() if f"{kind}.{one}" in bare}
        limit |= {field: missing} if missing else {}
    metadata = {"name": "defaults", "namespace": quota["metadata"]["namespace"]}
    thing = {"apiVersion": "v1", "kind": "LimitRange", "metadata": metadata}
    return f"kubectl create -f - <<< '{json.dumps({**thing, 'spec': {'limits': [limit]}})}'"


def _formatted(key: str, amount: Decimal) -> str:
    """Format an amount: memory in Gi or Mi, the rest as it is."""
    if not key.endswith(("memory", "storage")):
        return f"{amount.normalize():f}"
    mib = amount / (1 << 20)
    return f"{(mib / 1024).normalize():f}Gi" if mib % 1024 == 0 else f"{mib:.0f}Mi"
