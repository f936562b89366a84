"""A Kubernetes cluster, as `eagleray doctor --kubernetes` looks at it. It only reads.

Each check looks at what it needs, and no more: a right that we lack costs its line alone. What is
seen is judged in `k8s/judgements.py`, `k8s/definitions.py` and `k8s/needs.py`.
"""

from __future__ import annotations

import base64
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import yaml

from eagleray import __version__, doctor, errors
from eagleray.doctor import Finding, Versions
from k8s import api, definitions, judgements, needs
from k8s import release as releases

Object = Mapping[str, Any]

CLAIMS = api.Kind("v1", "persistentvolumeclaims")
SLICES = api.Kind("discovery.k8s.io/v1", "endpointslices")
HOOKS = tuple(
    api.Kind("admissionregistration.k8s.io/v1", f"{kind}webhookconfigurations", namespaced=False)
    for kind in ("mutating", "validating")
)
MONITORS = tuple(
    api.Kind("monitoring.coreos.com/v1", plural) for plural in ("podmonitors", "servicemonitors")
)
SYSTEM = "kube-system"
OPERATOR = "app.kubernetes.io/component=kuberay-operator"


@dataclass
class Site:
    """What the checks look at.

    Attributes:
        cluster: where, and in which namespace.
        release: of the chart; empty when the namespace has none, or several.
        skeleton: the RayJob that runs of the release are made from.
        made: RayServices and RayClusters of the release.
    """

    cluster: api.Api
    release: str = ""
    skeleton: Object = field(default_factory=dict)
    made: Sequence[Object] = ()

    def everywhere(self, kind: api.Kind, label: str, space: str = "") -> Sequence[Object]:
        """The objects of a kind with a label, in another namespace or in all."""
        path = kind.path(space) if space else kind.path("").replace("/namespaces/", "")
        name, _, value = label.partition("=")
        found = self.cluster.read(f"{path}?labelSelector={quote(label, safe='')}")["items"]
        return [one for one in found if one["metadata"].get("labels", {}).get(name) == value]

    def own(self, kind: api.Kind) -> Sequence[Object]:
        """The objects of a kind that the release has."""
        found = self.cluster.list(kind, f"app.kubernetes.io/instance={self.release}")
        return judgements.of_release(found, self.release)

    def needs(self) -> list[needs.Need]:
        """What each cluster of the release asks for: those of runs, and those that are there."""
        run = self.skeleton.get("spec", {})
        found = [needs.of_run("a run", run)] if run.get("rayClusterSpec") else []
        for one in self.made:
            name = f"{one['kind']} {one['metadata']['name']}"
            found.append(needs.of_cluster(name, one["spec"].get("rayClusterConfig", one["spec"])))
        return found

    def upgrade(self) -> str:
        """How Helm's command to change the release begins."""
        release, space = self.release or "eagleray", self.cluster.namespace
        return f"helm upgrade {release} helm/eagleray -n {space} --reuse-values"


@dataclass(frozen=True)
class Check:
    """A line of the report.

    Attributes:
        name: what it is about.
        look: looks, and judges.
        reads: the kinds that it must be allowed to list.
        wide: whether beyond the namespace.
    """

    name: str
    look: Callable[[Site], list[Finding]]
    reads: tuple[api.Kind, ...] = ()
    wide: bool = False


def examine(namespace: str | None, release: str | None) -> list[Finding]:
    """Look at a cluster, and at a release of the chart in one of its namespaces."""
    try:
        site = Site(api.Api(namespace), release or "")
    except errors.UserError as error:
        return [Finding("Kubernetes", "fail", str(error), "export KUBECONFIG=…")]
    findings: list[Finding] = []
    for number, check in enumerate(CHECKS):
        try:
            findings += check.look(site)
        except errors.EagleRayError as error:
            findings.append(_unseen(check, site.cluster.namespace, error))
            if _status(error) in (None, 401):  # nobody answers, or nobody knows us
                rest = CHECKS[number + 1 :]
                return findings + [Finding(one.name, "skip", "no answer") for one in rest]
    return findings


def _kubernetes(site: Site) -> list[Finding]:
    before = time.time()
    said, headers = site.cluster.answer("/version")
    ahead = doctor.ahead(doctor.dated(headers.get("Date")), before, time.time())
    return [judgements.version(said), doctor.clock("Kubernetes clock", ahead, "the API server")]


