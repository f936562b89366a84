"""Why a RayService does not answer, or not with the version it should: from the service down."""

from __future__ import annotations

import re
from collections.abc import Iterator

from k8s import helm
from k8s.api import Object
from k8s.situation import Situation
from k8s.why import cluster, operator, pod, storage, versions
from k8s.why.finding import Finding, condition, event, first, last_line, name, one_line

_SMALL = re.compile(
    r"has (\d+) replicas that have taken more than .* to be scheduled.*"
    r"Resources required for each replica: (.+?), total resources available: (.+?)(?=\. Use)",
    re.DOTALL,
)
_SLOW = re.compile(r"has (\d+) replicas that have taken more than .* to initialize", re.DOTALL)
_FAILED = ("DEPLOY_FAILED", "UNHEALTHY")
_UNSENT = "FailedToUpdateServeApplications"


def state(situation: Situation) -> str:
    """How a service fares, in a word."""
    now = condition(situation.subject, "Ready")
    if now:
        return "ready" if now.get("status") == "True" else "not ready"
    running = situation.status.get("serviceStatus") == "Running"  # KubeRay before 1.3
    return "ready" if running else "not ready"


def finding(situation: Situation) -> Finding | None:
    """Why it does not answer as it should; None when it does."""
    found = first(_findings(situation))
    return found.under(_line(situation)) if found else None


def _findings(situation: Situation) -> Iterator[Finding | None]:
    yield _refused(situation)
    yield operator.silence(situation)
    yield from pod.store(situation)
    parts = _parts(situation)
    for part in parts:
        yield _part(part, situation, upgrade=len(parts) > 1)
    yield _conflict(situation)
    if state(situation) == "ready":
        yield versions.finding(situation)
    elif not parts:
        yield Finding("its cluster is about to be created", _watch(situation), waits=True)
    else:
        yield Finding("nothing answers on its serving port yet", _watch(situation), waits=True)


def _line(situation: Situation) -> str:
    now = condition(situation.subject, "Ready")
    said = now.get("reason") if now.get("status") != "True" else None
    return f"RayService {situation.name}: {state(situation)}{f' ({said})' if said else ''}"


def _refused(situation: Situation) -> Finding | None:
    """What KubeRay gave up on by itself."""
    now = condition(situation.subject, "Ready")
    message = event(
        situation, situation.name, ["InvalidRayServiceSpec", "InvalidRayServiceMetadata"]
    )
    if now.get("reason") == "ValidationFailed":
        message = one_line(now.get("message", ""))
    if message:
        return operator.gate(message) or Finding(
            f"KubeRay refuses its specification: {message}",
            "set what the message names, and helm upgrade",
        )
    if now.get("reason") == "InitializingTimeout":
        return Finding(
            f"KubeRay gave up waiting for it: {one_line(now.get('message', ''))}",
            f"kubectl -n {situation.namespace} delete rayservice {situation.name}, "
            "and helm upgrade",
        )
    return None


def _conflict(situation: Situation) -> Finding | None:
    """An upgrade that Helm 4 did not do, since others own its fields; it may be undone by now."""
    *_, before, last = ("", "", *situation.upgrades)
    said = before if last.startswith("Rollback") else last
    taken = helm.conflict(said)
    if taken is None:
        return None
    upgrade = f"helm upgrade {situation.release} helm/eagleray -n {situation.namespace}"
    return Finding(
        f"the last upgrade was refused: {taken}",
        f"do it again, once with --force-conflicts: {upgrade} --reset-then-reuse-values "
        "--force-conflicts; or eagleray deploy, likewise",
        (one_line(said),),
    )


def _parts(situation: Situation) -> list[Object]:
    """What the service is made of: the cluster in the making first, then the one in use."""
    both = (situation.status.get(f"{one}ServiceStatus") or {} for one in ("pending", "active"))
    return [one for one in both if one.get("rayClusterName")]


def _part(part: Object, situation: Situation, *, upgrade: bool) -> Finding | None:
    called = part["rayClusterName"]
    pending = part is not situation.status.get("activeServiceStatus")
    own = next((one for one in situation.clusters if name(one) == called), None)
    below = cluster.trouble(own, situation) if own else None
    found = first([below, _unsent(called, situation), *_applications(part, situation)])
    if not (upgrade and pending):
        return found
    line = f"an upgrade is in progress: {called} is to take over"
    if found and not found.waits:
        return found.under(line)
    return Finding(
        "an upgrade is in progress; the cluster in use answers until the new one can",
        _watch(situation),
        (line, *(found.chain if found else ())),
        waits=True,
    )


def _unsent(called: str, situation: Situation) -> Finding | None:
    """The operator could not hand the application to the head."""
    told = event(situation, situation.name, [_UNSENT], called)
    done = event(situation, situation.name, ["UpdatedServeApplications"], called)
    if not told or done:
        return None
    return Finding(
        f"the operator cannot reach the head of {called}",
        "set networkPolicy.operator to the operator's pods",
        (told,),
    )


def _applications(part: Object, situation: Situation) -> Iterator[Finding | None]:
    for called, application in (part.get("applicationStatuses") or {}).items():
        if application.get("status") == "RUNNING":
            continue
        found = _application(application, situation)
        yield found.under(f"Serve application {called}: {application.get('status')}")


def _application(application: Object, situation: Situation) -> Finding:
    """What Serve says of an application, and of the deployments that it is made of."""
    deployments = (application.get("serveDeploymentStatuses") or {}).values()
    said = [str(one.get("message") or "") for one in (*deployments, application)]
    text = "\n".join(filter(None, said))
    logs = "\n".join(situation.logs.values())
    stored = storage.failure(text, situation) or storage.failure(logs, situation)
    small, slow = _SMALL.search(text), _SLOW.search(text)
    if stored:
        return stored
    if small:
        return Finding(
            f"{small[1]} replicas need {small[2]} each, but the Ray cluster has {small[3]}",
            "set serving.workers.max higher, or serving.replicas.cpus lower",
            (f"Serve deployment: {one_line(small[0])}",),
        )
    if slow:
        return versions.unloaded(situation).under(f"Serve deployment: {one_line(slow[0])}")
    if application.get("status") in _FAILED:
        described = f"kubectl -n {situation.namespace} get rayservice {situation.name} -o yaml"
        return Finding(last_line(text) or "Serve does not say why", described)
    return Finding("Serve is starting its replicas", _watch(situation), waits=True)


def _watch(situation: Situation) -> str:
    return f"wait; kubectl -n {situation.namespace} get rayservice {situation.name} --watch"
