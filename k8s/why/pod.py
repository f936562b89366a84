"""What keeps a pod from being ready: its conditions, its containers' states, kubelet's events."""

from __future__ import annotations

import re
from collections.abc import Iterator

from k8s.api import Object
from k8s.situation import Situation
from k8s.why import image, scheduling, storage
from k8s.why.finding import (
    Finding,
    age_s,
    condition,
    event,
    first,
    last_line,
    name,
    one_line,
    span,
)

_ABSENT = re.compile(r'(secret|configmap) "([^"]+)" not found', re.IGNORECASE)
_KEY = re.compile(r"couldn't find key (\S+) in (Secret|ConfigMap) \S+?/(\S+)")
_MOUNT = re.compile(r'MountVolume\.SetUp failed for volume "([^"]+)"\s*: (.+)')


def ready(pod: Object) -> bool:
    """Whether a pod is ready, or has done its work."""
    phase = (pod.get("status") or {}).get("phase")
    return phase == "Succeeded" or condition(pod, "Ready").get("status") == "True"


def store(situation: Situation) -> Iterator[Finding | None]:
    """Why the release's own object store is not ready: runs and replicas wait for it."""
    for one in situation.store:
        yield trouble(one, situation)


def trouble(pod: Object, situation: Situation) -> Finding | None:
    """Why a pod is not ready; None when it is."""
    if ready(pod):
        return None
    return first(_troubles(pod, situation))


def _troubles(pod: Object, situation: Situation) -> Iterator[Finding | None]:
    yield _unscheduled(pod, situation)
    yield _lost(pod)
    for status in _containers(pod):
        yield _waiting(pod, status, situation)
        yield _ended(pod, status, situation)
    yield _unmounted(pod, situation)
    yield _probed(pod, situation)
    yield _starting(pod, situation)


def _unscheduled(pod: Object, situation: Situation) -> Finding | None:
    placed = condition(pod, "PodScheduled")
    if placed.get("status") == "True" or pod.get("spec", {}).get("nodeName"):
        return None
    if placed.get("reason") == "SchedulingGated":
        gates = [one["name"] for one in pod["spec"].get("schedulingGates", [])]
        line = f"Pod {name(pod)}: held by the gates {', '.join(gates)}"
        return Finding(
            f"{gates[0] if gates else 'a gate'} has not let it go",
            f"see who sets the gate, such as Kueue: kubectl -n {situation.namespace} get workloads",
            (line,),
        )
    message = placed.get("message") or event(situation, name(pod), ["FailedScheduling"])
    return scheduling.finding(pod, situation, message) if message else None


def _lost(pod: Object) -> Finding | None:
    """A pod that was ended from outside, or whose node went away."""
    status = pod.get("status") or {}
    ended = condition(pod, "DisruptionTarget")
    reason = ended.get("reason") or status.get("reason")
    if not reason:
        return None
    message = one_line(status.get("message") or ended.get("message", ""))
    mends = {
        "Evicted": f"set {scheduling.value(pod, 'memory')} to what it needs",
        "TerminationByKubelet": f"set {scheduling.value(pod, 'memory')} to what it needs",
        "PreemptionByScheduler": f"set {scheduling.value(pod, 'priorityClassName')} higher",
    }
    line = f"Pod {name(pod)}: ended: {reason}"
    mend = mends.get(reason, "wait for its successor; kubectl get nodes")
    return Finding(f"it was ended from outside: {message or reason}", mend, (line,))


def _waiting(pod: Object, status: Object, situation: Situation) -> Finding | None:
    """What a container that has not started waits for, where kubelet says so."""
    waiting = status.get("state", {}).get("waiting") or {}
    reason, message = waiting.get("reason", ""), one_line(waiting.get("message", ""))
    line = f"Pod {name(pod)}: {reason}: {message}"
    if reason in image.REASONS:
        return image.finding(pod, status, situation)
    if reason == "CreateContainerConfigError":
        return _misconfigured(message, situation, line)
    if reason in ("CreateContainerError", "RunContainerError", "StartError"):
        described = f"kubectl -n {situation.namespace} describe pod {name(pod)}"
        return Finding(
            f"its container cannot be started: {message}",
            described,
            (f"Pod {name(pod)}: {reason}",),
        )
    return None


def _misconfigured(message: str, situation: Situation, line: str) -> Finding:
    key, absent = _KEY.search(message), _ABSENT.search(message)
    if key:
        return Finding(
            f"{key[2]} {key[3]} has no key {key[1]}", _edit(key[2], key[3], situation), (line,)
        )
    if absent:
        return _absent(absent[1], absent[2], situation, line)
    if "runAsNonRoot" in message:
        return Finding(
            "its image runs as root, which is not allowed",
            "set image.repository to an image built from EagleRay's Dockerfile",
            (line,),
        )
    return Finding(message, "kubectl describe pod shows what it refers to", (line,))


