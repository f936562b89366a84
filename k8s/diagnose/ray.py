"""Why a run or a service is not ready: from its RayJob or RayService down to pods."""

import re
from collections import Counter, defaultdict
from functools import partial

from prometheus_client.parser import text_string_to_metric_families

from eagleray.client import waits
from eagleray.findings import Explanation, Finding, first, passed
from eagleray.messages import span
from k8s import backend, helm, rayjob
from k8s import release as releases
from k8s.api import Object
from k8s.diagnose import definitions, pods
from k8s.diagnose.rules import Findings, case, last_line, match, one_line
from k8s.diagnose.snapshot import Snapshot, clusters_of, http_status
from k8s.objects import at, concerned, condition, created, labels, name, ready

SILENT_S = 30.0
"""Seconds within which KubeRay writes a first status."""
LOADING_S = 30.0
"""Seconds within which replicas load a version and reproduce its golden rows."""
VERSION = "eagleray_model_version"
REFUSED = "eagleray_version_refused_total"
ERRORS = "eagleray_storage_errors_total"
"""Names of serving/metrics.py, which owns them; a test holds these copies."""

_CREATED = ("HeadPod", "WorkerPod", "Service", "RayCluster", "RayJobSubmitter")
_UNCREATED = ("FailedCreate", *(f"FailedToCreate{one}" for one in _CREATED))
_SLOW = re.compile(r"has (\d+) replicas that have taken more than .* to initialize", re.DOTALL)
_LOG = "/tmp/ray/session_latest/logs/serve/replica_*.log"  # noqa: S108 - in the pod


def explain(snapshot: Snapshot) -> Explanation:
    """Explain the state of a snapshot's subject."""
    subject = snapshot.subject
    found = first(findings(snapshot)) or passed("nothing is wrong")
    if not subject:
        return Explanation("Cluster", snapshot.namespace, "unknown", found, ())
    found, now = found.under(line(subject)), state(subject)
    return Explanation(subject["kind"], snapshot.name, now, found, snapshot.unseen)


def state(subject: Object) -> str:
    """The state of a run or a service, in a word."""
    if subject["kind"] == "RayService":
        return "ready" if condition(subject, "Ready").get("status") == "True" else "not ready"
    status = at(subject, "status")
    deployment = str(status.get("jobDeploymentStatus") or "Waiting").lower()
    ended = str(status.get("jobStatus", "SUCCEEDED")).lower()
    return {"complete": ended, "validationfailed": "failed"}.get(deployment, deployment)


def line(subject: Object) -> str:
    """A run or a service in a line: its state, the reason and how often it was tried."""
    now, status, most = state(subject), at(subject, "status"), at(subject, "spec", "backoffLimit")
    reason, lost, tries = status.get("reason"), status.get("failed") or 0, ""
    if now == "not ready":
        reason = condition(subject, "Ready").get("reason")
    if lost and now != "failed":
        tries = f", attempt {lost + 1} of {(most or 0) + 1}"
    elif most and lost > most:
        tries = f" after {lost} attempts: its retries are used up"
    why = f" ({reason})" if reason else ""
    return f"{subject['kind']} {name(subject)}: {now}{why}{tries}"


def findings(snapshot: Snapshot) -> Findings:
    """Why a run or a service is not ready, in the order of causes."""
    if not snapshot.subject:
        error = next(iter(snapshot.unread.values()))
        install = definitions.install(gated=True)
        yield snapshot.say("outage", f"{http_status(error)}", str(error), install=install)
        return
    if state(snapshot.subject) in ("succeeded", "stopped"):
        return
    run = snapshot.subject["kind"] == "RayJob"
    yield _invalid(snapshot.subject, snapshot)
    yield _suspended(snapshot) if run else None
    yield _silence(snapshot)
    for one in snapshot.get("pods"):
        if labels(one).get(releases.COMPONENT) == "store":
            yield pods.trouble(one, snapshot)
    if run and state(snapshot.subject) == "failed":
        yield _failed(snapshot)
    else:
        yield from _run(snapshot) if run else _service(snapshot)


