"""A snapshot of a cluster: read once, then a frozen value that the rules explain.

Only this module asks the API server. What may not be read, or cannot be reached, is kept in
`unread` with its reason, and the rest goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from eagleray import errors, names
from eagleray import storage as storages
from eagleray.state.models import Registry
from k8s import api, backend, rayjob
from k8s import release as releases
from k8s.api import Object
from k8s.diagnose.objects import (
    concerned,
    container_statuses,
    event_time,
    labels,
    name,
    one_line,
    status,
)

LOGS = 3
"""Most pods whose log is read: those of a group fail alike."""
LINES = 20
ATTEMPTS = 2
"""How often the registry is asked: from here it may be out of reach for good."""
UNNAMED = "untolerated taint(s)"
"""What kube-scheduler says of taints that it does not name (kubernetes#134740, since 1.35)."""

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Alias:
    """Where the alias that a service follows points to.

    Attributes:
        model: whose alias it is.
        name: the alias.
        storage: where the registry is.
        version: what it points to; None when it points nowhere.
        latest: the model's highest version; None when it has none.
        moved: when it was pointed there, ISO 8601; empty when that is not on record.
        by: who did.
    """

    model: str
    name: str
    storage: str
    version: int | None = None
    latest: int | None = None
    moved: str = ""
    by: str = ""


@dataclass(frozen=True)
class Snapshot:
    """What a namespace holds, or the part of it that a RayJob or a RayService depends on.

    Attributes:
        namespace: where.
        now: when it was read.
        subject: the RayJob or RayService; empty for a whole namespace.
        objects: the objects of each resource, such as `pods`.
        logs: the last lines of pods that failed, by the pod's name.
        metrics: what replicas expose on their workers' metrics port, by the pod's name.
        upgrades: Helm's description of each revision of the release, the oldest first.
        alias: what a service should serve; None when the registry could not be read.
        unread: why a resource, or something else, could not be read.
    """

    namespace: str
    now: datetime
    subject: Object = field(default_factory=dict)
    objects: Mapping[str, Sequence[Object]] = field(default_factory=dict)
    logs: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)
    upgrades: Sequence[str] = ()
    alias: Alias | None = None
    unread: Mapping[str, errors.EagleRayError] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The subject's name."""
        return name(self.subject)

    @property
    def release(self) -> str:
        """The release that the subject is of; empty when no label says so."""
        return labels(self.subject).get(releases.INSTANCE, "")

    @property
    def status(self) -> Object:
        """The subject's status; empty as long as no operator wrote one."""
        return self.subject.get("status") or {}

    @property
    def unseen(self) -> tuple[str, ...]:
        """A line for each thing that could not be read, unless the cluster does not know it."""
        return tuple(
            f"{what}: {_short(what, error)}"
            for what, error in self.unread.items()
            if status(error) != 404
        )

    def get(self, resource: str) -> Sequence[Object]:
        """The objects of a resource; none where they could not be read."""
        return self.objects.get(resource, ())

    def require(self, resource: str) -> Sequence[Object]:
        """The objects of a resource.

        Raises:
            EagleRayError: they could not be read.
        """
        if resource in self.unread:
            raise self.unread[resource]
        return self.get(resource)

    def event(self, about: str, *reasons: str, words: str = "") -> str | None:
        """The message of the latest event about an object, with one of these reasons and words."""
        found = [
            one
            for one in self.get("events")
            if concerned(one) == about
            and one.get("reason") in reasons
            and words in str(one.get("message"))
        ]
        return one_line(max(found, key=event_time).get("message", "")) if found else None

    def age_s(self, since: str | None) -> float:
        """Seconds since a moment that Kubernetes wrote down; 0 when it did not."""
        return (self.now - datetime.fromisoformat(since)).total_seconds() if since else 0.0


def about(
    cluster: api.Api, called: str | None = None, storage: str | None = None
) -> list[Snapshot]:
    """A snapshot for the latest run, and for each service, that a name stands for.

    It has no subject where the API server does not answer or does not know KubeRay.

    Args:
        cluster: where to look.
        called: an attempt, a run or an experiment; a release, a RayService or a model. None stands
            for every run and service of the namespace.
        storage: where the registry is, instead of where the service has it.

    Raises:
        NotFoundError: nothing is called so.
        UserError: neither runs nor services may be read, or our credentials are rejected.
    """
    reader = Reader(cluster)
    try:
        jobs = [{**one, "kind": "RayJob"} for one in reader.list(api.RAYJOBS)]
        services = [{**one, "kind": "RayService"} for one in reader.list(api.RAYSERVICES)]
    except errors.ClusterError as error:
        reader.unread["rayjobs"] = error
        return [reader.snapshot()]
    if {status(one) for one in reader.unread.values()} == {404} and len(reader.unread) == 2:
        return [reader.snapshot()]
    if len(reader.unread) == 2:
        raise errors.UserError(f"namespace {cluster.namespace}: {reader.snapshot().unseen[0]}")
    if called is not None:
        known = [*jobs, *services]
        jobs = sorted((one for one in jobs if called in _names(one)), key=_age)[-1:]
        services = [one for one in services if called in _names(one)]
        if not (jobs or services):
            raise _nothing(called, known, reader.snapshot())
    for kind in (api.RAYCLUSTERS, api.PODS, api.EVENTS) if jobs or services else ():
        reader.list(kind)
    found = [_around(reader, one) for one in jobs]
    return found + [_serving(reader, _around(reader, one), storage) for one in services]


