"""Models by name: immutable numbered versions, movable aliases, and a log of who moved what."""

from __future__ import annotations

import contextlib
import functools
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import EllipsisType
from typing import Any

from eagleray import errors, names, storage
from eagleray.state import aliases, documents, events, keys
from eagleray.state.aliases import CHAMPION, LATEST, Aliases
from eagleray.state.events import Event
from eagleray.storage import blobs, files

_SWAPS = 100  # attempts before a ConflictError
Skip = Callable[[errors.StorageError], None]


class Version(documents.Document, frozen=True):
    """A registered bundle.

    Attributes:
        name: the model's.
        number: counted from 1.
        created: when, in ISO 8601.
        by: who registered it; empty where that is not on record.
        files: contents by path.
        manifest: JSON of whoever registers.
    """

    TYPE = documents.Type("version")

    name: str
    number: int
    created: str
    by: str = ""
    files: dict[str, blobs.Blob]
    manifest: dict[str, Any]

    def event(self) -> Event:
        """That it was registered."""
        at, number = self.created, self.number
        return Event(id=f"v{number:010}", at=at, action="registered", number=number, by=self.by)


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
        numbers = self.numbers(name)  # all above are looked at one by one
        if same and (found := list(filter(same, self._versions(name, numbers, _ignore)))):
            return found[-1]
        stored = {path: blobs.put(self._store, data) for path, data in files.items()}
        version = Version(
            name=name,
            number=max(numbers, default=0) + 1,
            created=events.written(self._now()),
            by=events.user(),
            files=stored,
            manifest=dict(manifest),
        )
        while not self._take(version):
            if same and any(map(same, self._versions(name, {version.number}, _ignore))):
                return self.version(name, version.number)
            version = version.model_copy(update={"number": version.number + 1})
        return version

    def models(self) -> list[str]:
        """Give the names of all models that have a version."""
        return sorted({name for name, _ in self._listed(keys.MODELS)})

    def numbers(self, name: str) -> set[int]:
        """Give the version numbers of a model; none when there is no such model."""
        names.check("model", name)
        return {number for _, number in self._listed(keys.VERSIONS.format(name=name))}

    def latest(self, name: str) -> int:
        """Give the highest version number of a model, whether or not it can be read.

        Raises:
            errors.NotFoundError: there is no such model.
        """
        return max(self._existing(name))

    def versions(self, name: str, skip: Skip | None = None) -> list[Version]:
        """Give all versions of a model, the oldest first; none when there is no such model.

        Args:
            name: the model's.
            skip: called with the error of each that cannot be read, which is left out then.

        Raises:
            CorruptObjectError: without `skip`: one is damaged, or no version of ours.
            NewerFormatError: without `skip`: a newer EagleRay has registered one.
        """
        return self._versions(name, self.numbers(name), skip)

    def version(self, name: str, number: int) -> Version:
        """Give one version.

        Raises:
            errors.NotFoundError: the model or the version does not exist.
        """
        names.check("model", name)
        try:
            return self._version(name, number)
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
            return self.version(name, self.latest(name))
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
            found = self._store.get_if_changed(keys.ALIASES.format(name=name), etag)
        except errors.ObjectNotFoundError:
            return Aliases() if etag else None
        if found is None:
            return None
        where = documents.where(self._store, keys.ALIASES.format(name=name))
        read = Aliases.decode(documents.load(found[0], where), where)
        return read.model_copy(update={"etag": found[1]})

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

        tell = functools.partial(self._event, "promoted", alias, by=by, why=why)
        return self._swap(name, point, tell, dry_run=dry_run)

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

        tell = functools.partial(self._event, "rolled-back", alias, by=by, why=why)
        return self._swap(name, back, tell, dry_run=dry_run)

    def events(self, name: str) -> list[Event]:
        """Give the log of a model, the oldest first."""
        last = self.aliases(name).last  # before the others: the next move puts it among them
        listed = sorted(entry.key for entry in self._store.list(keys.EVENTS.format(name=name)))
        stored = documents.read_all(lambda key: Event.read(self._store, key), listed)
        known = {one.id: one for one in [*stored, *([last] if last else [])]}
        told = {one.number for one in known.values() if one.action == "registered"}
        made = (one.event() for one in self.versions(name, _ignore) if one.number not in told)
        return sorted(
            [*known.values(), *made], key=lambda one: (one.at, one.alias is not None, one.id)
        )

    def _listed(self, prefix: str) -> list[tuple[str, int]]:
        return keys.versions(entry.key for entry in self._store.list(prefix))

    def _versions(self, name: str, numbers: set[int], skip: Skip | None) -> list[Version]:
        def read(number: int) -> Version | errors.StorageError:
            try:
                return self._version(name, number)
            except (errors.CorruptObjectError, errors.NewerFormatError) as cause:
                if skip is None:
                    raise
                return cause

        found = documents.read_all(read, sorted(numbers))
        for one in found:
            if skip is not None and isinstance(one, errors.StorageError):
                skip(one)
        return [one for one in found if isinstance(one, Version)]

    def _version(self, name: str, number: int) -> Version:
        key = keys.VERSION.format(name=name, number=number)
        found = Version.read(self._store, key)
        if (found.name, found.number) != (name, number):
            raise errors.CorruptObjectError(
                f"{documents.where(self._store, key)}: must be version {number} of {name}, but "
                f"got version {found.number} of {found.name}"
            )
        return found

    def _existing(self, name: str) -> set[int]:
        """Give the version numbers of a model that must exist."""
        if numbers := self.numbers(name):
            return numbers
        models = self.models()
        raise errors.NotFoundError(
            f"model: must be one of those registered ({', '.join(models) or 'none is'}), "
            f"but got {name!r}{names.near(name, models)}"
        )

    def _take(self, version: Version) -> bool:
        try:
            key = keys.VERSION.format(name=version.name, number=version.number)
            self._store.put_if_absent(key, version.encode())
        except errors.ObjectExistsError:
            return False
        return True

    def _swap(
        self,
        name: str,
        change: Callable[[Aliases], Aliases],
        tell: Callable[[Aliases, Aliases], Event],
        *,
        dry_run: bool,
    ) -> Aliases:
        """Change the aliases, again and again until nobody changed them in between."""
        for _ in range(_SWAPS):
            before = self.aliases(name)
            after = change(before)
            if dry_run or after is before:
                return after
            after = after.model_copy(update={"last": tell(before, after)})
            self._write_out(name, before.last)
            try:
                etag = documents.replace(
                    self._store, keys.ALIASES.format(name=name), after.encode(), before.etag
                )
            except documents.MISSED:
                time.sleep(random.random() / 50)  # noqa: S311 - jitter, not a secret
                continue
            return after.model_copy(update={"etag": etag})
        raise errors.ConflictError(f"model {name}: its aliases changed during {_SWAPS} attempts")

    def _event(
        self, action: str, alias: str, before: Aliases, after: Aliases, *, by: str | None, why: str
    ) -> Event:
        now = events.ordered(self._now(), before.last)
        return Event(
            id=events.new_id(now),
            at=events.written(now),
            action=action,
            number=after.values[alias],
            by=by or events.user(),
            why=why,
            alias=alias,
            previous=before.values.get(alias),
        )

    def _write_out(self, name: str, event: Event | None) -> None:
        """Put an event into an object of its own before the next takes its place."""
        if event is not None:
            with contextlib.suppress(errors.ObjectExistsError):
                self._store.put_if_absent(keys.EVENT.format(name=name, id=event.id), event.encode())


def _ignore(_: errors.StorageError) -> None:
    """Go on without a version that cannot be read."""