def _silence(snapshot: Snapshot) -> Finding | None:
    """A run or a service that no operator has written a status for."""
    status = at(snapshot.subject, "status")
    if status.get("jobDeploymentStatus") or status.get("conditions"):
        return None
    manager = at(snapshot.subject, "spec", "managedBy") or "ray.io/kuberay-operator"
    if manager != "ray.io/kuberay-operator":
        return snapshot.say("operator", f"managed by {manager}")
    named = {concerned(one) for one in snapshot.get("events")}
    if any(one == snapshot.name or one.startswith(f"rayjob-{snapshot.name}-") for one in named):
        return None
    age_s = snapshot.age_s(created(snapshot.subject))
    return snapshot.say("operator", "young: " if age_s < SILENT_S else "", age=span(age_s))


def _invalid(thing: Object, snapshot: Snapshot) -> Finding | None:
    """A specification that KubeRay refuses, by its status or by its events."""
    kind, status, serves = thing["kind"], at(thing, "status"), condition(thing, "Ready")
    refused = "ValidationFailed" in (status.get("jobDeploymentStatus"), serves.get("reason"))
    message = serves.get("message") or status.get("message") if refused else None
    reasons = [f"Invalid{kind}{part}" for part in ("Spec", "Metadata", "Status")]
    text = one_line(message or "") or snapshot.event(name(thing), *reasons)
    again = {"RayJob": ", and submit it again", "RayService": ", and helm upgrade"}.get(kind, "")
    enable = definitions.enable({})
    return match("invalid", text, text, again=again, enable=enable) if text else None


def _run(snapshot: Snapshot) -> Findings:
    for cluster in clusters_of(snapshot.subject):
        yield _cluster(cluster, snapshot)
    submitters = [one for one in snapshot.get("pods") if "job-name" in labels(one)]
    for one in submitters:
        yield pods.trouble(one, snapshot)
    if absent := snapshot.event(snapshot.name, "RayClusterNotFound"):
        yield snapshot.say("run", "no cluster", absent)
    text = snapshot.event(snapshot.name, *_UNCREATED)
    if text and not (snapshot.get("rayclusters") and submitters):
        yield snapshot.say("refused", text, text)
    if state(snapshot.subject) != "running":
        yield snapshot.say("run", "setting up")
    yield _trials(snapshot)


def _trials(snapshot: Snapshot) -> Finding | None:
    """Trials that wait for resources, and how far the groups of workers may grow."""
    found = waits.finding(snapshot.waiting, snapshot.now.timestamp())
    if found is None:
        return None
    lines: list[str] = []
    full = True
    for cluster in snapshot.get("rayclusters"):
        mine = name(cluster) in clusters_of(snapshot.subject)
        for group in at(cluster, "spec", "workerGroupSpecs") if mine else ():
            now, most = group.get("replicas") or 0, group.get("maxReplicas") or 0
            lines.append(f"worker group {group['groupName']}: {now} of at most {most} replicas")
            full &= now >= most
    cases = {"never": found.severity == "fail", "full": bool(lines) and full, "busy": True}
    return snapshot.say("trials", f"{case(cases)}: {found.message}", *lines, *found.evidence)


def _suspended(snapshot: Snapshot) -> Finding | None:
    """A suspended run; Kueue says why it waits in the conditions of a Workload, and in events."""
    queue, hidden = labels(snapshot.subject).get(rayjob.QUEUE), snapshot.unread.get("workloads")
    if not at(snapshot.subject, "spec", "suspend") and "suspend" not in state(snapshot.subject):
        return None
    if not queue:
        return snapshot.say("run", "suspended")
    prefix = f"rayjob-{snapshot.name}-"  # as Kueue calls a Workload
    mine = [one for one in snapshot.get("workloads") if name(one).startswith(prefix)]
    quotas = [condition(one, "QuotaReserved") for one in mine]
    events = [one for one in snapshot.get("events") if concerned(one).startswith(prefix)]
    pending = [one for one in events if one.get("reason") == "Pending"][-1:]
    messages = [one["message"] for one in (*quotas, *pending) if one.get("message")]
    message = one_line(messages[0]) if messages else ""
    kind = "noted" if mine or message or (hidden and http_status(hidden) != 404) else "unnoted"
    line = f"LocalQueue {queue}: {message or 'has not admitted it'}"
    return snapshot.say("queue", f"{kind}: {message}", line, queue=queue)


