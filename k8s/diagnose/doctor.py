"""`eagleray doctor --kubernetes`: reads a cluster, changes nothing, and runs the checks."""

import base64
import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from eagleray import doctor, errors
from eagleray.findings import Finding, failed, skipped, warned
from k8s import api
from k8s.api import Object
from k8s.diagnose import definitions
from k8s.diagnose.checks import CHECKS, Site, webhooks
from k8s.diagnose.snapshot import MONITORING, SOURCES, Reader, http_status
from k8s.objects import at, name

_LISTS = (
    *("configmaps", "operators", "mutating", "validating", "rayservices", "rayclusters", "pods"),
    *("events", "nodes", "resourcequotas", "claims", "classes", "dns"),
    *("podmonitors", "servicemonitors"),
)


def examine(namespace: str | None, release: str | None) -> Iterator[Finding]:
    """Check a cluster, and a release of the chart in one of its namespaces."""
    try:
        cluster = api.Api(namespace)
    except errors.UserError as error:
        yield failed(str(error), "export KUBECONFIG=…").named("Kubernetes")
        return
    site, lost = _read(cluster, release), False
    for called, check in CHECKS.items():
        try:
            found = [skipped("no answer")] if lost else [*filter(None, check(site))]
        except errors.EagleRayError as error:
            found = [_unread(called, site, error)]
            lost = http_status(error) in (None, 401)
        yield from (one.named(called) for one in found)


def _read(cluster: api.Api, release: str | None) -> Site:
    """Read all that the checks need; Secrets by name, since a list has the contents of all."""
    reader = Reader(cluster)
    reader.read("version", partial(_version, cluster))
    for source in _LISTS:
        reader.list(source)
    reader.read("definitions", lambda: [cluster.json(definitions.PATH)])
    reader.read("monitoring", lambda: [cluster.json(f"/apis/{MONITORING}")])
    services = {(space, name) for _, space, name in webhooks(reader.snapshot())}
    reader.read("endpointslices", partial(_slices, cluster, services))
    site = Site(reader.snapshot(), release)
    reader.read("secrets", partial(_secrets, cluster, [*site.secrets()]))
    if head := site.head():
        reader.read("head", partial(_head, cluster, *head))
    return replace(site, snapshot=reader.snapshot())


def _version(cluster: api.Api) -> Sequence[Object]:
    before = time.time()
    version, headers = cluster.json_once("/version")
    ahead_s = doctor.clock_offset(doctor.parse_date(headers.get("Date")), before, time.time())
    return [{**version, "ahead_s": ahead_s}]


def _slices(cluster: api.Api, services: set[tuple[str, str]]) -> Sequence[Object]:
    kind, label = SOURCES["endpointslices"].kind, "kubernetes.io/service-name"
    found = (cluster.list(kind, f"{label}={name}", space) for space, name in services if name)
    return [one for slices in found for one in slices]


def _secrets(cluster: api.Api, names: Sequence[str]) -> Sequence[Object]:
    found = []
    for one in names:
        with contextlib.suppress(errors.NotFoundError):
            found.append(cluster.get(api.SECRETS, one))
    return found


def _head(cluster: api.Api, thing: Object, service: str) -> Sequence[Object]:
    """The versions of a head, through the API server; empty if it does not answer."""
    path = f"{api.SERVICES.path(cluster.namespace, service)}:8265/proxy/api/v0/cluster_metadata"
    headers, options = {}, at(thing, "spec", "authOptions")
    with contextlib.suppress(errors.EagleRayError, ValueError):  # no way there, or no dashboard
        if options.get("mode") == "token":
            secret = cluster.get(api.SECRETS, options.get("secretName") or name(thing))
            token = base64.b64decode(at(secret, "data").get("auth_token", "")).decode()
            # `Authorization` is for the API server
            headers = {"X-Ray-Authorization": f"Bearer {token}"}
        return [at(cluster.json_once(path, headers)[0], "data")]
    return []


def _unread(check: str, site: Site, error: errors.EagleRayError) -> Finding:
    """The finding of a check that could not read, with the commands that grant the right."""
    code = http_status(error)
    if code == 404:
        return skipped("the cluster does not have this kind of object")
    if code != 403:
        return failed(str(error), "kubectl cluster-info" if code is None else "kubectl auth whoami")
    key = next(key for key, one in site.snapshot.unread.items() if one is error)
    if key not in SOURCES:
        return warned(f"not checked: {error}", "kubectl auth can-i --list")
    kind, _, space = SOURCES[key]
    group, slash, _ = kind.version.rpartition("/")
    resource = f"{kind.plural}.{group}" if slash else kind.plural
    role, option = "clusterrole", ""
    if kind.namespaced and space is None:
        role, option = "role", f" -n {site.snapshot.namespace}"
    called = f"doctor-{check.lower().replace(' ', '-')}"
    return warned(
        f"not checked: the right to read {resource} is missing",
        f"kubectl create {role} {called} --verb=get,list --resource={resource}{option} && "
        f"kubectl create {role}binding {called} --{role}={called} --user=…{option}",
    )
