"""A snapshot of a cluster: read once, then a frozen value that the rules explain."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple, TypeVar

from eagleray import errors, names
from eagleray import storage as storages
from eagleray.client import screen
from eagleray.findings import Finding
from eagleray.state.aliases import REFUSED
from eagleray.state.models import Registry
from eagleray.state.searches import Waiting
from k8s import api, backend, rayjob
from k8s import release as releases
from k8s.api import Object
from k8s.diagnose import definitions
from k8s.diagnose.rules import match, one_line
from k8s.objects import at, concerned, container_statuses, created, labels, name, ready

LOGS, LINES = 3, 20
"""Most pods whose log is read, since those of a group fail alike; lines of each."""
ATTEMPTS = 2
"""How often the registry is asked: from here it may be out of reach for good."""
UNNAMED = "untolerated taint(s)"
"""How kube-scheduler mentions taints since 1.35, and late 1.34 (kubernetes#134740): unnamed."""

Answer = TypeVar("Answer")


class Source(NamedTuple):
    """Where objects are listed: a kind, labels, and the namespace if it is another ("": all)."""

    kind: api.Kind
    selector: str = ""
    space: str | None = None


_HOOKS, _MONITORING = "admissionregistration.k8s.io/v1", "monitoring.coreos.com/v1"
SOURCES = {
    "rayjobs": Source(api.RAYJOBS),
    "rayservices": Source(api.RAYSERVICES),
    "rayclusters": Source(api.RAYCLUSTERS),
    "pods": Source(api.PODS),
    "events": Source(api.EVENTS),
    "workloads": Source(api.WORKLOADS),
    "nodes": Source(api.NODES),
    "configmaps": Source(api.CONFIG_MAPS, releases.SKELETONS),
    "secrets": Source(api.SECRETS),
    "ingresses": Source(api.Kind("networking.k8s.io/v1", "ingresses")),
    "httproutes": Source(api.Kind("gateway.networking.k8s.io/v1", "httproutes")),
    "resourcequotas": Source(api.QUOTAS),
    "claims": Source(api.Kind("v1", "persistentvolumeclaims")),
    "classes": Source(api.Kind("storage.k8s.io/v1", "storageclasses", namespaced=False)),
    "operators": Source(api.PODS, definitions.LABEL, ""),
    "mutating": Source(api.Kind(_HOOKS, "mutatingwebhookconfigurations", namespaced=False)),
    "validating": Source(api.Kind(_HOOKS, "validatingwebhookconfigurations", namespaced=False)),
    "endpointslices": Source(api.Kind("discovery.k8s.io/v1", "endpointslices"), space=""),
    "dns": Source(api.PODS, "k8s-app=kube-dns", "kube-system"),
    "podmonitors": Source(api.Kind(_MONITORING, "podmonitors")),
    "servicemonitors": Source(api.Kind(_MONITORING, "servicemonitors")),
}


@dataclass(frozen=True)
class Alias:
    """The alias that a service follows."""

    model: str
    name: str
    storage: str
    version: int | None = None  # that it points to
    latest: int | None = None  # version of the model
    moved: str = ""  # when it was pointed there, ISO 8601; empty if not on record
    by: str = ""  # who did
    refused: str = ""  # who refuses it since, and why; empty if nobody has said so


@dataclass(frozen=True)
class Snapshot:
    """What a namespace holds, or the part of it that a RayJob or a RayService depends on."""

    namespace: str
    now: datetime  # when it was read
    subject: Object = field(default_factory=dict)  # RayJob or RayService; empty: whole namespace
    objects: Mapping[str, Sequence[Object]] = field(default_factory=dict)  # by source: pods, …
    logs: Mapping[str, str] = field(default_factory=dict)  # last lines of failed pods, by pod
    metrics: Mapping[str, str] = field(default_factory=dict)  # what replicas expose, by pod
    upgrades: Sequence[str] = ()  # Helm's description of each revision, the oldest first
    alias: Alias | None = None  # what a service should serve; None if the registry is out of reach
    waiting: Sequence[Waiting] = ()  # trials of a run that wait for resources
    # why something could not be read, by source or topic
    unread: Mapping[str, errors.EagleRayError] = field(default_factory=dict)

    @property
    def unseen(self) -> tuple[str, ...]:
        """A line for each thing that could not be read, unless the cluster does not know it."""
        unread = {key: one for key, one in self.unread.items() if http_status(one) != 404}
        return tuple(f"{key}: {_short(key, error)}" for key, error in unread.items())

    @property
    def name(self) -> str:
        return name(self.subject)

    def say(self, topic: str, text: str, *evidence: str, **fields: Any) -> Finding | None:
        known = {"ns": self.namespace, "name": self.name, **fields}
        return match(topic, text, *evidence, **known)

    def get(self, source: str) -> Sequence[Object]:
        """The objects of a source; empty if they could not be read."""
        return self.objects.get(source, ())

    def require(self, source: str) -> Sequence[Object]:
        """The objects of a source; raises the error if they could not be read."""
        if source in self.unread:
            raise self.unread[source]
        return self.get(source)

    def of_release(self, source: str, release: str) -> Sequence[Object]:
        return [one for one in self.get(source) if labels(one).get(releases.INSTANCE) == release]

    def event(self, about: str, *reasons: str, words: str = "") -> str | None:
        """The message of the latest event about an object, with one of these reasons and words."""
        found = [
            one
            for one in self.get("events")
            if one.get("reason") in reasons
            and concerned(one) == about
            and words in str(one.get("message"))
        ]
        return one_line(max(found, key=event_time).get("message", "")) if found else None

    def age_s(self, since: str) -> float:
        """Seconds since a time in ISO 8601; 0 if that is empty."""
        return (self.now - datetime.fromisoformat(since)).total_seconds() if since else 0.0

    def about(self, subject: Object) -> Snapshot:
        """Narrow the pods to those that a run or a service depends on, the oldest first."""
        release = labels(subject).get(releases.INSTANCE)
        store = {(releases.COMPONENT, "store"), (releases.INSTANCE, release)}
        own = {("ray.io/cluster", one) for one in clusters_of(subject)}
        own.add(("job-name", name(subject)))
        known = [(one, labels(one).items()) for one in self.get("pods")]
        pods = [one for one, pairs in known if own & pairs or store <= pairs]
        objects = {**self.objects, "pods": sorted(pods, key=created)}
        return replace(self, subject=subject, objects=objects)


def read(cluster: api.Api, called: str | None = None, storage: str | None = None) -> list[Snapshot]:
    """A snapshot for the latest run and for each service that `called` names; None names all.

    It is the name of an attempt, run, experiment, release, RayService or model. `storage` replaces
    a service's own. There is no subject if the API server does not answer, or has no KubeRay.

    Raises:
        NotFoundError: nothing is called so.
        UserError: neither runs nor services may be read, or our credentials are rejected.
    """
    reader = Reader(cluster)
    jobs = [{**one, "kind": "RayJob"} for one in reader.list("rayjobs")]
    services = [{**one, "kind": "RayService"} for one in reader.list("rayservices")]
    whole = reader.snapshot()
    if len(whole.unread) == 2:
        if {401, 403} & {http_status(one) for one in whole.unread.values()}:
            raise errors.UserError(f"namespace {cluster.namespace}: {whole.unseen[0]}")
        return [whole]
    if called is not None:
        known = [*jobs, *services]
        jobs = sorted((one for one in jobs if called in _names(one)), key=created)[-1:]
        services = [one for one in services if called in _names(one)]
        if not (jobs or services):
            blind = f" ({'; '.join(whole.unseen)})" if whole.unseen else ""
            near = names.near(called, sorted({one for thing in known for one in _names(thing)}))
            law = f"no run, release or model is called {called!r}{near}{blind}"
            raise errors.NotFoundError(f"namespace {whole.namespace}: {law}")
    for source in ("rayclusters", "pods", "events"):
        reader.list(source)
    return [_snapshot(reader, one, storage) for one in (*jobs, *services)]


class Reader:
    """Reads what it may of a cluster, and records why it could not read the rest."""

    def __init__(self, cluster: api.Api) -> None:
        self.cluster = cluster
        self.objects: dict[str, Sequence[Object]] = {}
        self.unread: dict[str, errors.EagleRayError] = {}
        self._lost: errors.EagleRayError | None = None

    def snapshot(self) -> Snapshot:
        now, unread = datetime.now(UTC), dict(self.unread)
        return Snapshot(self.cluster.namespace, now, objects=dict(self.objects), unread=unread)

    def list(
        self, source: str, call: Callable[[], Sequence[Object]] | None = None
    ) -> Sequence[Object]:
        """The objects of a source, read the first time: by `call`, else as `SOURCES` says."""
        if source not in self.objects:
            call = call or partial(self.cluster.list, *SOURCES[source])
            self.objects[source] = self.attempt(source, call, ())
        return self.objects[source]

    def attempt(
        self, what: str, call: Callable[[], Answer], nothing: Answer, *, server: bool = True
    ) -> Answer:
        """What `call` returns; `nothing` if it fails, or asks the API server and that was lost."""
        try:
            if server and self._lost:
                raise self._lost
            return call()
        except errors.EagleRayError as error:
            self.unread.setdefault(what, error)
            if server and http_status(error) in (None, 401):  # no answer, or credentials rejected
                self._lost = error
            return nothing


def event_time(event: Object) -> str:
    """When an event was last seen, ISO 8601."""
    times = (at(event, "series").get("lastObservedTime"), event.get("lastTimestamp"))
    return str(next(filter(None, times), event.get("eventTime") or ""))


def http_status(error: Exception | None) -> int | None:
    """The HTTP status behind an error of the API; None if there was no answer."""
    return getattr(error.__cause__, "status", None) if error else None


def clusters_of(subject: Object) -> list[str]:
    """The names of the RayClusters of a run or a service, the pending one first."""
    status = at(subject, "status")
    parts = (at(status, f"{one}ServiceStatus") for one in ("pending", "active"))
    found = [one.get("rayClusterName") for one in (*parts, status)]
    selected = at(subject, "spec", "clusterSelector").get("ray.io/cluster")
    return [one for one in found if one] or ([selected] if selected else [])


def _snapshot(reader: Reader, subject: Object, storage: str | None) -> Snapshot:
    """A subject's snapshot, with queue, nodes, logs and metrics where they tell more."""
    pods, arguments = reader.snapshot().about(subject).get("pods"), releases.arguments(subject)
    if rayjob.QUEUE in labels(subject):
        reader.list("workloads")
    if UNNAMED in str([*pods, *reader.list("events")]):
        reader.list("nodes")
    release = labels(subject).get(releases.INSTANCE, "") if arguments else ""
    history = partial(releases.history, reader.cluster, release)
    alias = partial(_alias, arguments, storage)
    more: dict[str, Any] = {
        "upgrades": reader.attempt("upgrades", history, list[str]()) if release else (),
        "logs": _logs(reader, pods),
        "metrics": _metrics(reader, pods) if arguments else {},
        "alias": reader.attempt("registry", alias, None, server=False),
        "waiting": _waiting(reader, subject, storage),
    }
    return replace(reader.snapshot().about(subject), **more)


def _logs(reader: Reader, pods: Iterable[Object]) -> dict[str, str]:
    """The last lines of containers that ended with a failure, the newest pods first."""
    found: dict[str, str] = {}
    for pod in sorted(pods, key=created, reverse=True):
        for one in container_statuses(pod):
            over = [at(one, key, "terminated") for key in ("state", "lastState")]
            if any(end.get("exitCode") for end in over) and len(found) < LOGS:
                previous = str(not over[0]).lower()
                query = {"container": one["name"], "tailLines": str(LINES), "previous": previous}
                path = api.PODS.path(reader.cluster.namespace, name(pod)) + "/log"
                call = partial(reader.cluster.text, path, **query)
                found[name(pod)] = reader.attempt(f"log of {name(pod)}", call, "")
    return {pod: log for pod, log in found.items() if log}


def _metrics(reader: Reader, pods: Iterable[Object]) -> dict[str, str]:
    """What replicas expose, by pod; after a failure the others are not asked."""
    found = {}
    workers = [one for one in pods if labels(one).get("ray.io/node-type") == "worker"]
    for pod in filter(ready, workers):
        path = f"{api.PODS.path(reader.cluster.namespace, name(pod))}:{releases.METRICS_PORT}"
        try:
            found[name(pod)] = reader.cluster.text(f"{path}/proxy/metrics", silence_s=api.BRIEF_S)
        except errors.EagleRayError as error:
            denied = errors.UserError("the right to get pods/proxy is missing")
            reader.unread["versions of replicas"] = denied if http_status(error) == 403 else error
            break  # network policies and missing rights concern all pods
    return found


def _alias(arguments: Mapping[str, object], storage: str | None) -> Alias | None:
    uri = str(storage or arguments.get("storage") or "")
    if not uri or "name" not in arguments:
        return None
    model, called = str(arguments["name"]), str(arguments.get("alias", "champion"))
    models = Registry(storages.open(uri, attempts=ATTEMPTS))
    number = models.aliases(model).values.get(called)
    latest = max(models.numbers(model), default=None)
    log = [one for one in models.events(model) if (one.alias, one.number) == (called, number)]
    moves = [one for one in log if one.action != REFUSED]
    moved, by = (moves[-1].at, moves[-1].by) if moves else ("", "")
    refused = f"{log[-1].by}: {log[-1].why}" if log and log[-1].action == REFUSED else ""
    return Alias(model, called, uri, number, latest, moved, by, refused)


def _waiting(reader: Reader, subject: Object, storage: str | None) -> Sequence[Waiting]:
    """Trials that wait, as the driver of a run that is under way has put it into storage."""
    attempt = backend.attempt_of(subject) if subject["kind"] == "RayJob" else None
    if attempt is None or attempt.state != "running":
        return ()
    attempt = replace(attempt, storage=storage or attempt.storage)
    read = partial(screen.stored, attempt, attempts=ATTEMPTS)
    view = reader.attempt("trials that wait", read, None, server=False)
    return view.waiting if view else ()


def _names(thing: Object) -> set[str]:
    """The names by which a RayJob or a RayService is found."""
    found = {name(thing)}
    if (run := backend.attempt_of(thing)) is not None:
        found |= {run.run, run.name}
    if thing["kind"] == "RayService":
        model = releases.arguments(thing).get("name")
        found |= {str(one) for one in (labels(thing).get(releases.INSTANCE), model) if one}
    return found


def _short(source: str, error: Exception) -> str:
    """The message without the namespace, and without a fix by the chart that does not apply."""
    text = str(error)
    text = text.partition(": ")[2] if text.startswith("namespace ") else text
    return text.partition(";")[0] if source in ("nodes", "workloads", "upgrades") else text
