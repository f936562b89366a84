"""What a release's pods ask of a cluster, and whether quotas and nodes have it. Pure.

Amounts are by the names that a ResourceQuota uses: `requests.cpu`, `limits.memory`, `pods`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from eagleray.findings import Finding, failed, passed, skipped, warned
from k8s import release as releases

Amounts = Mapping[str, Decimal]
Object = Mapping[str, Any]

PLAIN = ("cpu", "memory", "ephemeral-storage")
"""Resources that every node has; what else a container asks for is a device, such as a GPU."""
PLUGIN = (
    "kubectl create -f https://raw.githubusercontent.com/NVIDIA/k8s-device-plugin/v0.17.1/"
    "deployments/static/nvidia-device-plugin.yml"
)
_AUTOSCALER = {"cpu": "500m", "memory": "512Mi"}  # KubeRay's own default
_LABELS = ("nvidia.com/gpu.present", "cloud.google.com/gke-accelerator")
"""Labels of nodes that have GPUs in them, whether or not Kubernetes may give them out."""
_NEVER = "{what} needs {asked}, but quota {quota} allows {had}"
_NOT_NOW = "{what} needs {asked}, but quota {quota} has {had} left: it waits"
_STUNTED = "{what} may grow to {asked}, but quota {quota} stops it at {had}"


@dataclass(frozen=True)
class Requirements:
    """What one cluster of the release asks for.

    Attributes:
        what: whose requirements, for people.
        least: with the fewest pods that can work.
        most: with every pod that autoscaling may add.
        pods: its pod specifications.
        values: the chart's value that asks for the GPUs of each.
        runs: whether its pods are there already, and so in what a quota counts as used.
    """

    what: str
    least: Amounts
    most: Amounts
    pods: tuple[Object, ...]
    values: tuple[str, ...]
    runs: bool


def of_run(what: str, job: Object) -> Requirements:
    """What a RayJobSpec with a cluster of its own asks for: trials need one worker at least."""
    beside = [job["submitterPodTemplate"]["spec"]] if "submitterPodTemplate" in job else []
    groups = job["rayClusterSpec"].get("workerGroupSpecs") or []
    if groups and not any(int(group.get("minReplicas") or 0) for group in groups):
        groups = [{**groups[0], "minReplicas": 1}, *groups[1:]]
    cluster = {**job["rayClusterSpec"], "workerGroupSpecs": groups}
    return of_cluster(what, cluster, runs=False, beside=beside)


def of_cluster(
    what: str, cluster: Object, *, runs: bool = True, beside: Sequence[Object] = ()
) -> Requirements:
    """What a RayClusterSpec asks for, and single pods beside it."""
    head = _with_autoscaler(cluster)
    groups = cluster.get("workerGroupSpecs") or []
    workers = [group["template"]["spec"] for group in groups]
    fewest = [int(group.get("minReplicas") or 0) for group in groups]
    most = [max(few, int(g.get("maxReplicas") or 0)) for few, g in zip(fewest, groups, strict=True)]
    single = [(pod, 1) for pod in (head, *beside)]
    return Requirements(
        what,
        total([*single, *zip(workers, fewest, strict=True)]),
        total([*single, *zip(workers, most, strict=True)]),
        (head, *workers, *beside),
        (*_values(cluster), *("" for _ in beside)),
        runs,
    )


def total(pods: Sequence[tuple[Object, int]]) -> Amounts:
    """What so many pods of each kind ask for together."""
    found: dict[str, Decimal] = {}
    for spec, times in pods:
        for name, amount in of_pod(spec).items():
            found[name] = found.get(name, Decimal(0)) + amount * times
    return found


def of_pod(spec: Object) -> Amounts:
    """What a pod asks for: its containers together, or the greediest of those that come first."""
    together = {"pods": Decimal(1)}
    for container in spec["containers"]:
        for name, amount in _of_container(container).items():
            together[name] = together.get(name, Decimal(0)) + amount
    for container in spec.get("initContainers", []):
        for name, amount in _of_container(container).items():
            together[name] = max(together.get(name, Decimal(0)), amount)
    return together


def quotas(found: Sequence[Object], required: Sequence[Requirements]) -> list[Finding]:
    """Compare each ResourceQuota with what the release's clusters ask for."""
    return [_quota(one, required) for one in found]


