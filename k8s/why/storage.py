"""Storage that pods cannot use, by our own errors in logs: they name endpoint, bucket and key.

The form of the line is that of `eagleray.storage.failures.Place.says`.
"""

from __future__ import annotations

import re
from typing import Any

from k8s.situation import Situation
from k8s.why.finding import Finding, one_line

_FAILURE = re.compile(r"(\S+): bucket '([^']*)': key '([^']*)': (.+)")
_DENIED = re.compile(
    r"AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|InvalidToken"
    r"|no credentials|Forbidden|Unauthorized|\b40[13]\b"
)


def failure(text: str, situation: Situation) -> Finding | None:
    """What the last complaint about storage in a text means."""
    told = [one for one in map(_FAILURE.search, text.splitlines()) if one]
    if not told:
        return None
    endpoint, bucket, key, what = told[-1].groups()
    said = one_line(f"{endpoint}: bucket {bucket!r}: key {key!r}: {what}")
    if "no such bucket" in what:
        return Finding(
            f"there is no bucket {bucket!r} at {endpoint}",
            f"aws s3 mb s3://{bucket} --endpoint-url {endpoint}",
            (said,),
        )
    if "RequestTimeTooSkewed" in what:
        return Finding(f"the node's clock is wrong for {endpoint}", "set the node's clock", (said,))
    if _DENIED.search(what):
        return Finding(
            f"{endpoint} refuses the keys for bucket {bucket!r}", _keys(situation), (said,)
        )
    if "the connection" in what:
        return Finding(
            f"pods cannot reach {endpoint}",
            "set storage.endpoint to where S3 is, and networkPolicy.storage to let pods go there",
            (said,),
        )
    if "no room left" in what:
        return Finding(f"bucket {bucket!r} at {endpoint} is full", "make room there", (said,))
    return Finding(f"storage fails: {said}", "eagleray doctor --kubernetes", (said,))


def secret(situation: Situation) -> str | None:
    """The Secret that pods have their S3 keys from; None when they have an identity."""
    spec = situation.subject.get("spec", {})
    cluster = spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or {}
    template: Any = cluster.get("headGroupSpec", {}).get("template", {}).get("spec", {})
    pods = [template, *(pod.get("spec", {}) for pod in situation.pods)]
    for container in (one for pod in pods for one in pod.get("containers", [])):
        for variable in container.get("env") or []:
            reference = (variable.get("valueFrom") or {}).get("secretKeyRef")
            if variable.get("name") == "AWS_ACCESS_KEY_ID" and reference:
                return str(reference["name"])
    return None


def _keys(situation: Situation) -> str:
    held = secret(situation)
    if held is None:
        return (
            "set storage.existingSecret, or serviceAccount.annotations to an identity with rights"
        )
    keys = '{"stringData": {"AWS_ACCESS_KEY_ID": "…", "AWS_SECRET_ACCESS_KEY": "…"}}'
    return f"kubectl -n {situation.namespace} patch secret {held} -p '{keys}'"
