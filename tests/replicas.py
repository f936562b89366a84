"""What follows an alias in a test, as a replica does, and versions that it refuses."""

import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from eagleray import bundle, errors, machine, storage
from eagleray.state import aliases
from eagleray.state.models import Registry, Version
from serving import loaded, versions
from tests import bundles


class Replica:
    """What the versions report to; `stable` were put into service, `unfit` were refused."""

    def __init__(self) -> None:
        self.followed: list[versions.Followed] = []
        self.built: list[int] = []
        self.unfit: list[int] = []
        self.failures = 0

    @property
    def stable(self) -> list[int]:
        """Each version that was put into service, in order."""
        numbers = [one.stable.number for one in self.followed]
        return [one for one, _ in itertools.groupby(numbers)]

    def build(self, loaded: bundle.Bundle) -> SimpleNamespace:
        self.built.append(loaded.number)
        return SimpleNamespace(number=loaded.number)

    def serving(self, version: int, *, instead_of: int | None) -> None:
        assert instead_of == (self.stable[-2] if len(self.stable) > 1 else None)
        assert version == self.stable[-1]

    def loaded(self, version: int, created_s: float) -> None:
        assert created_s > 1.7e9

    def refused(self, version: int) -> None:
        self.unfit.append(version)

    def storage_error(self) -> None:
        self.failures += 1


class Flaky(Registry):
    """A registry whose storage can be made unreachable; `reads` are the versions of files read."""

    down = False

    def __init__(self, store: storage.Storage) -> None:
        super().__init__(store)
        self.reads: list[int] = []

    def read(self, version: Version, path: str) -> bytes:
        self.reads.append(version.number)
        return super().read(version, path)

    def watch(self, name: str, etag: str | None) -> aliases.Aliases | None:
        if self.down:
            raise errors.StorageUnavailableError("down")
        return super().watch(name, etag)


def watching(
    models: Flaky,
    replica: Replica,
    memory: int = loaded.MEMORY,
    free: Callable[[], int] = machine.free_memory,
    budget: int = 0,
    large: versions.Large | None = None,
) -> versions.Versions:
    held = loaded.Loaded(
        models, "left", build=replica.build, observer=replica, free=free, budget=budget
    )
    return versions.Versions(
        models,
        "left",
        "champion",
        held=held,
        follow=replica.followed.append,
        observer=replica,
        memory=memory,
        large=large,
    )


def unfit(**options: Any) -> dict[str, bytes]:
    """A version that does not reproduce its golden rows."""
    made = bundles.files(**options)
    return made | {
        "golden.json": made["golden.json"].replace(b'"outputs":[[0.', b'"outputs":[[0.9')
    }
