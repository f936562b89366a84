"""Registries: members of a seam by name, those of installed packages included.

A package names a module in an entry point of the group `eagleray`. The module registers the
package's members when it is imported:

    [project.entry-points.eagleray]
    my-columns = "my_package.columns"

https://packaging.python.org/en/latest/specifications/entry-points/
"""

import functools
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Generic, TypeVar

from eagleray import errors, names

GROUP = "eagleray"

Member = TypeVar("Member")


class Registry(Generic[Member]):
    """The members of one seam, in order of registration; messages call the seam `what`."""

    def __init__(self, what: str, members: Mapping[str, Member] | None = None) -> None:
        self._what, self._members = what, dict(members or {})

    def register(self, name: str, member: Member) -> Member:
        """Add a member; UserError where another one has its name."""
        if self._members.setdefault(name, member) is not member:
            raise errors.UserError(f"{self._what}: must have a name of its own, but got {name!r}")
        return member

    def __getitem__(self, name: str) -> Member:
        """Look a member up; NotFoundError where none has this name."""
        load()
        if name in self._members:
            return self._members[name]
        known, near = ", ".join(self._members), names.near(name, self._members)
        raise errors.NotFoundError(f"{self._what}: must be one of {known}, but got {name!r}{near}")

    def __contains__(self, name: object) -> bool:
        load()
        return isinstance(name, str) and name in self._members

    def __iter__(self) -> Iterator[str]:
        load()
        return iter(tuple(self._members))


@functools.cache
def load() -> None:
    """Import the modules of installed packages, once a process; CodeError where one fails."""
    for point in metadata.entry_points(group=GROUP):
        try:
            point.load()
        except Exception as cause:  # an import may raise anything
            raise errors.CodeError(
                f"entry point {point.name} of group {GROUP}: must import {point.value}, "
                f"but {type(cause).__name__}: {cause}"
            ) from cause
