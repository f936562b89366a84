"""Why an image is not there, by what kubelet and containerd write."""

from __future__ import annotations

import re

from k8s.api import Object
from k8s.situation import Situation
from k8s.why.finding import Finding, event, name, one_line

REASONS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
_DENIED = re.compile(
    r"unauthorized|denied|authorization failed|authentication required|no basic auth"
    r"|insufficient_scope|\b40[13]\b",
    re.IGNORECASE,
)
_SILENT = re.compile(
    r"no such host|i/o timeout|TLS handshake|connection refused|server misbehaving|no route"
    r"|x509|context deadline exceeded|EOF"
)


def finding(pod: Object, status: Object, situation: Situation) -> Finding:
    """What keeps a container's image away."""
    waiting, called = status["state"]["waiting"], str(status["image"])
    told = event(situation, name(pod), ["Failed"], "ailed to pull image")
    said = told or one_line(str(waiting.get("message", "")))
    reason = waiting["reason"]
    line = f"Pod {name(pod)}: {reason}: {called}"
    cause, mend = _reading(called, reason, said)
    absent = event(situation, name(pod), ["FailedToRetrieveImagePullSecret"])
    if absent:
        secret = re.search(r"\(([^)]+)\)", absent)
        held = secret[1] if secret else "of image.pullSecrets"
        cause = f"pull secret {held} does not exist"
        mend = (
            f"kubectl -n {situation.namespace} create secret docker-registry {held} "
            "--docker-server=… --docker-username=… --docker-password=…"
        )
    return Finding(cause, mend, (line,))


def _reading(called: str, reason: str, said: str) -> tuple[str, str]:
    if reason == "InvalidImageName":
        return f"{called} is no name of an image", "set image.repository and image.tag"
    if reason == "ErrImageNeverPull":
        return (
            f"image {called} is not on the node, and may not be pulled",
            "set image.pullPolicy to IfNotPresent, or load the image onto the node",
        )
    if _SILENT.search(said):
        return (
            f"the node cannot reach the registry of {called}: {said.rpartition(': ')[2]}",
            "set image.repository to a registry that nodes can reach",
        )
    if "toomanyrequests" in said or "429" in said:
        return (
            f"the registry limits how often {called} is pulled",
            "set image.pullSecrets to an account of the registry",
        )
    if "no match for platform" in said:
        return f"image {called} is not built for the node's processor", "build it for the node's"
    if _DENIED.search(said):
        return (
            f"the registry does not give {called} to us, or has no such repository",
            "set image.repository to yours, and image.pullSecrets to a Secret that may pull it",
        )
    if "not found" in said or "manifest unknown" in said:
        return (
            f"there is no image {called}",
            "set image.repository and image.tag to one that is there",
        )
    return f"image {called} cannot be pulled: {said}", "set image.repository and image.tag"
