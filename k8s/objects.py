"""The parts of an object that Kubernetes may leave out."""

from collections.abc import Mapping
from typing import Any

from k8s.api import Object


def at(thing: Mapping[str, Any], *keys: str) -> Any:
    """The part of an object below these keys; empty where it is missing or null."""
    part: Any = thing
    for key in keys:
        part = part.get(key) or {}
    return part


def name(thing: Object) -> str:
    """An object's name."""
    return str(at(thing, "metadata").get("name", ""))


def labels(thing: Object) -> dict[str, str]:
    """An object's labels."""
    found: dict[str, str] = at(thing, "metadata", "labels")
    return found


def created(thing: Object) -> str:
    """When an object was created, ISO 8601; empty if unknown."""
    return str(at(thing, "metadata", "creationTimestamp") or "")


def condition(thing: Object, kind: str) -> Object:
    """A condition of an object; empty when it has none of this type."""
    return next((one for one in at(thing, "status", "conditions") if one["type"] == kind), {})


def ready(pod: Object) -> bool:
    """Whether a pod is ready, or has done its work."""
    done = at(pod, "status").get("phase") == "Succeeded"
    return done or condition(pod, "Ready").get("status") == "True"


def concerned(event: Object) -> str:
    """The name of the object that an event is about."""
    return str(at(event, "involvedObject", "name") or "")


def container_statuses(pod: Object) -> list[Object]:
    """The container statuses of a pod, init containers first."""
    keys = ("initContainerStatuses", "containerStatuses")
    return [one for key in keys for one in at(pod, "status", key)]
