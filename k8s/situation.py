"""What there is to know about a run or a service that is not ready: read once, explained elsewhere.

Only reads, and only decides what to read. What we have no right to see, or cannot reach, is named
in `unseen`, and the rest goes on. `k8s.why` makes the sense of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal, TypeVar

from eagleray import errors, names
from eagleray import storage as storages
from eagleray.state.models import Registry
from k8s import api, place, rayjob
from k8s import release as releases
from k8s.api import Object

LOGS = 3
"""Most pods whose log is read: those of a group fail alike."""
LINES = 20
ATTEMPTS = 2
"""How often the registry is asked: from here it may be out of reach for good."""

UNTOLD = "untolerated taint(s)"
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
class Situation:
    """A RayJob or a RayService, and all around it that may be the cause of its state.

    Attributes:
        kind: of the subject; `Cluster` where nothing could be asked, and its status says why.
        subject: the object itself.
        clusters: the RayClusters that it has.
        pods: theirs, and those that submit a run.
        store: pods of the object store that the release brings with it.
        events: about any of these.
        workloads: what Kueue keeps of a run.
        nodes: those of the cluster; read only where their taints matter and are not told.
        logs: the last lines of pods that failed, by the pod's name.
        metrics: what replicas expose on their workers' metrics port, by the pod's name.
        upgrades: what Helm says of each revision of the release, the oldest first.
        alias: what a service should serve; None when the registry could not be looked at.
        unseen: what could not be looked at, and why.
    """

    kind: Literal["RayJob", "RayService", "Cluster"]
    namespace: str
    now: datetime
    subject: Object
    clusters: Sequence[Object] = ()
    pods: Sequence[Object] = ()
    store: Sequence[Object] = ()
    events: Sequence[Object] = ()
    workloads: Sequence[Object] = ()
    nodes: Sequence[Object] = ()
    logs: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)
    upgrades: Sequence[str] = ()
    alias: Alias | None = None
    unseen: Sequence[str] = ()

    @property
    def name(self) -> str:
        """The subject's name."""
        return str(self.subject["metadata"]["name"])

    @property
    def release(self) -> str:
        """The release that it is of; empty when nothing says so."""
        return str((self.subject["metadata"].get("labels") or {}).get(releases.INSTANCE, ""))

    @property
    def status(self) -> Object:
        """The subject's status; empty as long as no operator wrote one."""
        return self.subject.get("status") or {}


def gather(cluster: api.Api, name: str, storage: str | None = None) -> list[Situation]:
    """The situation of the run, and of each service, that a name stands for.

    Args:
        cluster: where to look.
        name: of an attempt, a run or an experiment; or of a release, a RayService or a model.
        storage: where the registry is, instead of where the service has it.

    Raises:
        NotFoundError: nothing is called so.
        UserError: we may see neither runs nor services, or nobody knows who we are.
    """
    reader = _Reader(cluster)
    try:
        jobs = reader.list(api.RAYJOBS)
        services = reader.list(api.RAYSERVICES)
    except errors.ClusterError as cause:
        return [_outage(cluster, "Unreachable", str(cause))]
    if len(reader.missing) == 2:
        return [_outage(cluster, "NoKubeRay", reader.missing[0])]
    if len(reader.unseen) == 2:
        raise errors.UserError(f"namespace {cluster.namespace}: {reader.unseen[0]}")
    found = [_job(reader, job) for job in _latest(jobs, name)]
    found += [_service(reader, one, storage) for one in services if name in _called(one)]
    if not found:
        raise _nothing(cluster, name, [*jobs, *services], reader.unseen)
    return found