def _release(site: Site) -> list[Finding]:
    """Find the release; those that come later look at what it has."""
    maps = releases.skeletons(site.cluster)
    known = {name: one for name, one in maps.items() if "rayjob.yaml" in one.get("data", {})}
    space = f"namespace {site.cluster.namespace}"
    if not known:
        mend = f"helm install eagleray helm/eagleray -n {site.cluster.namespace} --set model.name=…"
        said = f"{space} has no release of the chart"
        return [Finding("release", "warn", said, f"{mend},storage.uri=s3://…")]
    wanted = site.release or (next(iter(known)) if len(known) == 1 else "")
    site.release = wanted if wanted in known else ""
    if not site.release:
        names = ", ".join(sorted(known))
        said = f"must be one of {names} in {space}, but got {wanted or 'none'}"
        return [Finding("release", "fail", said, f"--release {min(known)}")]
    try:
        site.skeleton = yaml.safe_load(known[site.release]["data"]["rayjob.yaml"])
    except yaml.YAMLError:
        said = f"ConfigMap {known[site.release]['metadata']['name']}: rayjob.yaml must be YAML"
        return [Finding("release", "fail", said, site.upgrade())]
    return [Finding("release", "pass", f"{site.release} in {space}")]


def _made(site: Site) -> list[Finding]:
    """Look at what KubeRay has made of the release."""
    if not site.release:
        return [Finding("pods", "skip", "no release")]
    services = [{**one, "kind": "RayService"} for one in site.own(api.RAYSERVICES)]
    clusters = [{**one, "kind": "RayCluster"} for one in site.own(api.RAYCLUSTERS)]
    alone = [one for one in clusters if not one["metadata"].get("ownerReferences")]
    site.made = [*services, *alone]
    return [judgements.pods(site.cluster.namespace, site.release, site.own(api.PODS))]


def _definitions(site: Site) -> list[Finding]:
    try:
        described = site.cluster.read(definitions.PATH)
    except errors.NotFoundError:
        described = {}
    wanted = [{**site.skeleton, "kind": "RayJob"}] if site.skeleton else []
    return [definitions.judge(definitions.schemas(described), wanted)]


def _operator(site: Site) -> list[Finding]:
    return [definitions.operator(site.everywhere(api.PODS, OPERATOR))]


def _gate(site: Site) -> list[Finding]:
    specs = [site.skeleton.get("spec", {}).get("rayClusterSpec") or {}]
    specs += [one["spec"].get("rayClusterConfig", one["spec"]) for one in site.made]
    if not any(map(definitions.embedded, specs)):
        return [Finding("feature gate", "skip", "ray.faultTolerance.embedded is not used")]
    return [definitions.gate(site.everywhere(api.PODS, OPERATOR))]


def _webhooks(site: Site) -> list[Finding]:
    found = [one for kind in HOOKS for one in site.cluster.list(kind)]
    places = {judgements.service(hook) for hook in judgements.ray_hooks(found)}
    answering = {
        place
        for place in places
        if place
        and judgements.answers(
            site.everywhere(SLICES, f"kubernetes.io/service-name={place[1]}", place[0])
        )
    }
    return judgements.webhooks(found, answering)


def _versions(site: Site) -> list[Finding]:
    """Compare with what the chart says that runs, and with what a head says that it is."""
    mine = doctor.here()
    mend = f"{site.upgrade()} --set image.tag={__version__},ray.version={mine.ray}"
    told = site.skeleton.get("spec", {}).get("rayClusterSpec", {}).get("rayVersion", "")
    declared = doctor.versions(mine, Versions(told), "by the chart's ray.version", mend)[:1]
    heads = [one for one in site.own(api.RAYCLUSTERS) if _head(one)] if site.release else []
    if not heads:
        said = "no cluster of the release runs"
        return [*(declared if told else []), Finding("Python version", "skip", said)]
    theirs, head = _running(site, heads[0]), _head(heads[0])
    if not theirs.ray:
        mend = f"kubectl -n {site.cluster.namespace} port-forward svc/{head} 8265 & "
        mend += "eagleray doctor --address http://127.0.0.1:8265"
    return [*(declared if told else []), *doctor.versions(mine, theirs, f"on {head}", mend)]


def _gpus(site: Site) -> list[Finding]:
    wanted = site.needs()
    if needs.devices([], wanted)[0].state == "skip":
        return needs.devices([], wanted)
    return needs.devices(site.cluster.list(api.NODES), wanted)


def _quotas(site: Site) -> list[Finding]:
    return needs.quotas(site.cluster.namespace, site.cluster.list(api.QUOTAS), site.needs())


def _images(site: Site) -> list[Finding]:
    pods = site.own(api.PODS) if site.release else []
    return [judgements.images(site.cluster.namespace, pods, site.upgrade())]


def _secrets(site: Site) -> list[Finding]:
    pods = [pod for need in site.needs() for pod in need.pods]
    wanted, there = judgements.named_secrets(pods), set()
    for name in wanted:
        with contextlib.suppress(errors.NotFoundError):
            there.add(site.cluster.get(api.SECRETS, name)["metadata"]["name"])
    return [judgements.secrets(site.cluster.namespace, wanted, there)]


