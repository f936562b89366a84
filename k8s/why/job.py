"""Why a run on Kubernetes waits, or failed: from its RayJob down."""

from __future__ import annotations

import re
from collections.abc import Iterator

from k8s import rayjob
from k8s.api import Object
from k8s.situation import Situation
from k8s.why import cluster, operator, pod, storage
from k8s.why.finding import Finding, condition, event, first, labels, last_line, one_line

_EXIT = re.compile(r"exit code (\d+)")
_INVALID = ("InvalidRayJobSpec", "InvalidRayJobMetadata", "InvalidRayJobStatus")
_UNMADE = ("FailedToCreateRayCluster", "FailedToCreateRayJobSubmitter", "FailedCreate")


def state(situation: Situation) -> str:
    """How a run fares, in a word."""
    status = situation.status
    deployment = status.get("jobDeploymentStatus") or ""
    if deployment == "Complete":
        return str(status.get("jobStatus", "SUCCEEDED")).lower()
    known = {"": "waiting", "Failed": "failed", "ValidationFailed": "failed"}
    return known.get(deployment, str(deployment).lower())


def finding(situation: Situation) -> Finding | None:
    """Why it is not further; None when nothing is wrong."""
    if state(situation) in ("succeeded", "stopped"):
        return None
    found = first(_findings(situation))
    return found.under(_line(situation)) if found else None


def _findings(situation: Situation) -> Iterator[Finding | None]:
    yield _invalid(situation)
    yield _suspended(situation)
    yield operator.silence(situation)
    yield from pod.store(situation)
    if state(situation) == "failed":
        yield _failed(situation)
        return
    for one in situation.clusters:
        yield cluster.trouble(one, situation)
    for one in _submitters(situation):
        yield pod.trouble(one, situation)
    yield _unmade(situation)
    if state(situation) != "running":
        yield Finding("it is being set up", _follow(situation), waits=True)


def _line(situation: Situation) -> str:
    status = situation.status
    reason = f" ({status['reason']})" if status.get("reason") else ""
    failed, most = status.get("failed") or 0, situation.subject["spec"].get("backoffLimit") or 0
    tries = (
        f", attempt {failed + 1} of {most + 1}" if failed and state(situation) != "failed" else ""
    )
    if state(situation) == "failed" and most and failed > most:
        tries = f" after {failed} attempts: its retries are used up"
    return f"RayJob {situation.name}: {state(situation)}{reason}{tries}"


def _invalid(situation: Situation) -> Finding | None:
    refused = situation.status.get("jobDeploymentStatus") == "ValidationFailed"
    message = event(situation, situation.name, _INVALID)
    if refused:
        message = one_line(situation.status.get("message") or message or "")
    if not message:
        return None
    return operator.gate(message) or Finding(
        f"KubeRay refuses its specification: {message}",
        "set what the message names, and submit it again",
    )


def _suspended(situation: Situation) -> Finding | None:
    spec, status = situation.subject["spec"], situation.status
    paused = status.get("jobDeploymentStatus") in ("Suspended", "Suspending")
    if not spec.get("suspend") and not paused:
        return None
    queue = labels(situation.subject).get(rayjob.QUEUE)
    if queue:
        return _queued(queue, situation)
    patch = """--type merge -p '{"spec": {"suspend": false}}'"""
    return Finding(
        "it is suspended",
        f"kubectl -n {situation.namespace} patch rayjob {situation.name} {patch}",
    )


