"""Why a release is not as it should be, as one text: reasons first, then all that they rest on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import yaml

from eagleray import errors
from k8s import api
from tests.e2e.cluster import Cluster

RAY = (api.RAYSERVICES, api.RAYJOBS, api.RAYCLUSTERS)
HEADING = "== namespace"
LINES = 15
"""Of the log of a container that is in trouble; one that is well has a third of them."""
EVENTS = 25
STATUS = 60
HARMLESS = ("ContainerCreating", "PodInitializing", "Completed")

Object = dict[str, Any]


def report(cluster: Cluster) -> str:
    """All that is known of a namespace; a part that cannot be read says so."""
    parts: dict[str, Callable[[], list[str]]] = {
        "reasons": lambda: reasons(cluster) or ["none found: read on"],
        "Ray": lambda: list(_ray(cluster)),
        "pods": lambda: list(_pods(cluster)),
        "events": lambda: events(cluster)[-EVENTS:],
    }
    out = [f"{HEADING} {cluster.namespace}"]
    for title, lines in parts.items():
        try:
            out += [f"-- {title}", *lines()]
        except (errors.EagleRayError, OSError) as failure:
            out.append(f"cannot be read: {failure}")
    return "\n".join(out)


def reasons(cluster: Cluster) -> list[str]:
    """What keeps things from going on, as sentences; empty when nothing is known to."""
    found = [reason for pod in cluster.api.list(api.PODS) for reason in _troubles(pod)]
    for kind in RAY:
        for thing in cluster.api.list(kind):
            found += _failures(kind, thing)
    warnings = [line for line in events(cluster) if line.startswith("Warning FailedCreate")]
    return list(dict.fromkeys(found + warnings))


def events(cluster: Cluster) -> list[str]:
    """Events of the namespace, the latest last, as one line each."""
    found = sorted(cluster.api.list(api.EVENTS), key=_when)
    return [
        f"{one.get('type', '')} {one.get('reason', '')} {_about(one)} "
        f"({one.get('count') or 1}): {_line(one.get('message'))}"
        for one in found
    ]


def _ray(cluster: Cluster) -> Iterator[str]:
    """The status of every Ray object, as the operator wrote it."""
    for kind in RAY:
        for thing in cluster.api.list(kind):
            status = thing.get("status") or "none: is the operator running?"
            shown = yaml.safe_dump(status, sort_keys=False, width=150).splitlines()
            yield f"{kind.plural}/{thing['metadata']['name']}:"
            yield from (f"  {line}" for line in shown[:STATUS])


def _pods(cluster: Cluster) -> Iterator[str]:
    """Each pod with the state of its containers, and the end of their logs."""
    for pod in cluster.api.list(api.PODS):
        status, name = pod.get("status", {}), pod["metadata"]["name"]
        going = " (ending)" if pod["metadata"].get("deletionTimestamp") else ""
        node = pod.get("spec", {}).get("nodeName", "no node")
        yield f"{name}: {status.get('phase')}{going} on {node}"
        yield from (f"  {trouble}" for trouble in _troubles(pod))
        for container in _containers(pod):
            yield from (f"  {line}" for line in _logged(cluster, name, container))


def _logged(cluster: Cluster, pod: str, container: Object) -> Iterator[str]:
    name, state = container["name"], ", ".join(container.get("state", {}))
    restarts = container.get("restartCount", 0)
    yield f"{name}: {state}, ready {container.get('ready')}, restarts {restarts}"
    if state == "waiting" and not restarts:
        return
    well = container.get("ready") and not restarts
    for previous in (True, False) if restarts else (False,):
        lines = LINES // 3 if well else LINES
        said = cluster.log(pod, name, lines=lines, previous=previous)
        mark = "before" if previous else "log"
        yield from (f"  {mark}| {line}" for line in said.splitlines())


def _troubles(pod: Object) -> Iterator[str]:
    """What keeps a pod from running, in the words of scheduler and kubelet."""
    name = pod["metadata"]["name"]
    for condition in pod.get("status", {}).get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield f"pod {name}: {condition.get('reason')}: {_line(condition.get('message'))}"
    for container in _containers(pod):
        for state in (container.get("state", {}), container.get("lastState", {})):
            yield from _stopped(name, container["name"], state)


def _stopped(pod: str, container: str, state: Object) -> Iterator[str]:
    waiting, ended = state.get("waiting"), state.get("terminated")
    if waiting and waiting.get("reason") not in HARMLESS:
        said = _line(waiting.get("message"))
        yield f"pod {pod}: {container}: {waiting.get('reason')}: {said}"
    if ended and ended.get("exitCode"):
        said = _line(ended.get("message"))
        yield f"pod {pod}: {container}: {ended.get('reason')}, exit code {ended['exitCode']} {said}"


def _failures(kind: api.Kind, thing: Object) -> Iterator[str]:
    """What the operator says has failed."""
    status, name = thing.get("status") or {}, thing["metadata"]["name"]
    what = f"{kind.plural.removesuffix('s')} {name}"
    if status.get("jobDeploymentStatus") in ("Failed", "ValidationFailed"):
        yield f"{what}: {status.get('reason')}: {_line(status.get('message'))}"
    for part in ("activeServiceStatus", "pendingServiceStatus"):
        for app, told in (status.get(part) or {}).get("applicationStatuses", {}).items():
            if told.get("status") not in ("RUNNING", "DEPLOYING"):
                yield f"{what}: {app} {told.get('status')}: {_line(told.get('message'))}"
    if status.get("reason") and kind is api.RAYCLUSTERS:
        yield f"{what}: {_line(status['reason'])}"


def _containers(pod: Object) -> Sequence[Object]:
    status = pod.get("status", {})
    return [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]


def _when(event: Object) -> str:
    series = event.get("series") or {}
    last = event.get("lastTimestamp") or series.get("lastObservedTime") or event.get("eventTime")
    return str(last or event["metadata"].get("creationTimestamp"))


def _about(event: Object) -> str:
    thing = event.get("involvedObject", {})
    return f"{thing.get('kind', '')}/{thing.get('name', '')}"


def _line(text: object) -> str:
    return " ".join(str(text or "").split())