def _failed(snapshot: Snapshot) -> Finding | None:
    """Why a run has failed: its pods, its storage, or its program, by its last line."""
    reason = at(snapshot.subject, "status").get("reason")
    message = str(at(snapshot.subject, "status", "message") or "")
    below = [pods.trouble(one, snapshot) for one in snapshot.get("pods")]
    behind = first(one for one in below if one and one.severity != "wait")
    if reason == "DeadlineExceeded":
        deadline = at(snapshot.subject, "spec").get("activeDeadlineSeconds")
        return behind or snapshot.say("run", reason, deadline=deadline)
    code = backend.EXIT_CODE.search(message)
    line = f"its driver ended with exit code {code[1]}" if code else one_line(message, 120)
    if stored := pods.storage(message, snapshot):
        return stored.under(line)
    if behind and not (reason == "AppFailed" and code):
        return behind
    last = last_line(message) or "KubeRay does not say why"
    return snapshot.say("run", f"failed: {message}", line, last=last)


def _cluster(called: str, snapshot: Snapshot) -> Finding | None:
    """Why a RayCluster is not ready; None if there is no cause, or no such cluster."""
    cluster = next((one for one in snapshot.get("rayclusters") if name(one) == called), None)
    if cluster is None:
        return None
    mine = [one for one in snapshot.get("pods") if labels(one).get("ray.io/cluster") == called]
    # the head first: without it no worker starts
    mine.sort(key=lambda one: labels(one).get("ray.io/node-type") != "head")
    wanted = at(cluster, "status").get("desiredWorkerReplicas", len(mine) - 1) + 1
    failure, text = condition(cluster, "ReplicaFailure"), snapshot.event(called, *_UNCREATED)
    if failure.get("status") == "True":
        text = one_line(failure.get("message") or text or failure.get("reason", ""))
    elif len(mine) >= wanted:
        text = None  # what failed before has succeeded
    say = partial(snapshot.say, cluster=called)
    found = first(
        (
            say("cluster", "suspended") if at(cluster, "spec", "suspend") else None,
            _invalid({**cluster, "kind": "RayCluster"}, snapshot),
            *(pods.trouble(one, snapshot) for one in mine),
            say("refused", text, text) if text else None,
            None if mine else say("cluster", "no pods"),
        )
    )
    whole = max(len(mine), wanted)
    line = f"RayCluster {called}: {sum(map(ready, mine))} of {whole} pods ready"
    return found and found.under(line)


def _service(snapshot: Snapshot) -> Findings:
    say, serves = snapshot.say, condition(snapshot.subject, "Ready")
    if serves.get("reason") == "InitializingTimeout":
        yield say("service", f"InitializingTimeout: {one_line(serves.get('message', ''))}")
    both = (at(snapshot.subject, "status", f"{one}ServiceStatus") for one in ("pending", "active"))
    parts = [one for one in both if one.get("rayClusterName")]
    if len(parts) > 1:
        yield _upgrade(parts[0], snapshot)
    for part in parts[-1:]:
        yield from _part(part, snapshot)
    # Helm 4 refuses to change fields that others own; it may have rolled back since
    *_, before, last = ("", "", *snapshot.upgrades)
    description = before if last.startswith("Rollback") else last
    if taken := helm.conflict(description):
        release = labels(snapshot.subject).get(releases.INSTANCE)
        yield say("service", f"conflict: {taken}", one_line(description), release=release)
    if state(snapshot.subject) == "ready":
        yield _version(snapshot)
    else:
        yield say("service", "no answer" if parts else "no cluster")


def _upgrade(coming: Object, snapshot: Snapshot) -> Finding | None:
    """What keeps a new cluster from taking over from the one in use."""
    found = first(_part(coming, snapshot))
    if found is None or found.severity == "wait":
        found = snapshot.say("service", "upgrade", *(found.evidence if found else ()))
    line = f"an upgrade is in progress: {coming['rayClusterName']} is to take over"
    return found and found.under(line)