class Reader:
    """Reads what it may, and keeps why it could not read the rest.

    Args:
        cluster: where to read.
        strict: raise what is neither a missing right nor a missing object.
    """

    def __init__(self, cluster: api.Api, *, strict: bool = True) -> None:
        self.cluster, self._strict = cluster, strict
        self.objects: dict[str, Sequence[Object]] = {}
        self.unread: dict[str, errors.EagleRayError] = {}
        self._lost: errors.EagleRayError | None = None

    def snapshot(self) -> Snapshot:
        """All that was read so far."""
        now, unread = datetime.now(UTC), dict(self.unread)
        return Snapshot(self.cluster.namespace, now, objects=dict(self.objects), unread=unread)

    def list(
        self, kind: api.Kind, selector: str = "", space: str | None = None, key: str = ""
    ) -> Sequence[Object]:
        """Read the objects of a kind, as `api.Api.list` does; they are kept below `key`."""
        key, nothing = key or kind.plural, ()
        found: Sequence[Object] = self.ask(
            key, lambda: self.cluster.list(kind, selector, space), nothing
        )
        found = [one for one in found if _selected(one, selector)]
        self.objects[key] = [*self.objects.get(key, ()), *found]
        return found

    def ask(self, what: str, read: Callable[[], Answer], nothing: Answer) -> Answer:
        """The answer; `nothing` where there is none, or the server was lost before."""
        try:
            if self._lost is not None:
                raise self._lost
            return read()
        except errors.EagleRayError as error:
            if self._strict and status(error) not in (400, 403, 404):
                raise
            self.unread.setdefault(what, error)
            self._lost = error if status(error) in (None, 401) else None
            return nothing


def _selected(thing: Object, selector: str) -> bool:
    pairs = (pair.partition("=") for pair in selector.split(",") if pair)
    return all(labels(thing).get(key) == value for key, _, value in pairs)


def narrowed(whole: Snapshot, subject: Object) -> Snapshot:
    """A namespace's snapshot with the pods that a run or a service depends on."""
    whole, clusters = replace(whole, subject=subject), clusters_of(subject)
    pods = [one for one in whole.get("pods") if _belongs(one, whole, clusters)]
    return replace(whole, objects={**whole.objects, "pods": sorted(pods, key=_made)})


def _around(reader: Reader, subject: Object) -> Snapshot:
    whole = narrowed(reader.snapshot(), subject)
    objects, pods = dict(whole.objects), whole.get("pods")
    if rayjob.QUEUE in labels(subject):
        owned = [one for one in reader.list(api.WORKLOADS) if _owner(one) == whole.name]
        objects["workloads"] = owned
    if UNNAMED in str([*pods, *whole.get("events")]):
        objects["nodes"] = reader.list(api.NODES)
    logs = _logs(reader, pods)
    return replace(whole, objects=objects, logs=logs, unread=dict(reader.unread))


def _serving(reader: Reader, whole: Snapshot, storage: str | None) -> Snapshot:
    """A service's snapshot with its registry, its replicas' metrics and its release's history."""
    alias = _alias(reader, releases.arguments(whole.subject), storage)
    metrics = _metrics(reader, whole.get("pods"))
    upgrades: Sequence[str] = ()
    if whole.release:
        read = lambda: releases.history(reader.cluster, whole.release)  # noqa: E731
        upgrades = reader.ask("upgrades", read, [])
    unread = dict(reader.unread)
    return replace(whole, alias=alias, metrics=metrics, upgrades=upgrades, unread=unread)