def devices(
    nodes: Callable[[], Sequence[Object]], required: Sequence[Requirements]
) -> list[Finding]:
    """Compare the nodes, read where it matters, with the GPUs that the release asks for."""
    asked: dict[str, dict[str, Decimal]] = {}
    for pod, value in (pair for one in required for pair in zip(one.pods, one.values, strict=True)):
        for name, amount in of_pod(pod).items():
            device = name.removeprefix("limits.")
            if name.startswith("limits.") and device not in PLAIN:
                asked.setdefault(device, {})[value] = amount
    if not asked:
        return [skipped("the release asks for none")]
    return [_device(device, values, nodes()) for device, values in sorted(asked.items())]


def _device(device: str, values: Mapping[str, Decimal], nodes: Sequence[Object]) -> Finding:
    """Compare the nodes with what the pods of each value ask for."""
    there = [parse_quantity(node["status"]["allocatable"].get(device, 0)) for node in nodes]
    greatest = max(there, default=Decimal(0))
    above = {value: amount for value, amount in values.items() if amount > greatest}
    if not above:
        return passed(f"{sum(there)} of {device} on {sum(1 for one in there if one)} nodes")
    if greatest:
        asked = ", ".join(f"{value} asks for {amount:f}" for value, amount in above.items())
        return failed(
            f"{asked} of {device}, but no node has more than {greatest:f}",
            f"set {' and '.join(above)} to {greatest:f} or less in your values, and helm upgrade",
        )
    metadata = [node["metadata"] for node in nodes]
    bare = [one["name"] for one in metadata if set(_LABELS) & one.get("labels", {}).keys()]
    if bare:
        return failed(f"nodes with GPUs offer no {device}: {', '.join(bare)}", PLUGIN)
    law = f"no node has {device} now: fine where nodes are added when a pod asks"
    return warned(law, "kubectl get nodes -o wide; or set the chart's gpus to 0")


def _quota(quota: Object, required: Sequence[Requirements]) -> Finding:
    """The worst that is to say about a quota."""
    name, spec = quota["metadata"]["name"], quota["spec"]
    if spec.get("scopes") or spec.get("scopeSelector"):
        return skipped(f"{name} is for some pods alone, by its scope")
    well = passed(f"{name} has room for all that the release may grow to")
    return next(_troubles(quota, required), well)


def _troubles(quota: Object, required: Sequence[Requirements]) -> Iterator[Finding]:
    """What never starts, what has to wait, what is refused, and what cannot grow."""
    hard = _amounts(quota["spec"].get("hard", {}))
    counted, used = (_amounts(quota.get("status", {}).get(key, {})) for key in ("hard", "used"))
    free = {key: amount - used.get(key, Decimal(0)) for key, amount in counted.items()}
    least, most = ([(one.what, getattr(one, key)) for one in required] for key in ("least", "most"))
    to_come = [(one.what, one.least) for one in required if not one.runs]
    yield from (failed(*one) for one in _short(quota, _NEVER, least, hard, {}))
    yield from (warned(*one) for one in _short(quota, _NOT_NOW, to_come, free, used))
    pods = [pod for one in required for pod in one.pods]
    if bare := sorted({key for pod in pods for key in _unsaid(pod, hard)}):
        name = quota["metadata"]["name"]
        law = f"quota {name} wants each container to say its {', '.join(bare)}; some do not"
        yield warned(law, _defaults(quota, bare))
    yield from (warned(*one) for one in _short(quota, _STUNTED, most, hard, {}))


