"""The aliases of a model, their moves, and the log of these. Pure.

One document holds the aliases and the event of their last move, so both are written or neither.
The next move first copies this event to an object of its own: no crash loses an event, and the log
shows no move that did not happen. Versions themselves record their registration.
"""

import getpass
import os
import secrets
from datetime import UTC, datetime

import pydantic

from eagleray import errors, names
from eagleray.state import documents

CHAMPION = "champion"
REFUSED = "refused"
"""The action of an event: replicas cannot serve the version that an alias names."""
LATEST = "latest"  # the highest number; no alias may be called so
_REMEMBERED = 100
_NS_DIGITS = 16
_LONGEST_REASON = 1000  # characters of a refusal, which may be an exception of a user's model


class Event(documents.Document, frozen=True):
    """One line of a model's log."""

    KIND = "event"

    id: str  # unique; ids of moves sort by time
    at: str  # when, in ISO 8601, by the clock of the machine that did it
    action: str  # `registered`, `promoted`, `rolled-back`, `refused`, or `rollout-…`
    number: int  # the version
    by: str  # who did it
    why: str = ""  # the reason
    alias: str | None = None  # which alias moved, or names what is refused; None: `registered`
    previous: int | None = None  # the version that it pointed to


class Route(pydantic.BaseModel, frozen=True, extra="allow"):
    """How an alias shares its traffic with a candidate."""

    rollout: str  # id of the rollout that the candidate is in
    candidate: int  # the version
    share: float = pydantic.Field(ge=0, le=1)  # of the requests, that the candidate answers
    shadow: bool = False  # its answers to that share are compared, and not returned
    sticky: str | None = None  # header; requests with the same value go to the same version


class Aliases(documents.Replaceable, frozen=True):
    """Where each alias points, what it pointed to before, and who shares its traffic."""

    KIND = "aliases"

    values: dict[str, int] = {}  # versions by alias
    history: dict[str, list[int]] = {}  # earlier versions by alias, latest last
    routes: dict[str, Route] = {}  # by alias, while a rollout is under way
    moves: dict[str, int] = {}  # how often each alias has moved
    last: Event | None = None  # of the last move


def check(alias: str) -> None:
    """Raise UserError for a name that is no DNS label, or is `latest` or a number."""
    names.check("alias", alias)
    if alias == LATEST or alias.isdecimal():
        raise errors.UserError(f"alias: must be neither {LATEST!r} nor a number, but got {alias!r}")


def promoted(aliases: Aliases, alias: str, number: int) -> Aliases:
    """Return the aliases after a move; the same object if the alias is at this version already."""
    current = aliases.values.get(alias)
    if current == number:
        return aliases
    earlier = aliases.history.get(alias, []) + ([] if current is None else [current])
    return _moved(aliases, alias, number, earlier[-_REMEMBERED:])


def rolled_back(aliases: Aliases, alias: str, name: str) -> Aliases:
    """Return the aliases of model `name` after a rollback; NotFoundError if there is none."""
    if alias not in aliases.values:
        raise errors.NotFoundError(
            f"model {name}: must be an alias that is set, but got {alias!r}"
            f"{names.near(alias, aliases.values)}"
        )
    history = aliases.history.get(alias, [])
    if not history:
        raise errors.NotFoundError(
            f"model {name}: {alias} must have pointed to another version before, "
            f"but {aliases.values[alias]} is its first"
        )
    return _moved(aliases, alias, history[-1], history[:-1])


def routed(aliases: Aliases, alias: str, route: Route | None) -> Aliases:
    """Return the aliases with another route; None ends it. The same object if nothing changes."""
    if aliases.routes.get(alias) == route:
        return aliases
    routes = {name: one for name, one in aliases.routes.items() if name != alias}
    if route is not None:
        routes[alias] = route
    return aliases.model_copy(update={"routes": routes})


def check_unrouted(aliases: Aliases, alias: str, name: str) -> None:
    """Raise ConflictError while a rollout moves the alias of model `name`."""
    if route := aliases.routes.get(alias):
        raise errors.ConflictError(
            f"model {name}: {alias} must not be in a rollout, but version {route.candidate} is its"
            f" candidate; `eagleray rollout abort {name}` ends it"
        )


def event(
    before: Aliases, after: Aliases, *, action: str, alias: str, by: str | None, why: str, now: int
) -> Event:
    """The event of a move at `now`, in nanoseconds since 1970, or of a change of a route.

    It is dated after the last event even if clocks differ: the log keeps the order of moves.
    """
    now = _after(before, now)
    route = after.routes.get(alias) or before.routes.get(alias)
    moved = after.values[alias] != before.values.get(alias) or route is None
    return Event(
        id=f"{now:0{_NS_DIGITS}x}{secrets.token_hex(5)}",
        at=iso(now),
        action=action,
        number=after.values[alias] if moved or route is None else route.candidate,
        by=by or user(),
        why=why,
        alias=alias,
        previous=before.values.get(alias),
    )


def refusal(aliases: Aliases, alias: str, *, by: str, why: str, now: int) -> Event:
    """The event of a refusal, at `now`, of the version that an alias names.

    Whoever refuses it makes the same id until the alias moves, also to the same version again.
    """
    number = aliases.values[alias]
    return Event(
        id=f"refused-{alias}-{aliases.moves.get(alias, 0):06}-v{number}",
        at=iso(_after(aliases, now)),
        action=REFUSED,
        number=number,
        by=by,
        why=why[:_LONGEST_REASON],
        alias=alias,
    )


def iso(now: int) -> str:
    """Nanoseconds since 1970 in ISO 8601, to the millisecond."""
    return datetime.fromtimestamp(now / 1e9, UTC).isoformat(timespec="milliseconds")


def user() -> str:
    """The user who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user often has no name
        return f"uid {os.getuid()}"


def _after(aliases: Aliases, now: int) -> int:
    """A time after the last event, whatever the clock says."""
    return max(now, int(aliases.last.id[:_NS_DIGITS], 16) + 1) if aliases.last else now


def _moved(aliases: Aliases, alias: str, number: int, history: list[int]) -> Aliases:
    return aliases.model_copy(
        update={
            "values": {**aliases.values, alias: number},
            "history": {**aliases.history, alias: history},
            "moves": {**aliases.moves, alias: aliases.moves.get(alias, 0) + 1},
        }
    )
