"""Where the aliases of a model point, and how they move: values only, nothing acts."""

from __future__ import annotations

import pydantic

from eagleray import errors, names
from eagleray.state import documents
from eagleray.state.events import Event

CHAMPION = "champion"
LATEST = "latest"  # the highest number; no alias may be called so
_REMEMBERED = 100


class Aliases(documents.Document, frozen=True):
    """Where each alias points, and what it pointed to before, latest last.

    Attributes:
        values: versions by alias.
        history: earlier versions by alias.
        last: the event of the last move, see `events`.
        etag: of the stored object; None as long as no alias was ever set.
    """

    TYPE = documents.Type("aliases")

    values: dict[str, int] = {}
    history: dict[str, list[int]] = {}
    last: Event | None = None
    etag: str | None = pydantic.Field(None, exclude=True)


def check(alias: str) -> None:
    """Refuse a name that stands for something else, as a UserError."""
    names.check("alias", alias)
    if alias == LATEST or alias.isdecimal():
        raise errors.UserError(f"alias: must be neither {LATEST!r} nor a number, but got {alias!r}")


def pointed(aliases: Aliases, alias: str, number: int) -> Aliases:
    """Give the aliases with one pointing to a version, remembering where it pointed."""
    current = aliases.values.get(alias)
    if current == number:
        return aliases
    earlier = aliases.history.get(alias, []) + ([] if current is None else [current])
    return _moved(aliases, alias, number, earlier[-_REMEMBERED:])


def returned(aliases: Aliases, alias: str, name: str) -> Aliases:
    """Give the aliases with one pointing to where it pointed before."""
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


def _moved(aliases: Aliases, alias: str, number: int, history: list[int]) -> Aliases:
    values = {**aliases.values, alias: number}
    return aliases.model_copy(
        update={"values": values, "history": {**aliases.history, alias: history}}
    )
