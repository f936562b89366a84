"""Events: who moved which alias of a model, when and why.

The aliases carry the event of their last move in the same document, so that both happen or
neither does. The next move puts it into an object of its own first: no crash loses an event, and
none is shown of what did not happen. That a version was registered follows from the version.
"""

from __future__ import annotations

import getpass
import os
import secrets
from datetime import UTC, datetime

from eagleray.state import documents

_NS_DIGITS = 16


class Event(documents.Document, frozen=True):
    """One line of a model's log.

    Attributes:
        id: unique; ids of moves sort by time.
        at: when, in ISO 8601, by the clock of who did it.
        action: `registered`, `promoted` or `rolled-back`.
        number: the version.
        by: who did it.
        why: the reason that was given.
        alias: which alias moved; None for `registered`.
        previous: the version that it pointed to.
    """

    TYPE = documents.Type("event")

    id: str
    at: str
    action: str
    number: int
    by: str
    why: str = ""
    alias: str | None = None
    previous: int | None = None


def ordered(now: int, last: Event | None) -> int:
    """The time of an event, in nanoseconds since 1970: `now`, but after the last event.

    Clocks of two machines differ, and one may jump back: the log keeps the order of the moves.
    """
    return now if last is None else max(now, int(last.id[:_NS_DIGITS], 16) + 1)


def new_id(now: int) -> str:
    """A unique id that sorts by time: 16 hex digits of nanoseconds, 10 random ones."""
    return f"{now:0{_NS_DIGITS}x}{secrets.token_hex(5)}"


def written(now: int) -> str:
    """Nanoseconds since 1970 in ISO 8601, to the millisecond."""
    return datetime.fromtimestamp(now / 1e9, UTC).isoformat(timespec="milliseconds")


def user() -> str:
    """Who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user often has no name
        return f"uid {os.getuid()}"
