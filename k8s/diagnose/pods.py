"""What keeps a pod from being ready, by what kube-scheduler and kubelet write.

Each function yields what the texts mean, the deepest cause first; `rules.yaml` has the sentences.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from eagleray.findings import Finding, first
from k8s import release as releases
from k8s.api import Object
from k8s.diagnose.objects import (
    condition,
    container_statuses,
    labels,
    last_line,
    name,
    one_line,
    span,
)
from k8s.diagnose.rules import match
from k8s.diagnose.snapshot import UNNAMED, Snapshot

IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
_SHORT = re.compile(r"insufficient ([\w./-]*\w)", re.IGNORECASE)
_TAINT = re.compile(r"(?:untolerated|had) taint \{([^:}]+):? ?([^}]*)\}")
_UNBOUND = re.compile("unbound immediate PersistentVolumeClaims|persistent volumes to bind")
_USUAL = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
_STORAGE = re.compile(r"(\S+): bucket '([^']*)': key '([^']*)': (.+)")
"""As `eagleray.storage.s3.S3Storage` writes it."""
_IDENTITY = "set storage.existingSecret, or serviceAccount.annotations to an identity with rights"
_KEYS = '{"stringData": {"AWS_ACCESS_KEY_ID": "…", "AWS_SECRET_ACCESS_KEY": "…"}}'


class Values:
    """The values of the chart that a pod was made from, by what they are about: `memory`."""

    def __init__(self, pod: Object) -> None:
        self._labels = labels(pod)

    def __getitem__(self, key: str) -> str:
        group = self._labels.get("ray.io/group", "")
        return releases.value(self._labels, key, group) or f"{key} of its pod template"


def ready(pod: Object) -> bool:
    """Whether a pod is ready, or has done its work."""
    phase = (pod.get("status") or {}).get("phase")
    return phase == "Succeeded" or condition(pod, "Ready").get("status") == "True"


def trouble(pod: Object, snapshot: Snapshot) -> Finding | None:
    """Why a pod is not ready; None when it is."""
    return None if ready(pod) else first(_findings(pod, snapshot))


def storage(text: str, snapshot: Snapshot) -> Finding | None:
    """What the last complaint about storage in a log means: it names endpoint, bucket and key."""
    found = [one for one in map(_STORAGE.search, text.splitlines()) if one]
    if not found:
        return None
    endpoint, bucket, _, what = found[-1].groups()
    secret, line = _secret(snapshot), one_line(found[-1][0])
    patch = f"kubectl -n {snapshot.namespace} patch secret {secret} -p '{_KEYS}'"
    fields = {"endpoint": endpoint, "bucket": bucket, "keys": patch if secret else _IDENTITY}
    return match("storage", what, line, line=line, **fields)


def _findings(pod: Object, snapshot: Snapshot) -> Iterator[Finding | None]:
    status, called = pod.get("status") or {}, name(pod)
    fields = {"ns": snapshot.namespace, "pod": called, "values": Values(pod)}

    def say(topic: str, text: str, line: str, **further: Any) -> Finding | None:
        return match(topic, text, f"Pod {called}: {line}", **fields, **further)

    placed, target = condition(pod, "PodScheduled"), condition(pod, "DisruptionTarget")
    if placed.get("status") != "True" and not pod.get("spec", {}).get("nodeName"):
        message = placed.get("message") or snapshot.event(called, "FailedScheduling")
        gates = ", ".join(one["name"] for one in pod.get("spec", {}).get("schedulingGates", []))
        if placed.get("reason") == "SchedulingGated":
            yield say("pod", f"gates: {gates or 'a gate'}", f"held by the gates {gates}")
        elif message:
            yield _unscheduled(pod, snapshot, message)
    if reason := target.get("reason") or status.get("reason"):
        said = one_line(status.get("message") or target.get("message", "")) or reason
        yield say("pod", f"ended: {reason}: {said}", f"ended: {reason}")
    for one in container_statuses(pod):
        yield _waits(pod, one, snapshot)
        yield _ended(pod, one, snapshot)
    for reason in ("FailedCreatePodSandBox", "FailedMount", "FailedAttachVolume"):
        if text := snapshot.event(called, reason):
            yield say("absent", _marked(text, snapshot), text)
            yield say("pod", f"{reason}: {text}", text)
    age, phase = snapshot.age_s(pod["metadata"].get("creationTimestamp")), status.get("phase")
    probe = snapshot.event(called, "Unhealthy") if phase == "Running" else None
    if probe:
        young = "young: " if 0 < age < 120 else ""
        yield say("pod", f"{young}Unhealthy: {probe}", "runs, but is not ready", said=probe)
    pulled = snapshot.event(called, "Pulled", "Created", "Started")
    pulling = "pulling" if snapshot.event(called, "Pulling") and not pulled else "starting"
    yield say("pod", pulling, f"{phase or 'Pending'} for {span(age)}")


def _waits(pod: Object, status: Object, snapshot: Snapshot) -> Finding | None:
    """What a container that has not started waits for, where kubelet says so."""
    waits, called, image = (
        status.get("state", {}).get("waiting") or {},
        name(pod),
        status.get("image"),
    )
    reason, said = waits.get("reason", ""), one_line(waits.get("message", ""))
    fields = {"ns": snapshot.namespace, "pod": called, "image": image}
    if reason in IMAGE:
        said = snapshot.event(called, "Failed", words="ailed to pull image") or said
        absent = snapshot.event(called, "FailedToRetrieveImagePullSecret")
        text = f"pull secret: {absent}" if absent else f"{reason}: {said}"
        fields |= {"said": said, "last": said.rpartition(": ")[2], "secret": "of image.pullSecrets"}
        return match("image", text, f"Pod {called}: {reason}: {image}", **fields)
    line = f"Pod {called}: {reason}: {said}"
    refers = reason == "CreateContainerConfigError"
    found = match("absent", _marked(said, snapshot), line, **fields) if refers else None
    return found or match("container", f"{reason}: {said}", line, **fields)


def _ended(pod: Object, status: Object, snapshot: Snapshot) -> Finding | None:
    """Why a container ended with a failure, once or several times."""
    now, before = (status.get(key, {}).get("terminated") for key in ("state", "lastState"))
    over, called, container = now or before, name(pod), status["name"]
    if not over or over.get("exitCode") == 0:
        return None
    times, log = status.get("restartCount", 0), snapshot.logs.get(called, "")
    often = f", {times} times" if times > 1 else ""
    line = f"Pod {called}: {container} ended with exit code {over['exitCode']}{often}"
    killed = over.get("reason") == "OOMKilled"
    if stored := None if killed else storage(log, snapshot):
        return stored.under(line)
    limits = [one["limits"].get("memory") for one in _resources(pod, container) if "limits" in one]
    said = last_line(log) or one_line(over.get("message", "")) or over.get("reason", "")
    for words in ("tartup probe failed", "iveness probe failed"):
        probe = snapshot.event(called, "Unhealthy", words=words)
        if probe and over["exitCode"] in (137, 143):
            said = f"kubelet ended it: {probe}"
    return match(
        "container",
        f"exit code {over['exitCode']}: {over.get('reason')}",
        f"{line}: OOMKilled" if killed else line,
        ns=snapshot.namespace,
        pod=called,
        container=container,
        said=said,
        values=Values(pod),
        limit=f" of {limits[0]}" if limits and limits[0] else "",
        previous="" if now else "--previous ",
    )


def _unscheduled(pod: Object, snapshot: Snapshot, message: str) -> Finding | None:
    """What keeps a pod off every node, and the value that would let it in.

    What follows `preemption:` repeats the message and is left out.
    """
    text = one_line(re.split(r"\.? (?:preemption|no new claims to deallocate)[:,]", message)[0])
    line, values = f"Pod {name(pod)}: cannot be scheduled: {text}", Values(pod)
    fields = {"ns": snapshot.namespace, "pod": name(pod), "values": values}
    if snapshot.event(name(pod), "TriggeredScaleUp", "Nominated"):
        return match("coming", text, line, **fields)
    facts = _scheduling(pod, snapshot, text)
    found = (match(topic, fact, line, **fields, **further) for topic, fact, further in facts)
    cause = next(filter(None, found))
    full = snapshot.event(name(pod), "NotTriggerScaleUp")
    grows = f"; the autoscaler of nodes adds none ({full.partition(': ')[2]})" if full else ""
    return replace(cause, message=cause.message + grows)


def _scheduling(
    pod: Object, snapshot: Snapshot, text: str
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Topic, text and fields of what a scheduler's message says, the most telling first.

    Since Kubernetes 1.35, and in late patches of 1.34, it does not name taints any more; then the
    nodes do, where we may read them.
    """
    yield "volume", text, {}
    if _UNBOUND.search(text):
        yield "claim", _claim(pod, snapshot), {"release": labels(pod).get(releases.INSTANCE)}
    short = sorted(set(_SHORT.findall(text)), key=lambda one: ("/" not in one, one))
    taints = [taint for taint in _TAINT.findall(text) if taint[0] not in _USUAL]
    if UNNAMED in text:
        taints = [*_taints(pod, snapshot, short[0] if short else None)]
    if taints and (not short or "/" in short[0]):
        key, content = taints[0]
        taint = f"{key}={content}" if content else key
        fact = f"{labels(pod).get('eagleray/role')} {taint}"
        yield "taint", fact, {"key": key, "taint": taint}
    if short:
        untainted = " without a taint" if UNNAMED in text else ""
        asked = [one.get("requests", {}).get(short[0]) for one in _resources(pod)]
        amount = " + ".join(str(one) for one in asked if one is not None)
        value = Values(pod)[short[0]]
        yield "short", f"{amount} {short[0]}".strip(), {"untainted": untainted, "value": value}
    affinity = pod.get("spec", {}).get("affinity", {}).get("nodeAffinity", {})
    off = "requiredDuringSchedulingIgnoredDuringExecution" in affinity
    yield "placement", text, {"off_spot": ", or add a node that is not spot" if off else ""}


