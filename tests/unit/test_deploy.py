"""Deployment's decisions: which values count, what changes, what a status says."""

import datetime
from typing import Any

import pytest

from eagleray import errors
from k8s import deploy, helm, status
from k8s.diagnose.snapshot import Snapshot

CONFIG = 'applications: [{name: churn, args: {name: churn, alias: champion, storage: "s3://m"}}]'


OF_DEMO = {"labels": {"app.kubernetes.io/instance": "demo"}}


def thing(kind: str, name: str, **parts: Any) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": name}, **parts}


def service(**told: Any) -> dict[str, Any]:
    labels = {"helm.sh/chart": "eagleray-0.1.0"}
    head = {"metadata": {"name": "demo", "labels": labels}, "spec": {"serveConfigV2": CONFIG}}
    return {"kind": "RayService", **head, "status": told}


def summary(*services: dict[str, Any], **parts: Any) -> status.Status:
    now = datetime.datetime(2026, 11, 22, tzinfo=datetime.UTC)
    subject = services[0] if services else {}
    return status.summarize("demo", Snapshot("ml", now, subject, objects=parts))


def ready(value: str, **more: str) -> dict[str, Any]:
    return {"conditions": [{"type": "Ready", "status": value, **more}]}


def test_changes_tell_what_becomes_of_each_object() -> None:
    role = {"kind": "Role"}
    old = {("Role", "kept"): role, ("Role", "gone"): role, ("Role", "other"): {**role, "spec": 1}}
    new = {("Role", "kept"): role, ("Role", "new"): role, ("Role", "other"): {**role, "spec": 2}}
    found = {one.name: one.action for one in deploy.changes(old, new)}
    assert found == {"kept": "kept", "gone": "deleted", "new": "created", "other": "changed"}


def test_what_a_secret_keeps_is_not_shown() -> None:
    secret = thing("Secret", "keys", data={"id": "aWQ="}, stringData={"key": "secret"})
    veiled = deploy.hidden(secret)
    assert (veiled["data"], veiled["stringData"]) == ({"id": "(hidden)"}, {"key": "(hidden)"})
    assert deploy.hidden(thing("ConfigMap", "open", data={"a": "b"}))["data"] == {"a": "b"}


@pytest.mark.parametrize(
    ("said", "kind", "told"),
    [
        ('User "u" cannot create resource "secrets"', errors.UserError, "right to create secrets"),
        ('create: failed: namespaces "ml" not found', errors.UserError, "kubectl create namesp"),
        ("kubernetes cluster unreachable: refused", errors.ClusterError, "does not answer"),
        ("admission webhook denied the request", errors.UserError, "webhook denied"),
        ("etcd leader changed", errors.ClusterError, "namespace ml: etcd leader"),
    ],
)
def test_what_helm_says_becomes_an_error_of_ours(
    said: str, kind: type[errors.EagleRayError], told: str
) -> None:
    error = helm.explained(said, "ml")
    assert type(error) is kind
    assert told in str(error)


@pytest.mark.parametrize(
    ("services", "state"),
    [
        ([], "no endpoint: serving.enabled is false"),
        ([service()], "not ready: the operator has not processed it yet"),
        ([service(**ready("True"))], "ready"),
        ([service(**ready("False", reason="Initializing", message="pods"))],
         "not ready: Initializing: pods"),
    ],
)  # fmt: skip
def test_the_state_says_why(services: list[dict[str, Any]], state: str) -> None:
    assert summary(*services).state == state


def test_an_endpoint_that_is_not_ready_has_the_cause_and_the_fix_of_why() -> None:
    told = summary(service(**ready("False", reason="ValidationFailed", message="type is invalid")))
    assert told.finding is not None
    assert told.finding.message == "KubeRay refuses its specification: type is invalid"
    assert told.finding.fix == "set what the message names, and helm upgrade"
    assert summary(service(**ready("True"))).finding is None


def test_before_a_first_cluster_is_active_the_coming_one_counts() -> None:
    coming = {"rayClusterStatus": {"desiredWorkerReplicas": 3}}
    assert summary(service(pendingServiceStatus=coming)).wanted == 3
    assert summary(service()).wanted is None


def test_routes_and_hosts_are_endpoints_too() -> None:
    route = {"metadata": OF_DEMO, "spec": {"hostnames": ["a.example.com"]}}
    ingress = {"metadata": OF_DEMO, "spec": {"tls": [{}], "rules": [{"host": "b.example.com"}]}}
    found = summary(service(), httproutes=[route], ingresses=[ingress])
    inside = "http://demo-serve-svc.ml.svc:8000"
    assert found.endpoints == [inside, "https://b.example.com", "https://a.example.com"]


def test_the_revision_is_the_latest_on_record() -> None:
    records = [{"metadata": {"labels": {"version": number}}} for number in ("2", "10", "9")]
    assert summary(service(), revisions=records).revision == 10
