"""Diagnosis: why a run or a service on Kubernetes is not ready, and what a cluster lacks.

snapshot      reads a cluster once; everything else is pure
rules.yaml    what texts of Kubernetes, KubeRay, Kueue and Ray mean; rules reads it
ray, pods     from the object of a question down to its cause, as texts for the rules
checks        what `eagleray doctor --kubernetes` compares, with definitions and capacity; doctor
              runs them
"""

from __future__ import annotations

from dataclasses import dataclass

from eagleray.findings import Finding, first, passed
from k8s.diagnose import ray
from k8s.diagnose.snapshot import Snapshot


@dataclass(frozen=True)
class Explanation:
    """Why an object is in the state it is in.

    Attributes:
        kind: of the object; `Cluster` where nothing could be read.
        name: the object's.
        state: in a word.
        finding: its cause and its fix; the evidence leads from the object down to the cause.
        unseen: what could not be read, and why.
    """

    kind: str
    name: str
    state: str
    finding: Finding
    unseen: tuple[str, ...]


def explain(snapshot: Snapshot) -> Explanation:
    """Explain the state of a snapshot's subject."""
    well = passed("nothing is wrong")
    if not snapshot.subject:
        found = ray.outage(snapshot) or well
        return Explanation("Cluster", snapshot.namespace, "unknown", found, ())
    found = (first(ray.findings(snapshot)) or well).under(ray.line(snapshot))
    kind = str(snapshot.subject["kind"])
    return Explanation(kind, snapshot.name, ray.state(snapshot), found, snapshot.unseen)
