"""`eagleray deploy --status`: a release's pods, versions and endpoints, and what is wrong."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from eagleray import errors
from eagleray import storage as storages
from eagleray.findings import Finding
from eagleray.state.models import Registry
from k8s import api, diagnose
from k8s import release as releases
from k8s.diagnose.snapshot import Reader, Snapshot
from k8s.objects import at, condition, labels, name, ready

READY, NO_ENDPOINT = "ready", "no endpoint: serving.enabled is false"


@dataclass(frozen=True)
class Pod:
    """A pod of a release."""

    name: str
    part: str  # component and role, such as `serving worker`
    node: str | None
    ready: bool


@dataclass(frozen=True)
class Status:
    """A release as it is now; None for what cannot be known from here."""

    release: str
    chart: str | None
    revision: int | None  # how often Helm installed or changed it
    state: str  # `ready`, `not ready` or `no endpoint`, and the reason
    wanted: int | None  # worker pods that the endpoint should have
    ready: int  # worker pods that are ready
    pods: Sequence[Pod]
    model: str | None
    alias: str | None  # of the model, which replicas follow
    storage: str | None
    aliases: Mapping[str, int] | None  # versions by alias
    answering: int | None  # the version that the endpoint reports
    endpoints: Sequence[str]  # URLs, inside the cluster first
    finding: Finding | None  # why the endpoint is not ready, as `eagleray why` shows; None: ready


def read(cluster: api.Api, release: str, storage: str | None = None) -> Snapshot:
    """Read all that a status is made of; the subject is the release's RayService, if it has one.

    Raises:
        NotFoundError: nothing of such a release is in the namespace.
        StorageError: `storage`, which replaces the service's own, cannot be read.
    """
    names = sorted(releases.skeletons(cluster.list(api.CONFIG_MAPS, releases.SKELETONS)))
    if release not in names:
        there = f"are: {', '.join(names)}" if names else "is none"
        law = f"release {release}: must be in namespace {cluster.namespace}, but there {there}"
        raise errors.NotFoundError(law)
    services = cluster.list(api.RAYSERVICES, f"{releases.INSTANCE}={release}")
    subject = {**services[0], "kind": "RayService"} if services else {}
    reader, served = Reader(cluster), releases.arguments(subject)
    for source in ("rayclusters", "pods", "events", "ingresses", "httproutes"):
        reader.list(source)
    reader.list("revisions", partial(releases.revisions, cluster, release))
    for one in services:
        reader.list("answer", partial(_answer, cluster, name(one)))
    uri, model = storage or served.get("storage"), served.get("name")
    if uri and model:
        reader.list("aliases", lambda: [Registry(storages.open(uri)).aliases(model).values])
    found = replace(reader.snapshot(), subject=subject)
    if storage:
        found.require("aliases")
    return found


def summarize(release: str, found: Snapshot) -> Status:
    """The status, from what was read."""
    service, served = found.subject, releases.arguments(found.subject)
    pods = [_pod(one) for one in found.of_release("pods", release)]
    finding = diagnose.explain(found.about(service)).finding if service else None
    revisions = [int(labels(one)["version"]) for one in found.get("revisions")]
    return Status(
        release=release,
        chart=labels(service).get("helm.sh/chart"),
        revision=max(revisions, default=None),
        state=_state(service),
        wanted=_wanted(service),
        ready=sum(one.ready and one.part == "serving worker" for one in pods),
        pods=sorted(pods, key=lambda pod: (pod.part, pod.name)),
        model=served.get("name"),
        alias=served.get("alias"),
        storage=served.get("storage"),
        aliases=next(iter(found.get("aliases")), None),
        answering=next(iter(found.get("answer")), {}).get("version"),
        endpoints=[*_endpoints(found, release)] if service else [],
        finding=finding if finding and finding.severity != "pass" else None,
    )


def state(cluster: api.Api, release: str) -> str:
    """The state of a release's endpoint: `ready`, `not ready` or `no endpoint`, and the reason."""
    services = cluster.list(api.RAYSERVICES, f"{releases.INSTANCE}={release}")
    return _state(services[0] if services else {})


def _answer(cluster: api.Api, service: str) -> Sequence[api.Object]:
    """The endpoint's answer to `GET /`, through the API server; empty if it is not JSON."""
    path = f"{api.SERVICES.path(cluster.namespace, service)}-serve-svc:{releases.SERVE_PORT}/proxy/"
    try:
        return [cluster.json_once(path)[0]]
    except ValueError:
        return []


def _state(service: api.Object) -> str:
    if not service:
        return NO_ENDPOINT
    serves, written = condition(service, "Ready"), service["metadata"].get("generation", 0)
    if not serves or service["status"].get("observedGeneration", written) < written:
        return "not ready: the operator has not processed it yet"
    if serves["status"] == "True":
        moving = condition(service, "UpgradeInProgress").get("status") == "True"
        return "ready, moving to a new cluster" if moving else READY
    message = ": ".join(filter(None, [serves.get("reason"), serves.get("message")]))
    return f"not ready: {message}"


def _wanted(service: api.Object) -> int | None:
    """Worker pods that the active cluster should have, or at the start the pending one."""
    parts = (at(service, "status", f"{one}ServiceStatus") for one in ("active", "pending"))
    wanted = [at(one, "rayClusterStatus").get("desiredWorkerReplicas") for one in parts]
    return next((int(one) for one in wanted if one is not None), None)


def _pod(pod: api.Object) -> Pod:
    part = (labels(pod).get(releases.COMPONENT), labels(pod).get("eagleray/role"))
    node = at(pod, "spec").get("nodeName")
    return Pod(name(pod), " ".join(filter(None, part)), node, ready(pod))


def _endpoints(found: Snapshot, release: str) -> Iterator[str]:
    service = f"{name(found.subject)}-serve-svc.{found.namespace}.svc"
    yield f"http://{service}:{releases.SERVE_PORT}"
    for one in found.of_release("ingresses", release):
        hosts = (rule.get("host") for rule in at(one, "spec", "rules"))
        yield from (f"http{'s' * bool(one['spec'].get('tls'))}://{host}" for host in hosts if host)
    for one in found.of_release("httproutes", release):
        yield from (f"https://{host}" for host in at(one, "spec", "hostnames"))