def _short(
    quota: Object, law: str, asked: Iterable[tuple[str, Amounts]], there: Amounts, used: Amounts
) -> Iterator[tuple[str, str]]:
    """Message and fix for each amount that is asked for and is more than there is."""
    for what, amounts in asked:
        for key in sorted(amounts.keys() & there.keys()):
            amount, had = amounts[key], _plain(key, there[key])
            if amount > there[key]:
                fields = {"asked": f"{_plain(key, amount)} {key}", "had": had}
                message = law.format(what=what, quota=quota["metadata"]["name"], **fields)
                yield message, _patch(quota, key, amount + used.get(key, Decimal(0)))


def _unsaid(pod: Object, hard: Amounts) -> Iterator[str]:
    """What a quota counts and a container of the pod does not say; such pods are refused."""
    counted = [f"{kind}.{name}" for kind in ("requests", "limits") for name in PLAIN[:2]]
    for container in pod["containers"]:
        said = _of_container(container)
        yield from (key for key in counted if key in hard and key not in said)


def _with_autoscaler(cluster: Object) -> Object:
    """The head's pod, with the container that KubeRay adds."""
    head: Object = cluster["headGroupSpec"]["template"]["spec"]
    if not cluster.get("enableInTreeAutoscaling"):
        return head
    options = cluster.get("autoscalerOptions") or {}
    asked = options.get("resources") or {"requests": _AUTOSCALER, "limits": _AUTOSCALER}
    return {**head, "containers": [*head["containers"], {"resources": asked}]}


def _values(cluster: Object) -> Iterator[str]:
    """The chart's values that say how many GPUs the head, and each group's pods, ask for."""
    groups = cluster.get("workerGroupSpecs") or []
    for number, group in enumerate([cluster["headGroupSpec"], *groups], start=-1):
        labels = group["template"].get("metadata", {}).get("labels", {})
        yield releases.value(labels, "gpus", str(number)) or "gpus of a pod"


def _of_container(container: Object) -> dict[str, Decimal]:
    asked = container.get("resources") or {}
    limits = asked.get("limits") or {}
    requests = {**limits, **(asked.get("requests") or {})}  # what is limited alone is requested
    both = [("requests", requests), ("limits", limits)]
    return {f"{kind}.{name}": parse_quantity(n) for kind, said in both for name, n in said.items()}


def _amounts(said: Mapping[str, Any]) -> dict[str, Decimal]:
    """A quota's amounts; `cpu` is another name of `requests.cpu`."""
    short = {name: f"requests.{name}" for name in PLAIN} | {"count/pods": "pods"}
    return {short.get(name, name): parse_quantity(amount) for name, amount in said.items()}


def _patch(quota: Object, key: str, amount: Decimal) -> str:
    """The command that allows as much, by the name that the quota has for it."""
    name = next(one for one in quota["spec"]["hard"] if key in _amounts({one: 0}))
    body = json.dumps({"spec": {"hard": {name: _plain(key, amount)}}})
    metadata = quota["metadata"]
    where = f"-n {metadata['namespace']} patch quota {metadata['name']}"
    return f"kubectl {where} --type merge -p '{body}'"


def _defaults(quota: Object, bare: Sequence[str]) -> str:
    """The command that gives what some containers do not say a default."""
    limit: dict[str, Any] = {"type": "Container"}
    for key in bare:
        kind, _, name = key.partition(".")
        field = "defaultRequest" if kind == "requests" else "default"
        limit.setdefault(field, {})[name] = "1Gi" if name == "memory" else "1"
    metadata = {"name": "defaults", "namespace": quota["metadata"]["namespace"]}
    thing = {"apiVersion": "v1", "kind": "LimitRange", "metadata": metadata}
    return f"kubectl create -f - <<< '{json.dumps({**thing, 'spec': {'limits': [limit]}})}'"


def _plain(key: str, amount: Decimal) -> str:
    """As people write it: memory in Gi or Mi, the rest as it is."""
    if not key.endswith(("memory", "storage")):
        return f"{amount.normalize():f}"
    mib = amount / (1 << 20)
    return f"{(mib / 1024).normalize():f}Gi" if mib % 1024 == 0 else f"{mib:.0f}Mi"
