"""Models by name: immutable numbered versions, movable aliases, and a log of who moved what.

models/{name}/versions/{n}.json   put once, if absent; that is what makes numbers distinct
models/{name}/aliases.json        values and, for each alias, what it pointed to before
models/{name}/events/{id}.json    append-only; ids sort by time
"""

from __future__ import annotations

import getpass
import os
import random
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from types import EllipsisType
from typing import Any, TypeVar

import msgspec

from eagleray import errors, names, storage
from eagleray.state import aliases
from eagleray.state.aliases import CHAMPION, LATEST, Aliases
from eagleray.storage import blobs, files

_SWAPS = 100  # attempts before a ConflictError
_READERS = 8

Record = TypeVar("Record")


@dataclass(frozen=True)
class Version:
    """A registered bundle.

    `files` maps paths to contents; `manifest` is JSON and belongs to whoever registers.
    """

    name: str
    number: int
    created: str
    files: dict[str, blobs.Blob]
    manifest: dict[str, Any]


@dataclass(frozen=True)
class Event:
    """One line of a model's log; `action` is registered, promoted or rolled-back."""

    id: str
    at: str
    action: str
    number: int
    by: str
    why: str = ""
    alias: str | None = None
    previous: int | None = None


class Registry:
    """The models of one storage; `now` gives nanoseconds since 1970."""

    def __init__(self, store: storage.Storage, *, now: Callable[[], int] = time.time_ns) -> None:
        self._store = store
        self._now = now

    def register(
        self,
        name: str,
        files: Mapping[str, bytes],
        manifest: Mapping[str, Any],
        *,
        same: Callable[[Version], bool] | None = None,
    ) -> Version:
        """Store the files, then take the next free number. No alias moves: that is a choice.

        A version appears whole or not at all; a writer that dies early leaves only blobs.

        Args:
            name: the model's.
            files: contents by path.
            manifest: what is on record of the version, as JSON may hold it.
            same: whether another version is this one, which is then given instead. Numbers are
                taken one after another, so of many who register the same, one does.
        """
        names.check("model", name)
        for path in files:
            storage.checked(path)
        numbers = self._numbers(name)  # all above are looked at one by one
        if same and (found := list(filter(same, self._versions(name, numbers)))):
            return found[-1]
        stored = {path: blobs.put(self._store, data) for path, data in files.items()}
        version = Version(
            name, max(numbers, default=0) + 1, _written(self._now()), stored, dict(manifest)
        )
        while not self._take(version):
            if same and same(taken := self.version(name, version.number)):
                return taken
            version = replace(version, number=version.number + 1)
        self._log(name, "registered", version.number)
        return version

    def models(self) -> list[str]:
        """Give the names of all models that have a version."""
        keys = (PurePosixPath(entry.key).parts for entry in self._store.list("models/"))
        return sorted({parts[1] for parts in keys if parts[2:3] == ("versions",)})

    def versions(self, name: str) -> list[Version]:
        """Give all versions of a model, the oldest first; none when there is no such model."""
        return self._versions(name, self._numbers(name))

    def version(self, name: str, number: int) -> Version:
        """Give one version.

        Raises:
            errors.NotFoundError: the model or the version does not exist.
        """
        names.check("model", name)
        try:
            return self._read(_version_key(name, number), Version)
        except errors.ObjectNotFoundError:
            known = ", ".join(map(str, sorted(self._existing(name))[-10:]))
            raise errors.NotFoundError(
                f"model {name}: must be one of its versions ({known}), but got {number}"
            ) from None

    def resolve(self, name: str, reference: str) -> Version:
        """Give the version that an alias, a number or `latest` stands for."""
        if reference.isdecimal():
            return self.version(name, int(reference))
        if reference == LATEST:
            return self.version(name, max(self._existing(name)))
        values = self.aliases(name).values
        if reference in values:
            return self.version(name, values[reference])
        self._existing(name)
        known = ", ".join(sorted(values)) or "none is set"
        raise errors.NotFoundError(
            f"model {name}: must be one of its aliases ({known}), a number or {LATEST}, "
            f"but got {reference!r}{names.near(reference, [*values, LATEST])}"
        )

    def read(self, version: Version, path: str) -> bytes:
        """Read one file of a version, verified."""
        if path not in version.files:
            raise errors.NotFoundError(
                f"model {version.name}, version {version.number}: must be one of its files "
                f"({', '.join(version.files)}), but got {path!r}{names.near(path, version.files)}"
            )
        return blobs.get(self._store, version.files[path])

    def pull(self, version: Version, folder: Path) -> None:
        """Write the files of a version, verified, into a folder that is not there yet or empty."""
        with files.creating(folder) as unfinished:
            for path in version.files:
                target = unfinished / storage.checked(path)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(self.read(version, path))

    def aliases(self, name: str) -> Aliases:
        """Give the aliases of a model; empty when none was ever set."""
        return self.watch(name, None) or Aliases()

    def watch(self, name: str, etag: str | None) -> Aliases | None:
        """Give the aliases, or None when they are still those of `etag` (None: never set)."""
        names.check("model", name)
        try:
            found = self._store.get_if_changed(_aliases_key(name), etag)
        except errors.ObjectNotFoundError:
            return Aliases() if etag else None
        if found is None:
            return None
        return replace(self._decode(_aliases_key(name), found[0], Aliases), etag=found[1])

    def promote(
        self,
        name: str,
        number: int,
        alias: str = CHAMPION,
        *,
        expect: int | EllipsisType | None = ...,
        check: Callable[[Version, Version], None] | None = None,
        why: str = "",
        by: str | None = None,
        dry_run: bool = False,
    ) -> Aliases:
        """Point an alias to a version; nothing happens when it points there already.

        Args:
            name: the model's.
            number: the version's.
            alias: which alias.
            expect: the version that the alias must point to now; None for none, left out for any.
            check: called with the version before and the new one; raises to refuse the move, as
                `compatibility.check` does.
            why: the reason, for the log.
            by: who did it, for the log; else this process's user.
            dry_run: only show the move.

        Raises:
            errors.NotFoundError: there is no such version.
            errors.ConflictError: the alias does not point where it must, or the aliases changed
                faster than they could be swapped.
        """
        aliases.check(alias)
        version = self.version(name, number)

        def point(now: Aliases) -> Aliases:
            if expect is not ... and now.values.get(alias) not in (expect, number):
                raise errors.ConflictError(
                    f"model {name}: {alias} must point to version {expect or 'none'}, "
                    f"but points to {now.values.get(alias, 'none')}; somebody moved it"
                )
            if check is not None and now.values.get(alias) not in (None, number):
                check(self.version(name, now.values[alias]), version)
            return aliases.pointed(now, alias, number)

        before, after = self._swap(name, point, dry_run)
        if before is not after and not dry_run:
            previous = before.values.get(alias)
            self._log(name, "promoted", number, by=by, why=why, alias=alias, previous=previous)
        return after

    def rollback(
        self,
        name: str,
        alias: str = CHAMPION,
        *,
        why: str = "",
        by: str | None = None,
        dry_run: bool = False,
    ) -> Aliases:
        """Point an alias to what it pointed to before; repeated, further back.

        Raises:
            errors.NotFoundError: the alias points nowhere, or never pointed elsewhere.
            errors.ConflictError: somebody else moved the alias meanwhile.
        """
        self._existing(name)
        seen = self.aliases(name).values.get(alias)

        def back(now: Aliases) -> Aliases:
            if now.values.get(alias) != seen:
                raise errors.ConflictError(f"model {name}: somebody else moved {alias} meanwhile")
            return aliases.returned(now, alias, name)

        _, after = self._swap(name, back, dry_run)
        if not dry_run:
            number = after.values[alias]
            self._log(name, "rolled-back", number, by=by, why=why, alias=alias, previous=seen)
        return after

    def events(self, name: str) -> list[Event]:
        """Give the log of a model, the oldest first."""
        names.check("model", name)
        keys = sorted(entry.key for entry in self._store.list(f"models/{name}/events/"))
        return self._read_all(keys, Event)

    def _numbers(self, name: str) -> set[int]:
        names.check("model", name)
        entries = self._store.list(f"models/{name}/versions/")
        stems = [PurePosixPath(entry.key).stem for entry in entries]
        return {int(stem) for stem in stems if stem.isdecimal()}

    def _versions(self, name: str, numbers: set[int]) -> list[Version]:
        return self._read_all([_version_key(name, number) for number in sorted(numbers)], Version)

    def _existing(self, name: str) -> set[int]:
        """Give the version numbers of a model that must exist."""
        if numbers := self._numbers(name):
            return numbers
        models = self.models()
        raise errors.NotFoundError(
            f"model: must be one of those registered ({', '.join(models) or 'none is'}), "
            f"but got {name!r}{names.near(name, models)}"
        )

    def _take(self, version: Version) -> bool:
        try:
            key = _version_key(version.name, version.number)
            self._store.put_if_absent(key, msgspec.json.encode(version))
        except errors.ObjectExistsError:
            return False
        return True

    def _swap(
        self, name: str, change: Callable[[Aliases], Aliases], dry_run: bool
    ) -> tuple[Aliases, Aliases]:
        """Change the aliases, again and again until nobody changed them in between."""
        for _ in range(_SWAPS):
            before = self.aliases(name)
            after = change(before)
            if dry_run or after is before:
                return before, after
            data = msgspec.json.encode({"values": after.values, "history": after.history})
            try:
                if before.etag is None:
                    etag = self._store.put_if_absent(_aliases_key(name), data)
                else:
                    etag = self._store.compare_and_swap(_aliases_key(name), data, before.etag)
                return before, replace(after, etag=etag)
            except (errors.ObjectExistsError, errors.ObjectChangedError):
                time.sleep(random.random() / 50)  # noqa: S311 - jitter, not a secret
        raise errors.ConflictError(f"model {name}: its aliases changed during {_SWAPS} attempts")

    def _log(
        self, name: str, action: str, number: int, *, by: str | None = None, **what: Any
    ) -> None:
        now = self._now()
        event = Event(_sortable(now), _written(now), action, number, by or _user(), **what)
        self._store.put_if_absent(
            f"models/{name}/events/{event.id}.json", msgspec.json.encode(event)
        )

    def _read(self, key: str, kind: type[Record]) -> Record:
        return self._decode(key, self._store.get(key), kind)

    def _read_all(self, keys: Iterable[str], kind: type[Record]) -> list[Record]:
        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(lambda key: self._read(key, kind), keys))

    def _decode(self, key: str, data: bytes, kind: type[Record]) -> Record:
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.MsgspecError as error:
            message = f"{self._store.uri}: key {key!r}: must be a {kind.__name__}, but {error}"
            raise errors.CorruptObjectError(message) from error


def _version_key(name: str, number: int) -> str:
    return f"models/{name}/versions/{number}.json"


def _aliases_key(name: str) -> str:
    return f"models/{name}/aliases.json"


def _sortable(now: int) -> str:
    """Give a unique id that sorts by time: 16 hex digits of nanoseconds, 10 of chance."""
    return f"{now:016x}{secrets.token_hex(5)}"


def _written(now: int) -> str:
    return datetime.fromtimestamp(now / 1e9, UTC).isoformat(timespec="milliseconds")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user often has no name
        return f"uid {os.getuid()}"
