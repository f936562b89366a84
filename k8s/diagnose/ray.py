"""Why a run or a service is not ready: from its RayJob or RayService down to RayClusters and pods.

Each function yields findings in the order of causes; `rules.yaml` has the sentences.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from eagleray.findings import Finding, first
from k8s import helm, rayjob
from k8s import release as releases
from k8s.api import Object
from k8s.diagnose import definitions, pods
from k8s.diagnose.objects import (
    concerned,
    condition,
    labels,
    last_line,
    name,
    one_line,
    span,
    status,
)
from k8s.diagnose.rules import match
from k8s.diagnose.snapshot import Snapshot, clusters_of

SILENT_S = 30.0
"""Seconds within which KubeRay writes a first status: it looks at each object every few seconds."""
LOADING_S = 30.0
"""Seconds to load a version and to reproduce its golden rows, before its absence is a cause."""
VERSION = "eagleray_model_version"
REFUSED = "eagleray_version_refused_total"
ERRORS = "eagleray_storage_errors_total"
"""Names of serving/metrics.py, which owns them; a test holds these copies."""

_EXIT = re.compile(r"exit code (\d+)")
_UNCREATED = (
    "FailedToCreateHeadPod",
    "FailedToCreateWorkerPod",
    "FailedToCreateService",
    "FailedToCreateRayCluster",
    "FailedToCreateRayJobSubmitter",
    "FailedCreate",
)
_SLOW = re.compile(r"has (\d+) replicas that have taken more than .* to initialize", re.DOTALL)
_LOG = "/tmp/ray/session_latest/logs/serve/replica_*.log"  # noqa: S108 - in the pod


def outage(snapshot: Snapshot) -> Finding | None:
    """Why nothing could be read."""
    error = next(iter(snapshot.unread.values()))
    absent = status(error) == 404
    line = f"namespace {snapshot.namespace}: no rayjobs, no rayservices" if absent else str(error)
    install = f"{definitions.install(gated=True)} (the gate is for ray.faultTolerance.embedded)"
    return match("outage", str(status(error)), line, install=install)


def state(snapshot: Snapshot) -> str:
    """The state of a run or a service, in a word."""
    if snapshot.subject["kind"] == "RayService":
        now = condition(snapshot.subject, "Ready").get("status")
        running = snapshot.status.get("serviceStatus") == "Running"  # KubeRay before 1.3
        return "ready" if now == "True" or (now is None and running) else "not ready"
    deployment = str(snapshot.status.get("jobDeploymentStatus") or "Waiting").lower()
    ended = str(snapshot.status.get("jobStatus", "SUCCEEDED")).lower()
    return {"complete": ended, "validationfailed": "failed"}.get(deployment, deployment)


def line(snapshot: Snapshot) -> str:
    """A run or a service in a line: its state, the reason and how often it was tried."""
    now, reason, tries = state(snapshot), snapshot.status.get("reason"), ""
    if snapshot.subject["kind"] == "RayService":
        ready = condition(snapshot.subject, "Ready")
        reason = ready.get("reason") if ready.get("status") != "True" else None
    lost = snapshot.status.get("failed") or 0
    most = snapshot.subject["spec"].get("backoffLimit") or 0
    if lost and now != "failed":
        tries = f", attempt {lost + 1} of {most + 1}"
    elif most and lost > most:
        tries = f" after {lost} attempts: its retries are used up"
    said = f" ({reason})" if reason else ""
    return f"{snapshot.subject['kind']} {snapshot.name}: {now}{said}{tries}"


def findings(snapshot: Snapshot) -> Iterator[Finding | None]:
    """Why a run or a service is not further, in the order of causes."""
    if state(snapshot) in ("succeeded", "stopped"):
        return
    run = snapshot.subject["kind"] == "RayJob"
    yield _invalid(snapshot.subject, snapshot)
    yield _suspended(snapshot) if run else _gave_up(snapshot)
    yield _silence(snapshot)
    for one in snapshot.get("pods"):
        if labels(one).get(releases.COMPONENT) == "store":
            yield pods.trouble(one, snapshot)
    yield from _run(snapshot) if run else _service(snapshot)


def _say(
    topic: str, text: str, snapshot: Snapshot, *evidence: str, **fields: Any
) -> Finding | None:
    known = {"ns": snapshot.namespace, "name": snapshot.name, **fields}
    return match(topic, text, *evidence, **known)


def _silence(snapshot: Snapshot) -> Finding | None:
    """A run or a service that no operator has written a status for."""
    keys = ("jobDeploymentStatus", "conditions", "serviceStatus")
    if any(snapshot.status.get(key) for key in keys):
        return None
    manager = snapshot.subject["spec"].get("managedBy")
    if manager and manager != "ray.io/kuberay-operator":
        return _say("operator", f"managed by {manager}", snapshot)
    about = set(map(concerned, snapshot.get("events")))
    if any(one == snapshot.name or one.startswith(f"rayjob-{snapshot.name}-") for one in about):
        return None
    age_s = snapshot.age_s(snapshot.subject["metadata"].get("creationTimestamp"))
    text = "young: " if age_s < SILENT_S else ""
    return _say("operator", text, snapshot, age=span(age_s))


def _invalid(thing: Object, snapshot: Snapshot) -> Finding | None:
    """A specification that KubeRay refuses, by its status or by its events."""
    kind, now = thing["kind"], thing.get("status") or {}
    ready = condition(thing, "Ready")
    refused = now.get("jobDeploymentStatus"), ready.get("reason")
    said = ready.get("message") or now.get("message") if "ValidationFailed" in refused else None
    reasons = [f"Invalid{kind}{part}" for part in ("Spec", "Metadata", "Status")]
    text = one_line(said or "") or snapshot.event(name(thing), *reasons)
    again = {"RayJob": ", and submit it again", "RayService": ", and helm upgrade"}.get(kind, "")
    enable = definitions.enable({})
    return match("invalid", text, text, again=again, enable=enable) if text else None


def _run(snapshot: Snapshot) -> Iterator[Finding | None]:
    if state(snapshot) == "failed":
        yield _failed(snapshot)
        return
    for called in clusters_of(snapshot.subject):
        yield _cluster(called, snapshot)
    submitters = [one for one in snapshot.get("pods") if "job-name" in labels(one)]
    for one in submitters:
        yield pods.trouble(one, snapshot)
    if absent := snapshot.event(snapshot.name, "RayClusterNotFound"):
        yield _say("run", "no cluster", snapshot, absent)
    text = snapshot.event(snapshot.name, *_UNCREATED)
    if text and not (snapshot.get("rayclusters") and submitters):
        yield _say("refused", text, snapshot, text)
    if state(snapshot) != "running":
        yield _say("run", "setting up", snapshot)


def _suspended(snapshot: Snapshot) -> Finding | None:
    """A run that waits for somebody, or for its queue.

    Kueue's own words are in the conditions of a Workload, and in events.
    """
    now = snapshot.status.get("jobDeploymentStatus")
    if not snapshot.subject["spec"].get("suspend") and now not in ("Suspended", "Suspending"):
        return None
    queue = labels(snapshot.subject).get(rayjob.QUEUE)
    if not queue:
        return _say("run", "suspended", snapshot)
    workloads = [condition(one, "QuotaReserved") for one in snapshot.get("workloads")]
    events = [one for one in snapshot.get("events") if one.get("reason") == "Pending"]
    workload = f"rayjob-{snapshot.name}-"  # as Kueue calls it
    told = [one for one in events if concerned(one).startswith(workload)]
    said = next((one["message"] for one in [*workloads, *told[-1:]] if one.get("message")), "")
    noted = workloads or "workloads" in {one.partition(":")[0] for one in snapshot.unseen}
    kind = "noted" if noted or said else "unnoted"
    kind = "reserved" if any(one.get("status") == "True" for one in workloads) else kind
    said = "" if kind == "reserved" else one_line(said)
    line = f"LocalQueue {queue}: {said or 'has not admitted it'}"
    return _say("queue", f"{kind}: {said}", snapshot, line, queue=queue)


def _failed(snapshot: Snapshot) -> Finding | None:
    """Why a run has failed: its pods, its storage, or its program, whose last line says why."""
    now, message = snapshot.status, str(snapshot.status.get("message") or "")
    below = [pods.trouble(one, snapshot) for one in snapshot.get("pods")]
    behind = first(one for one in below if one is None or one.severity != "wait")
    if now.get("reason") == "DeadlineExceeded":
        deadline = snapshot.subject["spec"].get("activeDeadlineSeconds")
        return behind or _say("run", "DeadlineExceeded", snapshot, deadline=deadline)
    code = _EXIT.search(message)
    line = f"its driver ended with exit code {code[1]}" if code else one_line(message, 120)
    if stored := pods.storage(message, snapshot):
        return stored.under(line)
    if behind and not (now.get("reason") == "AppFailed" and code):
        return behind
    last = last_line(message) or "KubeRay does not say why"
    return _say("run", f"failed: {message}", snapshot, line, last=last)


def _cluster(called: str, snapshot: Snapshot) -> Finding | None:
    """Why a RayCluster is not ready; None when nothing speaks against it, or it is not there."""
    cluster = next((one for one in snapshot.get("rayclusters") if name(one) == called), None)
    if cluster is None:
        return None
    mine = [one for one in snapshot.get("pods") if labels(one).get("ray.io/cluster") == called]
    mine.sort(key=lambda one: labels(one).get("ray.io/node-type") != "head")
    workers = (cluster.get("status") or {}).get("desiredWorkerReplicas")
    whole = len(mine) if workers is None else max(len(mine), workers + 1)
    line = f"RayCluster {called}: {sum(map(pods.ready, mine))} of {whole} pods ready"
    found = first(_in_cluster(cluster, mine, snapshot))
    return found.under(line) if found else None


def _in_cluster(
    cluster: Object, mine: Sequence[Object], snapshot: Snapshot
) -> Iterator[Finding | None]:
    """Its head comes first: without it nothing else goes on."""
    called = name(cluster)
    if cluster.get("spec", {}).get("suspend"):
        yield _say("cluster", "suspended", snapshot, cluster=called)
    yield _invalid({**cluster, "kind": "RayCluster"}, snapshot)
    for one in mine:
        yield pods.trouble(one, snapshot)
    failure, workers = condition(cluster, "ReplicaFailure"), cluster.get("status") or {}
    text = snapshot.event(called, *_UNCREATED)
    if failure.get("status") == "True":
        text = one_line(failure.get("message") or text or failure.get("reason", ""))
    elif len(mine) > workers.get("desiredWorkerReplicas", len(mine)):
        text = None  # what failed before has succeeded
    if text:
        yield _say("refused", text, snapshot, text)
    if not mine:
        yield _say("cluster", "no pods", snapshot, cluster=called)


def _service(snapshot: Snapshot) -> Iterator[Finding | None]:
    both = (snapshot.status.get(f"{one}ServiceStatus") or {} for one in ("pending", "active"))
    parts = [one for one in both if one.get("rayClusterName")]
    for part in parts:
        called = part["rayClusterName"]
        found = first(_part(part, snapshot))
        if len(parts) > 1 and part is parts[0]:
            line = f"an upgrade is in progress: {called} is to take over"
            waits = found is None or found.severity == "wait"
            evidence = found.evidence if found else ()
            new = _say("service", "upgrade", snapshot, *evidence) if waits else found
            found = new.under(line) if new else None
        yield found
    yield _conflict(snapshot)
    if state(snapshot) == "ready":
        yield _version(snapshot)
    else:
        yield _say("service", "no answer" if parts else "no cluster", snapshot)


def _gave_up(snapshot: Snapshot) -> Finding | None:
    ready = condition(snapshot.subject, "Ready")
    if ready.get("reason") != "InitializingTimeout":
        return None
    return _say("service", f"InitializingTimeout: {one_line(ready.get('message', ''))}", snapshot)


def _conflict(snapshot: Snapshot) -> Finding | None:
    """An upgrade that Helm 4 did not do, since others own its fields; it may be undone by now."""
    *_, before, last = ("", "", *snapshot.upgrades)
    said = before if last.startswith("Rollback") else last
    taken, release = helm.conflict(said), snapshot.release
    text = f"conflict: {taken}"
    return _say("service", text, snapshot, one_line(said), release=release) if taken else None


def _part(part: Object, snapshot: Snapshot) -> Iterator[Finding | None]:
    """Why one of a service's clusters does not serve."""
    called, about = part["rayClusterName"], snapshot.name
    yield _cluster(called, snapshot)
    text = snapshot.event(about, "FailedToUpdateServeApplications", words=called)
    if text and not snapshot.event(about, "UpdatedServeApplications", words=called):
        yield _say("service", f"unsent: {called}", snapshot, text)
    for application, said in (part.get("applicationStatuses") or {}).items():
        if said.get("status") != "RUNNING" and (found := _application(said, snapshot)):
            yield found.under(f"Serve application {application}: {said.get('status')}")


