"""Members of a seam by name: EagleRay's own, and those that installed packages add.

A package adds members by an entry point of the group `eagleray`. It names a module that registers
them when it is imported:

    [project.entry-points.eagleray]
    my-columns = "my_package.columns"

https://packaging.python.org/en/latest/specifications/entry-points/
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from importlib import metadata
from typing import Generic, TypeVar

from eagleray import errors, names

GROUP = "eagleray"

Member = TypeVar("Member")


class Registry(Generic[Member]):
    """The members of one seam, in the order of their registration.

    Args:
        what: the seam in messages, such as `task`.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._members: dict[str, Member] = {}

    def register(self, name: str, member: Member) -> Member:
        """Add a member.

        Raises:
            UserError: another member has this name.
        """
        if self._members.setdefault(name, member) is not member:
            raise errors.UserError(f"{self._what}: must have a name of its own, but got {name!r}")
        return member

    def __getitem__(self, name: str) -> Member:
        """Look a member up.

        Raises:
            NotFoundError: none has this name.
        """
        load()
        if name in self._members:
            return self._members[name]
        known = ", ".join(self._members)
        raise errors.NotFoundError(
            f"{self._what}: must be one of {known}, but got {name!r}"
            f"{names.near(name, self._members)}"
        )

    def __contains__(self, name: object) -> bool:
        load()
        return isinstance(name, str) and name in self._members

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        load()
        return iter(tuple(self._members))


@functools.cache
def load() -> None:
    """Import the modules that installed packages name, once a process.

    Raises:
        CodeError: one of them fails.
    """
    for point in metadata.entry_points(group=GROUP):
        try:
            point.load()
        except Exception as cause:  # one door for all that a package can do at import
            raise errors.CodeError(
                f"entry point {point.name} of group {GROUP}: must import {point.value}, "
                f"but {type(cause).__name__}: {cause}"
            ) from cause
