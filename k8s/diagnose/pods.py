"""What keeps a pod from being ready, by what kube-scheduler and kubelet write."""

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from eagleray.findings import Finding, first
from eagleray.messages import span
from k8s import release as releases
from k8s.api import Object
from k8s.diagnose.rules import Findings, last_line, one_line
from k8s.diagnose.snapshot import UNNAMED, Snapshot
from k8s.objects import at, condition, container_statuses, created, labels, name, ready

_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
_SHORT = re.compile(r"insufficient ([\w./-]*\w)", re.IGNORECASE)
_TAINT = re.compile(r"(?:untolerated|had) taint \{([^:}]+):? ?([^}]*)\}")
_UNBOUND = re.compile("unbound immediate PersistentVolumeClaims|persistent volumes to bind")
_SECRET = re.compile(r'secret "([^"]+)" not found')
_REPEATED = re.compile(r"\.? (?:preemption|no new claims to deallocate)[:,]")
"""Where a scheduler's message begins to repeat itself."""
_USUAL = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
_STORAGE = re.compile(r"(\S+): bucket '([^']*)': key '([^']*)': (.+)")
"""The messages of `eagleray.storage.s3`: endpoint, bucket, key, failure."""
_IDENTITY = "set storage.existingSecret, or serviceAccount.annotations to an identity with rights"
_KEYS = '{"stringData": {"AWS_ACCESS_KEY_ID": "…", "AWS_SECRET_ACCESS_KEY": "…"}}'


def trouble(pod: Object, snapshot: Snapshot) -> Finding | None:
    """Why a pod is not ready; None when it is."""
    return None if ready(pod) else first(_Pod(pod, snapshot).findings())


def storage(text: str, snapshot: Snapshot) -> Finding | None:
    """The finding for the last error of storage in a log, if there is one."""
    found = [*_STORAGE.finditer(text)]
    if not found:
        return None
    endpoint, bucket, _, what = found[-1].groups()
    keys, line = _IDENTITY, one_line(found[-1][0])
    for one in releases.variables([snapshot.subject, *snapshot.get("pods")]):
        secret = at(one, "valueFrom", "secretKeyRef").get("name")
        if secret and one.get("name") == "AWS_ACCESS_KEY_ID":
            keys = f"kubectl -n {snapshot.namespace} patch secret {secret} -p '{_KEYS}'"
    fields = {"line": line, "endpoint": endpoint, "bucket": bucket, "keys": keys}
    return snapshot.say("storage", what, line, **fields)


def literals(spec: Object, secret: str) -> str:
    """Options of `kubectl create secret`: the keys of a Secret that variables of pods ask for."""
    references = (at(one, "valueFrom", "secretKeyRef") for one in releases.variables(spec))
    keys = dict.fromkeys(one["key"] for one in references if one.get("name") == secret)
    return "".join(f" --from-literal={key}=…" for key in keys)