def _queued(queue: str, situation: Situation) -> Finding:
    """What Kueue waits for; its own words are in the conditions of a Workload, and in events."""
    line = f"LocalQueue {queue}: has not admitted it"
    shown = f"kubectl -n {situation.namespace} describe localqueue {queue}"
    for workload in situation.workloads:
        reserved = condition(workload, "QuotaReserved")
        if reserved.get("status") == "True":
            return Finding("Kueue has reserved its quota, and starts it", "wait", (line,), True)
        if reserved.get("message"):
            return _unadmitted(one_line(reserved["message"]), queue, situation)
    told = [
        one
        for one in situation.events
        if one["involvedObject"].get("kind") == "Workload" and one.get("reason") == "Pending"
    ]
    if told:
        return _unadmitted(one_line(told[-1]["message"]), queue, situation)
    blind = any(one.startswith("workloads") for one in situation.unseen)
    if situation.workloads or blind:
        return Finding(f"queue {queue} has not admitted it", shown, (line,))
    return Finding(
        f"Kueue has not noticed it: it is not installed, or does not manage RayJobs, or {queue} "
        "does not exist",
        f"kubectl -n {situation.namespace} get localqueue {queue}",
        (line,),
    )


def _unadmitted(message: str, queue: str, situation: Situation) -> Finding:
    line = f"LocalQueue {queue}: {message}"
    absent = "doesn't exist" in message or "not found" in message or "inactive" in message
    if absent:
        return Finding(
            f"queue {queue} is not in order: {message}",
            f"kubectl -n {situation.namespace} get localqueues",
            (line,),
        )
    return Finding(
        f"the quota of its queue does not suffice: {message}",
        "wait for other runs, or set nominalQuota of the ClusterQueue higher",
        (line,),
    )


def _failed(situation: Situation) -> Finding:
    status = situation.status
    message = str(status.get("message") or "")
    below = [pod.trouble(one, situation) for one in situation.pods]
    behind = first(one for one in below if one is None or not one.waits)
    if status.get("reason") == "DeadlineExceeded":
        return behind or _overdue(situation)
    stored = storage.failure(message, situation)
    if stored:
        return stored.under(_exit(message))
    by_itself = status.get("reason") == "AppFailed" and _EXIT.search(message)
    if by_itself or (behind is None and message):
        return _driver(message, situation)
    return behind or Finding(
        one_line(message) or "KubeRay does not say", _logs(situation), (one_line(message),)
    )


def _driver(message: str, situation: Situation) -> Finding:
    """The program ended with a failure; its last line is the one that says why."""
    code, said = _EXIT.search(message), last_line(message)
    own = code is not None and code[1] == "2"
    if "OutOfMemory" in message or "exit code 137" in message:
        return Finding(
            f"it needed more memory than there is: {said}",
            "set tuning.head.memory, or memory of tuning.workers, higher",
            (_exit(message),),
        )
    mend = "mend that in the experiment file, and run it again" if own else _logs(situation)
    return Finding(said or "its driver failed without a word", mend, (_exit(message),))


def _overdue(situation: Situation) -> Finding:
    seconds = situation.subject["spec"].get("activeDeadlineSeconds")
    return Finding(
        f"it was not done after {seconds} s, its deadline",
        "run it again with a higher --deadline, or runs.deadlineSeconds; it goes on where it was",
    )


def _unmade(situation: Situation) -> Finding | None:
    """What the operator could not create for the run, or did not find."""
    absent = event(situation, situation.name, ["RayClusterNotFound"])
    if absent:
        return Finding(
            "the cluster that it should run on does not exist",
            "set tuning.enabled=true, or run it with another --cluster",
            (absent,),
        )
    told = event(situation, situation.name, _UNMADE)
    if not told or (situation.clusters and _submitters(situation)):
        return None
    return cluster.refused(told, situation)


def _submitters(situation: Situation) -> list[Object]:
    return [one for one in situation.pods if labels(one).get("job-name") == situation.name]


def _exit(message: str) -> str:
    code = _EXIT.search(message)
    return f"its driver ended with exit code {code[1]}" if code else one_line(message, 120)


def _logs(situation: Situation) -> str:
    return f"eagleray runs logs {situation.name} --kubernetes --namespace {situation.namespace}"


def _follow(situation: Situation) -> str:
    return f"eagleray runs attach {situation.name} --kubernetes --namespace {situation.namespace}"
