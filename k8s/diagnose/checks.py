"""The checks of `eagleray doctor --kubernetes`: pure, from a snapshot of a namespace to findings.

A check that needs what could not be read raises the reason (`Snapshot.require`).
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import yaml

from eagleray import __version__, doctor
from eagleray.doctor import Versions
from eagleray.findings import Finding, failed, passed, skipped, warned
from k8s import release as releases
from k8s.api import Object
from k8s.diagnose import capacity, definitions, pods
from k8s.diagnose.objects import labels, name, status
from k8s.diagnose.snapshot import Snapshot

KUBERNETES = (29, 37)
"""Oldest and newest minor version of Kubernetes 1 that the chart is held to."""
SKELETON = "rayjob.yaml"
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


@dataclass(frozen=True)
class Site:
    """A snapshot, and the release in it that is checked; `asked` by name, or the only one."""

    snapshot: Snapshot
    asked: str | None = None

    @functools.cached_property
    def skeletons(self) -> Mapping[str, Object]:
        """The ConfigMap with the skeleton of a run, of each release."""
        found = [one for one in self.snapshot.get("configmaps") if SKELETON in one.get("data", {})]
        return {labels(one).get(releases.INSTANCE, name(one)): one for one in found}

    @functools.cached_property
    def release(self) -> str:
        """The release's name; empty when the namespace has none, or it is not known which."""
        wanted = self.asked or (next(iter(self.skeletons)) if len(self.skeletons) == 1 else "")
        return wanted if wanted in self.skeletons else ""

    @functools.cached_property
    def skeleton(self) -> Object:
        """The RayJob that runs of the release are made from; empty when it is not YAML."""
        try:
            found = yaml.safe_load(self.skeletons[self.release]["data"][SKELETON])
        except (KeyError, yaml.YAMLError):
            return {}
        return found if isinstance(found, dict) else {}

    @functools.cached_property
    def run(self) -> Object:
        """The RayClusterSpec of a run; empty when runs go to a cluster that is there."""
        found: Object = self.skeleton.get("spec", {}).get("rayClusterSpec") or {}
        return found

    @functools.cached_property
    def clusters(self) -> Mapping[str, Object]:
        """The RayClusterSpec of each RayService, and of each RayCluster that is of none."""
        services = {f"RayService {name(one)}": one for one in self.own("rayservices")}
        alone = [one for one in self.own("rayclusters") if "ownerReferences" not in one["metadata"]]
        found = services | {f"RayCluster {name(one)}": one for one in alone}
        specs = {what: one["spec"] for what, one in found.items()}
        return {what: spec.get("rayClusterConfig", spec) for what, spec in specs.items()}

    @functools.cached_property
    def required(self) -> list[capacity.Requirements]:
        """What each cluster of the release asks for: those of runs, and those that are there."""
        found = [capacity.of_run("a run", self.skeleton["spec"])] if self.run else []
        return found + [capacity.of_cluster(what, spec) for what, spec in self.clusters.items()]

    @property
    def embedded(self) -> bool:
        """Whether a cluster of the release keeps its head's state on a volume."""
        return any(map(definitions.embedded, [self.run, *self.clusters.values()]))

    @property
    def upgrade(self) -> str:
        """How Helm's command to change the release begins."""
        space = self.snapshot.namespace
        return f"helm upgrade {self.release or 'eagleray'} helm/eagleray -n {space} --reuse-values"

    def own(self, resource: str) -> Sequence[Object]:
        """The objects of a resource that the release has, as far as they were read."""
        found = self.snapshot.get(resource) if self.release else ()
        return [one for one in found if labels(one).get(releases.INSTANCE) == self.release]

    def heads(self) -> list[Object]:
        """The release's RayClusters whose head has a Service."""
        return [one for one in self.own("rayclusters") if head_service(one)]

    def secrets(self) -> dict[str, str]:
        """The Secrets that the release's pods need, by name, with the command that makes each."""
        found = {}
        for spec in (pod for one in self.required for pod in one.pods):
            for one in spec.get("imagePullSecrets", []):
                found[one["name"]] = "docker-registry {} --docker-server=… --docker-username=…"
            for variable in (each for one in spec["containers"] for each in one.get("env", [])):
                source = variable.get("valueFrom", {}).get("secretKeyRef")
                if source and not source.get("optional"):
                    found[source["name"]] = f"generic {{}} --from-literal={source['key']}=…"
        return {name: f"kubectl create secret {how.format(name)}" for name, how in found.items()}


def ray_hooks(configurations: Sequence[Object]) -> list[Object]:
    """The webhooks that are asked about Ray objects: KubeRay's own, Kueue's and others'."""
    hooks = [hook for one in configurations for hook in one.get("webhooks", [])]
    groups = [
        [group for rule in hook.get("rules", []) for group in rule["apiGroups"]] for hook in hooks
    ]
    return [hook for hook, asked in zip(hooks, groups, strict=True) if "ray.io" in asked]