class _Reader:
    """Reads what it may, and remembers what it may not."""

    def __init__(self, cluster: api.Api) -> None:
        self.cluster = cluster
        self.unseen: list[str] = []
        self.missing: list[str] = []

    def list(self, kind: api.Kind, selector: str = "") -> Sequence[Object]:
        """What there is of a kind; nothing where it is unknown, or not for us to see."""
        nothing: Sequence[Object] = ()
        return self._tolerant(kind.plural, lambda: self.cluster.list(kind, selector), nothing)

    def get(self, kind: api.Kind, name: str) -> Sequence[Object]:
        """The object, if it is there and for us to see."""
        nothing: Sequence[Object] = ()
        return self._tolerant(kind.plural, lambda: (self.cluster.get(kind, name),), nothing)

    def history(self, release: str) -> Sequence[str]:
        """Revisions of a release, as Helm keeps them in Secrets."""
        nothing: Sequence[str] = ()
        read = lambda: releases.history(self.cluster, release)  # noqa: E731
        return self._tolerant("upgrades", read, nothing)

    def log(self, pod: str, container: str, *, previous: bool) -> str:
        """The last lines of a container's log."""
        query = {"container": container, "tailLines": str(LINES), "previous": str(previous).lower()}
        path = api.PODS.path(self.cluster.namespace, pod) + "/log"
        return self._tolerant(f"log of {pod}", lambda: self.cluster.text(path, query), "")

    def metrics(self, pod: str) -> str | None:
        """What a worker's replicas expose; None where it could not be asked.

        Policies often keep the API server from pods, and few people have a right to `pods/proxy`.
        """
        path = f"{api.PODS.path(self.cluster.namespace, pod)}:{releases.METRICS_PORT}/proxy/metrics"
        try:
            return self.cluster.text(path, silence_s=api.BRIEF_S)
        except errors.EagleRayError as cause:
            denied = getattr(cause.__cause__, "status", None) == 403
            missing = "the right to get pods/proxy is missing"
            self._miss(f"versions of replicas: {missing if denied else _short(cause)}")
            return None

    def _tolerant(self, what: str, read: Callable[[], Answer], nothing: Answer) -> Answer:
        try:
            return read()
        except errors.UserError as cause:
            status = getattr(cause.__cause__, "status", None)
            if status == 404:
                self.missing.append(what)
            elif status in (400, 403):
                self._miss(f"{what}: {_ungranted(what, _short(cause))}")
            else:
                raise
            return nothing

    def _miss(self, line: str) -> None:
        if line not in self.unseen:
            self.unseen.append(line)


def _job(reader: _Reader, job: Object) -> Situation:
    name, status, spec = job["metadata"]["name"], job.get("status") or {}, job["spec"]
    selected = (spec.get("clusterSelector") or {}).get("ray.io/cluster")
    cluster = status.get("rayClusterName") or selected
    known = Situation("RayJob", reader.cluster.namespace, datetime.now(UTC), job)
    if rayjob.QUEUE in job["metadata"].get("labels", {}):
        owned = [one for one in reader.list(api.WORKLOADS) if _owner(one) == name]
        known = replace(known, workloads=owned)
    return _around(reader, known, [cluster] if cluster else [], f"job-name={name}")


def _service(reader: _Reader, service: Object, storage: str | None) -> Situation:
    status = service.get("status") or {}
    parts = (status.get(part) or {} for part in ("activeServiceStatus", "pendingServiceStatus"))
    clusters = [part["rayClusterName"] for part in parts if part.get("rayClusterName")]
    known = Situation("RayService", reader.cluster.namespace, datetime.now(UTC), service)
    known = _around(reader, known, clusters)
    alias = _alias(reader, releases.arguments(service), storage)
    metrics = _metrics(reader, known.pods)
    upgrades = reader.history(known.release) if known.release else ()
    known = replace(known, alias=alias, metrics=metrics, upgrades=upgrades)
    return replace(known, unseen=tuple(reader.unseen))


def _around(
    reader: _Reader, known: Situation, clusters: Iterable[str], selector: str = ""
) -> Situation:
    """A situation with the clusters of its subject, their pods, and what happened to them."""
    selectors = [f"ray.io/cluster={name}" for name in clusters]
    pods = [
        pod for one in [*selectors, *filter(None, [selector])] for pod in reader.list(api.PODS, one)
    ]
    known = replace(
        known,
        clusters=[one for name in clusters for one in reader.get(api.RAYCLUSTERS, name)],
        pods=sorted(pods, key=_made),
        store=_store(reader, known.release),
    )
    things = (*known.clusters, *pods, *known.store, *known.workloads)
    about = {item["metadata"]["name"] for item in things}
    about |= {known.name, *clusters, *_claims([*pods, *known.store])}
    events = [one for one in reader.list(api.EVENTS) if _concerns(one, about, known.name)]
    known = replace(known, events=events, logs=_logs(reader, [*pods, *known.store]))
    if UNTOLD in str([*pods, *events]):
        known = replace(known, nodes=reader.list(api.NODES))
    return replace(known, unseen=tuple(reader.unseen))


def _store(reader: _Reader, release: str) -> Sequence[Object]:
    if not release:
        return ()
    labels = {releases.INSTANCE: release, releases.COMPONENT: "store"}
    return reader.list(api.PODS, ",".join(f"{key}={text}" for key, text in labels.items()))


def _claims(pods: Iterable[Object]) -> set[str]:
    """Names of the volume claims of pods."""
    volumes = [volume for pod in pods for volume in pod.get("spec", {}).get("volumes") or []]
    claims = [one["persistentVolumeClaim"] for one in volumes if "persistentVolumeClaim" in one]
    return {str(one["claimName"]) for one in claims}