def _logs(reader: Reader, pods: Iterable[Object]) -> dict[str, str]:
    """The last lines of containers that ended with a failure, the newest pods first."""
    found: dict[str, str] = {}
    for pod in sorted(pods, key=_made, reverse=True):
        for one in container_statuses(pod):
            now, before = (one.get(key, {}) for key in ("state", "lastState"))
            ended = any(state.get("terminated", {}).get("exitCode") for state in (now, before))
            if ended and len(found) < LOGS:
                previous = str("terminated" not in now).lower()
                query = {"container": one["name"], "tailLines": str(LINES), "previous": previous}
                path = api.PODS.path(reader.cluster.namespace, name(pod)) + "/log"
                read = partial(reader.cluster.text, path, **query)
                found[name(pod)] = reader.ask(f"log of {name(pod)}", read, "")
    return {pod: log for pod, log in found.items() if log}


def _metrics(reader: Reader, pods: Iterable[Object]) -> dict[str, str]:
    """What replicas expose; once one cannot be asked, the others are not asked either.

    Policies often keep the API server from pods, and few people have a right to `pods/proxy`.
    """
    found = {}
    workers = [one for one in pods if labels(one).get("ray.io/node-type") == "worker"]
    for pod in filter(releases.ready, workers):
        path = api.PODS.path(reader.cluster.namespace, name(pod))
        try:
            found[name(pod)] = reader.cluster.text(
                f"{path}:{releases.METRICS_PORT}/proxy/metrics", silence_s=api.BRIEF_S
            )
        except errors.EagleRayError as error:
            denied = errors.UserError("the right to get pods/proxy is missing")
            reader.unread["versions of replicas"] = denied if status(error) == 403 else error
            break
    return found


def _alias(reader: Reader, arguments: Mapping[str, object], storage: str | None) -> Alias | None:
    """Where the alias points, by the registry as it is seen from here."""
    uri = storage or arguments.get("storage")
    if not uri or "name" not in arguments:
        return None
    model, called = str(arguments["name"]), str(arguments.get("alias", "champion"))
    try:
        models = Registry(storages.open(str(uri), attempts=ATTEMPTS))
        number = models.aliases(model).values.get(called)
        latest = max(models.numbers(model), default=None)
        moves = [one for one in models.events(model) if (one.alias, one.number) == (called, number)]
    except errors.EagleRayError as error:
        reader.unread["registry"] = error
        return None
    moved, by = (moves[-1].at, moves[-1].by) if moves else ("", "")
    return Alias(model, called, str(uri), number, latest, moved, by)


def clusters_of(subject: Object) -> list[str]:
    """The names of the RayClusters that a run or a service has, that in the making first."""
    status, spec = subject.get("status") or {}, subject.get("spec", {})
    selected = (spec.get("clusterSelector") or {}).get("ray.io/cluster")
    parts = (status.get(f"{one}ServiceStatus") or {} for one in ("pending", "active"))
    names = [*(part.get("rayClusterName") for part in parts), status.get("rayClusterName")]
    return [one for one in names if one] or ([selected] if selected else [])


def _belongs(pod: Object, whole: Snapshot, clusters: Sequence[str]) -> bool:
    """Whether a pod is of a subject's cluster, submits it, or is of its release's store."""
    known = labels(pod)
    if known.get(releases.COMPONENT) == "store":
        return bool(whole.release) and known.get(releases.INSTANCE) == whole.release
    return known.get("ray.io/cluster") in clusters or known.get("job-name") == whole.name


def _names(thing: Object) -> set[str]:
    """The names that a RayJob or a RayService answers to."""
    found = {name(thing)}
    if (run := backend.attempt_of(thing)) is not None:
        found |= {run.run, run.name}
    if "serveConfigV2" in thing.get("spec", {}):
        model = releases.arguments(thing).get("name")
        found |= {str(one) for one in (labels(thing).get(releases.INSTANCE), model) if one}
    return found


def _nothing(called: str, known: Iterable[Object], whole: Snapshot) -> errors.EagleRayError:
    blind = f" ({'; '.join(whole.unseen)})" if whole.unseen else ""
    near = names.near(called, sorted({one for thing in known for one in _names(thing)}))
    return errors.NotFoundError(
        f"namespace {whole.namespace}: no run, release or model is called {called!r}{near}{blind}"
    )


def _owner(thing: Object) -> str:
    owners = thing["metadata"].get("ownerReferences") or [{}]
    return str(owners[0].get("name", ""))


def _made(thing: Object) -> str:
    return str(thing["metadata"].get("creationTimestamp") or "")


def _age(job: Object) -> tuple[str, int]:
    run = backend.attempt_of(job)
    return _made(job), run.number if run else 0


def _short(what: str, error: Exception) -> str:
    """What went wrong, without the namespace, nor a value of the chart that does not grant it."""
    text = str(error)
    text = text.partition(": ")[2] if text.startswith("namespace ") else text
    return text.partition(";")[0] if what in ("nodes", "workloads", "upgrades") else text
