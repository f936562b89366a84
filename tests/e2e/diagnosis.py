"""What `eagleray why` says of everything in a namespace, and below it what that rests on."""

from collections.abc import Callable, Iterator

import yaml

from eagleray import errors
from eagleray.cli import why
from k8s import api, diagnose, objects
from k8s.diagnose import pods, rules, snapshot
from tests.e2e.cluster import Cluster

HEADING = "== namespace"
LINES = 15
EVENTS = 25
STATUS = 60


def report(cluster: Cluster) -> str:
    """The causes that were found, statuses, logs and events; a part that cannot be read says so."""
    kinds = (api.RAYSERVICES, api.RAYJOBS, api.RAYCLUSTERS, api.PODS)
    parts: dict[str, Callable[[], list[str]]] = {
        "causes": lambda: causes(cluster) or ["none found: read on"],
        "statuses": lambda: [line for kind in kinds for line in _statuses(cluster, kind)],
        "logs": lambda: [line for pod in cluster.api.list(api.PODS) for line in _log(cluster, pod)],
        "events": lambda: _events(cluster)[-EVENTS:],
    }
    out = [f"{HEADING} {cluster.namespace}"]
    for title, lines in parts.items():
        try:
            out += [f"-- {title}", *lines()]
        except (errors.EagleRayError, OSError) as failure:
            out.append(f"cannot be read: {failure}")
    return "\n".join(out)


def causes(cluster: Cluster) -> list[str]:
    """An explanation of each run, service and pod that is not as it should be."""
    explained = [diagnose.explain(one) for one in snapshot.read(cluster.api)]
    found = ["\n".join(why.lines(one)) for one in explained if one.finding.severity != "pass"]
    reader = snapshot.Reader(cluster.api)
    alone = [one for one in reader.list("pods") if "ray.io/cluster" not in objects.labels(one)]
    reader.list("events")
    troubles = (pods.trouble(one, reader.snapshot()) for one in alone)
    return found + [f"{one.evidence[0]}: {one.message}; {one.fix}" for one in troubles if one]


def _statuses(cluster: Cluster, kind: api.Kind) -> Iterator[str]:
    for thing in cluster.api.list(kind):
        status = thing.get("status") or "none: is the operator running?"
        yield f"{kind.plural}/{objects.name(thing)}:"
        yield from yaml.safe_dump(status, sort_keys=False, width=150).splitlines()[:STATUS]


def _log(cluster: Cluster, pod: api.Object) -> Iterator[str]:
    for one in [] if objects.ready(pod) else objects.container_statuses(pod):
        for previous in (True, False) if one.get("restartCount") else (False,):
            said = cluster.log(objects.name(pod), one["name"], lines=LINES, previous=previous)
            mark = f"{objects.name(pod)} {one['name']}{' before' if previous else ''}"
            yield from (f"{mark}| {line}" for line in said.splitlines())


def _events(cluster: Cluster) -> list[str]:
    found = sorted(cluster.api.list(api.EVENTS), key=snapshot.event_time)
    return [
        f"{one.get('type')} {one.get('reason')} {one['involvedObject'].get('name')} "
        f"({one.get('count') or 1}): {rules.one_line(one.get('message') or '')}"
        for one in found
    ]
