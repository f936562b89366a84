"""`eagleray doctor --kubernetes`: reads a cluster, changes nothing, and checks what was read."""

import base64
import contextlib
import functools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import yaml

from eagleray import __version__, doctor, errors
from eagleray.doctor import Versions
from eagleray.findings import Finding, failed, passed, skipped, warned
from k8s import api
from k8s import release as releases
from k8s.api import Object
from k8s.diagnose import capacity, definitions, pods
from k8s.diagnose.rules import Findings, case
from k8s.diagnose.snapshot import SOURCES, Reader, Snapshot, http_status
from k8s.objects import at, labels, name, ready

KUBERNETES = (29, 37)
"""Oldest and newest minor version of Kubernetes 1 that the chart supports."""
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
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


@dataclass(frozen=True)
class Site:
    """A snapshot, and the release in it that is checked: the `named` one, or the only one."""

    snapshot: Snapshot
    named: str | None = None

    @functools.cached_property
    def skeletons(self) -> Mapping[str, Object]:
        """By release, the ConfigMap with the skeleton of a run."""
        return releases.skeletons(self.snapshot.get("configmaps"))

    @functools.cached_property
    def release(self) -> str:
        """The release's name; empty if there is none, or several and none is named."""
        return releases.chosen(self.skeletons, self.named)

    @functools.cached_property
    def skeleton(self) -> Object:
        """The RayJob that runs of the release are made from; empty when it is not YAML."""
        try:
            found = yaml.safe_load(self.skeletons[self.release]["data"][releases.SKELETON])
        except (KeyError, yaml.YAMLError):
            return {}
        return found if isinstance(found, dict) else {}

    @functools.cached_property
    def required(self) -> list[capacity.Requirements]:
        """What a run, each RayService and each RayCluster without an owner ask for."""
        own = partial(self.snapshot.of_release, release=self.release)
        job = at(self.skeleton, "spec")
        found = [capacity.Requirements("a run", at(job, "rayClusterSpec"), job)]
        for one in own("rayservices"):
            cluster = at(one, "spec", "rayClusterConfig")
            found.append(capacity.Requirements(f"RayService {name(one)}", cluster))
        alone = [one for one in own("rayclusters") if "ownerReferences" not in one["metadata"]]
        found += [capacity.Requirements(f"RayCluster {name(one)}", one["spec"]) for one in alone]
        return [one for one in found if one.cluster]

    @property
    def embedded(self) -> bool:
        """Whether a cluster of the release keeps its head's state on a volume."""
        return any(definitions.embedded(one.cluster) for one in self.required)

    @property
    def upgrade(self) -> str:
        """The beginning of the Helm command that changes the release."""
        space = self.snapshot.namespace
        return f"helm upgrade {self.release or 'eagleray'} helm/eagleray -n {space} --reuse-values"

    def say(self, check: str, text: str, **fields: Any) -> Finding | None:
        known = {"release": self.release, "upgrade": self.upgrade, **fields}
        return self.snapshot.say(check, text, **known)

    def own(self, source: str) -> Sequence[Object]:
        """The release's objects of a source; raises the error if they could not be read."""
        if not self.release:
            return ()
        self.snapshot.require(source)
        return self.snapshot.of_release(source, self.release)

    def secrets(self) -> dict[str, str]:
        """By name, the Secrets that its pods need, as words of `kubectl create secret`."""
        found = {}
        for spec in (alike.spec for one in self.required for alike in one.pods()):
            for one in at(spec, "imagePullSecrets"):
                account = "--docker-server=… --docker-username=…"
                found[one["name"]] = f"docker-registry {one['name']} {account}"
            for variable in releases.variables(spec):
                key = at(variable, "valueFrom", "secretKeyRef")
                if key and not key.get("optional"):
                    found[key["name"]] = f"generic {key['name']}{pods.literals(spec, key['name'])}"
        return found

    def webhooks(self) -> Iterator[tuple[Object, str, str]]:
        """Each webhook for Ray objects, and its Service: namespace and name, empty for a URL."""
        for one in (*self.snapshot.require("mutating"), *self.snapshot.require("validating")):
            for hook in at(one, "webhooks"):
                if any("ray.io" in rule["apiGroups"] for rule in at(hook, "rules")):
                    service = at(hook, "clientConfig", "service")
                    yield hook, service.get("namespace", ""), service.get("name", "")


def _read(cluster: api.Api, release: str | None) -> Site:
    """Read all that the checks need; Secrets by name, since a list has the contents of all."""
    reader = Reader(cluster)
    reader.list("version", partial(_read_version, cluster))
    for source in _LISTS:
        reader.list(source)
    reader.list("definitions", lambda: [cluster.json(definitions.PATH)])
    site = Site(reader.snapshot(), release)
    reader.list("endpointslices", lambda: [*_read_slices(cluster, site)])
    reader.list("secrets", lambda: [*_read_secrets(cluster, site)])
    reader.list("head", lambda: [*_read_head(cluster, site)])
    return replace(site, snapshot=reader.snapshot())


