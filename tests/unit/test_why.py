"""From snapshots of a cluster, as Kubernetes and KubeRay write them, to a cause and its fix.

Each file of `situations` is one: what was read, then the cause and the fix that are to come of it,
and the whole evidence where there is more to tell.
"""

import functools
import shlex
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client.exceptions import ApiException

from eagleray import errors
from eagleray.state.searches import Waiting
from k8s import diagnose
from k8s.diagnose import rules
from k8s.diagnose.snapshot import Alias, Snapshot
from tests.unit import test_docs, test_doctor_cluster

FILES = sorted((Path(__file__).parent / "situations").glob("*.yaml"))


@functools.cache
def read(file: Path) -> tuple[Snapshot, dict[str, Any]]:
    """A snapshot, and what is to be said of it."""
    told = yaml.safe_load(file.read_text())
    known = told.pop("situation")
    known["now"] = datetime.fromisoformat(known["now"])
    known["alias"] = Alias(**known["alias"]) if "alias" in known else None
    known["waiting"] = [Waiting(**one) for one in known.get("waiting", [])]
    known["unread"] = {what: refusal(why) for what, why in known.get("unread", {}).items()}
    return Snapshot(**known), told


def refusal(why: str) -> errors.EagleRayError:
    """Why something was not read: a message, or the status of a kind that is not known."""
    error = errors.UserError(why)
    error.__cause__ = ApiException(status=int(why)) if why.isdecimal() else None
    return error


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_situation_has_its_cause_and_its_fix(file: Path) -> None:
    snapshot, told = read(file)
    found = diagnose.explain(snapshot)
    finding = found.finding
    wanted = (told["cause"] or "nothing is wrong", told["fix"] or "")
    assert (finding.message, finding.fix) == wanted
    assert list(finding.evidence) == told.get("evidence", list(finding.evidence))
    if snapshot.subject:
        assert finding.evidence[0].startswith(f"{found.kind} {found.name}: {found.state}")
    for line in (*finding.evidence, finding.message, finding.fix or "none"):
        assert line == " ".join(line.split()) != ""


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_fix_of_ours_is_a_command_that_the_command_line_takes(file: Path) -> None:
    fix = read(file)[1]["fix"] or ""
    if fix.startswith(("eagleray models ", "eagleray runs ")):
        test_docs.parse(shlex.split(fix.partition(";")[0])[1:])


class Values(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return f"tuning.head.{key}"


FIELDS = {
    "ns": "ml",
    "pod": "p",
    "image": "i:1",
    "values": Values(),
    "message": "oops",
    "taint": "t",
    "keys": "",
}
FIELDS |= {
    "name": "run",
    "queue": "q",
    "last": "the last line",
    "line": "all",
    "endpoint": "http://s3",
}
TEXTS = [
    ("refused", "pods is forbidden: [maximum cpu usage per Container is 2]", "a limit range forb"),
    (
        "refused",
        'admission webhook "v.kyverno.svc" denied the request',
        "an admission rule forbids",
    ),
    ("refused", "name is too long", "it cannot be created: name is too long"),
    ("image", "InvalidImageName: couldn't parse", "i:1 is no name of an image"),
    ("image", "ErrImageNeverPull: absent", "image i:1 is not on the node, and may not be pulled"),
    ("image", "ErrImagePull: 429 Too Many Requests: toomanyrequests", "the registry limits how"),
    ("image", "ErrImagePull: no match for platform in manifest", "image i:1 is not built for"),
    ("image", "ErrImagePull: disk", "image i:1 cannot be pulled: oops"),
    ("absent", "couldn't find key A in ConfigMap ml/settings", "ConfigMap settings has no key A"),
    ("absent", 'secret "tls" not found', "Secret tls does not exist"),
    ("container", "CreateContainerConfigError: bad mount", "bad mount"),
    ("pod", "ended: NodeLost: gone", "it was evicted or deleted: gone"),
    ("pod", "FailedAttachVolume: Multi-Attach error", "Multi-Attach error"),
    ("pod", "young: Unhealthy: Startup probe failed", "Ray is starting in it"),
    ("volume", 'persistentvolumeclaim "data" not found', "PersistentVolumeClaim data does not"),
    ("claim", "head", "its volume claim is not bound: no volume or storage class gives it one"),
    ("taint", "worker cloud.google.com/gke-spot=true", "the nodes left are spot nodes (taint t)"),
    ("placement", "2 node(s) didn't match pod topology spread constraints", "it would be spread"),
    (
        "placement",
        "1 node(s) didn't match pod anti-affinity rules",
        "an affinity or anti-affinity rule",
    ),
    ("placement", "3 node(s) were unschedulable", "the nodes are cordoned"),
    ("placement", "1 Too many pods", "the nodes have as many pods as they may"),
    ("placement", "1 node(s) didn't have free ports for the requested pod ports", "another pod"),
    ("placement", "no nodes available to schedule pods", "the cluster has no nodes"),
    ("placement", "0/1 nodes are available: moon", "it fits no node: 0/1 nodes are avail"),
    ("storage", "RequestTimeTooSkewed: too large", "the node's clock is wrong for http://s3"),
    ("storage", "418 teapot", "storage fails: all"),
    (
        "queue",
        "noted: Quota reserved in ClusterQueue main",
        "Kueue has reserved its quota, and starts it",
    ),
    ("queue", "noted: ", "queue q has not admitted it"),
    ("run", "failed: exit code 137", "it needed more memory than there is: the last line"),
    ("service", "InitializingTimeout: 30 min", "KubeRay gave up waiting for it: 30 min"),
]
"""Texts beside those of the situations, by topic, and how the cause begins."""


@pytest.mark.parametrize(("topic", "text", "cause"), TEXTS)
def test_a_text_that_no_situation_has_means_its_cause(topic: str, text: str, cause: str) -> None:
    found = rules.match(topic, text, **FIELDS)
    assert found is not None
    assert found.message.startswith(cause)
    assert found.fix


def test_every_rule_is_shown_by_a_situation_or_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, find = set(), rules.find

    def recorded(topic: str, text: str) -> Any:
        if found := find(topic, text):
            shown.add((topic, found[0]))
        return found

    monkeypatch.setattr(rules, "find", recorded)
    for file in FILES:
        diagnose.explain(read(file)[0])
    for topic, text, _ in TEXTS:
        recorded(topic, text)
    for check, *_ in test_doctor_cluster.CASES:
        check()
    every = {(topic, rule) for topic, rows in rules.table().items() for rule in rows}
    assert every == shown
