"""The checks of `eagleray doctor --kubernetes`: pure, from a snapshot to findings."""

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml

from eagleray import __version__, doctor
from eagleray.doctor import Versions
from eagleray.findings import Finding, passed, skipped, warned
from k8s import release as releases
from k8s.api import Object
from k8s.diagnose import capacity, definitions, pods
from k8s.diagnose.pods import Findings
from k8s.diagnose.rules import case
from k8s.diagnose.snapshot import Snapshot, http_status
from k8s.objects import at, labels, name, ready

KUBERNETES = (29, 37)
"""Oldest and newest minor version of Kubernetes 1 that the chart supports."""
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


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
        wanted = self.named or (next(iter(self.skeletons)) if len(self.skeletons) == 1 else "")
        return wanted if wanted in self.skeletons else ""

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
        specs = {}
        for one in self.own("rayservices"):
            specs[f"RayService {name(one)}"] = at(one, "spec", "rayClusterConfig")
        for one in self.own("rayclusters"):
            if "ownerReferences" not in one["metadata"]:
                specs[f"RayCluster {name(one)}"] = one["spec"]
        job = at(self.skeleton, "spec")
        run = capacity.Requirements("a run", at(job, "rayClusterSpec"), job)
        there = [capacity.Requirements(*one) for one in specs.items()]
        return [one for one in (run, *there) if one.cluster]

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
        return self.snapshot.of_release(source, self.release) if self.release else ()

    def head(self) -> tuple[Object, str] | None:
        """The release's RayCluster whose head has a Service, and the Service."""
        for one in self.own("rayclusters"):
            if service := at(one, "status", "head").get("serviceName"):
                return one, str(service)
        return None

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
                    found[key["name"]] = f"generic {key['name']} --from-literal={key['key']}=…"
        return found


def webhooks(snapshot: Snapshot) -> Iterator[tuple[Object, str, str]]:
    """Each webhook for Ray objects, with namespace and name of its Service, empty for a URL."""
    for one in (*snapshot.get("mutating"), *snapshot.get("validating")):
        for hook in at(one, "webhooks"):
            if any("ray.io" in rule["apiGroups"] for rule in at(hook, "rules")):
                service = at(hook, "clientConfig", "service")
                yield hook, service.get("namespace", ""), service.get("name", "")


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
    for source in ("mutating", "validating"):
        site.snapshot.require(source)
    slices, hooks = site.snapshot.require("endpointslices"), [*webhooks(site.snapshot)]
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
    if site.release:
        site.snapshot.require("rayclusters")
    if (head := site.head()) is None:
        yield skipped("no cluster of the release runs").named("Python version")
        return
    reported = next(iter(site.snapshot.get("head")), {})
    theirs = Versions(str(reported.get("rayVersion", "")), str(reported.get("pythonVersion", "")))
    fix = f"kubectl -n {site.snapshot.namespace} port-forward svc/{head[1]} 8265 & "
    fix = site.upgrade if theirs.ray else f"{fix}eagleray doctor --address http://127.0.0.1:8265"
    yield from doctor.versions(mine, theirs, f"on {head[1]}", fix)


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
    site.snapshot.require("claims")
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
    absent = http_status(site.snapshot.unread.get("monitoring")) == 404
    sources = ("monitoring", "podmonitors", "servicemonitors")
    for source in sources if site.release and not absent else ():
        site.snapshot.require(source)
    found = ", ".join(name(one) for source in sources[1:] for one in site.own(source))
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