class _Pod:
    """A pod of a snapshot; `values[KEY]` is the key of the chart's value that set its KEY."""

    def __init__(self, pod: Object, snapshot: Snapshot) -> None:
        self.pod, self.snapshot, self.name = pod, snapshot, name(pod)
        self.event = partial(snapshot.event, self.name)

    def __getitem__(self, key: str) -> str:
        return releases.value(self.pod, key, labels(self.pod).get("ray.io/group", ""))

    def say(self, topic: str, text: str, line: str, **fields: Any) -> Finding | None:
        known = {"pod": self.name, "values": self, **fields}
        return self.snapshot.say(topic, text, f"Pod {self.name}: {line}", **known)

    def findings(self) -> Findings:
        status, target = at(self.pod, "status"), condition(self.pod, "DisruptionTarget")
        if condition(self.pod, "PodScheduled").get("status") != "True":
            yield self.unscheduled()
        if reason := target.get("reason") or status.get("reason"):
            message = one_line(status.get("message") or target.get("message") or reason)
            yield self.say("pod", f"ended: {reason}: {message}", f"ended: {reason}")
        for one in container_statuses(self.pod):
            yield from self.waiting(one)
            yield self.ended(one)
        for reason in ("FailedCreatePodSandBox", "FailedMount", "FailedAttachVolume"):
            if text := self.event(reason):
                yield self.absent(text, text)
                yield self.say("pod", f"{reason}: {text}", text)
        age, phase = self.snapshot.age_s(created(self.pod)), status.get("phase") or "Pending"
        if phase == "Running" and (probe := self.event("Unhealthy")):
            young = "young: " if 0 < age < 120 else ""
            line = "runs, but is not ready"
            yield self.say("pod", f"{young}Unhealthy: {probe}", line, message=probe)
        pulling = self.event("Pulling") and not self.event("Pulled", "Created", "Started")
        yield self.say("pod", "pulling" if pulling else "starting", f"{phase} for {span(age)}")

    def waiting(self, status: Object) -> Findings:
        waits, image = at(status, "state", "waiting"), str(status.get("image"))
        reason, message = waits.get("reason", ""), one_line(waits.get("message", ""))
        if reason in _IMAGE:
            message = self.event("Failed", words="ailed to pull image") or message
            absent = self.event("FailedToRetrieveImagePullSecret")
            text = f"pull secret: {absent}" if absent else f"{reason}: {message}"
            known = {"message": message, "last": message.rpartition(": ")[2], "image": image}
            line, secret = f"{reason}: {image}", "of image.pullSecrets"
            yield self.say("image", text, line, secret=secret, **known)
        elif reason == "CreateContainerConfigError":
            yield self.absent(message, f"{reason}: {message}")
        yield self.say("container", f"{reason}: {message}", f"{reason}: {message}")

    def absent(self, text: str, line: str) -> Finding | None:
        """A missing Secret or ConfigMap."""
        secret = _SECRET.search(text)
        return self.say("absent", text, line, keys=literals(self.pod, secret[1]) if secret else "")

    def ended(self, status: Object) -> Finding | None:
        now, before = (at(status, key, "terminated") for key in ("state", "lastState"))
        over, container, times = now or before, status["name"], status.get("restartCount", 0)
        code, reason = over.get("exitCode"), over.get("reason")
        if not code:
            return None
        line = f"{container} ended with exit code {code}{f', {times} times' if times > 1 else ''}"
        log = self.snapshot.logs.get(self.name, "")
        if reason != "OOMKilled" and (stored := storage(log, self.snapshot)):
            return stored.under(f"Pod {self.name}: {line}")
        message = last_line(log) or one_line(over.get("message") or reason or "")
        for words in ("tartup probe failed", "iveness probe failed"):
            if code in (137, 143) and (probe := self.event("Unhealthy", words=words)):
                message = f"kubelet ended it: {probe}"
        limit = [at(one, "limits").get("memory") for one in self.resources(container)][:1]
        fields = {"container": container, "message": message}
        fields["previous"] = "" if now else "--previous "
        fields["limit"] = f" of {limit[0]}" if any(limit) else ""
        return self.say("container", f"exit code {code}: {reason}", line, **fields)

    def unscheduled(self) -> Finding | None:
        placed = condition(self.pod, "PodScheduled")
        if placed.get("reason") == "SchedulingGated":
            gates = ", ".join(one["name"] for one in at(self.pod, "spec", "schedulingGates"))
            return self.say("pod", f"gates: {gates or 'a gate'}", f"held by the gates {gates}")
        message = placed.get("message") or self.event("FailedScheduling") or ""
        text = one_line(_REPEATED.split(message)[0])
        say = partial(self.say, line=f"cannot be scheduled: {text}")
        if not text or self.event("TriggeredScaleUp", "Nominated"):
            return say("coming", text) if text else None
        cause = first(say(topic, fact, **fields) for topic, fact, fields in self.scheduling(text))
        full = self.event("NotTriggerScaleUp")
        grows = f"; the autoscaler of nodes adds none ({full.partition(': ')[2]})" if full else ""
        return cause and replace(cause, message=cause.message + grows)

    def scheduling(self, text: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Topic, text and fields of each cause in a scheduler's message, the most telling first."""
        known, unnamed = labels(self.pod), UNNAMED in text
        yield "volume", text, {}
        if _UNBOUND.search(text):
            yield "claim", self.claim(), {"release": known.get(releases.INSTANCE)}
        short = sorted(set(_SHORT.findall(text)), key=lambda one: ("/" not in one, one))
        taints = [taint for taint in _TAINT.findall(text) if taint[0] not in _USUAL]
        if unnamed:  # then the nodes name the taints, where we may read them
            taints = [*self.taints(short[0] if short else None)]
        if taints and (not short or "/" in short[0]):
            key, content = taints[0]
            taint = f"{key}={content}" if content else key
            yield "taint", f"{known.get('eagleray/role')} {taint}", {"key": key, "taint": taint}
        if short:
            requests = (at(one, "requests").get(short[0]) for one in self.resources())
            amount = " + ".join(str(one) for one in requests if one is not None)
            fields = {"untainted": " without a taint" if unnamed else ""}
            fields["value"] = self[short[0]]
            yield "short", f"{amount} {short[0]}".strip(), fields
        affinity = at(self.pod, "spec", "affinity", "nodeAffinity")
        off = "requiredDuringSchedulingIgnoredDuringExecution" in affinity
        yield "placement", text, {"off_spot": ", or add a node that is not spot" if off else ""}

    def claim(self) -> str:
        """The owner of an unbound claim, and what its provisioner says."""
        owner = "store" if labels(self.pod).get(releases.COMPONENT) == "store" else "head"
        for one in at(self.pod, "spec", "volumes"):
            claim = at(one, "persistentVolumeClaim").get("claimName")
            message = self.snapshot.event(claim, "ProvisioningFailed", "FailedBinding")
            if claim and message:
                return f"{owner} {claim}: {message}"
        return owner

    def resources(self, container: str | None = None) -> list[Object]:
        containers = at(self.pod, "spec", "containers")
        return [at(one, "resources") for one in containers if container in (None, one["name"])]

    def taints(self, resource: str | None) -> Iterator[tuple[str, str]]:
        """Key and value of taints that keep it off nodes which have a resource."""
        tolerations = at(self.pod, "spec", "tolerations")
        for node in self.snapshot.get("nodes"):
            if resource and str(at(node, "status", "allocatable").get(resource, "0")) == "0":
                continue
            for taint in at(node, "spec", "taints"):
                hard = taint.get("effect") != "PreferNoSchedule" and taint["key"] not in _USUAL
                if hard and not any(_tolerates(one, taint) for one in tolerations):
                    yield taint["key"], taint.get("value", "")


def _tolerates(toleration: Object, taint: Object) -> bool:
    """As Kubernetes compares them: what a toleration leaves out matches all."""
    exists, key = toleration.get("operator") == "Exists", toleration.get("key")
    same = exists or toleration.get("value", "") == taint.get("value", "")
    matches = same and key == taint["key"] if key else exists
    return matches and toleration.get("effect") in (None, "", taint.get("effect"))
