"""Why a pod finds no node, by what kube-scheduler writes.

The texts are those of pkg/scheduler/framework (`0/3 nodes are available: 2 Insufficient cpu, …`);
what follows `preemption:` repeats them and is left out. Since Kubernetes 1.35, and in late patches
of 1.34, they do not name taints any more; then the nodes do, where we may see them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from k8s import release as releases
from k8s.api import Object
from k8s.situation import UNTOLD, Situation
from k8s.why.finding import Finding, event, labels, name, one_line

_SHORT = re.compile(r"insufficient ([\w./-]*\w)", re.IGNORECASE)
_TAINT = re.compile(r"(?:untolerated|had) taint \{([^:}]+):? ?([^}]*)\}")
_CLAIM = re.compile(r'persistentvolumeclaim "([^"]+)" not found')
_USUAL = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
_SICK = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/")
_SPOT = ("cloud.google.com/gke-spot", "kubernetes.azure.com/scalesetpriority")


def finding(pod: Object, situation: Situation, message: str) -> Finding:
    """What keeps a pod off every node, and the value that would let it in."""
    said = one_line(re.split(r"\.? (?:preemption|no new claims to deallocate)[:,]", message)[0])
    line = f"Pod {name(pod)}: cannot be scheduled: {said}"
    coming = event(situation, name(pod), ["TriggeredScaleUp", "Nominated"])
    if coming:
        return Finding("a node for it is on its way", _watch(pod, situation), (line,), waits=True)
    cause, mend = next(_readings(pod, situation, said))
    full = event(situation, name(pod), ["NotTriggerScaleUp"])
    grows = f"; the autoscaler of nodes adds none ({full.partition(': ')[2]})" if full else ""
    return Finding(cause + grows, mend, (line,))


def value(pod: Object, key: str) -> str:
    """The chart's value that a pod was made from."""
    known = labels(pod)
    found = releases.value(known, key, known.get("ray.io/group", ""))
    return found or f"{key} of its pod template"


def requested(pod: Object, resource: str) -> str:
    """What a pod's containers ask of a resource, as it is written there."""
    asked = (one.get("resources") or {} for one in pod.get("spec", {}).get("containers", []))
    amounts = [(one.get("requests") or {}).get(resource) for one in asked]
    return " + ".join(str(one) for one in amounts if one is not None)


def _readings(pod: Object, situation: Situation, said: str) -> Iterator[tuple[str, str]]:
    """What the message may mean, the most telling first; the last one always holds."""
    yield from _volumes(pod, situation, said)
    short = sorted(set(_SHORT.findall(said)), key=lambda one: ("/" not in one, one))
    taints = [taint for taint in _TAINT.findall(said) if taint[0] not in _USUAL]
    if UNTOLD in said:
        taints = _taints(pod, situation, short[0] if short else None)
    devices = bool(short) and "/" in short[0]
    if taints and (devices or not short):
        yield _tainted(pod, *taints[0])
    if short:
        yield _insufficient(pod, short[0], untold=UNTOLD in said)
    yield from _places(pod, situation, said)
    yield (
        f"no node takes it: {said}",
        f"kubectl -n {situation.namespace} describe pod {name(pod)}",
    )


def _volumes(pod: Object, situation: Situation, said: str) -> Iterator[tuple[str, str]]:
    absent = _CLAIM.search(said)
    claims = f"kubectl -n {situation.namespace} describe pvc"
    if absent:
        yield f"PersistentVolumeClaim {absent[1]} does not exist", claims
    if "volume node affinity conflict" in said:
        yield (
            "its volume is in a zone, or on a node, where no node has room for the pod",
            f"add a node in the zone of the volume, which `{claims}` names",
        )
    if "unbound immediate PersistentVolumeClaims" in said or "persistent volumes to bind" in said:
        yield _unbound(pod, situation)


def _unbound(pod: Object, situation: Situation) -> tuple[str, str]:
    """A claim without a volume, by what its provisioner says; a claim never changes its class."""
    sources = [one.get("persistentVolumeClaim") or {} for one in pod["spec"].get("volumes") or []]
    claims = [str(one["claimName"]) for one in sources if "claimName" in one]
    told = [(one, event(situation, one, ["ProvisioningFailed", "FailedBinding"])) for one in claims]
    claim, said = next((one for one in told if one[1]), (None, None))
    ours = labels(pod).get(releases.COMPONENT) == "store"
    key = "objectStore.storageClassName" if ours else "ray.faultTolerance.storageClassName"
    mend = f"set {key} to one of `kubectl get storageclass`"
    if said is None:
        return "its volume claim is not bound: no volume or storage class gives it one", mend
    again = f"kubectl -n {situation.namespace} delete pvc {claim}"
    if ours:
        release = labels(pod).get(releases.INSTANCE)
        again = f"helm uninstall {release} -n {situation.namespace} && {again}"
        mend = f"{mend}, and install it again"
    return f"its volume claim {claim} is not bound: {said}", f"{again}; {mend}"