def _part(part: Object, snapshot: Snapshot) -> Findings:
    called, event = part["rayClusterName"], partial(snapshot.event, snapshot.name)
    yield _cluster(called, snapshot)
    text = event("FailedToUpdateServeApplications", words=called)
    if text and not event("UpdatedServeApplications", words=called):
        yield snapshot.say("service", f"unsent: {called}", text)
    for application, serves in at(part, "applicationStatuses").items():
        if serves.get("status") != "RUNNING" and (found := _application(serves, snapshot)):
            yield found.under(f"Serve application {application}: {serves.get('status')}")


def _application(application: Object, snapshot: Snapshot) -> Finding | None:
    deployments = at(application, "serveDeploymentStatuses").values()
    messages = [str(one.get("message") or "") for one in (*deployments, application)]
    text, logs = "\n".join(filter(None, messages)), "\n".join(snapshot.logs.values())
    if stored := pods.storage(text, snapshot) or pods.storage(logs, snapshot):
        return stored
    if slow := _SLOW.search(text):
        return _version(snapshot, f"Serve deployment: {one_line(slow[0])}")
    last = last_line(text) or "Serve does not say why"
    fact = f"{application.get('status')}: {' '.join(text.split())}"
    return snapshot.say("service", fact, last=last)


def _version(snapshot: Snapshot, *unloaded: str) -> Finding | None:
    """Why replicas serve another version than the alias's; or none, by Serve's text `unloaded`.

    A replica refuses a version that does not reproduce its golden rows, and keeps the one before
    (serving/versions.py). Its metrics show both.
    """
    kinds = {name(one): labels(one).get("ray.io/node-type") for one in snapshot.get("pods")}
    pod = next((one for one, kind in kinds.items() if kind == "worker"), "POD")
    alias = snapshot.alias
    logs = f"kubectl -n {snapshot.namespace} exec {pod} -- sh -c 'tail -n 20 {_LOG}'"
    if alias is None:
        return snapshot.say("version", "", *unloaded, logs=logs) if unloaded else None
    version, moved_s = str(alias.version), snapshot.age_s(alias.moved)
    counts = _counts(snapshot)
    serving = counts[VERSION]
    cases = {
        "no version": alias.version is None and alias.latest is None,
        "nowhere": alias.version is None,
        "unloaded": bool(unloaded),
        "not asked": "versions of replicas" in snapshot.unread and not snapshot.metrics,
        "well": not snapshot.metrics or [*serving] == [version],
        "refused": version in counts[REFUSED] or bool(alias.refused),
        "moved": bool(alias.moved) and moved_s < LOADING_S,
        "storage": bool(counts[ERRORS]),
        "other": True,
    }
    text = case(cases)
    if text == "well":
        return None
    shown = ", ".join(sorted(serving, key=lambda one: (len(one), one))) or "none"
    moved = f", moved at {alias.moved} by {alias.by}" if alias.moved else ""
    to = f"to version {version}{moved}" if alias.version else f"nowhere in {alias.storage}"
    served = f"; replicas serve version {shown}" if snapshot.metrics else ""
    line = f"alias {alias.name} of model {alias.model}: points {to}{served}"
    more = ["replicas count failed looks at storage"] if text == "storage" else []
    more += [one_line(f"refused by {alias.refused}")] if alias.refused else []
    fields = {"model": alias.model, "alias": alias.name, "storage": alias.storage, "logs": logs}
    fields |= {"version": version, "age": span(moved_s)}
    return snapshot.say("version", text, *unloaded, line, *more, **fields)


def _counts(snapshot: Snapshot) -> defaultdict[str, Counter[str]]:
    """The metrics of the service's model, summed over pods, by version; nothing that is 0."""
    model = releases.arguments(snapshot.subject).get("name")
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for text in snapshot.metrics.values():
        for family in text_string_to_metric_families(text):
            for one in family.samples:
                if one.labels.get("model") == model and one.value:
                    found[one.name][one.labels.get("version", "")] += int(one.value)
    return found