def service(hook: Object) -> tuple[str, str] | None:
    """Namespace and name of the Service behind a webhook; None when it is a URL."""
    named = hook["clientConfig"].get("service")
    return (named["namespace"], named["name"]) if named else None


def head_service(cluster: Object) -> str:
    """The Service of a cluster's head."""
    return str(cluster.get("status", {}).get("head", {}).get("serviceName", ""))


def _kubernetes(site: Site) -> list[Finding]:
    (said,) = site.snapshot.require("version")
    version = str(said.get("gitVersion", ""))
    minor = int("".join(filter(str.isdigit, str(said.get("minor") or version.split(".")[1]))))
    clock = doctor.clock(said.get("ahead_s"), "the API server").named("Kubernetes clock")
    if KUBERNETES[0] <= minor <= KUBERNETES[1]:
        return [passed(f"{version} answers"), clock]
    law = f"{version} answers; EagleRay is held to 1.{KUBERNETES[0]} to 1.{KUBERNETES[1]}"
    return [warned(law, "upgrade the cluster, or: make e2e"), clock]


def _release(site: Site) -> list[Finding]:
    site.snapshot.require("configmaps")
    namespace, known = site.snapshot.namespace, site.skeletons
    space = f"namespace {namespace}"
    if not known:
        fix = f"helm install eagleray helm/eagleray -n {namespace} --set model.name=…"
        return [warned(f"{space} has no release of the chart", f"{fix},storage.uri=s3://…")]
    if not site.release:
        said = f"must be one of {', '.join(sorted(known))} in {space}"
        return [failed(f"{said}, but got {site.asked or 'none'}", f"--release {min(known)}")]
    if not site.skeleton:
        said = f"ConfigMap {name(known[site.release])}: {SKELETON} must be YAML"
        return [failed(said, site.upgrade)]
    return [passed(f"{site.release} in {space}")]


def _definitions(site: Site) -> list[Finding]:
    error = site.snapshot.unread.get("definitions")
    absent = error is not None and status(error) == 404
    (described,) = ({},) if absent else site.snapshot.require("definitions")
    wanted = [{**site.skeleton, "kind": "RayJob"}] if site.skeleton else []
    return [definitions.check(definitions.schemas(described), wanted)]


def _operator(site: Site) -> list[Finding]:
    return [definitions.operator(site.snapshot.require("operators"), gated=site.embedded)]


def _webhooks(site: Site) -> list[Finding]:
    hooks = ray_hooks([*site.snapshot.require("mutating"), *site.snapshot.require("validating")])
    slices, findings = site.snapshot.require("endpointslices"), []
    for hook in hooks:
        place = service(hook)
        if place is None or _answers(slices, *place):
            continue
        law = f"{hook['name']} asks service {'/'.join(place)}, which has no ready pod"
        fix = f"kubectl -n {place[0]} get endpointslices,pods"
        fatal = hook.get("failurePolicy", "Fail") == "Fail"
        refused = failed(f"{law}: every Ray object is refused", fix)
        findings.append(refused if fatal else warned(f"{law}, and is passed over", fix))
    well = passed(f"{', '.join(hook['name'] for hook in hooks)}: answered for")
    return findings or [well if hooks else skipped("none is asked about Ray objects")]


def _answers(slices: Sequence[Object], space: str, called: str) -> bool:
    """Whether an endpoint is ready behind a Service; one that does not say is."""
    mine = [one for one in slices if labels(one).get("kubernetes.io/service-name") == called]
    mine = [one for one in mine if one["metadata"].get("namespace") == space]
    ends = [end for one in mine for end in one.get("endpoints") or []]
    return any(end.get("conditions", {}).get("ready") is not False for end in ends)


def _pods(site: Site) -> list[Finding]:
    """What `eagleray why` says of each pod; pods with the same cause are one line."""
    if not site.release:
        return [skipped("no release")]
    for resource in ("rayservices", "rayclusters", "pods", "events"):
        site.snapshot.require(resource)
    mine = site.own("pods")
    causes: dict[Finding, list[str]] = {}
    for pod in mine:
        if found := pods.trouble(pod, site.snapshot):
            causes.setdefault(replace(found, evidence=()), []).append(name(pod))
    phases = Counter(str(pod.get("status", {}).get("phase")) for pod in mine)
    well = ", ".join(f"{count} {phase}" for phase, count in sorted(phases.items()))
    return [
        replace(
            cause,
            severity="warn" if cause.severity == "wait" else cause.severity,
            message=f"{', '.join(names)}: {cause.message}",
        )
        for cause, names in causes.items()
    ] or [passed(well or "none")]


def _gate(site: Site) -> list[Finding]:
    if not site.embedded:
        return [skipped("ray.faultTolerance.embedded is not used")]
    return [definitions.gate(site.snapshot.require("operators"))]


