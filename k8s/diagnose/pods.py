"""What keeps a pod from being ready, by what kube-scheduler and kubelet write.

Each function yields what the texts mean, the deepest cause first; `rules.yaml` has the sentences.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from eagleray.findings import Finding, first
from k8s import release as releases
from k8s.api import Object
from k8s.diagnose.objects import at, condition, container_statuses, created, labels, name, ready
from k8s.diagnose.rules import match
from k8s.diagnose.snapshot import UNNAMED, Snapshot
from k8s.diagnose.texts import last_line, one_line, span

Findings = Iterator[Finding | None]

_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
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


def trouble(pod: Object, snapshot: Snapshot) -> Finding | None:
    """Why a pod is not ready; None when it is."""
    return None if ready(pod) else first(_findings(pod, snapshot))


def storage(text: str, snapshot: Snapshot) -> Finding | None:
    """What the last complaint about storage in a log means: it names endpoint, bucket and key."""
    found = [*_STORAGE.finditer(text)]
    if not found:
        return None
    endpoint, bucket, _, what = found[-1].groups()
    secret, line = _secret(snapshot), one_line(found[-1][0])
    patch = f"kubectl -n {snapshot.namespace} patch secret {secret} -p '{_KEYS}'"
    fields = {"endpoint": endpoint, "bucket": bucket, "keys": patch if secret else _IDENTITY}
    return match("storage", what, line, line=line, **fields)


def _say(
    pod: Object, snapshot: Snapshot, topic: str, text: str, line: str, **fields: Any
) -> Finding | None:
    known = {"ns": snapshot.namespace, "pod": name(pod), "values": Values(pod), **fields}
    return match(topic, text, f"Pod {name(pod)}: {line}", **known)


def _findings(pod: Object, snapshot: Snapshot) -> Findings:
    status, spec, event = at(pod, "status"), at(pod, "spec"), partial(snapshot.event, name(pod))
    say = partial(_say, pod, snapshot)
    if condition(pod, "PodScheduled").get("status") != "True" and not spec.get("nodeName"):
        yield from _unscheduled(pod, snapshot)
    target = condition(pod, "DisruptionTarget")
    if reason := target.get("reason") or status.get("reason"):
        said = one_line(status.get("message") or target.get("message") or reason)
        yield say("pod", f"ended: {reason}: {said}", f"ended: {reason}")
    for one in container_statuses(pod):
        yield from _waits(pod, one, snapshot)
        yield _ended(pod, one, snapshot)
    for reason in ("FailedCreatePodSandBox", "FailedMount", "FailedAttachVolume"):
        if text := event(reason):
            yield say("absent", _marked(text, snapshot), text)
            yield say("pod", f"{reason}: {text}", text)
    age, phase = snapshot.age_s(created(pod)), status.get("phase") or "Pending"
    if phase == "Running" and (probe := event("Unhealthy")):
        young = "young: " if 0 < age < 120 else ""
        yield say("pod", f"{young}Unhealthy: {probe}", "runs, but is not ready", said=probe)
    pulling = event("Pulling") and not event("Pulled", "Created", "Started")
    yield say("pod", "pulling" if pulling else "starting", f"{phase} for {span(age)}")


def _waits(pod: Object, status: Object, snapshot: Snapshot) -> Findings:
    """What a container that has not started waits for, where kubelet says so."""
    waits, image = at(status, "state", "waiting"), status.get("image")
    reason, said = waits.get("reason", ""), one_line(waits.get("message", ""))
    event, say = partial(snapshot.event, name(pod)), partial(_say, pod, snapshot)
    if reason in _IMAGE:
        said = event("Failed", words="ailed to pull image") or said
        absent = event("FailedToRetrieveImagePullSecret")
        text = f"pull secret: {absent}" if absent else f"{reason}: {said}"
        fields = {"said": said, "last": said.rpartition(": ")[2], "secret": "of image.pullSecrets"}
        yield say("image", text, f"{reason}: {image}", image=image, **fields)
    if reason == "CreateContainerConfigError":
        yield say("absent", _marked(said, snapshot), f"{reason}: {said}")
    yield say("container", f"{reason}: {said}", f"{reason}: {said}")


def _ended(pod: Object, status: Object, snapshot: Snapshot) -> Finding | None:
    """Why a container ended with a failure, once or several times."""
    now, before = (at(status, key, "terminated") for key in ("state", "lastState"))
    over, called, container = now or before, name(pod), status["name"]
    if not over or over.get("exitCode") == 0:
        return None
    times, log, why = (
        status.get("restartCount", 0),
        snapshot.logs.get(called, ""),
        over.get("reason"),
    )
    often = f", {times} times" if times > 1 else ""
    line = f"{container} ended with exit code {over['exitCode']}{often}"
    if why == "OOMKilled":
        line = f"{line}: {why}"
    elif stored := storage(log, snapshot):
        return stored.under(f"Pod {called}: {line}")
    limit = next((at(one, "limits").get("memory") for one in _resources(pod, container)), None)
    said = last_line(log) or one_line(over.get("message") or why or "")
    probe = snapshot.event(called, "Unhealthy", words="tartup probe failed")
    probe = snapshot.event(called, "Unhealthy", words="iveness probe failed") or probe
    if probe and over["exitCode"] in (137, 143):
        said = f"kubelet ended it: {probe}"
    fields = {"container": container, "said": said, "limit": f" of {limit}" if limit else ""}
    previous = "" if now else "--previous "
    text = f"exit code {over['exitCode']}: {why}"
    return _say(pod, snapshot, "container", text, line, previous=previous, **fields)


def _unscheduled(pod: Object, snapshot: Snapshot) -> Findings:
    """What keeps a pod off every node, and the value that would let it in."""
    placed, event = condition(pod, "PodScheduled"), partial(snapshot.event, name(pod))
    if placed.get("reason") == "SchedulingGated":
        gates = ", ".join(one["name"] for one in at(pod, "spec", "schedulingGates"))
        yield _say(
            pod, snapshot, "pod", f"gates: {gates or 'a gate'}", f"held by the gates {gates}"
        )
        return
    message = placed.get("message") or event("FailedScheduling") or ""
    # what follows `preemption:` repeats the message
    text = one_line(re.split(r"\.? (?:preemption|no new claims to deallocate)[:,]", message)[0])
    full = event("NotTriggerScaleUp")
    grows = f"; the autoscaler of nodes adds none ({full.partition(': ')[2]})" if full else ""
    say = partial(_say, pod, snapshot, line=f"cannot be scheduled: {text}")
    if event("TriggeredScaleUp", "Nominated"):
        yield say("coming", text)
    elif text:
        facts = _scheduling(pod, snapshot, text)
        cause = first(say(topic, fact, **fields) for topic, fact, fields in facts)
        yield cause and replace(cause, message=cause.message + grows)


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
        requests = (at(one, "requests").get(short[0]) for one in _resources(pod))
        amount = " + ".join(str(one) for one in requests if one is not None)
        untainted = " without a taint" if UNNAMED in text else ""
        fields = {"untainted": untainted, "value": Values(pod)[short[0]]}
        yield "short", f"{amount} {short[0]}".strip(), fields
    affinity = at(pod, "spec", "affinity", "nodeAffinity")
    off = "requiredDuringSchedulingIgnoredDuringExecution" in affinity
    yield "placement", text, {"off_spot": ", or add a node that is not spot" if off else ""}


def _claim(pod: Object, snapshot: Snapshot) -> str:
    """A claim without a volume, by what its provisioner says; a claim never changes its class."""
    owner = "store" if labels(pod).get(releases.COMPONENT) == "store" else "head"
    for one in at(pod, "spec", "volumes"):
        claim = at(one, "persistentVolumeClaim").get("claimName")
        if said := snapshot.event(claim, "ProvisioningFailed", "FailedBinding") if claim else None:
            return f"{owner} {claim}: {said}"
    return owner


def _resources(pod: Object, container: str | None = None) -> list[Object]:
    """The resources of a pod's containers, or of one of them."""
    containers = at(pod, "spec", "containers")
    return [at(one, "resources") for one in containers if container in (None, one["name"])]


def _taints(pod: Object, snapshot: Snapshot, resource: str | None) -> Iterator[tuple[str, str]]:
    """Taints that keep a pod off nodes which have a resource, by what the nodes say themselves."""
    for node in snapshot.get("nodes"):
        if resource and str(at(node, "status", "allocatable").get(resource, "0")) == "0":
            continue
        for taint in at(node, "spec", "taints"):
            hard = taint.get("effect") != "PreferNoSchedule" and taint["key"] not in _USUAL
            if hard and not any(_tolerates(one, taint) for one in at(pod, "spec", "tolerations")):
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
    for variable in releases.variables([snapshot.subject, *snapshot.get("pods")]):
        reference = at(variable, "valueFrom", "secretKeyRef")
        if variable.get("name") == "AWS_ACCESS_KEY_ID" and reference:
            return str(reference["name"])
    return None
