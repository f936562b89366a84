"""`eagleray deploy --status`: a release's replicas, nodes, versions and endpoints; what is wrong.

`read` asks the API, and leaves out what may not be read or is not there; `summarize` is pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from eagleray import errors
from eagleray.findings import Finding
from k8s import api, diagnose
from k8s import release as releases
from k8s.diagnose import snapshot as snapshots
from k8s.diagnose.objects import condition, labels, name
from k8s.diagnose.snapshot import Snapshot

INGRESSES = api.Kind("networking.k8s.io/v1", "ingresses")
ROUTES = api.Kind("gateway.networking.k8s.io/v1", "httproutes")
READY, NO_ENDPOINT = "ready", "no endpoint: serving.enabled is false"


@dataclass(frozen=True)
class Pod:
    """A pod of the release, the node that it is on, and whether it is ready."""

    name: str
    part: str
    node: str | None
    ready: bool


@dataclass(frozen=True)
class Status:
    """A release as it is now; None for what cannot be known from here.

    Attributes:
        release: its name.
        chart: name and version of the chart.
        revision: how often Helm installed or changed it.
        state: `ready`, `not ready` or `no endpoint`, and why it is so.
        wanted: worker pods of the endpoint that should be there.
        ready: those of them that are ready.
        pods: all pods of the release.
        model: the model that is served.
        alias: the alias that its replicas follow.
        storage: where its versions are.
        aliases: the version that each alias of the model points to.
        answering: the version that the endpoint itself says it serves.
        endpoints: where it answers, inside the cluster first.
        finding: why the endpoint is not ready, as `eagleray why` says it; None when it is.
    """

    release: str
    chart: str | None
    revision: int | None
    state: str
    wanted: int | None
    ready: int
    pods: Sequence[Pod]
    model: str | None
    alias: str | None
    storage: str | None
    aliases: Mapping[str, int] | None
    answering: int | None
    endpoints: Sequence[str]
    finding: Finding | None


def read(cluster: api.Api, release: str) -> Snapshot:
    """Read all that a status is made of; the subject is the release's RayService, if it has one.

    Raises:
        NotFoundError: nothing of such a release is in the namespace.
    """
    mine, names = f"{releases.INSTANCE}={release}", sorted(releases.skeletons(cluster))
    if release not in names:
        raise errors.NotFoundError(
            f"release {release}: must be in namespace {cluster.namespace}, but there "
            f"{'are: ' + ', '.join(names) if names else 'is none'}"
        )
    reader = snapshots.Reader(cluster, strict=False)
    services = [{**one, "kind": "RayService"} for one in cluster.list(api.RAYSERVICES, mine)]
    for kind in (api.RAYCLUSTERS, api.PODS, api.EVENTS):
        reader.list(kind)
    for kind in (INGRESSES, ROUTES):
        reader.list(kind, mine)
    reader.list(api.SECRETS, f"owner=helm,name={release}")
    for one in services:
        path = f"{api.SERVICES.path(cluster.namespace, name(one))}-serve-svc:{releases.SERVE_PORT}"
        nothing: api.Object = {}
        reader.objects["answer"] = [reader.ask("answer", partial(_page, cluster, path), nothing)]
    return replace(reader.snapshot(), subject=services[0] if services else {})


def summarize(release: str, found: Snapshot, aliases: Mapping[str, int] | None = None) -> Status:
    """The status, from what was read and, where storage is reached, the model's aliases."""
    service, served = found.subject, releases.arguments(found.subject)
    mine = [one for one in found.get("pods") if labels(one).get(releases.INSTANCE) == release]
    pods = [_pod(one) for one in mine]
    (answer,) = found.get("answer") or ({},)
    numbers = [int(labels(one)["version"]) for one in found.get("secrets")]
    return Status(
        release=release,
        chart=labels(service).get("helm.sh/chart"),
        revision=max(numbers, default=None),
        state=_state(service),
        wanted=_wanted(service),
        ready=sum(one.ready and one.part == "serving worker" for one in pods),
        pods=sorted(pods, key=lambda pod: (pod.part, pod.name)),
        model=served.get("name"),
        alias=served.get("alias"),
        storage=served.get("storage"),
        aliases=aliases,
        answering=answer.get("version"),
        endpoints=[*_endpoints(found)] if service else [],
        finding=_finding(found) if service else None,
    )


def state(cluster: api.Api, release: str) -> str:
    """The state of a release's endpoint: `ready`, `not ready` or `no endpoint`, and the reason."""
    services = cluster.list(api.RAYSERVICES, f"{releases.INSTANCE}={release}")
    return _state(services[0] if services else {})


def _page(cluster: api.Api, service: str) -> api.Object:
    """The endpoint's first page, by way of the API server; empty when it is not ours."""
    try:
        return cluster.answer(f"{service}/proxy/")[0]
    except ValueError:
        return {}


def _finding(found: Snapshot) -> Finding | None:
    told = diagnose.explain(snapshots.narrowed(found, found.subject)).finding
    return None if told.severity == "pass" else told


def _state(service: api.Object) -> str:
    if not service:
        return NO_ENDPOINT
    ready, written = condition(service, "Ready"), service["metadata"].get("generation", 0)
    if not ready or service["status"].get("observedGeneration", written) < written:
        return "not ready: the operator has not looked at it yet"
    if ready["status"] == "True":
        moving = condition(service, "UpgradeInProgress").get("status") == "True"
        return "ready, moving to a new cluster" if moving else READY
    said = ": ".join(filter(None, [ready.get("reason"), ready.get("message")]))
    return f"not ready: {said}"


def _wanted(service: api.Object) -> int | None:
    """Worker pods that the active cluster should have; that of the coming one at the start."""
    status = service.get("status", {})
    parts = (status.get(f"{which}ServiceStatus", {}) for which in ("active", "pending"))
    wanted = [part.get("rayClusterStatus", {}).get("desiredWorkerReplicas") for part in parts]
    return next((int(one) for one in wanted if one is not None), None)


def _pod(pod: api.Object) -> Pod:
    parts = (labels(pod).get(releases.COMPONENT), labels(pod).get("eagleray/role"))
    node = pod.get("spec", {}).get("nodeName")
    return Pod(name(pod), " ".join(filter(None, parts)), node, releases.ready(pod))


def _endpoints(found: Snapshot) -> Iterator[str]:
    yield f"http://{found.name}-serve-svc.{found.namespace}.svc:{releases.SERVE_PORT}"
    for one in found.get("ingresses"):
        scheme = f"http{'s' if one['spec'].get('tls') else ''}"
        hosts = (rule.get("host") for rule in one["spec"].get("rules", []))
        yield from (f"{scheme}://{host}" for host in hosts if host)
    for one in found.get("httproutes"):
        yield from (f"https://{host}" for host in one["spec"].get("hostnames", []))