def _volumes(site: Site) -> list[Finding]:
    claims = site.own(CLAIMS) if site.release else []
    waiting = any(claim.get("status", {}).get("phase") != "Bound" for claim in claims)
    return [judgements.volumes(claims, site.cluster.list(api.STORAGE_CLASSES) if waiting else [])]


def _dns(site: Site) -> list[Finding]:
    return [judgements.dns(site.everywhere(api.PODS, "k8s-app=kube-dns", SYSTEM))]


def _metrics(site: Site) -> list[Finding]:
    try:
        site.cluster.read(f"/apis/{MONITORS[0].version}")
    except errors.NotFoundError:
        return [judgements.metrics(site.release, operator=False, monitors=[])]
    if not site.release:
        return [Finding("metrics", "skip", "no release")]
    found = [one for kind in MONITORS for one in site.own(kind)]
    return [judgements.metrics(site.release, operator=True, monitors=found)]


CHECKS = (
    Check("Kubernetes", _kubernetes),
    Check("release", _release, (api.CONFIG_MAPS,)),
    Check("CRDs", _definitions),
    Check("KubeRay operator", _operator, (api.PODS,), wide=True),
    Check("webhook", _webhooks, (*HOOKS, SLICES), wide=True),
    Check("pods", _made, (api.RAYSERVICES, api.RAYCLUSTERS, api.PODS)),
    Check("feature gate", _gate, (api.PODS,), wide=True),
    Check("Ray version", _versions, (api.RAYCLUSTERS,)),
    Check("GPUs", _gpus, (api.NODES,), wide=True),
    Check("quota", _quotas, (api.QUOTAS,)),
    Check("image", _images, (api.PODS,)),
    Check("secrets", _secrets, (api.SECRETS,)),
    Check("storage class", _volumes, (CLAIMS, api.STORAGE_CLASSES)),
    Check("DNS", _dns, (api.PODS,), wide=True),
    Check("metrics", _metrics, MONITORS),
)


def _head(cluster: Object) -> str:
    """The Service of a cluster's head."""
    return str(cluster.get("status", {}).get("head", {}).get("serviceName", ""))


def _running(site: Site, cluster: Object) -> Versions:
    """What a head says of itself, through the API server; nothing when that is not to be had."""
    path = f"{api.SERVICES.path(site.cluster.namespace, _head(cluster))}:8265/proxy"
    try:
        said, _ = site.cluster.answer(f"{path}/api/v0/cluster_metadata", _token(site, cluster))
    except (errors.EagleRayError, ValueError):  # no way there, not let in, or no dashboard
        return Versions()
    data = said.get("data", {})
    return Versions(str(data.get("rayVersion", "")), str(data.get("pythonVersion", "")))


def _token(site: Site, cluster: Object) -> dict[str, str]:
    """The header that lets us in by KubeRay's token; `Authorization` is for the API server."""
    options = cluster["spec"].get("authOptions") or {}
    if options.get("mode") != "token":
        return {}
    secret = site.cluster.get(api.SECRETS, options.get("secretName") or cluster["metadata"]["name"])
    token = base64.b64decode(secret.get("data", {}).get("auth_token", "")).decode()
    return {"X-Ray-Authorization": f"Bearer {token}"}


def _unseen(check: Check, namespace: str, error: errors.EagleRayError) -> Finding:
    """The line of a check that could not look."""
    if _status(error) == 403:
        lacked = [kind for kind in check.reads if kind.plural in str(error)]
        if not lacked:
            return Finding(
                check.name, "warn", f"not looked at: {error}", "kubectl auth can-i --list"
            )
        right = f"read {', '.join(map(_resource, lacked))}"
        said = f"not looked at: the right to {right} is missing"
        return Finding(check.name, "warn", said, _grant(check, lacked, namespace))
    if _status(error) == 404:
        return Finding(check.name, "skip", "the cluster does not know what to look for")
    mend = "kubectl cluster-info" if _status(error) is None else "kubectl auth whoami"
    return Finding(check.name, "fail", str(error), mend)


def _grant(check: Check, lacked: Sequence[api.Kind], namespace: str) -> str:
    """The commands by which an administrator gives the rights that a check needs."""
    wide = check.wide or not all(kind.namespaced for kind in lacked)
    kind, option = ("clusterrole", "") if wide else ("role", f" -n {namespace}")
    name = f"doctor-{check.name.lower().replace(' ', '-')}"
    resources = ",".join(map(_resource, lacked))
    return (
        f"kubectl create {kind} {name} --verb=get,list --resource={resources}{option} && "
        f"kubectl create {kind}binding {name} --{kind}={name} --user=…{option}"
    )


def _resource(kind: api.Kind) -> str:
    group, slash, _ = kind.version.rpartition("/")
    return f"{kind.plural}.{group}" if slash else kind.plural


def _status(error: errors.EagleRayError) -> int | None:
    """The HTTP status behind an error; None when there was no answer."""
    return getattr(error.__cause__, "status", None)