def _versions(site: Site) -> list[Finding]:
    """Compare with what the chart says that runs, and with what a head says that it is."""
    mine, told = doctor.here(), site.run.get("rayVersion", "")
    fix = f"{site.upgrade} --set image.tag={__version__},ray.version={mine.ray}"
    declared = doctor.versions(mine, Versions(told), "by the chart's ray.version", fix)[:1]
    found = declared if told else []
    if site.release:
        site.snapshot.require("rayclusters")
    if not site.heads():
        return [*found, skipped("no cluster of the release runs").named("Python version")]
    head = head_service(site.heads()[0])
    said = {one["service"]: one for one in site.snapshot.get("heads")}.get(head, {})
    theirs = Versions(str(said.get("rayVersion", "")), str(said.get("pythonVersion", "")))
    if not theirs.ray:
        fix = f"kubectl -n {site.snapshot.namespace} port-forward svc/{head} 8265 & "
        fix += "eagleray doctor --address http://127.0.0.1:8265"
    return [*found, *doctor.versions(mine, theirs, f"on {head}", fix)]


def _gpus(site: Site) -> list[Finding]:
    return capacity.devices(lambda: site.snapshot.require("nodes"), site.required)


def _quotas(site: Site) -> list[Finding]:
    found = capacity.quotas(site.snapshot.require("resourcequotas"), site.required)
    return found or [passed(f"namespace {site.snapshot.namespace} has none")]


def _secrets(site: Site) -> list[Finding]:
    wanted, space = site.secrets(), site.snapshot.namespace
    if not wanted:
        return [skipped("the release names none")]
    there = {name(one) for one in site.snapshot.require("secrets")}
    for one in sorted(wanted.keys() - there):
        law = f"pods need Secret {one}, but namespace {space} has none of that name"
        return [failed(law, f"{wanted[one]} -n {space}")]
    return [passed(f"{', '.join(sorted(wanted))}: there")]


def _volumes(site: Site) -> list[Finding]:
    """Check that each claim of the release is bound, or has a class that can fulfil it."""
    site.snapshot.require("claims")
    claims = site.own("claims")
    waiting = [one for one in claims if one.get("status", {}).get("phase") != "Bound"]
    if not waiting:
        well = f"{len(claims)} of {len(claims)} volumes are bound"
        return [passed(well) if claims else skipped("the release asks for no volume")]
    called, wanted = name(waiting[0]), waiting[0]["spec"].get("storageClassName")
    known = {name(one): one for one in site.snapshot.require("classes")}
    defaults = [called for called, one in known.items() if _is_default(one)]
    if wanted and wanted not in known:
        law = f"{called} waits for class {wanted}, but there is {', '.join(known) or 'none'}"
        again = "helm uninstall, then: helm install … --set objectStore.storageClassName="
        return [failed(law, f"{again}{next(iter(known), '…')}")]
    if not wanted and not defaults:
        patch = f'{{"metadata":{{"annotations":{{"{DEFAULT_CLASS}":"true"}}}}}}'
        law = f"{called} waits for the default class, but no class is the default"
        return [failed(law, f"kubectl patch sc {next(iter(known), 'NAME')} -p '{patch}'")]
    law = f"{called} waits for a volume of class {wanted or defaults[0]}"
    return [warned(law, f"kubectl describe pvc {called}")]


def _is_default(one: Object) -> bool:
    return (one["metadata"].get("annotations") or {}).get(DEFAULT_CLASS) == "true"


def _dns(site: Site) -> list[Finding]:
    found = site.snapshot.require("dns")
    well = sum(map(pods.ready, found))
    if well:
        return [passed(f"{well} of {len(found)} pods are ready")]
    if found:
        restart = "kubectl -n kube-system rollout restart deployment/coredns"
        return [failed(f"none of {len(found)} pods is ready", restart)]
    said = "kube-system has no pod labelled k8s-app=kube-dns; other clusters keep it elsewhere"
    return [warned(said, "kubectl get pods -A | grep -i dns")]


def _metrics(site: Site) -> list[Finding]:
    """Whether somebody scrapes the release: a matter of the Prometheus operator."""
    absent = site.snapshot.unread.get("monitoring")
    if absent is not None and status(absent) == 404:
        return [skipped("the cluster has no Prometheus operator")]
    for resource in ("monitoring", "podmonitors", "servicemonitors") if site.release else ():
        site.snapshot.require(resource)
    if not site.release:
        return [skipped("no release")]
    found = [*site.own("podmonitors"), *site.own("servicemonitors")]
    if found:
        return [passed(f"scraped as {', '.join(map(name, found))} say")]
    law = f"the cluster has the Prometheus operator, but {site.release} has no monitor"
    fix = f"helm upgrade {site.release} helm/eagleray --reuse-values"
    return [warned(law, f"{fix} --set monitoring.podMonitor.enabled=true")]


CHECKS: Mapping[str, Callable[[Site], list[Finding]]] = {
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
"""In the order of the report: each stands on those before it."""