def _logs(reader: _Reader, pods: Iterable[Object]) -> dict[str, str]:
    """The last lines of containers that ended with a failure, the newest pods first."""
    ended = []
    for pod in sorted(pods, key=_made, reverse=True):
        for status in pod.get("status", {}).get("containerStatuses", []):
            now, before = (status.get(key, {}) for key in ("state", "lastState"))
            if any(state.get("terminated", {}).get("exitCode") for state in (now, before)):
                ended.append((pod["metadata"]["name"], status["name"], "terminated" not in now))
    found = {}
    for name, container, previous in ended[:LOGS]:
        found[name] = reader.log(name, container, previous=previous)
    return {name: log for name, log in found.items() if log}


def _metrics(reader: _Reader, pods: Iterable[Object]) -> dict[str, str]:
    """What replicas expose; once one cannot be asked, the others are not asked either."""
    found = {}
    for pod in pods:
        if pod["metadata"].get("labels", {}).get(
            "ray.io/node-type"
        ) == "head" or not releases.ready(pod):
            continue
        said = reader.metrics(pod["metadata"]["name"])
        if said is None:
            break
        found[pod["metadata"]["name"]] = said
    return found


def _alias(reader: _Reader, arguments: Mapping[str, object], storage: str | None) -> Alias | None:
    """Where the alias points, by the registry as it is seen from here."""
    uri = storage or arguments.get("storage")
    if not uri or "name" not in arguments:
        return None
    model, name = str(arguments["name"]), str(arguments.get("alias", "champion"))
    try:
        models = Registry(storages.open(str(uri), attempts=ATTEMPTS))
        version = models.aliases(model).values.get(name)
        latest = max((one.number for one in models.versions(model)), default=None)
        moves = [one for one in models.events(model) if one.alias == name and one.number == version]
    except errors.EagleRayError as cause:
        reader.unseen.append(f"registry: {_short(cause)}")
        return None
    moved, by = (moves[-1].at, moves[-1].by) if moves else ("", "")
    return Alias(model, name, str(uri), version, latest, moved, by)


def _latest(jobs: Sequence[Object], name: str) -> list[Object]:
    """The latest RayJob that is called so, as `eagleray.runs.find` finds it."""
    called = [job for job in jobs if name in _called(job)]
    return sorted(called, key=_age)[-1:]


def _called(thing: Object) -> set[str]:
    """The names that a RayJob or a RayService answers to."""
    labels = thing["metadata"].get("labels", {})
    found = {thing["metadata"]["name"]}
    if (run := place.attempt_of(thing)) is not None:
        found |= {run.run, run.name}
    if "serveConfigV2" in thing.get("spec", {}):
        found |= {labels.get("app.kubernetes.io/instance"), releases.arguments(thing).get("name")}
    return {str(one) for one in found if one}


def _nothing(
    cluster: api.Api, name: str, known: Iterable[Object], unseen: Sequence[str]
) -> errors.EagleRayError:
    blind = f" ({'; '.join(unseen)})" if unseen else ""
    near = names.near(name, sorted({one for thing in known for one in _called(thing)}))
    return errors.NotFoundError(
        f"namespace {cluster.namespace}: no run, release or model is called {name!r}{near}{blind}"
    )


def _outage(cluster: api.Api, reason: str, message: str) -> Situation:
    subject = {"metadata": {"name": cluster.namespace}, "status": {"reason": reason}}
    subject["status"]["message"] = message
    return Situation("Cluster", cluster.namespace, datetime.now(UTC), subject)


def _concerns(event: Object, about: set[str], subject: str) -> bool:
    """Whether an event is about one of these, or about what Kueue keeps of the subject."""
    name = str(event.get("involvedObject", {}).get("name", ""))
    return name in about or name.startswith(f"rayjob-{subject}-")


def _owner(thing: Object) -> str:
    owners = thing["metadata"].get("ownerReferences") or [{}]
    return str(owners[0].get("name", ""))


def _made(thing: Object) -> str:
    return str(thing["metadata"].get("creationTimestamp") or "")


def _age(job: Object) -> tuple[str, int]:
    run = place.attempt_of(job)
    return _made(job), run.number if run else 0


def _ungranted(what: str, said: str) -> str:
    """Without the advice to grant it by a value of the chart, where that value does not."""
    return said.partition(";")[0] if what in ("nodes", "workloads", "upgrades") else said


def _short(cause: Exception) -> str:
    """What went wrong, without the namespace, which is the same for all."""
    text = str(cause)
    return text.partition(": ")[2] if text.startswith("namespace ") else text
