"""Why something on Kubernetes is not ready: pure, from a situation to a cause and what mends it.

What belongs here: reading what KubeRay, kube-scheduler, kubelet, Kueue, Ray Serve and our own
replicas write. What does not: asking for it, which is `k8s.situation`.

    job, service     from the object of a user's question downwards
    cluster, pod     what both stand on; scheduling, image, storage: what pods fail by
    versions         what replicas serve against what the alias names
    operator         when nothing above can be asked
"""

from __future__ import annotations

from dataclasses import dataclass

from k8s.situation import Situation
from k8s.why import job, operator, service


@dataclass(frozen=True)
class Explanation:
    """Why an object is in the state it is in.

    Attributes:
        kind: of the object.
        name: the object's.
        state: in a word.
        chain: from the object down to the cause, a line each.
        cause: one line; None when nothing is wrong.
        mend: one command, or a value to set; None when nothing is wrong.
        unseen: what could not be looked at, and why.
    """

    kind: str
    name: str
    state: str
    chain: tuple[str, ...]
    cause: str | None
    mend: str | None
    unseen: tuple[str, ...]


def explain(situation: Situation) -> Explanation:
    """Explain the state of what a situation is about."""
    if situation.kind == "RayJob":
        state, found = job.state(situation), job.finding(situation)
    elif situation.kind == "RayService":
        state, found = service.state(situation), service.finding(situation)
    else:
        state, found = "unknown", operator.outage(situation)
    line = f"{situation.kind} {situation.name}: {state}"
    return Explanation(
        kind=situation.kind,
        name=situation.name,
        state=state,
        chain=found.chain if found else (line,),
        cause=found.cause if found else None,
        mend=found.mend if found else None,
        unseen=tuple(situation.unseen),
    )
