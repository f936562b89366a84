"""Diagnosis: why a run or a service on Kubernetes is not ready, and what a cluster lacks.

snapshot      reads a cluster once; everything else is pure
rules.yaml    what texts of Kubernetes, KubeRay, Kueue and Ray mean; rules reads it
ray, pods     lead from a run or a service down to the cause: texts for the rules, deepest first
checks        of `eagleray doctor --kubernetes`, with definitions and capacity; doctor runs them
"""

from eagleray.findings import Explanation, Finding, failed, first, passed
from k8s.diagnose import definitions, ray
from k8s.diagnose.snapshot import Snapshot, http_status
from k8s.objects import name


def explain(snapshot: Snapshot) -> Explanation:
    """Explain the state of a snapshot's subject."""
    subject = snapshot.subject
    if not subject:
        return Explanation("Cluster", snapshot.namespace, "unknown", _outage(snapshot), ())
    found = first(ray.findings(snapshot)) or passed("nothing is wrong")
    found, state = found.under(ray.line(subject)), ray.state(subject)
    return Explanation(subject["kind"], name(subject), state, found, snapshot.unseen)


def _outage(snapshot: Snapshot) -> Finding:
    error = next(iter(snapshot.unread.values()))
    if http_status(error) == 404:
        fix = f"{definitions.install(gated=True)} (the gate is for ray.faultTolerance.embedded)"
        message = "KubeRay is not installed: the cluster knows neither RayJob nor RayService"
        return failed(message, fix).under(
            f"namespace {snapshot.namespace}: no rayjobs, no rayservices"
        )
    fix = "kubectl cluster-info; set KUBECONFIG to a cluster that answers"
    return failed("the API server cannot be reached", fix).under(str(error))
