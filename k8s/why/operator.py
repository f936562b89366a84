"""An operator that is not there, or does nothing; an API server that does not answer."""

from __future__ import annotations

from k8s import definitions
from k8s.situation import Situation
from k8s.why.finding import Finding, age_s, span

SILENT_S = 30.0
"""Seconds within which KubeRay writes a first status: it looks at each object every few seconds."""
_INSTALL = (
    "helm install kuberay-operator kuberay-operator --repo "
    "https://ray-project.github.io/kuberay-helm --namespace kuberay-system --create-namespace"
)


def outage(situation: Situation) -> Finding:
    """Why nothing could be asked."""
    message = str(situation.status.get("message", ""))
    if situation.status.get("reason") == "NoKubeRay":
        return Finding(
            "KubeRay is not installed: the cluster knows neither RayJob nor RayService",
            _INSTALL,
            (f"namespace {situation.namespace}: no rayjobs, no rayservices",),
        )
    return Finding(
        "the API server cannot be reached",
        "kubectl cluster-info; set KUBECONFIG to a cluster that answers",
        (message,),
    )


def gate(message: str) -> Finding | None:
    """A specification that KubeRay refuses because a feature of it is off."""
    if "feature gate" not in message or definitions.GATE not in message:
        return None
    return Finding(
        f"the operator's feature gate {definitions.GATE} is off, which "
        "ray.faultTolerance.embedded needs",
        definitions.enable({}),
        (message,),
    )


def silence(situation: Situation) -> Finding | None:
    """An object that no operator has written a status for."""
    status = situation.status
    if any(status.get(key) for key in ("jobDeploymentStatus", "conditions", "serviceStatus")):
        return None
    manager = situation.subject["spec"].get("managedBy")
    if manager and manager != "ray.io/kuberay-operator":
        return Finding(
            f"it is left to {manager}, which has not taken it",
            f"see to {manager}, or unset managedBy",
        )
    if situation.events:
        return None
    age = age_s(situation, situation.subject["metadata"].get("creationTimestamp"))
    if age < SILENT_S:
        return Finding(f"it was created {span(age)} ago", "wait", waits=True)
    return Finding(
        f"the KubeRay operator does nothing: no status and no event in {span(age)}",
        "kubectl get pods --all-namespaces -l app.kubernetes.io/name=kuberay-operator; it must "
        f"run, and watch namespace {situation.namespace}",
    )
