"""How Kubernetes writes what the rules look for: labels, conditions, statuses, times."""

from __future__ import annotations

from eagleray import errors
from k8s.api import Object


def status(error: errors.EagleRayError) -> int | None:
    """The HTTP status behind an error; None when there was no answer."""
    return getattr(error.__cause__, "status", None)


def labels(thing: Object) -> dict[str, str]:
    """An object's labels."""
    return thing.get("metadata", {}).get("labels") or {}


def name(thing: Object) -> str:
    """An object's name."""
    return str(thing.get("metadata", {}).get("name", ""))


def condition(thing: Object, kind: str) -> Object:
    """A condition of an object; empty when it has none of this type."""
    known = (thing.get("status") or {}).get("conditions") or []
    return next((one for one in known if one["type"] == kind), {})


def container_statuses(pod: Object) -> list[Object]:
    """Return the container statuses of a pod, init containers first."""
    status = pod.get("status") or {}
    both = (status.get(key) or [] for key in ("initContainerStatuses", "containerStatuses"))
    return [one for some in both for one in some]


def concerned(event: Object) -> str:
    """The name of the object that an event is about; empty when it is about none."""
    return str(event.get("involvedObject", {}).get("name", ""))


def event_time(event: Object) -> str:
    """When an event was last seen, ISO 8601."""
    series = event.get("series") or {}
    moments = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return next((str(one) for one in moments if one), "")


def one_line(text: str, most: int = 300) -> str:
    """A message in one line, cut where it is very long."""
    line = " ".join(str(text).split())
    return line if len(line) <= most else f"{line[:most]} …"


def last_line(text: str) -> str:
    """The last line of a log that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return one_line(lines[-1]) if lines else ""


def span(seconds: float) -> str:
    """`40 s`, `5 min`, `3 h`."""
    if seconds < 120:
        return f"{max(0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
