"""What was found, and how Kubernetes writes what we look for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from k8s.api import Object
from k8s.situation import Situation


@dataclass(frozen=True)
class Finding:
    """A cause, what mends it, and the chain that leads down to it.

    Attributes:
        cause: one line.
        mend: one command, or one value to set.
        chain: a line for each object on the way, the outermost first.
        waits: whether it passes by itself, so that anything else is the likelier cause.
    """

    cause: str
    mend: str
    chain: tuple[str, ...] = ()
    waits: bool = False

    def under(self, line: str) -> Finding:
        """The same, seen from the object above."""
        return replace(self, chain=(line, *self.chain))


def first(findings: Iterable[Finding | None]) -> Finding | None:
    """The first that does not pass by itself, else the first of all."""
    found = [one for one in findings if one is not None]
    lasting = [one for one in found if not one.waits]
    return next(iter([*lasting, *found]), None)


def condition(thing: Object, kind: str) -> Object:
    """A condition of an object; empty when it has none of this type."""
    known = (thing.get("status") or {}).get("conditions") or []
    return next((one for one in known if one["type"] == kind), {})


def event(situation: Situation, name: str, reasons: Sequence[str], words: str = "") -> str | None:
    """The message of the latest event about an object, with one of these reasons and words."""
    told = [
        one
        for one in situation.events
        if one["involvedObject"]["name"] == name
        and one.get("reason") in reasons
        and words in str(one.get("message"))
    ]
    latest = max(told, key=_last, default=None)
    return one_line(str(latest["message"])) if latest else None


def labels(thing: Object) -> dict[str, str]:
    """An object's labels."""
    return thing["metadata"].get("labels") or {}


def name(thing: Object) -> str:
    """An object's name."""
    return str(thing["metadata"]["name"])


def age_s(situation: Situation, since: str | None) -> float:
    """Seconds since a moment that Kubernetes wrote down; 0 when it did not."""
    if not since:
        return 0.0
    return (situation.now - datetime.fromisoformat(since)).total_seconds()


def span(seconds: float) -> str:
    """`40 s`, `5 min`, `3 h`."""
    if seconds < 120:
        return f"{max(0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def one_line(text: str, most: int = 300) -> str:
    """A message in one line, cut where it is very long."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]} …"


def last_line(text: str) -> str:
    """The last line of a log that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return one_line(lines[-1]) if lines else ""


def _last(told: Object) -> str:
    series = told.get("series") or {}
    moments = (series.get("lastObservedTime"), told.get("lastTimestamp"), told.get("eventTime"))
    return next((str(one) for one in moments if one), "")