def _tainted(pod: Object, key: str, content: str) -> tuple[str, str]:
    taint = f"{key}={content}" if content else key
    if key.startswith(_SICK):
        return f"nodes are not fit for work (taint {taint})", "kubectl describe nodes"
    head = labels(pod).get("eagleray/role") == "head"
    if key in _SPOT:
        return (
            f"the nodes left are spot nodes (taint {taint}), which it was kept off",
            "add a node that is not spot"
            + ("" if head else f", or set {value(pod, 'spot')} to true"),
        )
    place = "gpu.tolerations" if "gpu" in key else value(pod, "tolerations")
    return (
        f"nodes that could take it have the taint {taint}, which it does not tolerate",
        f"add {{key: {key}, operator: Exists}} to {place}",
    )


def _taints(pod: Object, situation: Situation, resource: str | None) -> list[tuple[str, str]]:
    """Taints that keep a pod off nodes which have a resource, by what the nodes say themselves."""
    tolerated = pod.get("spec", {}).get("tolerations") or []
    found = []
    for node in situation.nodes:
        has = (node.get("status", {}).get("allocatable") or {}).get(resource, "0")
        if resource is not None and str(has) == "0":
            continue
        for taint in node.get("spec", {}).get("taints") or []:
            hard = taint.get("effect") != "PreferNoSchedule" and taint["key"] not in _USUAL
            if hard and not any(_tolerates(one, taint) for one in tolerated):
                found.append((taint["key"], taint.get("value", "")))
    return found


def _tolerates(toleration: Object, taint: Object) -> bool:
    """By the rules of the API's field `tolerations`: what is left out matches all."""
    if toleration.get("effect") not in (None, "", taint.get("effect")):
        return False
    if not toleration.get("key"):
        return toleration.get("operator") == "Exists"
    same = toleration["key"] == taint["key"]
    exists = toleration.get("operator") == "Exists"
    return same and (exists or toleration.get("value", "") == taint.get("value", ""))


def _insufficient(pod: Object, resource: str, *, untold: bool) -> tuple[str, str]:
    amount = f"{requested(pod, resource)} {resource}".strip()
    cause = f"no node{' without a taint' if untold else ''} has {amount} free"
    keys = {"cpu": "cpus", "memory": "memory"}
    lower = value(pod, keys.get(resource, "gpus" if "/" in resource else resource))
    if "/" in resource:
        return cause, (
            f"add a node with {resource}, or set {lower} to what `kubectl describe nodes` "
            "shows as allocatable"
        )
    return cause, f"add a node, or set {lower} lower"


def _places(pod: Object, situation: Situation, said: str) -> Iterator[tuple[str, str]]:
    """What has to do with which nodes there are, rather than with what they have."""
    if "node affinity/selector" in said or "match node selector" in said:
        yield (
            "no node has the labels that it asks for",
            f"set {value(pod, 'nodeSelector')} to labels of `kubectl get nodes --show-labels`"
            + (", or add a node that is not spot" if _keeps_off_spot(pod) else ""),
        )
    if "topology spread constraints" in said:
        yield (
            "it would be spread unevenly on the nodes there are",
            "set serving.topologySpread[].whenUnsatisfiable to ScheduleAnyway",
        )
    if "pod affinity" in said or "pod anti-affinity" in said:
        yield "other pods keep it away", f"kubectl -n {situation.namespace} get pods -o wide"
    if UNTOLD in said:
        yield (
            "nodes that could take it have a taint that it does not tolerate",
            f"add the taint that `kubectl describe nodes` shows to {value(pod, 'tolerations')}",
        )
    if "were unschedulable" in said:
        yield "the nodes are cordoned", "kubectl uncordon a node of `kubectl get nodes`"
    if "Too many pods" in said:
        yield "the nodes have as many pods as they may", "add a node"
    if "free ports" in said:
        yield "another pod holds its host port", "add a node"
    if "no nodes available" in said:
        yield "the cluster has no nodes", "add a node"


def _keeps_off_spot(pod: Object) -> bool:
    affinity = pod.get("spec", {}).get("affinity", {}).get("nodeAffinity", {})
    return "requiredDuringSchedulingIgnoredDuringExecution" in affinity


def _watch(pod: Object, situation: Situation) -> str:
    return f"wait; kubectl -n {situation.namespace} get pod {name(pod)} --watch"
