"""What keeps a RayCluster from being ready: its pods, or that they cannot even be made."""

from __future__ import annotations

import re
from collections.abc import Iterator

from k8s.api import Object
from k8s.situation import Situation
from k8s.why import operator, pod
from k8s.why.finding import Finding, condition, event, first, labels, name, one_line

_QUOTA = re.compile(r"exceeded quota: ([^,\s]+), requested: (.+?), used: (.+?), limited: (.+)")
_ACCOUNT = re.compile(r'error looking up service account \S+: serviceaccount "([^"]+)" not found')
_UNMADE = (
    "FailedToCreateHeadPod",
    "FailedToCreateWorkerPod",
    "FailedToCreateService",
    "FailedCreate",
)
_INVALID = ("InvalidRayClusterSpec", "InvalidRayClusterMetadata", "InvalidRayClusterStatus")


def trouble(cluster: Object, situation: Situation) -> Finding | None:
    """Why a RayCluster is not ready; None when nothing speaks against it."""
    mine = members(cluster, situation)
    found = first(_troubles(cluster, mine, situation))
    return found.under(line(cluster, mine)) if found else None


def members(cluster: Object, situation: Situation) -> list[Object]:
    """The pods of a cluster, its head first: without it nothing else goes on."""
    mine = [one for one in situation.pods if labels(one).get("ray.io/cluster") == name(cluster)]
    return sorted(mine, key=lambda one: labels(one).get("ray.io/node-type") != "head")


def line(cluster: Object, pods: list[Object]) -> str:
    """How far a cluster is."""
    wanted = (cluster.get("status") or {}).get("desiredWorkerReplicas")
    whole = len(pods) if wanted is None else max(len(pods), wanted + 1)
    count = sum(map(pod.ready, pods))
    return f"RayCluster {name(cluster)}: {count} of {whole} pods ready"


def refused(message: str, situation: Situation) -> Finding:
    """Why the API server did not take an object that the operator wanted to create."""
    said, space = one_line(message), situation.namespace
    quota, account = _QUOTA.search(said), _ACCOUNT.search(said)
    if quota:
        return Finding(
            f"quota {quota[1]} does not suffice for {quota[2]}: used {quota[3]}, limit {quota[4]}",
            f"kubectl -n {space} edit resourcequota {quota[1]}",
            (said,),
        )
    if account:
        return Finding(
            f"service account {account[1]} does not exist",
            f"kubectl -n {space} create serviceaccount {account[1]}",
            (said,),
        )
    if "violates PodSecurity" in said:
        return Finding(
            "Pod Security of the namespace forbids such pods",
            f"kubectl get namespace {space} --show-labels tells the level; the chart's fit any",
            (said,),
        )
    if "is forbidden: [" in said or "LimitRange" in said or "per Container is" in said:
        return Finding(
            "a limit range forbids such pods", f"kubectl -n {space} get limitrange -o yaml", (said,)
        )
    if "webhook" in said or "denied the request" in said or "ValidatingAdmissionPolicy" in said:
        return Finding("an admission rule forbids it", f"ask whoever set the rule: {said}", (said,))
    return Finding(f"it cannot be created: {said}", "mend what the message names", (said,))


def _troubles(
    cluster: Object, pods: list[Object], situation: Situation
) -> Iterator[Finding | None]:
    yield _suspended(cluster, situation)
    yield _invalid(cluster, situation)
    for one in pods:
        yield pod.trouble(one, situation)
    yield _unmade(cluster, situation)
    if not pods:
        yield Finding(
            "its pods are about to be created",
            f"wait; kubectl -n {situation.namespace} describe raycluster {name(cluster)}",
            waits=True,
        )


def _suspended(cluster: Object, situation: Situation) -> Finding | None:
    if not cluster.get("spec", {}).get("suspend"):
        return None
    patch = """--type merge -p '{"spec": {"suspend": false}}'"""
    mend = f"kubectl -n {situation.namespace} patch raycluster {name(cluster)} {patch}"
    return Finding("it is suspended", mend)


def _invalid(cluster: Object, situation: Situation) -> Finding | None:
    message = event(situation, name(cluster), _INVALID)
    if not message:
        return None
    return operator.gate(message) or Finding(
        f"KubeRay refuses its specification: {message}", "set what the message names", (message,)
    )


def _unmade(cluster: Object, situation: Situation) -> Finding | None:
    """Pods that the operator tries to create in vain."""
    failed = condition(cluster, "ReplicaFailure")
    told = event(situation, name(cluster), _UNMADE)
    if failed.get("status") == "True":
        return refused(failed.get("message") or told or failed.get("reason", ""), situation)
    return refused(told, situation) if told and not _all_there(cluster, situation) else None


def _all_there(cluster: Object, situation: Situation) -> bool:
    """Whether there are as many pods as are wanted, so that what failed before has succeeded."""
    wanted = (cluster.get("status") or {}).get("desiredWorkerReplicas")
    return wanted is not None and len(members(cluster, situation)) > wanted
