"""What a release's pods ask of a cluster, and whether quotas and nodes have it. Pure.

Amounts are by the names that a ResourceQuota uses: `requests.cpu`, `limits.memory`, `pods`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from eagleray.doctor import Finding
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


@dataclass(frozen=True)
class Need:
    """What one cluster of the release asks for.

    Attributes:
        what: whose it is, for people.
        least: with the fewest pods that can work.
        most: with every pod that autoscaling may add.
        pods: its pod specifications.
        places: the chart's value that asks for the GPUs of each.
        runs: whether its pods are there already, and so in what a quota counts as used.
    """

    what: str
    least: Amounts
    most: Amounts
    pods: tuple[Object, ...]
    places: tuple[str, ...]
    runs: bool


def of_run(what: str, job: Object) -> Need:
    """What a RayJobSpec with a cluster of its own asks for: trials need one worker at least."""
    beside = [job["submitterPodTemplate"]["spec"]] if "submitterPodTemplate" in job else []
    cluster = job["rayClusterSpec"]
    groups = cluster.get("workerGroupSpecs") or []
    if groups and not any(int(group.get("minReplicas") or 0) for group in groups):
        groups = [{**groups[0], "minReplicas": 1}, *groups[1:]]
    return of_cluster(what, {**cluster, "workerGroupSpecs": groups}, runs=False, beside=beside)


def of_cluster(
    what: str, cluster: Object, *, runs: bool = True, beside: Sequence[Object] = ()
) -> Need:
    """What a RayClusterSpec asks for, and single pods beside it."""
    head = _with_autoscaler(cluster)
    groups = cluster.get("workerGroupSpecs") or []
    workers = [group["template"]["spec"] for group in groups]
    fewest = [int(group.get("minReplicas") or 0) for group in groups]
    most = [max(few, int(g.get("maxReplicas") or 0)) for few, g in zip(fewest, groups, strict=True)]
    single = [(pod, 1) for pod in (head, *beside)]
    return Need(
        what,
        total([*single, *zip(workers, fewest, strict=True)]),
        total([*single, *zip(workers, most, strict=True)]),
        (head, *workers, *beside),
        (*_places(cluster), *("" for _ in beside)),
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


def quotas(namespace: str, found: Sequence[Object], needs: Sequence[Need]) -> list[Finding]:
    """Judge each ResourceQuota by what the release's clusters need."""
    if not found:
        return [Finding("quota", "pass", f"namespace {namespace} has none")]
    return [_quota(one, needs) for one in found]


def devices(nodes: Sequence[Object], needs: Sequence[Need]) -> list[Finding]:
    """Judge the nodes by the devices (GPUs) that the release's pods ask for."""
    wanted: dict[str, dict[str, Decimal]] = {}
    for pod, place in [pair for one in needs for pair in zip(one.pods, one.places, strict=True)]:
        for name, amount in of_pod(pod).items():
            device = name.removeprefix("limits.")
            if name.startswith("limits.") and device not in PLAIN:
                wanted.setdefault(device, {})[place] = amount
    if not wanted:
        return [Finding("GPUs", "skip", "the release asks for none")]
    return [_device(device, places, nodes) for device, places in sorted(wanted.items())]


def _device(device: str, places: Mapping[str, Decimal], nodes: Sequence[Object]) -> Finding:
    """Judge the nodes by what the pods of each place ask for."""
    there = [parse_quantity(node["status"]["allocatable"].get(device, 0)) for node in nodes]
    greatest = max(there, default=Decimal(0))
    said = f"{sum(there)} of {device} on {sum(1 for one in there if one)} nodes"
    above = {place: amount for place, amount in places.items() if amount > greatest}
    if not above:
        return Finding("GPUs", "pass", said)
    if greatest:
        asked = ", ".join(f"{place} asks for {amount:f}" for place, amount in above.items())
        law = f"{asked} of {device}, but no node has more than {greatest:f}"
        fewer = (
            f"set {' and '.join(above)} to {greatest:f} or less in your values, and helm upgrade"
        )
        return Finding("GPUs", "fail", law, fewer)
    told = [node["metadata"] for node in nodes]
    bare = [one["name"] for one in told if set(_LABELS) & one.get("labels", {}).keys()]
    if bare:
        law = f"nodes with GPUs offer no {device}: {', '.join(bare)}"
        return Finding("GPUs", "fail", law, PLUGIN)
    law = f"no node has {device} now: fine where nodes are added when a pod asks"
    return Finding("GPUs", "warn", law, "kubectl get nodes -o wide; or set the chart's gpus to 0")