def _read_version(cluster: api.Api) -> Sequence[Object]:
    before = time.time()
    version, headers = cluster.json_once("/version")
    ahead_s = doctor.clock_offset(doctor.parse_date(headers.get("Date")), before, time.time())
    return [{**version, "ahead_s": ahead_s}]


def _read_slices(cluster: api.Api, site: Site) -> Iterator[Object]:
    kind, label = SOURCES["endpointslices"].kind, "kubernetes.io/service-name"
    for space, service in {one[1:] for one in site.webhooks() if one[2]}:
        yield from cluster.list(kind, f"{label}={service}", space)


def _read_secrets(cluster: api.Api, site: Site) -> Iterator[Object]:
    for one in site.secrets():
        with contextlib.suppress(errors.NotFoundError):
            yield cluster.get(api.SECRETS, one)


def _read_head(cluster: api.Api, site: Site) -> Iterator[Object]:
    """The first head that has a Service: its name, and the versions that the head tells of."""
    for one in site.own("rayclusters"):
        if service := at(one, "status", "head").get("serviceName"):
            yield {"service": service, **_ask(cluster, one, service)}
            return


def _ask(cluster: api.Api, thing: Object, service: str) -> Object:
    """The versions of a head, through the API server; empty if it does not answer."""
    path = f"{api.SERVICES.path(cluster.namespace, service)}:8265/proxy/api/v0/cluster_metadata"
    headers, options = {}, at(thing, "spec", "authOptions")
    with contextlib.suppress(errors.EagleRayError, ValueError):  # no way there, or no dashboard
        if options.get("mode") == "token":
            secret = cluster.get(api.SECRETS, options.get("secretName") or name(thing))
            token = base64.b64decode(at(secret, "data").get("auth_token", "")).decode()
            # `Authorization` is for the API server
            headers = {"X-Ray-Authorization": f"Bearer {token}"}
        versions: Object = at(cluster.json_once(path, headers)[0], "data")
        return versions
    return {}


def _unread(check: str, site: Site, error: errors.EagleRayError) -> Finding:
    """The finding of a check that could not read, with the commands that grant the right."""
    code = http_status(error)
    if code == 404:
        return skipped("the cluster does not have this kind of object")
    key = next(key for key, one in site.snapshot.unread.items() if one is error)
    if code != 403 or key not in SOURCES:
        return failed(str(error), "kubectl cluster-info" if code is None else "kubectl auth whoami")
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


def _kubernetes(site: Site) -> Findings:
    (answer,) = site.snapshot.require("version")
    version = str(answer.get("gitVersion", ""))
    minor = int(version.split(".")[1])
    law = f"{version} answers; EagleRay supports 1.{KUBERNETES[0]} to 1.{KUBERNETES[1]}"
    fits = KUBERNETES[0] <= minor <= KUBERNETES[1]
    yield passed(f"{version} answers") if fits else warned(law, "upgrade the cluster, or: make e2e")
    yield doctor.clock(answer.get("ahead_s"), "the API server").named("Kubernetes clock")


def _release(site: Site) -> Findings:
    site.snapshot.require("configmaps")
    known = sorted(site.skeletons)
    cases = {"no release": not known, "unknown release": not site.release}
    text = case({**cases, "not YAML": not site.skeleton, site.release: True})
    skeleton = name(site.skeletons[site.release]) if site.release else ""
    fields = {"known": ", ".join(known), "named": site.named or "none", "skeleton": skeleton}
    yield site.say("release", text, first=known[0] if known else "", **fields)


def _definitions(site: Site) -> Findings:
    absent = http_status(site.snapshot.unread.get("definitions")) == 404
    described = {} if absent else site.snapshot.require("definitions")[0]
    wanted = [{**site.skeleton, "kind": "RayJob"}] if site.skeleton else []
    yield definitions.check(definitions.schemas(described), wanted)


def _operator(site: Site) -> Findings:
    yield definitions.operator(site.snapshot.require("operators"), gated=site.embedded)


def _webhooks(site: Site) -> Findings:
    hooks, slices = [*site.webhooks()], site.snapshot.require("endpointslices")
    dead = [one for one in hooks if one[2] and not _answers(slices, *one[1:])]
    for hook, space, service in dead:
        policy = hook.get("failurePolicy", "Fail")
        yield site.say("webhook", policy, hook=hook["name"], space=space, service=service)
    if not dead:
        yield site.say("webhook", ", ".join(hook["name"] for hook, *_ in hooks) or "none")


def _answers(slices: Sequence[Object], space: str, service: str) -> bool:
    """Whether a Service has a ready endpoint; one of unknown readiness counts as ready."""
    mine = [one for one in slices if labels(one).get("kubernetes.io/service-name") == service]
    mine = [one for one in mine if one["metadata"].get("namespace") == space]
    ends = [end for one in mine for end in at(one, "endpoints")]
    return any(at(end, "conditions").get("ready") is not False for end in ends)