def _absent(kind: str, called: str, situation: Situation, line: str) -> Finding:
    """An object that a pod refers to, and that is not there."""
    proper = {"secret": "Secret", "configmap": "ConfigMap"}[kind.lower()]
    create = f"kubectl -n {situation.namespace} create {proper.lower()}"
    keys = ""
    if called == storage.secret(situation):
        keys = " --from-literal=AWS_ACCESS_KEY_ID=… --from-literal=AWS_SECRET_ACCESS_KEY=…"
    made = f"{create} generic {called}" if proper == "Secret" else f"{create} {called}"
    return Finding(f"{proper} {called} does not exist", made + keys, (line,))


def _ended(pod: Object, status: Object, situation: Situation) -> Finding | None:
    """A container that ended with a failure, once or again and again."""
    now, before = (status.get(key, {}).get("terminated") for key in ("state", "lastState"))
    waiting = status.get("state", {}).get("waiting") or {}
    over = now or (before if waiting.get("reason") == "CrashLoopBackOff" or before else None)
    if not over or over.get("exitCode") == 0:
        return None
    log = situation.logs.get(name(pod), "")
    times = status.get("restartCount", 0)
    often = f", {times} times" if times > 1 else ""
    line = f"Pod {name(pod)}: {status['name']} ended with exit code {over['exitCode']}{often}"
    if over.get("reason") == "OOMKilled":
        return _out_of_memory(pod, status, line)
    stored = storage.failure(log, situation)
    if stored:
        return stored.under(line)
    killed = event(situation, name(pod), ["Unhealthy"], "iveness probe failed") or event(
        situation, name(pod), ["Unhealthy"], "tartup probe failed"
    )
    said = last_line(log) or one_line(over.get("message", "")) or over.get("reason", "")
    if killed and over["exitCode"] in (137, 143):
        said = f"kubelet ended it: {killed}"
    shown = "--previous " if not now else ""
    return Finding(
        f"{status['name']} ended with exit code {over['exitCode']}: {said}",
        f"kubectl -n {situation.namespace} logs {shown}{name(pod)} -c {status['name']}",
        (line,),
    )


def _out_of_memory(pod: Object, status: Object, line: str) -> Finding:
    spec = pod.get("spec", {}).get("containers", [])
    mine: Object = next((one for one in spec if one["name"] == status["name"]), {})
    limit = (mine.get("resources", {}).get("limits") or {}).get("memory")
    return Finding(
        f"{status['name']} needed more memory than its limit{f' of {limit}' if limit else ''}",
        f"set {scheduling.value(pod, 'memory')} higher",
        (f"{line}: OOMKilled",),
    )


def _unmounted(pod: Object, situation: Situation) -> Finding | None:
    told = event(situation, name(pod), ["FailedMount", "FailedAttachVolume"])
    network = event(situation, name(pod), ["FailedCreatePodSandBox"])
    if network:
        line = f"Pod {name(pod)}: {network}"
        return Finding("the node cannot set up its network", "kubectl describe nodes", (line,))
    if not told:
        return None
    absent, mount = _ABSENT.search(told), _MOUNT.search(told)
    line = f"Pod {name(pod)}: {told}"
    if absent:
        return _absent(absent[1], absent[2], situation, line)
    what = f"volume {mount[1]} cannot be mounted: {mount[2]}" if mount else told
    described = f"kubectl -n {situation.namespace} describe pod {name(pod)}"
    return Finding(what, described, (line,))


def _probed(pod: Object, situation: Situation) -> Finding | None:
    """A pod that runs, but whose probes are not answered."""
    told = event(situation, name(pod), ["Unhealthy"])
    running = (pod.get("status") or {}).get("phase") == "Running"
    if not told or not running:
        return None
    line = f"Pod {name(pod)}: runs, but is not ready"
    young = "tartup probe" in told and age_s(situation, pod["metadata"].get("creationTimestamp"))
    if young and young < 120:
        return Finding("Ray is starting in it", "wait", (line,), waits=True)
    return Finding(
        f"its probe is not answered: {told}",
        f"kubectl -n {situation.namespace} logs {name(pod)}",
        (line,),
        waits="eadiness" in told,  # a worker without replicas is not ready, by Serve's own answer
    )


def _starting(pod: Object, situation: Situation) -> Finding:
    age = span(age_s(situation, pod["metadata"].get("creationTimestamp")))
    pulling = event(situation, name(pod), ["Pulling"])
    pulled = event(situation, name(pod), ["Pulled", "Created", "Started"])
    doing = "its image is being pulled" if pulling and not pulled else "it is starting"
    line = f"Pod {name(pod)}: {(pod.get('status') or {}).get('phase', 'Pending')} for {age}"
    watch = f"wait; kubectl -n {situation.namespace} describe pod {name(pod)}"
    return Finding(doing, watch, (line,), waits=True)


def _containers(pod: Object) -> list[Object]:
    status = pod.get("status") or {}
    both = (status.get(key) or [] for key in ("initContainerStatuses", "containerStatuses"))
    return [one for some in both for one in some]


def _edit(kind: str, called: str, situation: Situation) -> str:
    return f"kubectl -n {situation.namespace} edit {kind.lower()} {called}"