def _claim(pod: Object, snapshot: Snapshot) -> str:
    """A claim without a volume, by what its provisioner says; a claim never changes its class."""
    sources = [
        one.get("persistentVolumeClaim") or {} for one in pod.get("spec", {}).get("volumes") or []
    ]
    owner = "store" if labels(pod).get(releases.COMPONENT) == "store" else "head"
    for claim in (str(one["claimName"]) for one in sources if "claimName" in one):
        if said := snapshot.event(claim, "ProvisioningFailed", "FailedBinding"):
            return f"{owner} {claim}: {said}"
    return owner


def _resources(pod: Object, container: str | None = None) -> list[Object]:
    """The resources of a pod's containers, or of one of them."""
    containers = pod.get("spec", {}).get("containers", [])
    return [one.get("resources") or {} for one in containers if container in (None, one["name"])]


def _taints(pod: Object, snapshot: Snapshot, resource: str | None) -> Iterator[tuple[str, str]]:
    """Taints that keep a pod off nodes which have a resource, by what the nodes say themselves."""
    tolerated = pod.get("spec", {}).get("tolerations") or []
    for node in snapshot.get("nodes"):
        has = (node.get("status", {}).get("allocatable") or {}).get(resource, "0")
        if resource is not None and str(has) == "0":
            continue
        for taint in node.get("spec", {}).get("taints") or []:
            hard = taint.get("effect") != "PreferNoSchedule" and taint["key"] not in _USUAL
            if hard and not any(_tolerates(one, taint) for one in tolerated):
                yield taint["key"], taint.get("value", "")


def _tolerates(toleration: Object, taint: Object) -> bool:
    """By the rules of the API's field `tolerations`: what is left out matches all."""
    if toleration.get("effect") not in (None, "", taint.get("effect")):
        return False
    exists = toleration.get("operator") == "Exists"
    if not toleration.get("key"):
        return exists
    same = toleration["key"] == taint["key"]
    return same and (exists or toleration.get("value", "") == taint.get("value", ""))


def _marked(text: str, snapshot: Snapshot) -> str:
    """A text with a mark when it misses the Secret with the keys of S3."""
    return f"S3 {text}" if f'secret "{_secret(snapshot)}" not found' in text else text


def _secret(snapshot: Snapshot) -> str | None:
    """The Secret that pods have their S3 keys from; None when they have an identity."""
    spec = snapshot.subject.get("spec", {})
    cluster = spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or {}
    templates = [cluster.get("headGroupSpec", {}).get("template", {}), *snapshot.get("pods")]
    for variable in releases.variables([one.get("spec", {}) for one in templates]):
        reference = (variable.get("valueFrom") or {}).get("secretKeyRef")
        if variable.get("name") == "AWS_ACCESS_KEY_ID" and reference:
            return str(reference["name"])
    return None
