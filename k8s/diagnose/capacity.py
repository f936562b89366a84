"""What a release's pods ask of a cluster, and whether quotas and nodes have it. Pure.

Amounts are by the names that a ResourceQuota uses: `requests.cpu`, `limits.memory`, `pods`.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import NamedTuple

from kubernetes.utils.quantity import format_quantity, parse_quantity

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


class Requirements(NamedTuple):
    """What one cluster of the release asks for."""

    what: str  # the cluster, for people
    cluster: Object  # its RayClusterSpec
    job: Object | None = None  # RayJobSpec of a run, whose cluster does not exist yet

    def pods(self) -> list[Pods]:
        """Its pods; those of a run have a submitter, and one worker at least, for trials."""
        head, *workers = _pods(self.cluster)
        if self.job and workers and not any(one.least for one in workers):
            workers[0] = workers[0]._replace(least=1, most=max(1, workers[0].most))
        submitter = at(self.job or {}, "submitterPodTemplate", "spec")
        return [head, *workers, *([Pods(submitter)] if submitter else [])]

    def total(self, number: str) -> Amounts:
        """The sum over its pods; `number` is `least` or `most`."""
        parts = [(of_pod(pods.spec), int(getattr(pods, number))) for pods in self.pods()]
        return _combined(sum, [{key: n * one[key] for key in one} for one, n in parts])


def of_pod(spec: Object) -> Amounts:
    """What a pod asks for: its containers together, or its largest init container if larger."""
    whole = _combined(sum, [{"pods": Decimal(1)}, *map(_of_container, spec["containers"])])
    return _combined(max, [whole, *map(_of_container, at(spec, "initContainers"))])


def devices(
    nodes: Callable[[], Sequence[Object]], required: Sequence[Requirements]
) -> list[Finding]:
    """Compare the nodes with the GPUs that the release asks for; read them only if it does."""
    requested: dict[str, Amounts] = {}
    for pods in (pods for one in required for pods in one.pods()):
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
    return min(troubles, key=lambda one: one.severity != "fail", default=well)


def _unstated(quota: Object, required: Sequence[Requirements]) -> Iterator[Finding]:
    """Amounts that the quota counts and some containers do not state: their pods are refused."""
    counted = {f"{kind}.{key}" for kind in ("requests", "limits") for key in _DEFAULTS}
    counted &= _amounts(quota, "spec", "hard").keys()
    specs = [pods.spec for one in required for pods in one.pods()]
    containers = [container for spec in specs for container in spec["containers"]]
    if bare := sorted({key for one in containers for key in counted - _of_container(one).keys()}):
        law = f"quota {name(quota)} needs each container to state its {', '.join(bare)}"
        yield warned(f"{law}; some do not", _defaults(quota, bare))


def _shortages(quota: Object, required: Sequence[Requirements]) -> Iterator[Finding]:
    """Clusters that never start, that have to wait, and that cannot grow."""
    hard, used = _amounts(quota, "spec", "hard"), _amounts(quota, "status", "used")
    cases = (
        (failed, "needs", "least", Amounts(), "allows {}"),
        (warned, "needs", "least", used, "has {} left: it waits"),
        (warned, "may grow to", "most", Amounts(), "stops it at {}"),
    )
    for verdict, needs, number, taken, law in cases:
        for one in (one for one in required if one.job or not taken):
            total = one.total(number)
            for key in sorted(total.keys() & hard.keys()):
                requested, left = total[key], hard[key] - taken.get(key, 0)
                if requested > left:
                    limits = f"quota {name(quota)} {law.format(_formatted(key, left))}"
                    message = f"{one.what} {needs} {_formatted(key, requested)} {key}, but {limits}"
                    enough = _formatted(key, requested + taken.get(key, 0))
                    yield verdict(message, _allow(quota, key, enough))


def _pods(cluster: Object) -> Iterator[Pods]:
    """The pods of a RayClusterSpec: the head, with the container that KubeRay adds, and groups."""
    head = at(cluster, "headGroupSpec", "template", "spec")
    if cluster.get("enableInTreeAutoscaling"):
        default = {"requests": _AUTOSCALER, "limits": _AUTOSCALER}
        resources = at(cluster, "autoscalerOptions", "resources") or default
        head = {**head, "containers": [*head["containers"], {"resources": resources}]}
    yield Pods(head, value=releases.value(cluster["headGroupSpec"]["template"], "gpus", 0))
    for number, group in enumerate(at(cluster, "workerGroupSpecs")):
        least = int(group.get("minReplicas") or 0)
        most = max(least, int(group.get("maxReplicas") or 0))
        value = releases.value(group["template"], "gpus", number)
        yield Pods(group["template"]["spec"], least, most, value)


def _of_container(container: Object) -> Amounts:
    limits = at(container, "resources", "limits")
    requests = limits | at(container, "resources", "requests")  # what is limited is requested
    both = [("requests", requests), ("limits", limits)]
    return {f"{kind}.{key}": parse_quantity(n) for kind, part in both for key, n in part.items()}


def _combined(by: Callable[[list[Decimal]], int | Decimal], parts: Sequence[Amounts]) -> Amounts:
    """The sum or the maximum of each resource."""
    keys = {key for part in parts for key in part}
    return {key: Decimal(by([part[key] for part in parts if key in part])) for key in keys}


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
    for kind, _, resource in (key.partition(".") for key in bare):
        field = "default" if kind == "limits" else "defaultRequest"
        limit.setdefault(field, {})[resource] = _DEFAULTS[resource]
    metadata = {"name": "defaults", "namespace": quota["metadata"]["namespace"]}
    thing = {"apiVersion": "v1", "kind": "LimitRange", "metadata": metadata}
    return f"kubectl create -f - <<< '{json.dumps({**thing, 'spec': {'limits': [limit]}})}'"


def _formatted(key: str, amount: Decimal) -> str:
    """Format an amount: memory in Gi or Mi, the rest as it is."""
    if not key.endswith(("memory", "storage")):
        return f"{amount.normalize():f}"
    whole = amount % (1 << 30) == 0
    return format_quantity(amount, "Gi" if whole else "Mi", quantize=Decimal(1))