def _quota(quota: Object, needs: Sequence[Need]) -> Finding:
    """The worst that is to say about a quota."""
    name, spec = quota["metadata"]["name"], quota["spec"]
    if spec.get("scopes") or spec.get("scopeSelector"):
        return Finding("quota", "skip", f"{name} is for some pods alone, by its scope")
    for judge in (_never, _not_now, _silent, _stunted):
        for finding in judge(quota, needs):
            return finding
    return Finding("quota", "pass", f"{name} has room for all that the release may grow to")


def _never(quota: Object, needs: Sequence[Need]) -> Iterator[Finding]:
    """What cannot start, however long it waits."""
    hard = _amounts(quota["spec"].get("hard", {}))
    for need in needs:
        for key, amount in _short(need.least, hard):
            asked, had = _shown(key, amount), _plain(key, hard[key])
            law = f"{need.what} needs {asked}, but {_name(quota)} allows {had}"
            yield Finding("quota", "fail", law, _patch(quota, key, amount))


def _not_now(quota: Object, needs: Sequence[Need]) -> Iterator[Finding]:
    """What has to wait until others have ended."""
    hard, used = (_amounts(quota.get("status", {}).get(key, {})) for key in ("hard", "used"))
    free = {key: amount - used.get(key, Decimal(0)) for key, amount in hard.items()}
    for need in [one for one in needs if not one.runs]:
        for key, amount in _short(need.least, free):
            asked, had = _shown(key, amount), _plain(key, free[key])
            law = f"{need.what} needs {asked}, but {_name(quota)} has {had} left: it waits"
            more = amount + used.get(key, Decimal(0))
            yield Finding("quota", "warn", law, _patch(quota, key, more))


def _silent(quota: Object, needs: Sequence[Need]) -> Iterator[Finding]:
    """Pods with a container that does not say what the quota counts: they are refused."""
    hard = _amounts(quota["spec"].get("hard", {}))
    bare = sorted({key for need in needs for pod in need.pods for key in _unsaid(pod, hard)})
    if bare:
        law = f"{_name(quota)} wants each container to say its {', '.join(bare)}; some do not"
        yield Finding("quota", "warn", law, _defaults(quota, bare))


def _stunted(quota: Object, needs: Sequence[Need]) -> Iterator[Finding]:
    """What starts, but cannot grow as far as it may."""
    hard = _amounts(quota["spec"].get("hard", {}))
    for need in needs:
        for key, amount in _short(need.most, hard):
            asked, had = _shown(key, amount), _plain(key, hard[key])
            law = f"{need.what} may grow to {asked}, but {_name(quota)} stops it at {had}"
            yield Finding("quota", "warn", law, _patch(quota, key, amount))


def _short(needed: Amounts, there: Amounts) -> Iterator[tuple[str, Decimal]]:
    for key in sorted(needed.keys() & there.keys()):
        if needed[key] > there[key]:
            yield key, needed[key]


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


def _places(cluster: Object) -> Iterator[str]:
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


def _name(quota: Object) -> str:
    return f"quota {quota['metadata']['name']}"


def _patch(quota: Object, key: str, amount: Decimal) -> str:
    """The command that allows as much, by the name that the quota has for it."""
    names = [name for name in quota["spec"]["hard"] if next(iter(_amounts({name: 0}))) == key]
    body = json.dumps({"spec": {"hard": {names[0]: _plain(key, amount)}}})
    where = f"-n {quota['metadata']['namespace']} patch {_name(quota)}"
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


def _shown(key: str, amount: Decimal) -> str:
    return f"{_plain(key, amount)} {key}"


def _plain(key: str, amount: Decimal) -> str:
    """As people write it: memory in Gi or Mi, the rest as it is."""
    if not key.endswith(("memory", "storage")):
        return f"{amount.normalize():f}"
    mib = amount / (1 << 20)
    return f"{(mib / 1024).normalize():f}Gi" if mib % 1024 == 0 else f"{mib:.0f}Mi"
