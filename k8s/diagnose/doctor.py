"""`eagleray doctor --kubernetes`: reads a cluster, and runs the checks. It only reads.

A right that we lack costs the line alone that needs it.
"""

from __future__ import annotations

import base64
import contextlib
import time
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from eagleray import doctor, errors
from eagleray.findings import Finding, failed, skipped, warned
from k8s import api
from k8s import release as releases
from k8s.api import Object
from k8s.diagnose import definitions
from k8s.diagnose.checks import CHECKS, Site, head_service, ray_hooks, service
from k8s.diagnose.objects import name, status
from k8s.diagnose.snapshot import Reader

_HOOKS = "admissionregistration.k8s.io/v1"
_MONITORING = "monitoring.coreos.com/v1"


class Source(NamedTuple):
    """Where objects are read: see `api.Api.list`."""

    kind: api.Kind
    selector: str = ""
    space: str | None = None


def _wide(version: str, plural: str) -> Source:
    return Source(api.Kind(version, plural, namespaced=False))


SOURCES = {
    "configmaps": Source(api.CONFIG_MAPS, releases.SKELETON),
    "operators": Source(api.PODS, "app.kubernetes.io/component=kuberay-operator", ""),
    "mutating": _wide(_HOOKS, "mutatingwebhookconfigurations"),
    "validating": _wide(_HOOKS, "validatingwebhookconfigurations"),
    "rayservices": Source(api.RAYSERVICES),
    "rayclusters": Source(api.RAYCLUSTERS),
    "pods": Source(api.PODS),
    "events": Source(api.EVENTS),
    "nodes": Source(api.NODES),
    "resourcequotas": Source(api.QUOTAS),
    "claims": Source(api.Kind("v1", "persistentvolumeclaims")),
    "classes": _wide("storage.k8s.io/v1", "storageclasses"),
    "dns": Source(api.PODS, "k8s-app=kube-dns", "kube-system"),
    "podmonitors": Source(api.Kind(_MONITORING, "podmonitors")),
    "servicemonitors": Source(api.Kind(_MONITORING, "servicemonitors")),
}
_NAMED = {
    "endpointslices": Source(api.Kind("discovery.k8s.io/v1", "endpointslices"), space=""),
    "secrets": Source(api.SECRETS),
}
"""What is read by the names that the others give."""


def examine(namespace: str | None, release: str | None) -> list[Finding]:
    """Look at a cluster, and at a release of the chart in one of its namespaces."""
    try:
        cluster = api.Api(namespace)
    except errors.UserError as error:
        return [failed(str(error), "export KUBECONFIG=…").named("Kubernetes")]
    site = _read(cluster, release)
    findings: list[Finding] = []
    lost = False
    for check, look in CHECKS.items():
        try:
            found = [skipped("no answer")] if lost else look(site)
        except errors.EagleRayError as error:
            found = [_unread(check, site, error)]
            lost = status(error) in (None, 401)  # nobody answers, or our credentials are rejected
        findings += [one.named(check) for one in found]
    return findings


def _read(cluster: api.Api, release: str | None) -> Site:
    """Read all that the checks may need."""
    reader = Reader(cluster, strict=False)
    reader.ask("version", partial(_version, reader), None)
    for key, source in SOURCES.items():
        reader.list(source.kind, source.selector, source.space, key)
    nothing: Object = {}
    for key, path in (("definitions", definitions.PATH), ("monitoring", f"/apis/{_MONITORING}")):
        reader.objects[key] = [reader.ask(key, partial(cluster.read, path), nothing)]
    hooks = ray_hooks([*reader.objects["mutating"], *reader.objects["validating"]])
    for space, called in sorted({place for hook in hooks if (place := service(hook))}):
        selector = f"kubernetes.io/service-name={called}"
        reader.list(_NAMED["endpointslices"].kind, selector, space)
    site = Site(reader.snapshot(), release)
    for called in site.secrets():
        reader.ask("secrets", partial(_secret, reader, called), None)
    reader.objects["heads"] = [_head(reader, one) for one in site.heads()[:1]]
    return replace(site, snapshot=reader.snapshot())


def _version(reader: Reader) -> None:
    before = time.time()
    said, headers = reader.cluster.answer("/version")
    ahead_s = doctor.ahead(doctor.dated(headers.get("Date")), before, time.time())
    reader.objects["version"] = [{**said, "ahead_s": ahead_s}]


def _secret(reader: Reader, called: str) -> None:
    """Read a Secret by its name: a list would show the contents of all."""
    with contextlib.suppress(errors.NotFoundError):
        found = reader.cluster.get(api.SECRETS, called)
        reader.objects["secrets"] = [*reader.objects.get("secrets", ()), found]


def _head(reader: Reader, cluster: Object) -> Object:
    """What a head says of itself, through the API server; its Service alone where it does not."""
    service, space = head_service(cluster), reader.cluster.namespace
    path = f"{api.SERVICES.path(space, service)}:8265/proxy/api/v0/cluster_metadata"
    said: Object = {}
    with contextlib.suppress(errors.EagleRayError, ValueError):  # no way there, or no dashboard
        said, _ = reader.cluster.answer(path, _token(reader, cluster))
    return {"service": service, **said.get("data", {})}


def _token(reader: Reader, cluster: Object) -> dict[str, str]:
    """The header that lets us in by KubeRay's token; `Authorization` is for the API server."""
    options = cluster["spec"].get("authOptions") or {}
    if options.get("mode") != "token":
        return {}
    secret = reader.cluster.get(api.SECRETS, options.get("secretName") or name(cluster))
    token = base64.b64decode(secret.get("data", {}).get("auth_token", "")).decode()
    return {"X-Ray-Authorization": f"Bearer {token}"}


def _unread(check: str, site: Site, error: errors.EagleRayError) -> Finding:
    """The line of a check that could not look."""
    if status(error) == 403:
        keys = [key for key, one in site.snapshot.unread.items() if one is error]
        source = {**SOURCES, **_NAMED}.get(keys[0])
        if source is None:
            return warned(f"not looked at: {error}", "kubectl auth can-i --list")
        group, slash, _ = source.kind.version.rpartition("/")
        resource = f"{source.kind.plural}.{group}" if slash else source.kind.plural
        said = f"not looked at: the right to read {resource} is missing"
        return warned(said, _grant(check, source, resource, site.snapshot.namespace))
    if status(error) == 404:
        return skipped("the cluster does not know what to look for")
    fix = "kubectl cluster-info" if status(error) is None else "kubectl auth whoami"
    return failed(str(error), fix)


def _grant(check: str, source: Source, resource: str, namespace: str) -> str:
    """The commands by which an administrator gives the right that a check needs."""
    kind, option = (
        ("clusterrole", "")
        if source.space is not None or not source.kind.namespaced
        else ("role", f" -n {namespace}")
    )
    called = f"doctor-{check.lower().replace(' ', '-')}"
    return (
        f"kubectl create {kind} {called} --verb=get,list --resource={resource}{option} && "
        f"kubectl create {kind}binding {called} --{kind}={called} --user=…{option}"
    )