def _pods(site: Site) -> Findings:
    """What `eagleray why` says of each pod; pods with the same cause are one line."""
    for source in ("rayservices", "rayclusters", "pods", "events") if site.release else ():
        site.snapshot.require(source)
    causes: dict[Finding, list[str]] = {}
    for pod in site.own("pods"):
        if found := pods.trouble(pod, site.snapshot):
            verdict = "warn" if found.severity == "wait" else found.severity
            causes.setdefault(replace(found, severity=verdict, evidence=()), []).append(name(pod))
    for cause, names in causes.items():
        yield replace(cause, message=f"{', '.join(names)}: {cause.message}")
    phases = Counter(str(at(pod, "status").get("phase")) for pod in site.own("pods"))
    if not site.release:
        yield skipped("no release")
    elif not causes:
        yield passed(", ".join(f"{n} {phase}" for phase, n in sorted(phases.items())) or "none")


def _gate(site: Site) -> Findings:
    if site.embedded:
        yield definitions.gate(site.snapshot.require("operators"))
    else:
        yield skipped("ray.faultTolerance.embedded is not used")


def _versions(site: Site) -> Findings:
    """Compare this installation with the chart's ray.version and with a head that runs."""
    mine = doctor.installed()
    if declared := at(site.skeleton, "spec", "rayClusterSpec").get("rayVersion"):
        fix = f"{site.upgrade} --set image.tag={__version__},ray.version={mine.ray}"
        yield doctor.versions(mine, Versions(declared), "by the chart's ray.version", fix)[0]
    site.own("rayclusters")
    head = next(iter(site.snapshot.get("head")), None)
    if head is None:
        yield skipped("no cluster of the release runs").named("Python version")
        return
    theirs = Versions(head.get("rayVersion") or "", head.get("pythonVersion") or "")
    service, fix = head["service"], site.upgrade
    if not theirs.ray:
        forward = f"kubectl -n {site.snapshot.namespace} port-forward svc/{service} 8265"
        fix = f"{forward} & eagleray doctor --address http://127.0.0.1:8265"
    yield from doctor.versions(mine, theirs, f"on {service}", fix)


def _gpus(site: Site) -> Findings:
    yield from capacity.devices(lambda: site.snapshot.require("nodes"), site.required)


def _quotas(site: Site) -> Findings:
    found = site.snapshot.require("resourcequotas")
    yield from (capacity.quota(one, site.required) for one in found)
    if not found:
        yield passed(f"namespace {site.snapshot.namespace} has none")


def _secrets(site: Site) -> Findings:
    commands = site.secrets()
    there = {name(one) for one in site.snapshot.require("secrets")} if commands else set()
    for missing in sorted(commands.keys() - there)[:1]:
        yield site.say("secrets", "missing", secret=missing, command=commands[missing])
        return
    yield site.say("secrets", ", ".join(sorted(commands)) or "none")


def _volumes(site: Site) -> Findings:
    """Check that each claim of the release is bound, or has a class that can fulfil it."""
    claims = site.own("claims")
    waiting = [one for one in claims if at(one, "status").get("phase") != "Bound"]
    if not waiting:
        yield site.say("storage class", f"bound: {len(claims)}")
        return
    claim, wanted = name(waiting[0]), waiting[0]["spec"].get("storageClassName")
    classes = site.snapshot.require("classes")
    marks = {name(one): at(one, "metadata", "annotations").get(DEFAULT_CLASS) for one in classes}
    known, usual = [*marks], [one for one, mark in marks.items() if mark == "true"]
    cases = {"no class": wanted and wanted not in known, "no default": not (wanted or usual)}
    fields = {"wanted": wanted, "classes": ", ".join(known) or "none", "first": [*known, "…"][0]}
    text = case({**cases, wanted or "".join(usual[:1]): True})
    yield site.say("storage class", text, claim=claim, **fields)


def _dns(site: Site) -> Findings:
    found = site.snapshot.require("dns")
    yield site.say("DNS", f"{sum(map(ready, found))} of {len(found)}")


def _metrics(site: Site) -> Findings:
    """Whether a monitor of the Prometheus operator scrapes the release."""
    absent = http_status(site.snapshot.unread.get("podmonitors")) == 404
    sources = () if absent else ("podmonitors", "servicemonitors")
    found = ", ".join(name(one) for source in sources for one in site.own(source))
    cases = {"no operator": absent, "no release": not site.release, found: found}
    yield site.say("metrics", case({**cases, "no monitor": True}))


CHECKS: Mapping[str, Callable[[Site], Findings]] = {
    "Kubernetes": _kubernetes,
    "release": _release,
    "CRDs": _definitions,
    "KubeRay operator": _operator,
    "webhook": _webhooks,
    "pods": _pods,
    "feature gate": _gate,
    "Ray version": _versions,
    "GPUs": _gpus,
    "quota": _quotas,
    "secrets": _secrets,
    "storage class": _volumes,
    "DNS": _dns,
    "metrics": _metrics,
}
"""In the order of the report: each depends on those before it."""