def _application(application: Object, snapshot: Snapshot) -> Finding | None:
    """What Serve says of an application, and of the deployments that it is made of."""
    deployments = (application.get("serveDeploymentStatuses") or {}).values()
    said = [str(one.get("message") or "") for one in (*deployments, application)]
    text, logs = "\n".join(filter(None, said)), "\n".join(snapshot.logs.values())
    if stored := pods.storage(text, snapshot) or pods.storage(logs, snapshot):
        return stored
    if slow := _SLOW.search(text):
        return _version(snapshot, f"Serve deployment: {one_line(slow[0])}")
    last = last_line(text) or "Serve does not say why"
    fact = f"{application.get('status')}: {' '.join(text.split())}"
    return _say("service", fact, snapshot, last=last)


def _version(snapshot: Snapshot, unloaded: str | None = None) -> Finding | None:
    """Why replicas answer with another version than the alias names, or have loaded none.

    Replicas look at the alias every `poll_s`; a version that does not reproduce its golden rows is
    refused, and the one before keeps answering (serving/alias_watcher.py). Their metrics tell both.
    """
    alias = snapshot.alias
    above = (unloaded,) if unloaded else ()
    workers = [one for one in snapshot.get("pods") if _is_worker(one)]
    pod = name(workers[-1]) if workers else "POD"
    logs = f"kubectl -n {snapshot.namespace} exec {pod} -- sh -c 'tail -n 20 {_LOG}'"
    if alias is None:
        return _say("version", "", snapshot, *above, logs=logs) if unloaded else None
    moved_s = snapshot.age_s(alias.moved)
    fields = {"model": alias.model, "alias": alias.name, "storage": alias.storage}
    fields |= {"version": str(alias.version), "logs": logs, "age": span(moved_s)}
    line = f"alias {alias.name} of model {alias.model}: points "
    if alias.version is None:
        text = "no version" if alias.latest is None else "nowhere"
        line = f"{line}nowhere in {alias.storage}"
        return _say("version", text, snapshot, *above, line, **fields)
    moved = f", moved at {alias.moved} by {alias.by}" if alias.moved else ""
    line = f"{line}to version {alias.version}{moved}"
    if unloaded:
        return _say("version", "unloaded", snapshot, *above, line, **fields)
    if not snapshot.metrics:
        asked = "versions of replicas" not in snapshot.unread
        return None if asked else _say("version", "not asked", snapshot, line, **fields)
    serving, refused = _count(snapshot, VERSION), _count(snapshot, REFUSED)
    shown = ", ".join(sorted(serving, key=lambda one: (len(one), one))) or "none"
    line = f"{line}; replicas serve version {shown}"
    if [*serving] == [fields["version"]]:
        return None
    if fields["version"] in refused:
        return _say("version", "refused", snapshot, line, **fields)
    if alias.moved and moved_s < LOADING_S:
        return _say("version", "moved", snapshot, line, **fields)
    if _count(snapshot, ERRORS, "model"):
        counted = "replicas count failed looks at storage"
        return _say("version", "storage", snapshot, line, counted, **fields)
    return _say("version", "other", snapshot, line, **fields)


def _is_worker(pod: Object) -> bool:
    return labels(pod).get("ray.io/node-type") == "worker"


def _count(snapshot: Snapshot, metric: str, label: str = "version") -> dict[str, float]:
    """A metric of the service's model summed over pods, by a label; nothing that is 0."""
    model, found = releases.arguments(snapshot.subject).get("name"), Counter[str]()
    for text in snapshot.metrics.values():
        for family in text_string_to_metric_families(text):
            for one in family.samples:
                if one.name == metric and one.labels.get("model") == model:
                    found[one.labels[label]] += int(one.value)
    return {key: value for key, value in found.items() if value}
