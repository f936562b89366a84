"""How a release of the chart fares: replicas, nodes, versions, endpoints.

`gather` asks the API, and leaves out what may not be read or is not there; `summarize` is pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eagleray import errors
from k8s import api
from k8s import release as releases

INGRESSES = api.Kind("networking.k8s.io/v1", "ingresses")
ROUTES = api.Kind("gateway.networking.k8s.io/v1", "httproutes")
READY, NO_ENDPOINT = "ready", "no endpoint: serving.enabled is false"


@dataclass(frozen=True)
class Found:
    """What the API says about a release; None for what it does not say to us."""

    services: Sequence[api.Object]
    pods: Sequence[api.Object]
    ingresses: Sequence[api.Object]
    routes: Sequence[api.Object]
    records: Sequence[api.Object] | None
    answer: Mapping[str, Any] | None


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


def gather(cluster: api.Api, release: str) -> Found:
    """Ask for all that a status is made of.

    Raises:
        NotFoundError: nothing of such a release is in the namespace.
    """
    mine = f"app.kubernetes.io/instance={release}"
    names = sorted(releases.skeletons(cluster))
    if release not in names:
        raise errors.NotFoundError(
            f"release {release}: must be in namespace {cluster.namespace}, but there "
            f"{'are: ' + ', '.join(names) if names else 'is none'}"
        )
    services = cluster.list(api.RAYSERVICES, mine)
    return Found(
        services,
        cluster.list(api.PODS, mine),
        _allowed(lambda: cluster.list(INGRESSES, mine)) or (),
        _allowed(lambda: cluster.list(ROUTES, mine)) or (),
        _allowed(lambda: cluster.list(api.SECRETS, f"owner=helm,name={release}")),
        _allowed(lambda: cluster.answer(_proxy(cluster, services[0]))[0]) if services else None,
    )


def summarize(
    release: str, namespace: str, found: Found, aliases: Mapping[str, int] | None = None
) -> Status:
    """The status, from what was found and, where storage is reached, the model's aliases."""
    service: api.Object = found.services[0] if found.services else {}
    served = releases.arguments(service)
    return Status(
        release=release,
        chart=service.get("metadata", {}).get("labels", {}).get("helm.sh/chart"),
        revision=_revision(found.records),
        state=_state(service),
        wanted=_wanted(service),
        ready=sum(_is_endpoint(pod) and releases.ready(pod) for pod in found.pods),
        pods=sorted(map(_pod, found.pods), key=lambda pod: (pod.part, pod.name)),
        model=served.get("name"),
        alias=served.get("alias"),
        storage=served.get("storage"),
        aliases=aliases,
        answering=(found.answer or {}).get("version"),
        endpoints=_endpoints(service, namespace, found),
    )


def state(cluster: api.Api, release: str) -> str:
    """How a release's endpoint fares: `ready`, `not ready` or `no endpoint`, and why it is so."""
    services = cluster.list(api.RAYSERVICES, f"{releases.INSTANCE}={release}")
    return _state(services[0] if services else {})


def _allowed(ask: Callable[[], Any]) -> Any:
    """An answer, or None where we may not ask or nobody answers: the rest is worth showing."""
    try:
        return ask()
    except (errors.UserError, errors.ClusterError, ValueError):
        return None


def _proxy(cluster: api.Api, service: api.Object) -> str:
    """The endpoint's first page, by way of the API server."""
    name = f"{service['metadata']['name']}-serve-svc"
    return f"{api.SERVICES.path(cluster.namespace, name)}:{releases.SERVE_PORT}/proxy/"


def _revision(records: Sequence[api.Object] | None) -> int | None:
    """The latest of the Secrets in which Helm keeps the revisions of a release."""
    numbers = [int(one["metadata"]["labels"]["version"]) for one in records or ()]
    return max(numbers, default=None)


def _state(service: api.Object) -> str:
    if not service:
        return NO_ENDPOINT
    conditions = {one["type"]: one for one in service.get("status", {}).get("conditions", [])}
    ready = conditions.get("Ready")
    written = service["metadata"].get("generation", 0)
    if ready is None or service["status"].get("observedGeneration", written) < written:
        return "not ready: the operator has not looked at it yet"
    if ready["status"] == "True":
        moving = conditions.get("UpgradeInProgress", {}).get("status") == "True"
        return "ready, moving to a new cluster" if moving else READY
    said = ": ".join(filter(None, [ready.get("reason"), ready.get("message")]))
    return f"not ready: {said}"


def _wanted(service: api.Object) -> int | None:
    """Worker pods that the active cluster should have; that of the coming one at the start."""
    status = service.get("status", {})
    for which in ("activeServiceStatus", "pendingServiceStatus"):
        cluster = status.get(which, {}).get("rayClusterStatus", {})
        if "desiredWorkerReplicas" in cluster:
            return int(cluster["desiredWorkerReplicas"])
    return None


def _is_endpoint(pod: api.Object) -> bool:
    labels = pod["metadata"]["labels"]
    parts = labels.get("app.kubernetes.io/component"), labels.get("eagleray/role")
    return parts == ("serving", "worker")


def _pod(pod: api.Object) -> Pod:
    labels = pod["metadata"]["labels"]
    parts = (labels.get("app.kubernetes.io/component"), labels.get("eagleray/role"))
    return Pod(
        pod["metadata"]["name"],
        " ".join(filter(None, parts)),
        pod.get("spec", {}).get("nodeName"),
        releases.ready(pod),
    )


def _endpoints(service: api.Object, namespace: str, found: Found) -> list[str]:
    if not service:
        return []
    inside = f"http://{service['metadata']['name']}-serve-svc.{namespace}.svc:{releases.SERVE_PORT}"
    hosts = [
        f"http{'s' if one['spec'].get('tls') else ''}://{rule['host']}"
        for one in found.ingresses
        for rule in one["spec"].get("rules", [])
        if rule.get("host")
    ]
    names = [host for one in found.routes for host in one["spec"].get("hostnames", [])]
    return [inside, *hosts, *(f"https://{host}" for host in names)]
