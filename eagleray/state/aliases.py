"""Where the aliases of a model point, and how they move: values only, nothing acts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from eagleray import errors, names

CHAMPION = "champion"
LATEST = "latest"  # the highest number; no alias may be called so
_REMEMBERED = 100


@dataclass(frozen=True)
class Aliases:
    """Where each alias points, and what it pointed to before, latest last.

    `etag` is that of the stored object, None as long as no alias was ever set.
    """

    values: dict[str, int] = field(default_factory=dict)
    history: dict[str, list[int]] = field(default_factory=dict)
    etag: str | None = None


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
    return replace(
        aliases,
        values={**aliases.values, alias: number},
        history={**aliases.history, alias: earlier[-_REMEMBERED:]},
    )


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
    return replace(
        aliases,
        values={**aliases.values, alias: history[-1]},
        history={**aliases.history, alias: history[:-1]},
    )
